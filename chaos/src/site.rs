//! The servers, what they stand on, and what can be done to them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};
use webhook_test_servers::{FaultProxy, PostgresServer, RedisServer, Traffic};

use crate::client::Client;
use crate::fault::Fault;
use crate::ledger::TENANTS;
use crate::observer::Observer;
use crate::process::Process;
use crate::settings::RunSettings;

/// Attempts at once in each server.
pub(crate) const CONCURRENCY: usize = 64;
/// What must not be found in any log.
pub(crate) const CANARIES: [&str; 3] = ["key-canary", "password-canary", ENCRYPTION_KEY];
const ENCRYPTION_KEY: &str = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MTI=";
/// Clocks are off by no more than this (ms): well under a second is what `Clock` asks for.
const CLOCK_OFFSET: i64 = 300;
const LOCK: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Site {
    settings: RunSettings,
    program: PathBuf,
    logs: TempDir,
    postgres: PostgresServer,
    redis: RedisServer,
    to_postgres: FaultProxy,
    to_redis: FaultProxy,
    nodes: Vec<Process>,
    /// Servers that stand still, and until when.
    frozen: Vec<(Process, Instant)>,
    started: usize,
    addresses: watch::Sender<Vec<SocketAddr>>,
    pub(crate) observer: Observer,
}

impl Site {
    /// With one server; [`Site::fill`] starts the others.
    pub(crate) async fn start(settings: &RunSettings) -> Self {
        let (postgres, redis) = block_in_place(|| (PostgresServer::start(), RedisServer::start()));
        if settings.without_redis {
            block_in_place(|| redis.kill());
        }
        let mut site = Self {
            settings: settings.clone(),
            program: std::env::current_exe().expect("this program is a file"),
            logs: tempfile::tempdir().expect("temp is writable"),
            to_postgres: FaultProxy::start(postgres.addr()),
            to_redis: FaultProxy::start(redis.addr()),
            postgres,
            redis,
            nodes: Vec::new(),
            frozen: Vec::new(),
            started: 0,
            addresses: watch::Sender::new(Vec::new()),
            observer: Observer::start(),
        };
        let node = site.launch(0).await;
        site.join(node);
        site
    }

    pub(crate) async fn fill(&mut self) {
        while self.nodes.len() < usize::from(self.settings.servers) {
            let node = self.launch(0).await;
            self.join(node);
        }
    }

    pub(crate) fn key(tenant: usize) -> String {
        format!("key-canary-{tenant}")
    }

    async fn launch(&mut self, clock_offset: i64) -> Process {
        self.started += 1;
        let database = self.postgres.url().replace("postgres@", "postgres:password-canary@");
        let database = format!("{}?options=-c%20chaos.node%3D{}", self.to_postgres.rewrite(&database), self.started);
        let mut arguments = vec![
            format!("--database-url={database}"),
            format!("--redis-url={}", self.to_redis.rewrite(&self.redis.url())),
            format!("--encryption-key=chaos={ENCRYPTION_KEY}"),
            format!("--concurrency={CONCURRENCY}"),
            format!("--lease={}", self.settings.lease),
            format!("--clock-offset-ms={clock_offset}"),
        ];
        arguments.extend((0..TENANTS).map(|tenant| format!("--api-key={}=tenant-{tenant}", Self::key(tenant))));
        if let Some(plant) = self.settings.plant {
            let name = clap::ValueEnum::to_possible_value(&plant).expect("no bug is hidden");
            arguments.push(format!("--plant={}", name.get_name()));
        }
        let log = self.logs.path().join(format!("{}.log", self.started));
        let node = Process::start(&self.program, &arguments, &log).await;
        self.observer.watch(node.pid);
        node
    }

    fn join(&mut self, node: Process) {
        self.nodes.push(node);
        self.publish();
    }

    fn leave(&mut self, which: usize) -> Process {
        let node = self.nodes.remove(which);
        self.publish();
        node
    }

    fn publish(&self) {
        self.addresses.send_replace(self.nodes.iter().map(|node| node.addr).collect());
    }

