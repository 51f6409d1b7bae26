//! One run: a storm in which nodes come, go and fail, then a calm in which everything has to arrive.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use webhook_core::{Clock, Options, Role, Webhooks};

use crate::audit::Audit;
use crate::chance::Chance;
use crate::client::Clients;
use crate::node::{Life, Node, Weather};
use crate::plan::tenant;
use crate::receiver::Receiver;
use crate::seams::{NodeQueue, NodeStore, NodeTransport, SharedQueue};
use crate::verdict;
use crate::world::{BEGIN, Plant, World};

const NODES: u64 = 2;
const CLIENTS: u32 = 2;
const CALLS: u32 = 32;
/// Everything that is not held has ended within this time after the last fault.
const CALM: Duration = Duration::from_secs(600);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) log: String,
    pub(crate) wrong: Vec<String>,
    pub(crate) events: usize,
    pub(crate) deliveries: usize,
    pub(crate) arrivals: usize,
    pub(crate) fenced: u64,
}

/// Runs the seed, with a bug planted or without.
pub(crate) fn run(seed: u64, plant: Option<Plant>) -> Report {
    let world = World::new(seed, plant);
    let audit = Audit::new(&world);
    let stage = Arc::new(Stage {
        receiver: Receiver::new(&world, &audit),
        clients: Clients::new(&world),
        queue: world.chance("queue").hits(600).then(Arc::default),
        world: Arc::clone(&world),
        audit,
    });
    // Whatever runs at the end of the storm is dropped with its runtime, at whatever await point it stands.
    let end = in_a_runtime(stage.storm());
    world.calm_down();
    in_a_runtime(stage.calm(end));
    let (events, deliveries, fenced) = {
        let books = stage.audit.books();
        (books.events.len(), books.deliveries.len(), books.fenced)
    };
    let arrivals = stage.receiver.arrivals().len();
    let (log, wrong) = world.into_report();
    Report { log, wrong, events, deliveries, arrivals, fenced }
}

fn in_a_runtime<T>(part: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(part)
}

#[derive(Debug)]
struct Stage {
    world: Arc<World>,
    audit: Arc<Audit>,
    receiver: Arc<Receiver>,
    clients: Arc<Clients>,
    queue: Option<Arc<SharedQueue>>,
}

