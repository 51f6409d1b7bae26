//! One run: a start in calm, the storm, the calm after it, and the account.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::account::{Account, Circumstances, STEPS};
use crate::fault::Fault;
use crate::judgement::{Report, SPARE_DESCRIPTORS};
use crate::ledger::{Endpoint, Ledger, PAYLOAD_CANARY, SLOTS, TENANTS};
use crate::load::{Load, Plan};
use crate::receiver::Receiver;
use crate::settings::RunSettings;
use crate::site::{CANARIES, Site};
use crate::temper::Temper;
use crate::{audit, process};

/// Before the first fault.
const WARM_UP: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(250);
/// How long connections may take to be closed that nobody uses, and requests that nobody gave up to end. PostgreSQL ends a
/// transaction whose client the network has forgotten after 60 s.
const SETTLING: Duration = Duration::from_secs(75);
/// Sessions of servers that are in the middle of something.
const BUSY: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'webhook' AND state <> 'idle' \
                    AND state_change < now() - interval '1 s'";

/// Runs and reports.
pub(crate) async fn run(settings: &RunSettings) -> ExitCode {
    let report = Run::prepare(settings).await.carry_out().await;
    println!("{report}");
    let wrong = report.wrong();
    for what in &wrong {
        println!("FAILED     {what}");
    }
    println!("{}", if wrong.is_empty() { "passed" } else { "failed" });
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Run {
    settings: RunSettings,
    ledger: Arc<Ledger>,
    receiver: Arc<Receiver>,
    site: Site,
    subscriptions: HashMap<Uuid, Endpoint>,
    paths: Vec<String>,
    secrets: Vec<String>,
    baseline: usize,
    done: Vec<Fault>,
    freezes: Vec<(Duration, Duration)>,
    recoveries: Vec<Duration>,
}

impl Run {
    /// The site, with everything that tenants set up once.
    async fn prepare(settings: &RunSettings) -> Self {
        let mut site = Site::start(settings).await;
        audit::install(&site.database_url()).await;
        site.fill().await;
        let ledger = Arc::new(Ledger::new());
        let receiver = Receiver::start(Arc::clone(&ledger)).await;
        let (mut subscriptions, mut secrets) = (HashMap::new(), Vec::new());
        let mut client = site.client();
        for endpoint in Endpoint::all() {
            let wanted =
                json!({"target_url": receiver.url(endpoint), "retry": {"schedule": STEPS}, "timeout_seconds": 2});
            let key = Site::key(endpoint.tenant);
            let made = client.send("POST", "/subscriptions", &key, wanted.to_string().as_bytes()).await.unwrap();
            let made = made.expect(201);
            let secret = made["secret"].as_str().unwrap();
            receiver.trust(endpoint, secret);
            secrets.push(secret.trim_start_matches("whsec_").to_owned());
            subscriptions.insert(made["id"].as_str().unwrap().parse().unwrap(), endpoint);
        }
        let refused = json!({"target_url": format!("http://{}/", receiver.trap())}).to_string();
        let refused = client.send("POST", "/subscriptions", &Site::key(0), refused.as_bytes()).await.unwrap();
        assert_eq!(refused.status, 422, "a target that nobody may reach is refused");
        let mut paths = Vec::new();
        for tenant in 0..TENANTS {
            let made = client.send("POST", "/api/paths", &Site::key(tenant), b"{}").await.unwrap().expect(201);
            paths.push(made["path_id"].as_str().unwrap().to_owned());
        }
        let mut run = Self {
            settings: settings.clone(),
            ledger,
            receiver,
            site,
            subscriptions,
            paths,
            secrets,
            baseline: 0,
            done: Vec::new(),
            freezes: Vec::new(),
            recoveries: Vec::new(),
        };
        run.baseline = run.descriptors();
        run
    }

    /// The most that a server has open.
    fn descriptors(&self) -> usize {
        self.site.pids().into_iter().filter_map(process::descriptors).max().unwrap_or(0)
    }

    async fn carry_out(mut self) -> Report {
        let seconds = (WARM_UP + self.settings.storm()).as_secs_f64();
        let total = (seconds * f64::from(self.settings.rate)) as u32;
        let load = Load::start(Plan {
            ledger: Arc::clone(&self.ledger),
            keys: (0..TENANTS).map(Site::key).collect(),
            paths: self.paths.clone(),
            total,
            rate: self.settings.rate,
            servers: self.site.addresses(),
            next: AtomicU32::new(0),
        });
        sleep(WARM_UP).await;
        let calm_latencies = self.ledger.acknowledged().values().map(|event| event.latency).collect();
        let before = self.ledger.acknowledged().len();
        self.storm().await;
        let (last_fault, calm_at) = (Instant::now(), self.ledger.elapsed());
        self.receiver.calm_down();
        let deadline = last_fault + Duration::from_secs(self.settings.calm);
        let load = tokio::spawn(load.finish());
        let drained = self.drain(deadline, &load).await.then(|| last_fault.elapsed());
        if load.is_finished() {
            load.await.unwrap();
        } else {
            println!("the load did not end in the calm");
            load.abort();
        }

        let settled = async {
            while self.receiver.open() > 0
                || self.descriptors() > self.baseline + SPARE_DESCRIPTORS
                || self.number(BUSY).await > 0
            {
                sleep(POLL).await;
            }
        };
        let _ = timeout(SETTLING, settled).await;
        let (descriptors, busy_sessions) = (self.descriptors(), self.number(BUSY).await);
        let fenced = self.site.figure("webhook_results_fenced_total").await;
        let unclean = usize::from(!self.site.stop().await);
        let known =
            Circumstances { ledger: &self.ledger, subscriptions: &self.subscriptions, freezes: &self.freezes, calm_at };
        let account = Account::draw(&self.site.database_url(), &known).await;
        let logs = self.site.logs();
        let canaries = CANARIES.into_iter().chain([PAYLOAD_CANARY]).chain(self.secrets.iter().map(String::as_str));
        let storm_latencies = self.ledger.acknowledged().values().skip(before).map(|event| event.latency).collect();
        let leaked = canaries.filter(|canary| logs.contains(canary)).map(ToOwned::to_owned).collect();
        let odd = self.ledger.odd().clone();
        Report {
            account,
            total,
            swallowed: self.site.swallowed(),
            fenced,
            drained,
            calm_latencies,
            storm_latencies,
            odd,
            trapped: self.receiver.trapped(),
            strange: self.receiver.strange(),
            leaked,
            panics: logs.matches("panicked at").count(),
            deadlocks: self.site.postgres_log().matches("deadlock detected").count(),
            unclean,
            peak: self.site.observer.peak(),
            baseline: self.baseline,
            descriptors,
            busy_sessions,
            settings: self.settings,
            faults: self.done,
            recoveries: self.recoveries,
        }
    }

    /// All kinds of faults, in an order that the seed chooses, again and again.
    async fn storm(&mut self) {
        let mut chance = StdRng::seed_from_u64(self.settings.seed);
        let mut kinds = if self.settings.faults.is_empty() { Fault::all() } else { self.settings.faults.clone() };
        kinds.retain(|fault| !(self.settings.without_redis && fault.needs_redis()));
        let end = Instant::now() + self.settings.storm();
        let mut deck = Vec::new();
        while Instant::now() < end {
            if deck.is_empty() {
                deck.clone_from(&kinds);
            }
            let fault = deck.swap_remove(chance.random_range(0..deck.len()));
            let began = self.ledger.elapsed();
            if self.site.suffer(fault, &mut chance).await {
                println!("{:>7.1} s  {}", began.as_secs_f64(), fault.name());
                self.done.push(fault);
                if fault == Fault::ServerFrozen {
                    let until = self.site.thawed_at().map_or(Duration::ZERO, |until| until - Instant::now());
                    self.freezes.push((began, self.ledger.elapsed() + until + Duration::from_secs(2)));
                }
            }
            let rest = Duration::from_millis(chance.random_range(500..3000));
            self.watch(rest).await;
        }
        while let Some(until) = self.site.thawed_at() {
            tokio::time::sleep_until(until).await;
            self.site.thaw(Instant::now()).await;
        }
    }

    /// Rests after a fault, and sees how long deliveries to healthy endpoints take to be no longer overdue.
    async fn watch(&mut self, rest: Duration) {
        let fault = Instant::now();
        let mut recovered = false;
        while fault.elapsed() < rest {
            self.site.thaw(Instant::now()).await;
            if !recovered && self.overdue().await == Some(0) {
                recovered = true;
                self.recoveries.push(fault.elapsed());
            }
            sleep(POLL.min(rest.saturating_sub(fault.elapsed()))).await;
        }
        if !recovered {
            // The next fault comes before: no less than this.
            self.recoveries.push(rest);
        }
    }

    /// Deliveries to healthy endpoints that should have begun a second ago; none when the database does not answer.
    async fn overdue(&self) -> Option<i64> {
        let healthy: Vec<_> =
            self.subscriptions.iter().filter(|(_, endpoint)| endpoint.slot == 0).map(|(id, _)| *id).collect();
        let sql = "SELECT count(*) FROM (SELECT 1 FROM webhook.every_delivery WHERE state = 0 AND subscription_id = ANY($1) \
                   AND next_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 1000 LIMIT 1) AS late";
        let look = async {
            let mut database = PgConnection::connect(&self.site.database_url()).await.ok()?;
            let late = sqlx::query_scalar(sql).bind(healthy).fetch_one(&mut database).await.ok();
            let _ = database.close().await;
            late
        };
        timeout(Duration::from_secs(1), look).await.ok().flatten()
    }

    /// Does what operators do when endpoints are well again, until the load has ended and nothing is open, or it is too
    /// late: then it tells what is open.
    async fn drain(&self, deadline: Instant, load: &JoinHandle<()>) -> bool {
        while Instant::now() < deadline {
            let _ = timeout(Duration::from_secs(5), self.operate()).await;
            // Asked before: what is accepted after the look is not missed.
            let complete = load.is_finished();
            if complete && self.number("SELECT count(*) FROM webhook.every_delivery WHERE state = 0").await == 0 {
                return true;
            }
            sleep(POLL).await;
        }
        let mut database = PgConnection::connect(&self.site.database_url()).await.unwrap();
        let sql =
            "SELECT subscription_id, count(*) FROM webhook.every_delivery WHERE state = 0 GROUP BY 1 ORDER BY 2 DESC";
        for (id, open) in sqlx::query_as::<_, (Uuid, i64)>(sql).fetch_all(&mut database).await.unwrap() {
            println!("open: {open} to {:?}", self.subscriptions.get(&id));
        }
        false
    }

    /// Enables what answered 410, and has those tried now that an endpoint put off for an hour.
    async fn operate(&self) {
        let mut database = PgConnection::connect(&self.site.database_url()).await.unwrap();
        let mut client = self.site.client();
        for (id, endpoint) in self.subscriptions.iter().filter(|(_, endpoint)| endpoint.slot == SLOTS - 1) {
            let key = Site::key(endpoint.tenant);
            match Temper::of(endpoint.tenant) {
                Temper::Gone => {
                    let path = format!("/subscriptions/{id}");
                    let _ = client.send("PATCH", &path, &key, br#"{"enabled":true}"#).await;
                }
                Temper::Hostile => {
                    let sql = "SELECT id FROM webhook.every_delivery WHERE state = 0 AND NOT leased AND subscription_id = $1 \
                               AND next_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 20000 LIMIT 1000";
                    let waiting: Vec<Uuid> =
                        sqlx::query_scalar(sql).bind(id).fetch_all(&mut database).await.unwrap_or_default();
                    for delivery in waiting {
                        let _ = client.send("POST", &format!("/deliveries/{delivery}/retry"), &key, b"").await;
                    }
                }
                _ => {}
            }
        }
    }

    async fn number(&self, sql: &'static str) -> usize {
        let mut database = PgConnection::connect(&self.site.database_url()).await.unwrap();
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut database).await.unwrap() as usize
    }
}
