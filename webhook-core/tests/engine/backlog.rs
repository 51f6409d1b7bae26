//! What was accepted before a worker ran.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AdHocTarget, AddressGuard, DeliveryState, DirectTarget, Keyring, MemoryStore, NewEvent, Options, RateLimit, Role,
    SubscriptionDraft, TenantId, Webhooks,
};

fn engine(options: Options) -> (Webhooks, RecordingTransport) {
    engine_on(Arc::new(MemoryStore::new()), Keyring::plain(), options)
}

fn engine_on(store: Arc<MemoryStore>, keyring: Keyring, options: Options) -> (Webhooks, RecordingTransport) {
    let transport = RecordingTransport::new();
    let webhooks = Webhooks::builder(store)
        .keyring(keyring)
        .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
        .transport(Arc::new(transport.clone()))
        .options(options)
        .build()
        .unwrap();
    (webhooks, transport)
}

fn run(webhooks: &Webhooks) -> CancellationToken {
    let (webhooks, shutdown) = (webhooks.clone(), CancellationToken::new());
    let stop = shutdown.clone();
    tokio::spawn(async move { webhooks.run(Role::Worker, stop).await });
    shutdown
}

async fn emit(webhooks: &Webhooks, count: usize, payload: &[u8]) {
    for _ in 0..count {
        let event = NewEvent::new("a.b".parse().unwrap(), payload.to_vec());
        webhooks.emit(&TenantId::default(), event).await.unwrap();
    }
}

async fn arrived(transport: &RecordingTransport, count: usize) {
    let all = transport.wait_for(count);
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("all of them arrive");
}

/// Waits until the worker has looked for deliveries so often.
async fn looked(webhooks: &Webhooks, times: usize) {
    for _ in 0..times {
        let before = webhooks.last_claim();
        while webhooks.last_claim() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn payloads_larger_than_the_budget_together_are_sent_one_after_the_other() {
    let mut options = Options::default();
    options.payload_budget = 3 << 20;
    let (webhooks, transport) = engine(options);
    webhooks.subscribe(&TenantId::default(), SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    emit(&webhooks, 40, &vec![b'x'; 1 << 20]).await;
    let _running = run(&webhooks);
    arrived(&transport, 40).await;
}

#[tokio::test]
async fn deliveries_to_one_host_keep_their_own_urls() {
    let (webhooks, transport) = engine(Options::default());
    for number in 0..10 {
        let target = DirectTarget::AdHoc(AdHocTarget::new(format!("http://127.0.0.1:9/{number}")));
        let event = NewEvent::untyped(number.to_string());
        webhooks.emit_direct(&TenantId::default(), event, target).await.unwrap();
    }
    let _running = run(&webhooks);
    arrived(&transport, 10).await;
    for request in transport.requests() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert_eq!(request.url.path(), format!("/{body}"));
    }
}

#[tokio::test]
async fn a_cap_of_one_attempt_at_once_holds_from_the_first_claim_on() {
    let mut options = Options::default();
    options.poll_interval = Duration::from_millis(10);
    let (webhooks, transport) = engine(options);
    let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    draft.settings.max_in_flight = Some(1);
    let tenant = TenantId::default();
    let id = webhooks.subscribe(&tenant, draft.clone()).await.unwrap().subscription.id;
    emit(&webhooks, 10, b"{}").await;
    transport.hang();
    let _running = run(&webhooks);
    arrived(&transport, 1).await;
    looked(&webhooks, 3).await;
    assert_eq!(transport.requests().len(), 1);

    draft.settings.max_in_flight = None;
    webhooks.replace_subscription(&tenant, id, draft, None).await.unwrap();
    transport.resume();
    arrived(&transport, 10).await;
}

#[tokio::test]
async fn what_exceeds_a_cap_follows_without_waiting_for_the_poll() {
    let mut options = Options::default();
    options.poll_interval = Duration::from_secs(3600);
    let (webhooks, transport) = engine(options);
    let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    draft.settings.max_in_flight = Some(1);
    webhooks.subscribe(&TenantId::default(), draft).await.unwrap();
    emit(&webhooks, 10, b"{}").await;
    transport.hang();
    let _running = run(&webhooks);
    arrived(&transport, 1).await;
    transport.resume();
    arrived(&transport, 10).await;
}

#[tokio::test]
async fn a_rate_limit_that_is_lifted_is_lifted_for_the_backlog_too() {
    let (webhooks, transport) = engine(Options::default());
    let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    draft.settings.rate_limit = Some(RateLimit::per_second(2.0).unwrap().with_burst(1).unwrap());
    let tenant = TenantId::default();
    let id = webhooks.subscribe(&tenant, draft.clone()).await.unwrap().subscription.id;
    emit(&webhooks, 100, b"{}").await;
    let _running = run(&webhooks);
    arrived(&transport, 2).await;
    draft.settings.rate_limit = None;
    webhooks.replace_subscription(&tenant, id, draft, None).await.unwrap();
    // At two a second the rest would take 49 seconds.
    arrived(&transport, 100).await;
}

#[tokio::test]
async fn deliveries_wait_unspent_while_the_key_of_their_secrets_is_missing() {
    let store = Arc::new(MemoryStore::new());
    let key = format!("one={}", "A".repeat(43) + "=");
    let keyring = Keyring::new([key.parse().unwrap()]).unwrap();
    let (keyed, _) = engine_on(Arc::clone(&store), keyring, Options::default());
    keyed.subscribe(&TenantId::default(), SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    let event = NewEvent::new("a.b".parse().unwrap(), "{}");
    let delivery = keyed.emit(&TenantId::default(), event).await.unwrap().delivery.unwrap();

    let mut options = Options::default();
    options.poll_interval = Duration::from_millis(5);
    let (keyless, transport) = engine_on(store, Keyring::plain(), options);
    let _running = run(&keyless);
    looked(&keyless, 5).await;
    let left = keyed.delivery(&TenantId::default(), delivery).await.unwrap().delivery;
    assert_eq!((left.state, left.attempts, left.lost_leases), (DeliveryState::Pending, 0, 0));
    assert!(left.next_at > keyed.now(), "it is looked at again later");
    assert!(transport.requests().is_empty());
}
