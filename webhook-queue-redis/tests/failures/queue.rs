//! The queue alone.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use webhook_core::{DeliveryId, Hint, Queue, QueueError, TargetId};
use webhook_queue_redis::{Redis, RedisOptions, RedisQueue};
use webhook_test_servers::{FaultProxy, RedisCluster, RedisServer, Traffic};

use crate::{at, eventually, redis};

/// The deadline, and what a busy machine adds to it.
const PATIENCE: Duration = Duration::from_millis(600);

fn hint(number: u128, due: u64) -> Hint {
    let id = |number| format!("{number:032x}").parse::<DeliveryId>().unwrap();
    Hint::new(id(number), TargetId::from_uuid(id(number % 7).as_uuid()), at(due))
}

async fn fails_soon(queue: &RedisQueue) {
    for _ in 0..3 {
        let start = Instant::now();
        let error = queue.pop(at(1), at(60), 10).await.unwrap_err();
        assert!(matches!(error, QueueError::Unavailable(_)) && error.is_retryable());
        assert!(queue.push(&[hint(1, 1)]).await.is_err());
        assert!(start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
    }
}

async fn works_again(queue: &RedisQueue) {
    eventually("the queue works again", async || {
        queue.push(&[hint(1, 1)]).await.is_ok() && queue.done(&[hint(1, 1)]).await.is_ok()
    })
    .await;
    queue.push(&[hint(99, 1)]).await.unwrap();
    assert!(queue.pop(at(1), at(60), 1_000).await.unwrap().contains(&hint(99, 1)));
}

#[tokio::test]
async fn a_queue_starts_without_its_server_and_finds_it_when_it_is_there() {
    let server = RedisServer::start();
    server.kill();
    let queue = RedisQueue::new(redis(&server.url()));
    fails_soon(&queue).await;
    server.restart();
    works_again(&queue).await;
}

#[tokio::test]
async fn a_frozen_server_costs_a_deadline_and_answers_when_it_goes_on() {
    let server = RedisServer::start();
    let queue = RedisQueue::new(redis(&server.url()));
    works_again(&queue).await;
    server.pause();
    fails_soon(&queue).await;
    server.resume();
    works_again(&queue).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_empty_takes_hints_again() {
    let server = RedisServer::start();
    let queue = RedisQueue::new(redis(&server.url()));
    queue.push(&[hint(1, 1), hint(2, 1)]).await.unwrap();
    server.kill();
    fails_soon(&queue).await;
    server.restart_empty();
    eventually("it answers", async || queue.depth().await.is_ok()).await;
    assert_eq!(queue.depth().await.unwrap(), 0);
    works_again(&queue).await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_an_older_copy_gives_hints_that_harm_nobody() {
    let server = RedisServer::start();
    let queue = RedisQueue::new(redis(&server.url()));
    queue.push(&[hint(1, 1)]).await.unwrap();
    assert_eq!(server.command(&["SAVE"]), "OK");
    queue.done(&[hint(1, 1)]).await.unwrap();
    server.restart();
    eventually("it answers", async || queue.depth().await.is_ok()).await;
    assert_eq!(queue.pop(at(1), at(60), 10).await.unwrap(), [hint(1, 1)]);
}

#[tokio::test]
async fn a_flushed_server_has_no_hints_and_no_scripts_and_works_on() {
    let server = RedisServer::start();
    let queue = RedisQueue::new(redis(&server.url()));
    queue.push(&[hint(1, 1)]).await.unwrap();
    assert_eq!(queue.pop(at(1), at(60), 10).await.unwrap().len(), 1);
    assert_eq!((server.command(&["FLUSHALL"]), server.command(&["SCRIPT", "FLUSH"])), ("OK".into(), "OK".into()));
    assert_eq!(queue.pop(at(100), at(200), 10).await.unwrap(), []);
    queue.push(&[hint(2, 1)]).await.unwrap();
    assert_eq!(queue.pop(at(1), at(60), 10).await.unwrap(), [hint(2, 1)]);
}

#[tokio::test]
async fn a_full_server_takes_no_hints_but_gives_those_it_has_and_has_room_again() {
    let server = RedisServer::start();
    let used = server.command(&["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", &(used + 2_000_000).to_string()]), "OK");

    let queue = RedisQueue::new(redis(&server.url()));
    let mut pushed = 0;
    let full = loop {
        let batch: Vec<_> = (0..100).map(|number| hint(pushed + number, 1)).collect();
        match queue.push(&batch).await {
            Ok(()) => pushed += 100,
            Err(error) => break error,
        }
    };
    let source = std::error::Error::source(&full).unwrap().source().unwrap().to_string();
    assert!(source.contains("OOM"), "{source}");

    let mut popped = 0;
    while popped < pushed {
        let hints = queue.pop(at(1), at(60), 256).await.unwrap();
        assert!(!hints.is_empty(), "{popped} of {pushed}");
        popped += hints.len() as u128;
    }
    queue.push(&[hint(1 << 64, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_read_only_replica_takes_nothing_until_it_is_promoted() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let queue = RedisQueue::new(redis(&replica.url()));
    queue.push(&[hint(1, 1)]).await.unwrap();
    let port = primary.addr().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("it follows", async || replica.command(&["INFO", "replication"]).contains("master_link_status:up"))
        .await;
    let error = queue.push(&[hint(2, 1)]).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().source().unwrap().to_string();
    assert!(source.contains("read only") || source.contains("READONLY"), "{source}");
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    works_again(&queue).await;
}

#[tokio::test]
async fn after_a_failover_the_old_primary_is_left_though_it_keeps_its_connections() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = FaultProxy::start(old.addr());
    let queue = RedisQueue::new(redis(&proxy.rewrite(&old.url())));
    works_again(&queue).await;
    assert_eq!(old.command(&["REPLICAOF", "127.0.0.1", &new.addr().port().to_string()]), "OK");
    proxy.redirect(new.addr());
    works_again(&queue).await;
    assert!(old.command(&["INFO", "replication"]).contains("role:slave"), "it is still a copy");
}

#[tokio::test]
async fn a_broken_network_is_noticed_and_the_connection_made_anew() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let queue = RedisQueue::new(redis(&proxy.rewrite(&server.url())));
    works_again(&queue).await;

    proxy.cut();
    works_again(&queue).await;
    proxy.set(Traffic::Refused);
    proxy.cut();
    fails_soon(&queue).await;
    proxy.set(Traffic::Flows);
    works_again(&queue).await;

    // What is on the old connection never goes on: only a new one helps.
    proxy.strand();
    assert!(queue.pop(at(1), at(60), 10).await.is_err());
    works_again(&queue).await;
}

#[tokio::test]
async fn hints_whose_answer_is_lost_come_again_when_their_hold_ends() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let queue = RedisQueue::new(redis(&proxy.rewrite(&server.url())));
    queue.push(&[hint(7, 1)]).await.unwrap();
    // The script has to be known: the answer that gets lost should not be that it is not.
    assert_eq!(queue.pop(at(0), at(60), 10).await.unwrap(), []);
    proxy.swallow_answer_to("EVALSHA");
    assert!(queue.pop(at(1), at(60), 10).await.is_err());
    assert_eq!(proxy.swallowed(), 1);
    works_again(&queue).await;
    assert!(!queue.pop(at(59), at(120), 10).await.unwrap().iter().any(|held| held.delivery == hint(7, 1).delivery));
    assert!(queue.pop(at(60), at(120), 10).await.unwrap().contains(&hint(7, 60)));
}

#[tokio::test]
async fn a_cluster_that_lost_a_master_is_away_and_works_again_when_it_is_back() {
    let cluster = RedisCluster::start();
    let queue = RedisQueue::new(redis(&cluster.url()));
    works_again(&queue).await;
    cluster.nodes()[1].kill();
    eventually("it is missed", async || queue.pop(at(1), at(60), 10).await.is_err()).await;
    let start = Instant::now();
    let _ = queue.pop(at(1), at(60), 10).await;
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    cluster.nodes()[1].restart();
    cluster.wait_until_ok();
    works_again(&queue).await;
}

#[tokio::test]
async fn a_cluster_that_was_gone_is_found_again() {
    let cluster = RedisCluster::start();
    let queue = RedisQueue::new(redis(&cluster.url()));
    works_again(&queue).await;
    for node in cluster.nodes() {
        node.kill();
    }
    eventually("it is missed", async || queue.push(&[hint(1, 1)]).await.is_err()).await;
    for node in cluster.nodes() {
        node.restart();
    }
    cluster.wait_until_ok();
    works_again(&queue).await;
}

#[tokio::test]
async fn keys_have_the_prefix_and_no_text_of_a_tenant() {
    let server = RedisServer::start();
    let options = RedisOptions::new(&server.url()).unwrap().with_prefix("acme").unwrap().with_shards(3);
    let queue = RedisQueue::new(Redis::new(&options));
    let hints: Vec<_> = (1..=9).map(|number| hint(number, 1)).collect();
    queue.push(&hints).await.unwrap();
    for shard in 0..3 {
        assert_eq!(server.command(&["ZCARD", &format!("{{acme:{shard}}}:due")]), "3");
    }
    assert_eq!(server.command(&["DBSIZE"]), "3");
}

#[tokio::test]
async fn a_server_that_evicts_keys_is_warned_of_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _recording = tracing::subscriber::set_default(subscriber);
    for (policy, lines) in [("noeviction", 0), ("allkeys-lru", 1)] {
        let server = RedisServer::start_with(&["--maxmemory-policy", policy]);
        let queue = RedisQueue::new(redis(&server.url()));
        for _ in 0..3 {
            queue.depth().await.unwrap();
        }
        eventually("it is asked", async || server.command(&["INFO", "commandstats"]).contains("cmdstat_info:")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(log.text().lines().count(), lines, "{policy}: {}", log.text());
    }
    assert!(log.text().contains("set maxmemory-policy to noeviction"), "{}", log.text());
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
