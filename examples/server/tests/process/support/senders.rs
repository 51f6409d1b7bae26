//! Applications that send events and do not give up before each is acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Client;

const PAUSE: Duration = Duration::from_millis(5);

/// Sends numbered events, each under its own key.
pub(crate) struct Senders {
    tasks: JoinSet<()>,
    plan: Arc<Plan>,
    server: watch::Sender<SocketAddr>,
    allowed: watch::Sender<usize>,
}

struct Plan {
    total: usize,
    next: AtomicUsize,
    acknowledged: Mutex<BTreeMap<usize, Acknowledged>>,
    /// Answers that broke off in the middle.
    cut: AtomicUsize,
}

/// An event that the server answered 202 for.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    pub(crate) deliveries: u64,
    /// How often it was sent.
    pub(crate) tries: u32,
    /// An earlier try had been accepted, but its answer never came.
    pub(crate) duplicate: bool,
}

impl Senders {
    /// So many of them for `total` events, of which none is sent before [`Senders::allow`].
    pub(crate) fn start(count: usize, total: usize, server: SocketAddr) -> Self {
        let plan = Arc::new(Plan {
            total,
            next: AtomicUsize::new(0),
            acknowledged: Mutex::default(),
            cut: AtomicUsize::new(0),
        });
        let (server, (allowed, _)) = (watch::channel(server).0, watch::channel(0));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(Arc::clone(&plan).send(server.subscribe(), allowed.subscribe()));
        }
        Self { tasks, plan, server, allowed }
    }

    /// Events up to that number may be sent.
    pub(crate) fn allow(&self, number: usize) {
        self.allowed.send_replace(number);
    }

    /// The server is there now.
    pub(crate) fn turn_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.plan.acknowledged.lock().unwrap().len()
    }

    /// Events that have been sent, but not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.plan.next.load(Ordering::SeqCst).min(*self.allowed.borrow()) - self.acknowledged()
    }

    /// Once all events are acknowledged: these, and how many answers broke off.
    pub(crate) async fn finish(mut self) -> (Vec<Acknowledged>, usize) {
        self.allow(self.plan.total);
        while let Some(outcome) = self.tasks.join_next().await {
            outcome.unwrap();
        }
        let acknowledged = self.plan.acknowledged.lock().unwrap().values().cloned().collect();
        (acknowledged, self.plan.cut.load(Ordering::SeqCst))
    }
}

impl Plan {
    async fn send(self: Arc<Self>, mut server: watch::Receiver<SocketAddr>, mut allowed: watch::Receiver<usize>) {
        let mut client = Client::new(*server.borrow_and_update());
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.total || allowed.wait_for(|allowed| number < *allowed).await.is_err() {
                return;
            }
            let event =
                json!({"id": format!("key-{number}"), "event_type": "test.sent", "payload": {"number": number}});
            for tries in 1.. {
                if server.has_changed().unwrap() {
                    client = Client::new(*server.borrow_and_update());
                }
                match client.post("/events", &event).await {
                    Ok(answer) if answer.status == 202 => {
                        let event = answer.json();
                        let acknowledged = Acknowledged {
                            id: event["id"].as_str().unwrap().to_owned(),
                            deliveries: event["deliveries"].as_u64().unwrap(),
                            tries,
                            duplicate: event["duplicate"].as_bool().unwrap(),
                        };
                        self.acknowledged.lock().unwrap().insert(number, acknowledged);
                        break;
                    }
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        self.cut.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => {}
                }
                sleep(PAUSE).await;
            }
        }
    }
}
