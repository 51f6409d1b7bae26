//! Leases, and nodes that share a store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use webhook_core::store::{DeliveryFilter, PageRequest};
use webhook_core::testing::PausedClock;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AddressGuard, Clock, DeliveryId, DeliveryState, MemoryStore, NewEvent, Options, OutboundResponse, RetrySchedule,
    Role, Store, StoreError, SubscriptionDraft, SubscriptionId, SystemClock, TenantId, Webhooks,
};

/// A node: an engine of its own on a store that it shares.
struct Node {
    webhooks: Webhooks,
    transport: RecordingTransport,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    fn new(store: &Arc<MemoryStore>, status: u16) -> Self {
        let mut options = Options::default();
        options.timeout = Duration::from_millis(50);
        options.max_timeout = Duration::from_millis(100);
        options.lease_margin = Duration::from_millis(100);
        options.poll_interval = Duration::from_millis(20);
        let transport =
            RecordingTransport::new().answering(move |_| Ok(OutboundResponse::new(status.try_into().unwrap())));
        let webhooks = Webhooks::builder(Arc::clone(store) as Arc<dyn Store>)
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .retry(Arc::new(RetrySchedule::new([Duration::from_millis(10)]).unwrap()))
            .transport(Arc::new(transport.clone()))
            .options(options)
            .build()
            .unwrap();
        Self { webhooks, transport, shutdown: CancellationToken::new(), running: None }
    }

    fn run(&mut self) {
        let (webhooks, shutdown) = (self.webhooks.clone(), self.shutdown.clone());
        self.running = Some(tokio::spawn(async move { webhooks.run(Role::Worker, shutdown).await }));
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        self.running.take().unwrap().await.unwrap();
    }

    /// Waits for the first attempt.
    async fn attempted(&self) {
        let deadline = Duration::from_secs(20);
        tokio::time::timeout(deadline, self.transport.wait_for(1)).await.expect("an attempt");
    }

    async fn emit(&self) -> webhook_core::Emitted {
        let event = NewEvent::new("a.b".parse().unwrap(), "{}");
        self.webhooks.emit(&TenantId::default(), event).await.unwrap()
    }
}

