//! What was received is handled from the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use webhook_core::{
    Conflict, DeliveryState, Error, HandlerError, InboxHandler, InboxMessage, MemoryStore, Options, Reason,
    ReceivedMessage, RetrySchedule, Role, Source, Store, TenantId, Webhooks,
};

type Script = fn(&InboxMessage) -> Result<(), HandlerError>;

/// Shows each call, and does as it was told.
#[derive(Debug)]
struct Handler {
    calls: mpsc::UnboundedSender<InboxMessage>,
    script: Script,
    hangs: AtomicUsize,
}

#[async_trait]
impl InboxHandler for Handler {
    async fn handle(&self, message: InboxMessage) -> Result<(), HandlerError> {
        self.calls.send(message.clone()).unwrap();
        if self.hangs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            std::future::pending::<()>().await;
        }
        (self.script)(&message)
    }
}

struct Node {
    webhooks: Webhooks,
    calls: mpsc::UnboundedReceiver<InboxMessage>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

fn source() -> Source {
    "github".parse().unwrap()
}

impl Node {
    fn start(store: &Arc<MemoryStore>, script: Script, hangs: usize) -> Self {
        let mut options = Options::default();
        // Short only where a handler is to hang: a busy machine takes its time with the others.
        let (timeout, longest, margin) = if hangs > 0 { (50, 200, 100) } else { (5_000, 10_000, 5_000) };
        options.timeout = Duration::from_millis(timeout);
        options.max_timeout = Duration::from_millis(longest);
        options.lease_margin = Duration::from_millis(margin);
        options.poll_interval = Duration::from_millis(20);
        options.grace = Duration::from_millis(10);
        let (sender, calls) = mpsc::unbounded_channel();
        let handler = Handler { calls: sender, script, hangs: AtomicUsize::new(hangs) };
        let webhooks = Webhooks::builder(Arc::clone(store) as Arc<dyn Store>)
            .retry(Arc::new(RetrySchedule::new([Duration::from_millis(5), Duration::from_millis(5)]).unwrap()))
            .options(options)
            .inbox(source(), Arc::new(handler))
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (webhooks, shutdown) = (webhooks.clone(), shutdown.clone());
            async move { webhooks.run(Role::Worker, shutdown).await }
        });
        Self { webhooks, calls, shutdown, running }
    }

    async fn receive(&self, id: &str, payload: &'static str) -> Result<webhook_core::Emitted, Error> {
        let message = ReceivedMessage::new(payload).with_message_id(id);
        self.webhooks.receive(&TenantId::default(), &source(), message).await
    }

    async fn call(&mut self) -> InboxMessage {
        tokio::time::timeout(Duration::from_secs(20), self.calls.recv()).await.expect("a call").unwrap()
    }

    async fn ended(&self, received: &webhook_core::Emitted) -> (DeliveryState, Option<Reason>, u32) {
        for _ in 0..4000 {
            let view = self.webhooks.delivery(&TenantId::default(), received.delivery.unwrap()).await.unwrap();
            if view.delivery.state != DeliveryState::Pending {
                return (view.delivery.state, view.delivery.reason, view.delivery.attempts);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the delivery did not end");
    }
}

#[tokio::test]
async fn a_message_is_handled_byte_for_byte_and_once() {
    let mut node = Node::start(&Arc::default(), |_| Ok(()), 0);
    let mut message = ReceivedMessage::new(&b"\xff\0{"[..]).with_message_id("a.b/c \u{e9}");
    message.content_type = "text/weird".to_owned();
    message.metadata = Some(serde_json::json!({ "event": "push" }));
    let tenant = TenantId::default();
    let received = node.webhooks.receive(&tenant, &source(), message.clone()).await.unwrap();
    let handled = node.call().await;
    assert_eq!(&handled.payload[..], b"\xff\0{");
    assert_eq!((handled.id, handled.attempt, handled.content_type.as_str()), (received.id, 1, "text/weird"));
    assert_eq!(handled.metadata, message.metadata);
    assert_eq!(node.ended(&received).await, (DeliveryState::Delivered, None, 1));

    message.metadata = None;
    let again = node.webhooks.receive(&tenant, &source(), message).await.unwrap();
    assert_eq!((again.id, again.duplicate), (received.id, true), "what else is stored does not make another message");
    let other = node.receive("a.b/c \u{e9}", "other").await;
    assert!(matches!(other, Err(Error::Conflict(Conflict::KeyReused))), "{other:?}");
    node.receive("another", "{}").await.unwrap();
    assert_eq!(&node.call().await.payload[..], b"{}");
    assert!(node.calls.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_concurrent_repeats_one_is_stored() {
    let node = Node::start(&Arc::default(), |_| Ok(()), 0);
    let mut repeats = JoinSet::new();
    for _ in 0..64 {
        let webhooks = node.webhooks.clone();
        repeats.spawn(async move {
            let message = ReceivedMessage::new("{}").with_message_id("m1");
            webhooks.receive(&TenantId::default(), &source(), message).await.unwrap()
        });
    }
    let received = repeats.join_all().await;
    assert!(received.iter().all(|one| one.id == received[0].id));
    assert_eq!(received.iter().filter(|one| !one.duplicate).count(), 1);
}

#[tokio::test]
async fn a_failed_message_is_tried_again_by_the_policy() {
    let script: Script = |message| match message.attempt {
        1 => Err(HandlerError::retry("not yet")),
        2 => panic!("as wanted"),
        _ => Ok(()),
    };
    let mut node = Node::start(&Arc::default(), script, 0);
    let received = node.receive("m1", "{}").await.unwrap();
    for attempt in 1..=3 {
        let call = node.call().await;
        assert_eq!((call.attempt, call.id), (attempt, received.id));
    }
    assert_eq!(node.ended(&received).await, (DeliveryState::Delivered, None, 3));
    let delivery = received.delivery.unwrap();
    let log = node.webhooks.attempts_of(&TenantId::default(), delivery).await.unwrap();
    assert_eq!(&log[0].response_body[..], b"not yet");
    assert_eq!(log[0].target_url, "handler:github");
}

#[tokio::test]
async fn a_message_that_cannot_be_handled_ends() {
    let mut node = Node::start(&Arc::default(), |_| Err(HandlerError::give_up("no such account")), 0);
    let received = node.receive("m1", "{}").await.unwrap();
    node.call().await;
    assert_eq!(node.ended(&received).await, (DeliveryState::Exhausted, Some(Reason::Gone), 1));

    let mut node = Node::start(&Arc::default(), |_| Err(HandlerError::retry("never")), 0);
    let received = node.receive("m1", "{}").await.unwrap();
    node.call().await;
    assert_eq!(node.ended(&received).await, (DeliveryState::Exhausted, Some(Reason::AttemptsExhausted), 3));
}

#[tokio::test]
async fn a_handler_that_hangs_is_given_up_and_called_again() {
    let mut node = Node::start(&Arc::default(), |_| Ok(()), 1);
    let received = node.receive("m1", "{}").await.unwrap();
    assert_eq!(node.call().await.attempt, 1);
    assert_eq!(node.call().await.attempt, 2);
    assert_eq!(node.ended(&received).await, (DeliveryState::Delivered, None, 2));
}

#[tokio::test]
async fn a_crash_in_the_middle_of_handling_loses_nothing() {
    let store = Arc::new(MemoryStore::new());
    let mut first = Node::start(&store, |_| Ok(()), 1);
    let received = first.receive("m1", "{}").await.unwrap();
    first.call().await;
    // Like a process that dies: nothing is released.
    first.running.abort();
    drop(first.webhooks);
    let mut second = Node::start(&store, |_| Ok(()), 0);
    assert_eq!(second.call().await.id, received.id);
    assert_eq!(second.ended(&received).await.0, DeliveryState::Delivered);
}

#[tokio::test]
async fn what_nobody_here_handles_waits_unspent_for_somebody_who_does() {
    let store = Arc::new(MemoryStore::new());
    let tenant = TenantId::default();
    let without = Webhooks::builder(Arc::clone(&store) as Arc<dyn Store>).build().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (webhooks, shutdown) = (without.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    let message = ReceivedMessage::new("{}").with_message_id("m1");
    let received = without.receive(&tenant, &source(), message).await.unwrap();
    let delivery = received.delivery.unwrap();
    let view = loop {
        let view = without.delivery(&tenant, delivery).await.unwrap();
        // It was claimed, and put off for a minute.
        if view.next_attempt_at.is_some_and(|next| next.since(received.created_at) > Duration::from_secs(30)) {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((view.delivery.state, view.delivery.attempts), (DeliveryState::Pending, 0));
    shutdown.cancel();
    running.await.unwrap();

    let mut node = Node::start(&store, |_| Ok(()), 0);
    node.webhooks.retry(&tenant, delivery).await.unwrap();
    assert_eq!(node.call().await.id, received.id);
    node.shutdown.cancel();
    node.running.await.unwrap();
}
