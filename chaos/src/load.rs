//! Callers who send at a fixed rate, whatever the servers do, and do not give up before each event is acknowledged.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Answer, Client};
use crate::ledger::{Acknowledged, Ledger, captured_body, payload, tenant_of};

const CALLERS: usize = 64;
const TICK: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(20);
/// One event in so many is sent a second time, and another one under its key.
const REPEATED: u32 = 50;
/// One event in so many comes with a request that is captured.
const CAPTURED: u32 = 20;

/// What callers need to know.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ledger: Arc<Ledger>,
    /// Each tenant's API key.
    pub(crate) keys: Vec<String>,
    /// Each tenant's capture path.
    pub(crate) paths: Vec<String>,
    pub(crate) total: u32,
    pub(crate) rate: u32,
    pub(crate) servers: watch::Receiver<Vec<SocketAddr>>,
    pub(crate) next: AtomicU32,
}

/// The callers at work.
#[derive(Debug)]
pub(crate) struct Load {
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Self {
        let (allow, allowed) = watch::channel(0);
        let plan = Arc::new(plan);
        let mut tasks = JoinSet::new();
        for number in 0..CALLERS {
            let caller = Caller { plan: Arc::clone(&plan), clients: HashMap::new(), turn: number };
            tasks.spawn(caller.work(allowed.clone()));
        }
        let began = plan.ledger.elapsed();
        tasks.spawn(async move {
            loop {
                let due = (plan.ledger.elapsed() - began).as_secs_f64() * f64::from(plan.rate);
                let due = (due as u32).min(plan.total);
                allow.send_replace(due);
                if due == plan.total {
                    return;
                }
                sleep(TICK).await;
            }
        });
        Self { tasks }
    }

    /// Once all events are acknowledged.
    pub(crate) async fn finish(mut self) {
        while let Some(outcome) = self.tasks.join_next().await {
            outcome.unwrap();
        }
    }
}

struct Caller {
    plan: Arc<Plan>,
    clients: HashMap<SocketAddr, Client>,
    turn: usize,
}

impl Caller {
    async fn work(mut self, mut allowed: watch::Receiver<u32>) {
        let began = self.plan.ledger.elapsed();
        loop {
            let n = self.plan.next.fetch_add(1, Ordering::SeqCst);
            if n >= self.plan.total || allowed.wait_for(|allowed| n < *allowed).await.is_err() {
                return;
            }
            let due = began + Duration::from_secs_f64(f64::from(n) / f64::from(self.plan.rate));
            self.emit(n, due).await;
            if n.is_multiple_of(CAPTURED) {
                self.capture(n).await;
            }
        }
    }

    async fn emit(&mut self, n: u32, due: Duration) {
        let body = event(n, &payload(n));
        let (answer, tries) = self.until_answered(n, "/events", &body, &[202]).await;
        let answer = answer.json();
        let id = answer["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        let deliveries = answer["deliveries"].as_u64().unwrap_or(0) as u32;
        let latency = self.plan.ledger.elapsed().saturating_sub(due);
        self.plan.ledger.acknowledged().insert(n, Acknowledged { id, deliveries, tries, latency });
        if n.is_multiple_of(REPEATED) {
            let (again, _) = self.until_answered(n, "/events", &body, &[202]).await;
            let again = again.json();
            if again["id"] != answer["id"] || again["duplicate"] != true {
                self.odd(format!("event {n} was {answer}, and when it came again {again}"));
            }
            self.until_answered(n, "/events", &event(n, r#"{"n":"another"}"#), &[409]).await;
        }
    }

    /// Nothing says that a capture is the same: one that got no answer may be there twice.
    async fn capture(&mut self, n: u32) {
        let path = format!("/webhook/{}", self.plan.paths[tenant_of(n)]);
        let (_, tries) = self.until_answered(n, &path, captured_body(n).as_bytes(), &[200]).await;
        let mut captured = self.plan.ledger.captured();
        let entry = captured.entry(n).or_default();
        entry.acknowledged += 1;
        entry.tries += tries;
    }

    /// The answer, and how many tries it took.
    async fn until_answered(&mut self, n: u32, path: &str, body: &[u8], wanted: &[u16]) -> (Answer, u32) {
        for tries in 1.. {
            let plan = Arc::clone(&self.plan);
            let servers = plan.servers.borrow().clone();
            let Some(addr) = servers.get(self.turn % servers.len().max(1)) else {
                sleep(PAUSE).await;
                continue;
            };
            self.clients.retain(|addr, _| servers.contains(addr));
            let client = self.clients.entry(*addr).or_insert_with(|| Client::new(*addr));
            match client.send("POST", path, &plan.keys[tenant_of(n)], body).await {
                Ok(answer) if wanted.contains(&answer.status) => return (answer, tries),
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    self.odd(format!("event {n}: {} instead of {wanted:?}: {text}", answer.status));
                    return (answer, tries);
                }
                Err(_) => {}
            }
            self.turn += 1;
            sleep(PAUSE).await;
        }
        unreachable!("there are always more tries")
    }

    fn odd(&self, what: String) {
        self.plan.ledger.odd().push(what);
    }
}

fn event(n: u32, payload: &str) -> Vec<u8> {
    format!(r#"{{"id":"key-{n}","event_type":"chaos.sent","payload":{payload}}}"#).into_bytes()
}
