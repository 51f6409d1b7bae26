//! The engine goes on, whatever happens to its Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AddressGuard, DeliveryId, Hint, MemoryStore, NewEvent, Queue as _, RateLimit, Role, SubscriptionDraft, TargetId,
    TenantId, Timestamp, Webhooks,
};
use webhook_queue_redis::{RedisNotifier, RedisQueue};
use webhook_test_servers::RedisServer;

use crate::{eventually, redis};

/// Two processes on one store and one Redis, as far as one process can be two.
struct Fleet {
    store: Arc<MemoryStore>,
    engines: Vec<Webhooks>,
    transport: RecordingTransport,
    shutdown: CancellationToken,
}

impl Fleet {
    async fn start(server: &RedisServer) -> Self {
        let store = Arc::new(MemoryStore::new());
        let (transport, shutdown) = (RecordingTransport::new(), CancellationToken::new());
        let mut fleet = Self { store, engines: Vec::new(), transport, shutdown };
        for _ in 0..2 {
            let (engine, shutdown) = (fleet.engine(server), fleet.shutdown.clone());
            fleet.engines.push(engine.clone());
            tokio::spawn(async move { engine.run(Role::Worker, shutdown).await });
        }
        // A limit keeps deliveries from being leased when they are accepted: each goes through the queue.
        let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
        draft.settings.rate_limit = Some(RateLimit::per_second(100_000.0).unwrap());
        fleet.engines[0].subscribe(&TenantId::default(), draft).await.unwrap();
        fleet
    }

    fn engine(&self, server: &RedisServer) -> Webhooks {
        let redis = redis(&server.url());
        Webhooks::builder(self.store.clone())
            .queue(Arc::new(RedisQueue::new(redis.clone())))
            .notifier(Arc::new(RedisNotifier::new(redis)))
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .transport(Arc::new(self.transport.clone()))
            .build()
            .unwrap()
    }

    /// Emits so many events, a few milliseconds apart; how long the slowest took to be accepted.
    async fn emit(&self, count: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for number in 0..count {
            let event = NewEvent::new("a.b".parse().unwrap(), "{}");
            let start = Instant::now();
            self.engines[number % 2].emit(&TenantId::default(), event).await.unwrap();
            slowest = slowest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        slowest
    }

    async fn arrived(&self, count: usize) {
        let all = self.transport.wait_for(count);
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("all of them arrive");
    }

    async fn queue_answers(&self) -> bool {
        for engine in &self.engines {
            if engine.check_queue().await.unwrap().is_err() {
                return false;
            }
        }
        true
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What is done to a server.
type Deed = fn(&RedisServer);

#[tokio::test(flavor = "multi_thread")]
async fn no_outage_of_redis_loses_or_doubles_a_delivery_or_delays_accepting() {
    let server = RedisServer::start();
    let fleet = Fleet::start(&server).await;
    let mut sent = 0;
    let faults: [(&str, Deed, Deed); 5] = [
        ("flushed", |server| drop(server.command(&["FLUSHALL"])), |_| {}),
        ("frozen", RedisServer::pause, RedisServer::resume),
        ("killed, and empty afterwards", RedisServer::kill, RedisServer::restart_empty),
        (
            "full",
            |server| drop(server.command(&["CONFIG", "SET", "maxmemory", "1"])),
            |server| drop(server.command(&["CONFIG", "SET", "maxmemory", "0"])),
        ),
        (
            "read-only",
            |server| drop(server.command(&["REPLICAOF", "127.0.0.1", "1"])),
            |server| drop(server.command(&["REPLICAOF", "NO", "ONE"])),
        ),
    ];
    for (name, begin, end) in faults {
        fleet.emit(50).await;
        begin(&server);
        let slowest = fleet.emit(300).await;
        assert!(slowest < Duration::from_millis(200), "{name}: accepting took {slowest:?}");
        sent += 350;
        fleet.arrived(sent).await;
        end(&server);
        eventually(name, async || fleet.queue_answers().await).await;
    }
    let mut times: HashMap<String, usize> = HashMap::new();
    for request in fleet.transport.requests() {
        *times.entry(request.headers["webhook-id"].to_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((times.len(), times.values().sum::<usize>()), (sent, sent));
}

/// Hints that nobody takes any more, because every process has given Redis up, would keep it full for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_its_own_hints_filled_is_used_again() {
    filled_and_used_again(4_000_000, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_far_more_hints_than_it_may_is_used_again() {
    filled_and_used_again(12_000_000, 6_000_000).await;
}

/// Hints of so many bytes fill a server, and then it may hold so many bytes fewer.
async fn filled_and_used_again(bytes: u64, fewer: u64) {
    let server = RedisServer::start();
    let used = server.command(&["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    let limit_to = |limit: u64| assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]), "OK");
    limit_to(used + bytes);
    let fleet = Fleet::start(&server).await;
    // This one accepts only: it never takes a hint.
    let api = fleet.engine(&server);
    fleet.shutdown.cancel();
    let queue = RedisQueue::new(redis(&server.url()));
    let mut filled = 0_u128;
    let hint = |number: u128| {
        let (delivery, target) = (Uuid::from_u128(number), Uuid::from_u128(1));
        Hint::new(DeliveryId::from_uuid(delivery), TargetId::from_uuid(target), Timestamp::from_millis(1))
    };
    while queue.push(&(filled..filled + 10).map(hint).collect::<Vec<_>>()).await.is_ok() {
        filled += 10;
    }
    limit_to(used + bytes - fewer);
    eventually("it is given up", async || {
        api.emit(&TenantId::default(), NewEvent::new("a.b".parse().unwrap(), "{}")).await.unwrap();
        api.check_queue().await.unwrap().is_err()
    })
    .await;
    eventually("it is used again", async || api.check_queue().await.unwrap().is_ok()).await;
    assert!(queue.depth().await.unwrap() < filled as u64, "what filled it is gone in part");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_attempt_at_once_what_another_process_accepted() {
    let server = RedisServer::start();
    let fleet = Fleet::start(&server).await;
    let api = fleet.engine(&server);
    for sent in 1..=20 {
        let start = Instant::now();
        api.emit(&TenantId::default(), NewEvent::new("a.b".parse().unwrap(), "{}")).await.unwrap();
        fleet.arrived(sent).await;
        // A worker that was not told looks once a second.
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    }
}
