use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use webhook_core::store::{DeliveryFilter, EventFilter, PageRequest};
use webhook_core::{
    AddressGuard, Conflict, DeliveryState, DirectTarget, Error, EventId, EventStatus, Hint, MemoryQueue, MemoryStore,
    NewEvent, Options, Queue, QueueError, Reason, RetrySchedule, Role, StandardSigner, SubscriptionDraft, TenantId,
    Timestamp, Webhooks,
};

use crate::receiver::{Answer, Received, Receiver};

/// An engine that runs until it is dropped.
struct Engine {
    webhooks: Webhooks,
    tenant: TenantId,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Engine {
    fn start(delays: &[u64]) -> Self {
        Self::start_with(delays, Options::default(), None)
    }

    fn start_with(delays: &[u64], options: Options, queue: Option<Arc<dyn Queue>>) -> Self {
        let delays = delays.iter().map(|millis| Duration::from_millis(*millis));
        let mut builder = Webhooks::builder(Arc::new(MemoryStore::new()))
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .retry(Arc::new(RetrySchedule::new(delays).unwrap()))
            .options(options);
        if let Some(queue) = queue {
            builder = builder.queue(queue);
        }
        let webhooks = builder.build().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (webhooks, shutdown) = (webhooks.clone(), shutdown.clone());
            async move { webhooks.run(Role::Worker, shutdown).await }
        });
        Self { webhooks, tenant: TenantId::default(), shutdown, running }
    }

    async fn emit(&self, payload: &'static str) -> EventId {
        let event = NewEvent::new("order.created".parse().unwrap(), payload);
        self.webhooks.emit(&self.tenant, event).await.unwrap().id
    }

    /// Waits until no delivery of the event is open.
    async fn settled(&self, event: EventId) -> EventStatus {
        for _ in 0..2000 {
            let (_, status, _) = self.webhooks.event_status(&self.tenant, event).await.unwrap();
            if status != EventStatus::Pending {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the event's deliveries did not end");
    }
}

fn always(status: u16) -> impl Fn(&Received, usize) -> Answer + Send + Sync + 'static {
    move |_, _| Answer::Status(status)
}

#[tokio::test]
async fn an_event_arrives_signed_byte_for_byte_at_every_matching_subscription() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(always(200)).await;
    let draft =
        |path: &str, patterns: &[&str]| SubscriptionDraft::new(receiver.url(path)).with_events(patterns).unwrap();
    let one = engine.webhooks.subscribe(&engine.tenant, draft("/one", &["order.*", "order.created"])).await.unwrap();
    engine.webhooks.subscribe(&engine.tenant, draft("/two", &["**"])).await.unwrap();
    engine.webhooks.subscribe(&engine.tenant, draft("/three", &["invoice.*"])).await.unwrap();

    let payload = r#"{"b": 1.0,  "a":"\u00e9"}"#;
    let event = engine.emit(payload).await;
    assert_eq!(engine.settled(event).await, EventStatus::Delivered);

    let mut seen = receiver.wait_for(2).await;
    seen.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(seen.iter().map(|request| request.path.as_str()).collect::<Vec<_>>(), ["/one", "/two"]);
    for request in &seen {
        assert_eq!(request.body, payload.as_bytes());
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("webhook-id"), event.to_string());
        assert_eq!(request.header("webhook-attempt"), "1");
        assert_eq!(request.header("x-event-type"), "order.created");
    }
    verify(&seen[0], one.secret.expose());
}

fn verify(request: &Received, secret: &str) {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, request.header(name).parse().unwrap());
    }
    let now = webhook_core::Clock::now(&webhook_core::SystemClock);
    webhook_core::verify_ingest(&webhook_core::Secret::new(secret), &headers, &request.body, now).unwrap();
}