#[tokio::test]
async fn a_result_that_comes_after_its_lease_was_lost_changes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let tenant = TenantId::default();
    let (mut paused, mut other) = (Node::new(&store, 500), Node::new(&store, 200));
    paused.webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    paused.transport.hang();
    paused.run();
    let delivery = paused.emit().await.delivery.unwrap();
    paused.attempted().await;
    // From here on it claims no more, like a process that is stopped.
    paused.shutdown.cancel();

    other.run();
    other.attempted().await;
    other.stop().await;
    let before = other.webhooks.delivery(&tenant, delivery).await.unwrap().delivery;
    assert_eq!((before.state, before.attempts, before.lost_leases), (DeliveryState::Delivered, 1, 1));

    paused.transport.resume();
    paused.stop().await;
    assert_eq!(other.webhooks.delivery(&tenant, delivery).await.unwrap().delivery, before);
    assert_eq!(other.webhooks.attempts_of(&tenant, delivery).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_goes_to_the_subscriptions_of_its_commit_whatever_node_changed_them() {
    let store = Arc::new(MemoryStore::new());
    let tenant = TenantId::default();
    let (one, other) = (Node::new(&store, 200), Node::new(&store, 200));
    assert_eq!(one.emit().await.deliveries, 0, "now it knows that there are none");
    let draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    let added = other.webhooks.subscribe(&tenant, draft.clone()).await.unwrap();
    assert_eq!(one.emit().await.deliveries, 1, "added by another node");
    let mut disabled = draft;
    disabled.enabled = false;
    let id = added.subscription.id;
    other.webhooks.replace_subscription(&tenant, id, disabled, None).await.unwrap();
    assert_eq!(one.emit().await.deliveries, 0, "disabled by another node");
}

#[tokio::test]
async fn attempts_that_outlast_the_grace_are_given_up_and_their_leases_released() {
    let store = Arc::new(MemoryStore::new());
    let tenant = TenantId::default();
    let mut node = Node::new(&store, 200);
    let mut options = node.webhooks.options().clone();
    options.grace = Duration::from_millis(50);
    options.max_timeout = Duration::from_secs(30);
    let transport = node.transport.clone();
    node.webhooks = Webhooks::builder(Arc::clone(&store) as Arc<dyn Store>)
        .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
        .transport(Arc::new(transport))
        .options(options)
        .build()
        .unwrap();
    node.webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    node.transport.hang();
    node.run();
    let delivery = node.emit().await.delivery.unwrap();
    node.attempted().await;
    node.stop().await;
    let left = node.webhooks.delivery(&tenant, delivery).await.unwrap();
    assert!(!left.in_flight, "the lease is not left to run out");
    assert_eq!(
        (left.delivery.state, left.delivery.attempts, left.delivery.lost_leases),
        (DeliveryState::Pending, 0, 0)
    );
}

/// A worker with all slots busy at one target that hangs, and two more deliveries that wait in it for a slot.
struct Busy {
    transport: RecordingTransport,
    other: Webhooks,
    subscription: SubscriptionId,
    deliveries: Vec<DeliveryId>,
}

impl Busy {
    const SLOTS: usize = 4;
    const WAITING: usize = 2;

    /// The target answers the first request with 200, and from then on as `later` says.
    async fn new(later: fn() -> OutboundResponse) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let first = AtomicBool::new(true);
        let transport = RecordingTransport::new().answering(move |_| {
            let first = first.swap(false, Ordering::SeqCst);
            Ok(if first { OutboundResponse::new(200.try_into().unwrap()) } else { later() })
        });
        let clock: Arc<dyn Clock> = Arc::new(PausedClock::new(SystemClock.now()));
        let engine = || {
            let mut options = Options::default();
            options.concurrency = Self::SLOTS;
            Webhooks::builder(Arc::clone(&store))
                .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
                .transport(Arc::new(transport.clone()))
                .clock(Arc::clone(&clock))
                .options(options)
                .build()
                .unwrap()
        };
        let (worker, other) = (engine(), engine());
        let tenant = TenantId::default();
        let draft = SubscriptionDraft::new("http://127.0.0.1:9/");
        let subscription = other.subscribe(&tenant, draft).await.unwrap().subscription.id;
        tokio::spawn(async move { worker.run(Role::Worker, CancellationToken::new()).await });
        let event = || NewEvent::new("a.b".parse().unwrap(), "{}");
        // A target that has answered at once may have all slots.
        other.emit(&tenant, event()).await.unwrap();
        transport.wait_for(1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        transport.hang();
        let mut deliveries = Vec::new();
        for _ in 0..Self::SLOTS + Self::WAITING {
            deliveries.push(other.emit(&tenant, event()).await.unwrap().delivery.unwrap());
        }
        transport.wait_for(1 + Self::SLOTS).await;
        let busy = Self { transport, other, subscription, deliveries };
        busy.leased(Self::SLOTS + Self::WAITING).await;
        busy
    }

    /// Waits until so many are leased.
    async fn leased(&self, wanted: usize) {
        let all = async || {
            let mut leased = 0;
            for delivery in &self.deliveries {
                leased += usize::from(self.other.delivery(&TenantId::default(), *delivery).await.unwrap().in_flight);
            }
            leased
        };
        let reached = async {
            while all().await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("so many are leased");
    }

    /// Lets the target answer what is under way, a while later; all that waited is back then.
    async fn answered(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.transport.resume();
        self.leased(0).await;
        assert_eq!(self.transport.requests().len(), 1 + Self::SLOTS, "only what was under way");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_process_while_its_subscription_is_disabled_is_not_sent() {
    let busy = Busy::new(|| OutboundResponse::new(200.try_into().unwrap())).await;
    let tenant = TenantId::default();
    let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    draft.enabled = false;
    busy.other.replace_subscription(&tenant, busy.subscription, draft.clone(), None).await.unwrap();
    busy.answered().await;

    draft.enabled = true;
    busy.other.replace_subscription(&tenant, busy.subscription, draft, None).await.unwrap();
    let all = busy.transport.wait_for(1 + Busy::SLOTS + Busy::WAITING);
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("nothing of it is lost");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_process_for_a_target_that_asks_for_a_pause_spends_no_attempt() {
    let later = || {
        let mut answer = OutboundResponse::new(503.try_into().unwrap());
        answer.headers.insert("retry-after", "600".parse().unwrap());
        answer
    };
    let busy = Busy::new(later).await;
    busy.answered().await;
    let mut unspent = 0;
    for delivery in &busy.deliveries {
        let view = busy.other.delivery(&TenantId::default(), *delivery).await.unwrap();
        unspent += usize::from(view.delivery.attempts == 0 && view.delivery.lost_leases == 0);
    }
    assert_eq!(unspent, Busy::WAITING);
}

/// A store that answers nothing any more from some moment on.
#[derive(Debug)]
struct SilentStore {
    inner: Arc<MemoryStore>,
    silent: Arc<AtomicBool>,
}

impl SilentStore {
    async fn around<T>(
        &self,
        _: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.silent.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        call.await
    }
}

webhook_core::wrap_store!(SilentStore);

/// Found by chaos: connections that the network had forgotten kept a server from ending.
#[tokio::test(start_paused = true)]
async fn a_store_that_answers_nothing_keeps_no_process_from_ending() {
    for hangs_in_flight in [false, true] {
        let silent = Arc::new(AtomicBool::new(false));
        let store = SilentStore { inner: Arc::default(), silent: Arc::clone(&silent) };
        let transport = RecordingTransport::new();
        let webhooks = Webhooks::builder(Arc::new(store))
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .transport(Arc::new(transport.clone()))
            .build()
            .unwrap();
        let tenant = TenantId::default();
        webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
        let shutdown = CancellationToken::new();
        let (running, stop) = (webhooks.clone(), shutdown.clone());
        let running = tokio::spawn(async move { running.run(Role::Worker, stop).await });
        if hangs_in_flight {
            transport.hang();
            webhooks.emit(&tenant, NewEvent::new("a.b".parse().unwrap(), "{}")).await.unwrap();
            transport.wait_for(1).await;
        }
        silent.store(true, Ordering::SeqCst);
        // A claim is under way then, and the answer to one attempt is about to be recorded.
        tokio::time::sleep(Duration::from_secs(3)).await;
        transport.resume();
        let asked = tokio::time::Instant::now();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(3600), running).await.expect("it ends").unwrap();
        let bound = webhooks.options().grace + Duration::from_secs(15);
        assert!(asked.elapsed() <= bound, "{:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_never_answered_hold_up_nothing_for_ever() {
    let silent = Arc::new(AtomicBool::new(false));
    let store = SilentStore { inner: Arc::default(), silent: Arc::clone(&silent) };
    let transport = RecordingTransport::new();
    let webhooks = Webhooks::builder(Arc::new(store))
        .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
        .transport(Arc::new(transport.clone()))
        .build()
        .unwrap();
    let tenant = TenantId::default();
    webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    let event = || NewEvent::new("a.b".parse().unwrap(), "{}");
    webhooks.emit(&tenant, event()).await.unwrap();
    let running = webhooks.clone();
    tokio::spawn(async move { running.run(Role::Worker, CancellationToken::new()).await });
    transport.wait_for(1).await;

    silent.store(true, Ordering::SeqCst);
    let lost = tokio::time::timeout(Duration::from_secs(60), webhooks.emit(&tenant, event())).await;
    assert!(lost.expect("it is answered").unwrap_err().is_retryable());
    silent.store(false, Ordering::SeqCst);
    // The claim that hung is given up too, and the next ones work.
    let emitted = webhooks.emit(&tenant, event()).await.unwrap();
    let delivered = async {
        loop {
            let view = webhooks.delivery(&tenant, emitted.delivery.unwrap()).await.unwrap();
            if view.delivery.state == DeliveryState::Delivered {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), delivered).await.expect("it is delivered");
}

/// A store whose next claim is followed by somebody disabling a subscription.
#[derive(Debug)]
struct DisablingStore {
    inner: Arc<MemoryStore>,
    next: Arc<Mutex<Option<(Webhooks, SubscriptionId)>>>,
}

impl DisablingStore {
    async fn around<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let result = call.await;
        let next = if name == "claim" { self.next.lock().unwrap().take() } else { None };
        if let Some((webhooks, id)) = next {
            let mut disabled = SubscriptionDraft::new("http://127.0.0.1:9/");
            disabled.enabled = false;
            webhooks.replace_subscription(&TenantId::default(), id, disabled, None).await.unwrap();
        }
        result
    }
}

webhook_core::wrap_store!(DisablingStore);

#[tokio::test]
async fn what_was_claimed_right_before_its_subscription_was_disabled_is_not_sent() {
    let (inner, next) = (Arc::new(MemoryStore::new()), Arc::new(Mutex::new(None)));
    let other = Node::new(&inner, 200);
    let tenant = TenantId::default();
    let draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    let id = other.webhooks.subscribe(&tenant, draft).await.unwrap().subscription.id;
    let delivery = other.emit().await.delivery.unwrap();
    *next.lock().unwrap() = Some((other.webhooks.clone(), id));

    let transport = RecordingTransport::new();
    let store = DisablingStore { inner: Arc::clone(&inner), next: Arc::clone(&next) };
    let worker = Webhooks::builder(Arc::new(store))
        .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
        .transport(Arc::new(transport.clone()))
        .build()
        .unwrap();
    let (running, shutdown) = (worker.clone(), CancellationToken::new());
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { running.run(Role::Worker, stop).await });
    let held = async {
        while next.lock().unwrap().is_some() || worker.delivery(&tenant, delivery).await.unwrap().in_flight {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held).await.expect("the lease is given back");
    shutdown.cancel();
    running.await.unwrap();
    let left = worker.delivery(&tenant, delivery).await.unwrap().delivery;
    assert_eq!((transport.requests().len(), left.state, left.attempts), (0, DeliveryState::Pending, 0));
}

/// A store that fails a method, or in which somebody subscribes right before every accept of the first second.
#[derive(Debug)]
struct RestlessStore {
    inner: Arc<MemoryStore>,
    began: tokio::time::Instant,
    fails: Arc<Mutex<Option<&'static str>>>,
    others: Webhooks,
}

impl RestlessStore {
    fn new(inner: &Arc<MemoryStore>) -> (Self, Arc<Mutex<Option<&'static str>>>) {
        let fails = Arc::default();
        let others = Node::new(inner, 200).webhooks.clone();
        let began = tokio::time::Instant::now();
        (Self { inner: Arc::clone(inner), began, fails: Arc::clone(&fails), others }, fails)
    }

    async fn around<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if *self.fails.lock().unwrap() == Some(name) {
            return Err(StoreError::Unavailable("away for a moment".into()));
        }
        if name == "accept" && self.began.elapsed() < Duration::from_secs(1) {
            let draft = SubscriptionDraft::new("http://127.0.0.1:9/");
            self.others.subscribe(&TenantId::default(), draft).await.unwrap();
        }
        call.await
    }
}

webhook_core::wrap_store!(RestlessStore);

fn on(store: RestlessStore) -> Webhooks {
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap());
    Webhooks::builder(Arc::new(store)).guard(guard).transport(Arc::new(RecordingTransport::new())).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_outlasts_a_second_in_which_subscriptions_change_all_the_time() {
    let inner = Arc::new(MemoryStore::new());
    let webhooks = on(RestlessStore::new(&inner).0);
    let event = NewEvent::new("order.created".parse().unwrap(), "{}");
    let emitted = webhooks.emit(&TenantId::default(), event).await.unwrap();
    assert!(emitted.deliveries > 4, "it reaches those who came meanwhile: {emitted:?}");
}

#[tokio::test]
async fn a_retry_that_is_done_is_said_to_be_though_the_store_is_away_afterwards() {
    let inner = Arc::new(MemoryStore::new());
    let (store, fails) = RestlessStore::new(&inner);
    let (webhooks, tenant) = (on(store), TenantId::default());
    webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    let event = NewEvent::new("order.created".parse().unwrap(), "{}");
    webhooks.emit(&tenant, event).await.unwrap();
    let page = webhooks.deliveries(&tenant, &DeliveryFilter::default(), PageRequest::newest(1)).await.unwrap();
    let delivery = page.items[0].delivery.id;
    webhooks.cancel(&tenant, delivery).await.unwrap();
    *fails.lock().unwrap() = Some("delivery");
    webhooks.retry(&tenant, delivery).await.unwrap();
    *fails.lock().unwrap() = None;
    assert_eq!(webhooks.delivery(&tenant, delivery).await.unwrap().delivery.state, DeliveryState::Pending);
}
