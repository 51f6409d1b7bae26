//! The engine on a queue that works, fails, hangs and comes back. Time is virtual.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;
use webhook_core::testing::PausedClock;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AddressGuard, Hint, MemoryQueue, MemoryStore, NewEvent, Options, Queue, QueueError, RateLimit, Role,
    SubscriptionDraft, TenantId, Timestamp, Webhooks,
};

/// What a queue does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Works,
    Fails,
    Hangs,
    /// It gives what it has and takes nothing.
    TakesNothing,
}

#[derive(Debug)]
struct MoodyQueue {
    mood: watch::Sender<Mood>,
    queue: MemoryQueue,
    /// How many hints were pushed to it, whatever came of it, and how many it gave.
    pushed: watch::Sender<usize>,
    popped: watch::Sender<usize>,
}

impl MoodyQueue {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: watch::Sender::new(mood),
            queue: MemoryQueue::new(),
            pushed: watch::Sender::default(),
            popped: watch::Sender::default(),
        })
    }

    fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    async fn pass(&self) -> Result<Mood, QueueError> {
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
        if mood == Mood::Fails { Err(QueueError::Unavailable("it is away".into())) } else { Ok(mood) }
    }

    async fn take(&self) -> Result<(), QueueError> {
        match self.pass().await? {
            Mood::TakesNothing => Err(QueueError::Unavailable("it is read-only".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Queue for MoodyQueue {
    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError> {
        self.pushed.send_modify(|pushed| *pushed += hints.len());
        self.take().await?;
        self.queue.push(hints).await
    }

    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError> {
        self.pass().await?;
        let hints = self.queue.pop(now, hold_until, limit).await?;
        self.popped.send_modify(|popped| *popped += hints.len());
        Ok(hints)
    }

    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError> {
        self.take().await?;
        self.queue.done(hints).await
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        self.pass().await?;
        self.queue.depth().await
    }
}

struct Engine {
    webhooks: Webhooks,
    transport: RecordingTransport,
    shutdown: CancellationToken,
    sent: usize,
}

impl Engine {
    /// With one subscription whose deliveries are never leased when they are accepted: it has a rate limit.
    async fn start(queue: Arc<MoodyQueue>) -> Self {
        let mut options = Options::default();
        options.poll_interval = Duration::from_secs(3600);
        let engine = Self::start_with(queue, options);
        let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
        draft.settings.rate_limit = Some(RateLimit::per_second(100_000.0).unwrap());
        engine.webhooks.subscribe(&TenantId::default(), draft).await.unwrap();
        engine
    }

    fn start_with(queue: Arc<MoodyQueue>, options: Options) -> Self {
        Self::start_over(queue, options, RecordingTransport::new())
    }

    fn start_over(queue: Arc<MoodyQueue>, options: Options, transport: RecordingTransport) -> Self {
        let webhooks = Webhooks::builder(Arc::new(MemoryStore::new()))
            .queue(queue)
            .clock(Arc::new(PausedClock::new(Timestamp::from_millis(1_700_000_000_000))))
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .transport(Arc::new(transport.clone()))
            .options(options)
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let (running, stop) = (webhooks.clone(), shutdown.clone());
        tokio::spawn(async move { running.run(Role::Worker, stop).await });
        Self { webhooks, transport, shutdown, sent: 0 }
    }

    async fn emit(&self) {
        let event = NewEvent::new("a.b".parse().unwrap(), "{}");
        self.webhooks.emit(&TenantId::default(), event).await.unwrap();
    }

    /// How long an event takes to arrive.
    async fn latency(&mut self) -> Duration {
        let start = Instant::now();
        self.emit().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "accepting does not wait for the queue");
        self.sent += 1;
        let arrived = self.transport.wait_for(self.sent);
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("it arrives");
        start.elapsed()
    }

    async fn until_queue(&self, answers: bool) {
        for _ in 0..6_000 {
            if self.webhooks.check_queue().await.unwrap().is_ok() == answers {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it stays as it is");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The lines of the log that are not there every time.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn record(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        tracing::subscriber::set_default(subscriber)
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

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn hints_bring_deliveries_at_once() {
    let queue = MoodyQueue::new(Mood::Works);
    let mut engine = Engine::start(Arc::clone(&queue)).await;
    for _ in 0..20 {
        assert!(engine.latency().await < AT_ONCE);
    }
    assert!(*queue.popped.borrow() >= 15, "they came by their hints: {:?}", queue.popped);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_delays_a_few_deliveries_and_no_more() {
    let queue = MoodyQueue::new(Mood::Hangs);
    let mut engine = Engine::start(queue).await;
    let mut slow = 0;
    for _ in 0..50 {
        let latency = engine.latency().await;
        assert!(latency < Duration::from_secs(3), "{latency:?}");
        slow += usize::from(latency > AT_ONCE);
    }
    assert!(slow <= 2, "{slow} were slow");
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_used_again_when_it_has_worked_for_a_while_and_each_change_is_one_line() {
    let log = Log::default();
    let _recording = log.record();
    let queue = MoodyQueue::new(Mood::Works);
    let mut engine = Engine::start(Arc::clone(&queue)).await;
    assert!(engine.latency().await < AT_ONCE);

    queue.turn(Mood::Fails);
    for _ in 0..20 {
        assert!(engine.latency().await < AT_ONCE, "the store is asked instead");
    }
    engine.until_queue(false).await;
    let popped = *queue.popped.borrow();
    // It works for a moment now and then, which is not enough.
    for _ in 0..50 {
        queue.turn(Mood::Works);
        tokio::time::sleep(Duration::from_millis(400)).await;
        queue.turn(Mood::Fails);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(engine.webhooks.check_queue().await.unwrap().is_err());
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("the queue does not answer"), "{lines:?}");

    queue.turn(Mood::Works);
    engine.until_queue(true).await;
    for _ in 0..20 {
        assert!(engine.latency().await < AT_ONCE);
    }
    assert!(*queue.popped.borrow() > popped + 10, "they come by their hints again");
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("INFO") && lines[1].contains("the queue answers again"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_takes_nothing_counts_as_away_however_well_it_answers() {
    let queue = MoodyQueue::new(Mood::TakesNothing);
    let mut engine = Engine::start(Arc::clone(&queue)).await;
    for _ in 0..5 {
        assert!(engine.latency().await < AT_ONCE);
    }
    engine.until_queue(false).await;
    for _ in 0..600 {
        tokio::time::sleep(AT_ONCE).await;
        assert!(engine.webhooks.check_queue().await.unwrap().is_err());
    }
    queue.turn(Mood::Works);
    engine.until_queue(true).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_while_the_queue_was_away_is_not_forgotten_when_it_is_back() {
    let queue = MoodyQueue::new(Mood::Works);
    let mut engine = Engine::start(Arc::clone(&queue)).await;
    engine.latency().await;
    engine.transport.hang();
    queue.turn(Mood::Fails);
    for _ in 0..2_000 {
        engine.emit().await;
    }
    engine.until_queue(false).await;
    queue.turn(Mood::Works);
    engine.until_queue(true).await;
    let start = Instant::now();
    engine.transport.resume();
    let arrived = engine.transport.wait_for(2_001);
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("all of them arrive");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_target_has_no_room_for_follows_as_soon_as_it_has() {
    let mut options = Options::default();
    options.poll_interval = Duration::from_secs(3600);
    let engine = Engine::start_with(MoodyQueue::new(Mood::Works), options);
    let mut draft = SubscriptionDraft::new("http://127.0.0.1:9/");
    draft.settings.max_in_flight = Some(1);
    engine.webhooks.subscribe(&TenantId::default(), draft).await.unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        engine.emit().await;
    }
    let arrived = engine.transport.wait_for(100);
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("all of them arrive");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_target_with_little_room_gets_its_share_while_others_keep_the_queue_full() {
    let mut options = Options::default();
    options.concurrency = 16;
    let answer = Duration::from_millis(20);
    let engine =
        Engine::start_over(MoodyQueue::new(Mood::Works), options, RecordingTransport::new().with_delay(answer));
    for (path, events, cap) in [("narrow", "narrow", 1), ("wide", "wide", 16)] {
        let draft = SubscriptionDraft::new(format!("http://127.0.0.1:9/{path}"));
        let mut draft = draft.with_events([events]).unwrap();
        draft.settings.max_in_flight = Some(cap);
        engine.webhooks.subscribe(&TenantId::default(), draft).await.unwrap();
    }
    let events = |event_type: &str, count: usize| {
        (0..count).map(|_| NewEvent::new(event_type.parse().unwrap(), "{}")).collect::<Vec<_>>()
    };
    for batch in [events("narrow", 40), events("wide", 3_000)] {
        engine.webhooks.emit_batch(&TenantId::default(), batch, None).await.unwrap();
    }
    let all = engine.transport.wait_for(3_040);
    let requests = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all of them arrive");
    let last = requests.iter().rposition(|request| request.url.path() == "/narrow").unwrap();
    assert!(last < 2_000, "the last one of 40 came as number {last}");
}

#[tokio::test(start_paused = true)]
async fn hints_that_pile_up_before_a_hanging_queue_are_bounded() {
    let queue = MoodyQueue::new(Mood::Hangs);
    let engine = Engine::start_with(Arc::clone(&queue), Options::default());
    engine.shutdown.cancel();
    let tenant = TenantId::default();
    for _ in 0..1_000 {
        engine.webhooks.subscribe(&tenant, SubscriptionDraft::new("http://127.0.0.1:9/")).await.unwrap();
    }
    // Virtual time stands still while there is something to do: no deadline passes.
    for _ in 0..200 {
        engine.emit().await;
    }
    queue.turn(Mood::Works);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pushed = *queue.pushed.borrow();
    assert!((50_000..=52_000).contains(&pushed), "{pushed} of 200,000");
}
