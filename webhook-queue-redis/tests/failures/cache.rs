//! The shared cache alone.

use std::time::Duration;

use webhook_core::SharedCache;
use webhook_queue_redis::RedisCache;
use webhook_test_servers::{RedisCluster, RedisServer};

use crate::{eventually, redis};

const LONG: Duration = Duration::from_secs(60);

fn entry(key: &str, value: &[u8]) -> (String, Vec<u8>) {
    (key.to_owned(), value.to_owned())
}

async fn keeps_what_it_is_given(cache: &RedisCache) {
    cache.put(&[entry("a:1", b"\0\xffone"), entry("b:2", b"")], LONG).await.unwrap();
    let keys = ["b:2", "c:3", "a:1"].map(str::to_owned);
    assert_eq!(cache.get(&keys).await.unwrap(), [Some(Vec::new()), None, Some(b"\0\xffone".to_vec())]);
    cache.put(&[entry("a:1", b"two")], LONG).await.unwrap();
    assert_eq!(cache.get(&keys[2..]).await.unwrap(), [Some(b"two".to_vec())]);
    assert_eq!(cache.get(&[]).await.unwrap(), [] as [Option<Vec<u8>>; 0]);
}

#[tokio::test]
async fn values_come_back_as_they_were_put() {
    let server = RedisServer::start();
    keeps_what_it_is_given(&RedisCache::new(redis(&server.url()))).await;
    let cluster = RedisCluster::start();
    keeps_what_it_is_given(&RedisCache::new(redis(&cluster.url()))).await;
}

#[tokio::test]
async fn values_go_when_their_time_is_over() {
    let server = RedisServer::start();
    let cache = RedisCache::new(redis(&server.url()));
    cache.put(&[entry("a:1", b"one")], LONG).await.unwrap();
    let left: u64 = server.command(&["PTTL", "wh:cache:a:1"]).parse().unwrap();
    assert!((55_000..=60_000).contains(&left), "{left}");
    cache.put(&[entry("a:1", b"one")], Duration::from_millis(50)).await.unwrap();
    eventually("it is gone", async || cache.get(&["a:1".to_owned()]).await.unwrap() == [None]).await;
    cache.put(&[entry("b:2", b"two")], Duration::ZERO).await.unwrap();
    assert_eq!(server.command(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn a_server_that_is_gone_gives_an_error_soon() {
    let server = RedisServer::start();
    let cache = RedisCache::new(redis(&server.url()));
    server.kill();
    assert!(cache.get(&["a:1".to_owned()]).await.is_err());
    assert!(cache.put(&[entry("a:1", b"one")], LONG).await.is_err());
}