#[tokio::test]
async fn a_failed_attempt_is_retried_with_the_same_id_and_a_fresh_signature() {
    let engine = Engine::start(&[50, 50, 50]);
    let receiver = Receiver::start(|_, count| Answer::Status(if count < 3 { 500 } else { 204 })).await;
    let draft = SubscriptionDraft::new(receiver.url("/"));
    engine.webhooks.subscribe(&engine.tenant, draft).await.unwrap();
    let event = engine.emit("{}").await;
    assert_eq!(engine.settled(event).await, EventStatus::Delivered);

    let seen = receiver.seen();
    let attempts: Vec<_> = seen.iter().map(|request| request.header("webhook-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(seen.iter().all(|request| request.header("webhook-id") == event.to_string()));
    let (_, _, deliveries) = engine.webhooks.event_status(&engine.tenant, event).await.unwrap();
    let log = engine.webhooks.attempts_of(&engine.tenant, deliveries[0].delivery.id).await.unwrap();
    assert_eq!(log.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(log.iter().map(|attempt| attempt.will_retry).collect::<Vec<_>>(), [true, true, false]);
    assert!(log.iter().all(|attempt| {
        attempt.request_headers.iter().any(|(name, value)| name == "webhook-signature" && value == "[redacted]")
    }));
}

#[tokio::test]
async fn the_policys_last_attempt_exhausts_the_delivery_and_a_retry_is_exactly_one_more() {
    let engine = Engine::start(&[10]);
    let receiver = Receiver::start(always(500)).await;
    engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let event = engine.emit("{}").await;
    assert_eq!(engine.settled(event).await, EventStatus::Failed);
    let (_, _, deliveries) = engine.webhooks.event_status(&engine.tenant, event).await.unwrap();
    let delivery = &deliveries[0].delivery;
    assert_eq!((delivery.state, delivery.reason), (DeliveryState::Exhausted, Some(Reason::AttemptsExhausted)));
    assert_eq!(delivery.attempts, 2);

    engine.webhooks.retry(&engine.tenant, delivery.id).await.unwrap();
    receiver.wait_for(3).await;
    assert_eq!(engine.settled(event).await, EventStatus::Failed);
    let after = engine.webhooks.delivery(&engine.tenant, delivery.id).await.unwrap().delivery;
    assert_eq!((after.state, after.reason, after.attempts), (delivery.state, delivery.reason, 3));
}

#[tokio::test]
async fn gone_ends_the_delivery_and_disables_the_subscription() {
    let engine = Engine::start(&[10]);
    let receiver = Receiver::start(always(410)).await;
    let new = engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let event = engine.emit("{}").await;
    assert_eq!(engine.settled(event).await, EventStatus::Failed);
    let (_, _, deliveries) = engine.webhooks.event_status(&engine.tenant, event).await.unwrap();
    assert_eq!(deliveries[0].delivery.reason, Some(Reason::Gone));
    let subscription = engine.webhooks.subscription(&engine.tenant, new.subscription.id).await.unwrap();
    assert_eq!(subscription.disabled, Some(webhook_core::DisabledReason::Gone));
    let next = engine.webhooks.emit(&engine.tenant, NewEvent::new("a".parse().unwrap(), "{}")).await.unwrap();
    assert_eq!(next.deliveries, 0, "a disabled subscription does not match");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(|_, _| Answer::With(302, "location: /elsewhere\r\n")).await;
    engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let event = engine.emit("{}").await;
    assert_eq!(engine.settled(event).await, EventStatus::Failed);
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn retry_after_holds_the_next_attempt_and_the_subscriptions_other_deliveries() {
    let engine = Engine::start(&[10, 10, 10]);
    let receiver = Receiver::start(|_, count| match count {
        1 => Answer::With(429, "retry-after: 1\r\n"),
        _ => Answer::Status(200),
    })
    .await;
    engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let first = engine.emit("1").await;
    let start = receiver.wait_for(1).await[0].at;
    // The pause is known when the attempt is recorded.
    for _ in 0..400 {
        let (_, _, deliveries) = engine.webhooks.event_status(&engine.tenant, first).await.unwrap();
        if deliveries[0].delivery.attempts == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let second = engine.emit("2").await;
    assert_eq!(engine.settled(first).await, EventStatus::Delivered);
    assert_eq!(engine.settled(second).await, EventStatus::Delivered);
    for request in &receiver.seen()[1..] {
        assert!(request.at - start >= Duration::from_millis(990), "after {:?}", request.at - start);
    }
}

#[tokio::test]
async fn the_same_key_gives_the_first_event_and_another_body_is_a_conflict() {
    let engine = Engine::start(&[]);
    let event = |payload: &'static str| NewEvent::new("a.b".parse().unwrap(), payload).with_key("mine");
    let first = engine.webhooks.emit(&engine.tenant, event("1")).await.unwrap();
    let again = engine.webhooks.emit(&engine.tenant, event("1")).await.unwrap();
    assert_eq!((again.id, again.duplicate, first.duplicate), (first.id, true, false));
    let other = engine.webhooks.emit(&engine.tenant, event("2")).await;
    assert!(matches!(other, Err(Error::Conflict(Conflict::KeyReused))));
}

#[tokio::test]
async fn a_hanging_endpoint_with_a_backlog_delays_nobody_else() {
    let mut options = Options::default();
    options.concurrency = 64;
    let engine = Engine::start_with(&[], options, None);
    let hanging = Receiver::start(|_, _| Answer::Never).await;
    let healthy = Receiver::start(always(200)).await;
    let draft = |url, pattern| SubscriptionDraft::new(url).with_events([pattern]).unwrap();
    engine.webhooks.subscribe(&engine.tenant, draft(hanging.url("/"), "hang.*")).await.unwrap();
    engine.webhooks.subscribe(&engine.tenant, draft(healthy.url("/"), "ok.*")).await.unwrap();
    let events = (0..10_000).map(|_| NewEvent::new("hang.now".parse().unwrap(), "{}")).collect::<Vec<_>>();
    for chunk in events.chunks(1000) {
        engine.webhooks.emit_batch(&engine.tenant, chunk.to_vec(), None).await.unwrap();
    }
    hanging.wait_for(1).await;
    let mut slowest = Duration::ZERO;
    for count in 1..=50 {
        let start = tokio::time::Instant::now();
        engine.webhooks.emit(&engine.tenant, NewEvent::new("ok.now".parse().unwrap(), "{}")).await.unwrap();
        healthy.wait_for(count).await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "the slowest took {slowest:?}");
    let pending = DeliveryFilter { state: Some(DeliveryState::Pending), ..DeliveryFilter::default() };
    let page = engine.webhooks.deliveries(&engine.tenant, &pending, PageRequest::offset(1, 0)).await.unwrap();
    assert!(page.total.unwrap() >= 9_000, "the backlog is still there");
}

#[tokio::test]
async fn a_thousand_events_to_ten_subscriptions_arrive_once_each() {
    for queue in [None, Some(Arc::new(MemoryQueue::new()) as Arc<dyn Queue>)] {
        let engine = Engine::start_with(&[], Options::default(), queue);
        let receiver = Receiver::start(always(200)).await;
        for number in 0..10 {
            let draft = SubscriptionDraft::new(receiver.url(&format!("/{number}")));
            engine.webhooks.subscribe(&engine.tenant, draft).await.unwrap();
        }
        let events = (0..1000).map(|_| NewEvent::new("a.b".parse().unwrap(), "{}")).collect();
        let emitted = engine.webhooks.emit_batch(&engine.tenant, events, None).await.unwrap();
        assert!(emitted.iter().all(|event| event.as_ref().unwrap().deliveries == 10));
        receiver.wait_for(10_000).await;
        engine.shutdown.cancel();
        engine.running.await.unwrap();
        let mut seen: Vec<_> =
            receiver.seen().iter().map(|r| (r.path.clone(), r.header("webhook-id").to_owned())).collect();
        assert_eq!(seen.len(), 10_000);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 10_000, "no delivery twice");
    }
}

#[tokio::test]
async fn shutdown_lets_what_is_in_flight_end_and_claims_no_more() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(|_, _| Answer::After(Duration::from_millis(200), 200)).await;
    engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let event = engine.emit("{}").await;
    receiver.wait_for(1).await;
    engine.shutdown.cancel();
    engine.running.await.unwrap();
    let (_, status, _) = engine.webhooks.event_status(&engine.tenant, event).await.unwrap();
    assert_eq!(status, EventStatus::Delivered);
    let late = engine.webhooks.emit(&engine.tenant, NewEvent::new("a".parse().unwrap(), "{}")).await.unwrap();
    assert_eq!(late.deliveries, 1, "emitting stays correct without a worker");
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn a_rate_limit_holds_and_spends_no_attempt() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(always(200)).await;
    let mut draft = SubscriptionDraft::new(receiver.url("/"));
    draft.settings.rate_limit = Some(webhook_core::RateLimit::per_second(20.0).unwrap().with_burst(5).unwrap());
    engine.webhooks.subscribe(&engine.tenant, draft).await.unwrap();
    let events = (0..30).map(|_| NewEvent::new("a.b".parse().unwrap(), "{}")).collect();
    engine.webhooks.emit_batch(&engine.tenant, events, None).await.unwrap();
    let seen = receiver.wait_for(30).await;
    for (index, first) in seen.iter().enumerate() {
        let within = seen[index..].iter().filter(|other| other.at - first.at < Duration::from_millis(900)).count();
        assert!(within <= 25, "{within} requests within a second");
    }
    assert!(seen.iter().all(|request| request.header("webhook-attempt") == "1"));
}

#[tokio::test]
async fn rotation_signs_with_both_secrets_until_the_grace_ends() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(always(200)).await;
    let new = engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    let id = new.subscription.id;
    let rotated = engine.webhooks.rotate_secret(&engine.tenant, id, None, Duration::from_secs(60)).await.unwrap();
    engine.emit("{}").await;
    let seen = receiver.wait_for(1).await;
    assert_eq!(seen[0].header("webhook-signature").split(' ').count(), 2);
    verify(&seen[0], new.secret.expose());
    verify(&seen[0], rotated.secret.expose());
    assert_eq!(new.subscription.settings.scheme, StandardSigner::SCHEME);

    // Who got no answer asks again with the same secret.
    let given = webhook_core::Secret::new(format!("whsec_{}", "A".repeat(32)));
    for _ in 0..2 {
        let grace = Duration::from_secs(60);
        engine.webhooks.rotate_secret(&engine.tenant, id, Some(given.clone()), grace).await.unwrap();
    }
    engine.emit("{}").await;
    let seen = receiver.wait_for(2).await;
    verify(&seen[1], rotated.secret.expose());
    verify(&seen[1], given.expose());
}

#[tokio::test]
async fn a_changed_subscription_is_obeyed_by_the_next_attempt() {
    let engine = Engine::start(&[]);
    let (old, new) = (Receiver::start(always(200)).await, Receiver::start(always(200)).await);
    let created = engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(old.url("/"))).await.unwrap();
    engine.emit("1").await;
    old.wait_for(1).await;
    let id = created.subscription.id;
    let moved = SubscriptionDraft::new(new.url("/"));
    engine.webhooks.replace_subscription(&engine.tenant, id, moved, None).await.unwrap();
    for _ in 0..5 {
        engine.emit("2").await;
    }
    new.wait_for(5).await;
    assert_eq!(old.seen().len(), 1);
}

/// A queue that loses every hint, or does not answer at all.
#[derive(Debug)]
struct BrokenQueue {
    answers: bool,
}

#[async_trait::async_trait]
impl Queue for BrokenQueue {
    async fn push(&self, _: &[Hint]) -> Result<(), QueueError> {
        self.answer(())
    }

    async fn pop(&self, _: Timestamp, _: Timestamp, _: u32) -> Result<Vec<Hint>, QueueError> {
        self.answer(Vec::new())
    }

    async fn done(&self, _: &[Hint]) -> Result<(), QueueError> {
        self.answer(())
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        self.answer(0)
    }
}

impl BrokenQueue {
    fn answer<T>(&self, answer: T) -> Result<T, QueueError> {
        if self.answers { Ok(answer) } else { Err(QueueError::Unavailable("it is away".into())) }
    }
}

#[tokio::test]
async fn a_queue_that_loses_all_hints_or_is_away_loses_no_delivery() {
    for answers in [true, false] {
        let engine = Engine::start_with(&[20], Options::default(), Some(Arc::new(BrokenQueue { answers })));
        let first = |request: &Received| request.header("webhook-attempt") == "1";
        let receiver = Receiver::start(move |request, _| Answer::Status(if first(request) { 500 } else { 200 })).await;
        engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
        let events = (0..100).map(|_| NewEvent::new("a.b".parse().unwrap(), "{}")).collect();
        let emitted = engine.webhooks.emit_batch(&engine.tenant, events, None).await.unwrap();
        for event in emitted {
            assert_eq!(engine.settled(event.unwrap().id).await, EventStatus::Delivered);
        }
    }
}

#[tokio::test]
async fn an_event_that_matches_too_many_subscriptions_is_refused_whole() {
    let mut options = Options::default();
    options.max_fan_out = 3;
    let engine = Engine::start_with(&[], options, None);
    let receiver = Receiver::start(always(200)).await;
    for number in 0..4 {
        let draft = SubscriptionDraft::new(receiver.url(&format!("/{number}")));
        engine.webhooks.subscribe(&engine.tenant, draft).await.unwrap();
    }
    let refused = engine.webhooks.emit(&engine.tenant, NewEvent::new("a.b".parse().unwrap(), "{}")).await;
    assert!(matches!(refused, Err(Error::FanOut { limit: 3 })), "{refused:?}");
    let events = engine.webhooks.events(&engine.tenant, &EventFilter::default(), PageRequest::newest(1)).await.unwrap();
    assert!(events.items.is_empty());
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_was_whatever_subscriptions_changed() {
    let mut options = Options::default();
    options.max_fan_out = 1;
    let engine = Engine::start_with(&[], options, None);
    let receiver = Receiver::start(always(200)).await;
    let webhooks = &engine.webhooks;
    let subscribe = async || {
        webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap().subscription.id
    };
    let event = |text: &'static str, id: Option<&str>, key: Option<&str>| {
        let mut event = NewEvent::new("a.b".parse().unwrap(), text);
        (event.key, event.idempotency_key) = (id.map(str::to_owned), key.map(str::to_owned));
        event
    };
    let by_id = async |text| webhooks.emit(&engine.tenant, event(text, Some("id"), None)).await;
    let by_key = async |text| webhooks.emit(&engine.tenant, event(text, None, Some("key"))).await;
    let batch = async |text| {
        let events = vec![event(text, None, None)];
        webhooks
            .emit_batch(&engine.tenant, events, Some("batch".to_owned()))
            .await
            .map(|mut all| all.remove(0).unwrap())
    };
    let first = subscribe().await;
    let direct = async || {
        let event = event("{}", None, Some("direct"));
        webhooks.emit_direct(&engine.tenant, event, DirectTarget::Subscription(first)).await
    };
    let before = [by_id("{}").await, by_key("{}").await, batch("{}").await, direct().await].map(Result::unwrap);
    // Now it matches more than it may, and the one that was named is gone.
    webhooks.unsubscribe(&engine.tenant, first).await.unwrap();
    subscribe().await;
    subscribe().await;
    let after = [by_id("{}").await, by_key("{}").await, batch("{}").await, direct().await].map(Result::unwrap);
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!((before.id, before.duplicate, after.duplicate), (after.id, false, true));
    }
    for reused in [by_id("1").await, by_key("1").await, batch("1").await] {
        assert!(matches!(reused, Err(Error::Conflict(Conflict::KeyReused))), "{reused:?}");
    }
    let new = webhooks.emit(&engine.tenant, event("{}", Some("other"), Some("other"))).await;
    assert!(matches!(new, Err(Error::FanOut { limit: 1 })), "{new:?}");
}

