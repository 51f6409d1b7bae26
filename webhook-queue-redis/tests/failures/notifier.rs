//! The notifier alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use webhook_core::{Notifier, NotifierError, Signal, TenantId};
use webhook_queue_redis::{Redis, RedisNotifier, RedisOptions};
use webhook_test_servers::{FaultProxy, RedisCluster, RedisServer, Traffic};

use crate::{eventually, redis};

/// Listens in a task, and is there when it does.
async fn listen(redis: Redis) -> (UnboundedReceiver<Signal>, JoinHandle<NotifierError>) {
    let (said, mut heard) = unbounded_channel();
    let listening = tokio::spawn(async move {
        let notifier = RedisNotifier::new(redis);
        notifier.listen(&move |signal| said.send(signal).unwrap()).await
    });
    assert_eq!(next(&mut heard).await, Signal::Missed);
    (heard, listening)
}

async fn next(heard: &mut UnboundedReceiver<Signal>) -> Signal {
    tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("something is heard").unwrap()
}

fn signals() -> [Signal; 2] {
    [Signal::Due, Signal::SubscriptionsChanged("acme".parse::<TenantId>().unwrap())]
}

#[tokio::test]
async fn everybody_hears_what_one_says() {
    let server = RedisServer::start();
    let speaker = RedisNotifier::new(redis(&server.url()));
    let mut listeners = [listen(redis(&server.url())).await, listen(redis(&server.url())).await];
    speaker.publish(&signals()).await.unwrap();
    for (heard, _) in &mut listeners {
        assert_eq!([next(heard).await, next(heard).await], signals());
    }
}

#[tokio::test]
async fn installations_with_other_prefixes_hear_nothing() {
    let server = RedisServer::start();
    let (mut heard, _listening) = listen(redis(&server.url())).await;
    let other = RedisOptions::new(&server.url()).unwrap().with_prefix("other").unwrap();
    RedisNotifier::new(Redis::new(&other)).publish(&[Signal::Due]).await.unwrap();
    RedisNotifier::new(redis(&server.url())).publish(&signals()[1..]).await.unwrap();
    assert_eq!(next(&mut heard).await, signals()[1]);
}

#[tokio::test]
async fn a_cluster_carries_signals_between_its_nodes_and_past_a_dead_one() {
    let cluster = RedisCluster::start();
    let speaker = RedisNotifier::new(redis(&cluster.url()));
    cluster.nodes()[0].kill();
    let (mut heard, _listening) = listen(redis(&cluster.url())).await;
    // Where a message lands is chosen by chance: the nodes pass it on.
    for _ in 0..10 {
        eventually("it is said", async || speaker.publish(&[Signal::Due]).await.is_ok()).await;
        assert_eq!(next(&mut heard).await, Signal::Due);
    }
}

#[tokio::test]
async fn listening_ends_with_the_server_and_begins_anew() {
    let server = RedisServer::start();
    let (mut heard, listening) = listen(redis(&server.url())).await;
    server.kill();
    let NotifierError::Unavailable(_) = listening.await.unwrap() else { panic!("it is unavailable") };
    assert_eq!(heard.recv().await, None);
    let speaker = RedisNotifier::new(redis(&server.url()));
    assert!(speaker.publish(&[Signal::Due]).await.is_err());
    server.restart();
    let (mut heard, _listening) = listen(redis(&server.url())).await;
    eventually("it is said", async || speaker.publish(&[Signal::Due]).await.is_ok()).await;
    assert_eq!(next(&mut heard).await, Signal::Due);
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_noticed() {
    let server = RedisServer::start();
    let proxy = Arc::new(FaultProxy::start(server.addr()));
    let (_heard, listening) = listen(redis(&proxy.rewrite(&server.url()))).await;
    proxy.set(Traffic::Stalls);
    tokio::time::timeout(Duration::from_secs(15), listening).await.expect("it is noticed").unwrap();
}