    /// Where the servers listen that are not frozen.
    pub(crate) fn addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.addresses.subscribe()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.nodes[0].addr)
    }

    /// Past all proxies.
    pub(crate) fn database_url(&self) -> String {
        self.postgres.url()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.pid).collect()
    }

    /// Commits that were done, and whose answers never came.
    pub(crate) fn swallowed(&self) -> u64 {
        self.to_postgres.swallowed()
    }

    pub(crate) fn postgres_log(&self) -> String {
        self.postgres.log()
    }

    /// What all servers that ever were have logged.
    pub(crate) fn logs(&self) -> String {
        let files = std::fs::read_dir(self.logs.path()).expect("the logs are there");
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect()
    }

    /// A figure of the servers that there are.
    pub(crate) async fn figure(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            let answer = Client::new(node.addr).send("GET", "/metrics", &Self::key(0), b"").await;
            let text = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
            sum += value.unwrap_or(0.0);
        }
        sum
    }

    /// Lets those go on that have stood still for long enough.
    pub(crate) async fn thaw(&mut self, now: Instant) {
        while let Some(which) = self.frozen.iter().position(|(_, until)| *until <= now) {
            let (node, _) = self.frozen.remove(which);
            node.signal("CONT").await;
            self.join(node);
        }
    }

    /// When all go on again that stand still.
    pub(crate) fn thawed_at(&self) -> Option<Instant> {
        self.frozen.iter().map(|(_, until)| *until).max()
    }

    /// Stops the servers; whether all ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        let mut well = true;
        for node in std::mem::take(&mut self.nodes) {
            well &= node.stop().await;
        }
        well
    }

    /// Lets it happen, and makes it good; false when it cannot happen now. A server that was frozen goes on later:
    /// [`Site::thaw`].
    pub(crate) async fn suffer(&mut self, fault: Fault, chance: &mut StdRng) -> bool {
        let span = Duration::from_millis(chance.random_range(300..3000));
        let which = chance.random_range(0..self.nodes.len());
        match fault {
            Fault::ServerKilled => {
                self.leave(which).kill().await;
                self.replace(0).await;
            }
            Fault::ServerFrozen => {
                if self.nodes.len() < 2 || !self.frozen.is_empty() {
                    return false;
                }
                let node = self.leave(which);
                node.signal("STOP").await;
                let lease = Duration::from_secs(self.settings.lease);
                self.frozen.push((node, Instant::now() + lease + span));
            }
            Fault::ServerReplaced => {
                self.replace(0).await;
                assert!(self.leave(which).stop().await, "a server stops cleanly");
            }
            Fault::ClockOff => {
                let ahead: bool = chance.random();
                self.replace(if ahead { CLOCK_OFFSET } else { -CLOCK_OFFSET }).await;
                assert!(self.leave(which).stop().await, "a server stops cleanly");
            }
            Fault::SessionKilled => {
                block_in_place(|| self.postgres.kill_one_backend());
                self.until_postgres_answers().await;
            }
            Fault::PostmasterKilled => {
                block_in_place(|| self.postgres.kill());
                sleep(span).await;
                block_in_place(|| self.postgres.restart());
            }
            Fault::PostgresStoppedAtOnce => {
                block_in_place(|| self.postgres.stop_immediate());
                sleep(span).await;
                block_in_place(|| self.postgres.restart());
            }
            Fault::PostgresRestarted => block_in_place(|| self.postgres.restart()),
            Fault::PostgresFrozen => {
                block_in_place(|| self.postgres.pause());
                sleep(span).await;
                block_in_place(|| self.postgres.resume());
            }
            Fault::CommitAnswersLost => {
                for _ in 0..5 {
                    self.to_postgres.swallow_answer_to("COMMIT");
                    sleep(span / 5).await;
                }
            }
            Fault::PostgresCut => self.to_postgres.cut(),
            Fault::PostgresStalled => pass(&self.to_postgres, Traffic::Stalls, span).await,
            Fault::PostgresPartitioned => {
                self.to_postgres.cut();
                pass(&self.to_postgres, Traffic::Refused, span).await;
            }
            Fault::PostgresStranded => self.to_postgres.strand(),
            Fault::TableLocked => return self.lock().await,
            Fault::SessionsTaken => self.take_sessions(span).await,
            Fault::RedisKilled => {
                block_in_place(|| self.redis.kill());
                sleep(span).await;
                block_in_place(|| self.redis.restart_empty());
            }
            Fault::RedisFlushed => drop(block_in_place(|| self.redis.command(&["FLUSHALL"]))),
            Fault::RedisFrozen => {
                block_in_place(|| self.redis.pause());
                sleep(span).await;
                block_in_place(|| self.redis.resume());
            }
            Fault::RedisPartitioned => {
                self.to_redis.cut();
                pass(&self.to_redis, Traffic::Refused, span).await;
            }
        }
        true
    }

    async fn replace(&mut self, clock_offset: i64) {
        let node = self.launch(clock_offset).await;
        self.join(node);
    }

    /// After one session was killed all others end too, and the server recovers.
    async fn until_postgres_answers(&self) -> PgConnection {
        loop {
            match PgConnection::connect(&self.postgres.url()).await {
                Ok(connection) => return connection,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// False when it does not get the lock in time: everybody else waits behind whoever waits for it.
    async fn lock(&self) -> bool {
        let mut connection = self.until_postgres_answers().await;
        let lock = "SET lock_timeout = '2s'; BEGIN; LOCK TABLE webhook.delivery IN ACCESS EXCLUSIVE MODE";
        let locked = sqlx::raw_sql(lock).execute(&mut connection).await.is_ok();
        if locked {
            sleep(LOCK).await;
        }
        // It may have been ended.
        let _ = connection.close().await;
        locked
    }

    /// Resets all connections and takes their sessions before they come back.
    async fn take_sessions(&self, span: Duration) {
        let mut taken = vec![self.until_postgres_answers().await];
        self.to_postgres.cut();
        while let Ok(connection) = PgConnection::connect(&self.postgres.url()).await {
            taken.push(connection);
        }
        sleep(span).await;
        for connection in taken {
            // It may have been ended.
            let _ = connection.close().await;
        }
    }
}

async fn pass(proxy: &FaultProxy, traffic: Traffic, span: Duration) {
    proxy.set(traffic);
    sleep(span).await;
    proxy.set(Traffic::Flows);
}