#[tokio::test]
async fn an_idle_engine_attempts_a_lone_event_at_once_and_a_retry_when_it_is_due() {
    let mut options = Options::default();
    options.poll_interval = Duration::from_secs(3600);
    let engine = Engine::start_with(&[200], options, None);
    let receiver = Receiver::start(|_, count| Answer::Status(if count == 1 { 500 } else { 200 })).await;
    engine.webhooks.subscribe(&engine.tenant, SubscriptionDraft::new(receiver.url("/"))).await.unwrap();
    engine.emit("{}").await;
    let seen = receiver.wait_for(2).await;
    let waited = seen[1].at - seen[0].at;
    assert!(waited >= Duration::from_millis(100), "not before it is due: {waited:?}");
}

#[tokio::test]
async fn many_hanging_endpoints_that_nobody_knew_delay_nobody_else() {
    let engine = Engine::start(&[]);
    let hanging = Receiver::start(|_, _| Answer::Never).await;
    let healthy = Receiver::start(always(200)).await;
    let draft = |url, pattern| SubscriptionDraft::new(url).with_events([pattern]).unwrap();
    for number in 0..60 {
        let url = hanging.url(&format!("/{number}"));
        engine.webhooks.subscribe(&engine.tenant, draft(url, "hang.*")).await.unwrap();
    }
    engine.webhooks.subscribe(&engine.tenant, draft(healthy.url("/"), "ok.*")).await.unwrap();
    let emit = async |event_type: &str| {
        engine.webhooks.emit(&engine.tenant, NewEvent::new(event_type.parse().unwrap(), "{}")).await.unwrap();
    };
    // It has answered before; those that hang have not.
    emit("ok.now").await;
    healthy.wait_for(1).await;
    for _ in 0..50 {
        emit("hang.now").await;
    }
    hanging.wait_for(200).await;
    let start = tokio::time::Instant::now();
    for count in 2..=20 {
        emit("ok.now").await;
        healthy.wait_for(count).await;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_scheme_with_one_signature_names_the_event_and_rotates_at_once() {
    let engine = Engine::start(&[]);
    let receiver = Receiver::start(always(200)).await;
    let draft = SubscriptionDraft::new(receiver.url("/")).with_scheme("x-hub-signature-256");
    let new = engine.webhooks.subscribe(&engine.tenant, draft).await.unwrap();
    let event = engine.emit("{}").await;
    let seen = receiver.wait_for(1).await;
    assert_eq!(seen[0].header("webhook-id"), event.to_string());
    assert!(seen[0].header("x-hub-signature-256").starts_with("sha256="));
    let id = new.subscription.id;
    let rotated = engine.webhooks.rotate_secret(&engine.tenant, id, None, Duration::from_secs(60)).await.unwrap();
    assert_eq!(rotated.previous, None, "it could not sign with both");
}