/// A process: its node, its engine, and what runs it.
struct Process {
    node: Arc<Node>,
    engine: Webhooks,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Stage {
    async fn storm(self: &Arc<Self>) -> webhook_core::Timestamp {
        self.world.start_clock(BEGIN);
        let mut parts = Vec::new();
        for number in 0..NODES {
            let stage = Arc::clone(self);
            parts.push(tokio::spawn(async move { stage.lives(number).await }));
        }
        if let Some(queue) = self.queue.clone() {
            let chance = self.world.chance("flush");
            let stage = Arc::clone(self);
            parts.push(tokio::spawn(async move {
                loop {
                    sleep(chance.between(Duration::from_secs(2), Duration::from_secs(40))).await;
                    stage.world.log(format_args!("the queue loses everything"));
                    queue.flush();
                }
            }));
        }
        sleep(Duration::from_millis(1)).await;
        let first = self.clients.engines.lock().unwrap().first().cloned();
        if let Some(engine) = first {
            for number in 0..4 {
                self.clients.subscribe(&engine, &tenant(number % 2)).await;
            }
        }
        let calls = (0..CLIENTS).map(|number| {
            let clients = Arc::clone(&self.clients);
            tokio::spawn(async move { clients.call(&format!("client {number}"), CALLS).await })
        });
        for caller in calls.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        let rest = self.world.chance("rest").between(Duration::ZERO, Duration::from_secs(20));
        sleep(rest).await;
        drop(parts);
        self.world.log(format_args!("the storm is over"));
        self.clients.engines.lock().unwrap().clear();
        self.receiver.check_ends();
        self.world.now()
    }

    async fn calm(self: &Arc<Self>, now: webhook_core::Timestamp) {
        self.world.start_clock(now);
        let processes: Vec<_> = (0..NODES).map(|number| self.start(format!("calm node {number}"))).collect();
        if let Some(process) = processes.first() {
            self.clients.settle(&process.engine).await;
        }
        let quiet = async {
            while !verdict::open(&self.audit).await.is_empty() {
                sleep(Duration::from_secs(5)).await;
            }
        };
        // What is late is found and named by the verdict.
        let _ = timeout(CALM, quiet).await;
        for process in processes {
            process.shutdown.cancel();
            let stopped = timeout(Duration::from_secs(60), process.running).await;
            if !matches!(stopped, Ok(Ok(()))) {
                self.world.wrong(format!("I13 {} does not stop: {stopped:?}", process.node.name));
            }
        }
        // Nobody calls any more.
        let ledger = std::mem::take(&mut *self.clients.ledger.lock().unwrap());
        verdict::judge(&self.world, &self.audit, &self.receiver, &ledger).await;
    }

    /// Processes that follow one another.
    async fn lives(self: &Arc<Self>, number: u64) {
        let chance = self.world.chance(&format!("fate {number}"));
        for life in 0_u32.. {
            let process = self.start(format!("node {number}.{life}"));
            self.clients.engines.lock().unwrap().push(process.engine.clone());
            self.live(&chance, &process).await;
            sleep(chance.between(Duration::ZERO, Duration::from_secs(3))).await;
        }
    }

    /// One life, to its end.
    async fn live(&self, chance: &Chance, process: &Process) {
        let Process { node, shutdown, .. } = process;
        loop {
            sleep(chance.between(Duration::from_millis(200), Duration::from_secs(20))).await;
            match chance.below(100) {
                0..30 => {
                    self.retire(process);
                    node.turn(Life::Gone);
                    return;
                }
                30..55 => {
                    node.kill_after(1 + chance.below(30));
                    sleep(Duration::from_secs(3)).await;
                    self.retire(process);
                    node.turn(Life::Gone);
                    return;
                }
                55..80 => {
                    node.turn(Life::Stands);
                    sleep(chance.between(Duration::from_millis(100), Duration::from_secs(15))).await;
                    node.turn(Life::Runs);
                }
                _ => {
                    self.retire(process);
                    self.world.log(format_args!("{} shuts down", node.name));
                    shutdown.cancel();
                    // Whoever deploys waits so long, and kills it then.
                    sleep(Duration::from_secs(10)).await;
                    node.turn(Life::Gone);
                    return;
                }
            }
        }
    }

    /// Nobody calls it any more.
    fn retire(&self, process: &Process) {
        // Clones of a handle are the same engine, and share its options.
        let same = |other: &Webhooks| std::ptr::eq(other.options(), process.engine.options());
        self.clients.engines.lock().unwrap().retain(|other| !same(other));
    }

    fn start(&self, name: String) -> Process {
        self.world.log(format_args!("{name} starts"));
        let weather = Weather::of(&self.world.chance(&format!("weather of {name}")));
        let node = Node::new(&self.world, name, weather);
        let mut options = Options::default();
        options.concurrency = 16;
        options.timeout = Duration::from_secs(2);
        options.max_timeout = Duration::from_secs(2);
        options.lease_margin = Duration::from_secs(3);
        options.grace = Duration::from_secs(3);
        options.cleanup_interval = Duration::from_secs(30);
        options.cache_ttl = Duration::from_secs(20);
        let store = NodeStore { inner: Arc::clone(&self.audit), node: Arc::clone(&node) };
        let transport = NodeTransport { receiver: Arc::clone(&self.receiver), node: Arc::clone(&node) };
        let mut builder = Webhooks::builder(Arc::new(store))
            .transport(Arc::new(transport))
            .clock(Arc::clone(&self.world) as Arc<dyn Clock>)
            .entropy(self.world.chance(&format!("entropy of {}", node.name)).entropy())
            .options(options);
        if let Some(shared) = self.queue.clone() {
            builder = builder.queue(Arc::new(NodeQueue { shared, node: Arc::clone(&node) }));
        }
        let engine = builder.build().unwrap();
        let shutdown = CancellationToken::new();
        let (runs, stop) = (engine.clone(), shutdown.clone());
        let running = tokio::spawn(async move { runs.run(Role::Worker, stop).await });
        Process { node, engine, shutdown, running }
    }
}
