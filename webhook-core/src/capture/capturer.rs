//! Keeps requests: one transaction for all that come while the last one commits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::live::LivePaths;
use super::{CapturedRequest, CustomResponse, IncomingRequest, LivePath, PathId};
use crate::context::Context;
use crate::error::Noun;
use crate::store::{AcceptItem, CaptureOutcome, NewCapture, NewDelivery};
use crate::worker::Worker;
use crate::{
    CaptureId, DeliveryId, Error, Event, EventId, EventType, GroupCommit, Hint, PathKey, StoreError, Target, Timestamp,
    Webhooks,
};

/// One transaction weighs at most so much: a request counts one, so does an event, and so do 4 KiB of the body of each.
const BATCH_WEIGHT: usize = 4096;
/// How often a request is tried again while its path keeps changing.
const TRIES: usize = 16;

/// Why a request is refused although it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Its body is larger than the host reads, or than the path can forward: 413.
    TooLarge,
    /// Its body did not arrive in time: 408.
    TooSlow,
    /// Its body ended before it was complete: 400.
    Incomplete,
}

impl Refusal {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::TooSlow => 408,
            Self::Incomplete => 400,
        }
    }
}

/// A request that is stored, and what to answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Captured {
    /// Its id.
    pub id: CaptureId,
    /// When it had arrived.
    pub received_at: Timestamp,
    /// Why it is refused; then the path's own answer is not given.
    pub refusal: Option<Refusal>,
    /// The path's own answer; none is the default one.
    pub response: Option<Arc<CustomResponse>>,
}

impl Webhooks {
    /// The path of this name, of whatever tenant, before a request's body is read.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, or it has expired.
    pub async fn live_path(&self, path_id: &PathId) -> Result<Arc<LivePath>, Error> {
        self.capturer().live.get(self.context(), path_id).await
    }

    /// Keeps a request: when this returns, it is committed, together with the events that it becomes.
    ///
    /// Requests that come at the same time share a transaction. A refused one is kept as well, but not forwarded.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such path; [`Error::Invalid`] when the method, path, query or HTTP version has a
    /// NUL, which HTTP allows in none of them; after [`Error::Store`] it may be stored or not: answer that with 503.
    pub async fn capture(
        &self,
        path_id: &PathId,
        request: IncomingRequest,
        refusal: Option<Refusal>,
    ) -> Result<Captured, Error> {
        request.check()?;
        self.capturer().capture(path_id, request, refusal).await
    }
}

/// Keeps requests in batches, and tells who watches.
#[derive(Debug)]
pub(crate) struct Capturer {
    context: Arc<Context>,
    pub(super) live: LivePaths,
    pub(super) watchers: Arc<Watchers>,
    group: GroupCommit<Arrival, Result<Kept, StoreError>>,
}

#[derive(Debug)]
struct Arrival {
    path: Arc<LivePath>,
    request: IncomingRequest,
    refusal: Option<Refusal>,
    received_at: Timestamp,
}

/// How an arrival ended; what was not stored comes back.
#[derive(Debug)]
enum Kept {
    Stored(CaptureId),
    Changed(Box<IncomingRequest>),
    Missing(Box<IncomingRequest>),
}

impl Capturer {
    pub(crate) fn new(context: Arc<Context>, worker: Arc<Worker>) -> Self {
        let watchers = Arc::new(Watchers::default());
        let commit = Commit { context: Arc::clone(&context), worker, watchers: Arc::clone(&watchers) };
        let group = GroupCommit::new(BATCH_WEIGHT, move |arrivals| commit.clone().run(arrivals));
        Self { context, live: LivePaths::default(), watchers, group }
    }

    async fn capture(
        &self,
        path_id: &PathId,
        mut request: IncomingRequest,
        refusal: Option<Refusal>,
    ) -> Result<Captured, Error> {
        let received_at = self.context.now();
        let mut path = self.live.get(&self.context, path_id).await?;
        for _ in 0..TRIES {
            let refusal = refusal.or_else(|| self.refusal_of(&path, &request));
            // Its body is stored with it, and once more with each event.
            let copies = 1 + if refusal.is_none() { path.settings.forward_to.len() } else { 0 };
            let weight = copies * (1 + request.body.len() / 4096);
            let arrival = Arrival { path: Arc::clone(&path), request, refusal, received_at };
            let outcome = self.group.submit(arrival, weight).await;
            request = match outcome.map_err(|lost| StoreError::Unavailable(lost.into()))?? {
                Kept::Stored(id) => {
                    crate::metrics::captured();
                    return Ok(Captured { id, received_at, refusal, response: path.response.clone() });
                }
                Kept::Changed(request) | Kept::Missing(request) => *request,
            };
            // Deleted it may be, or its name given to another path, or it was changed: in this process or elsewhere.
            path = self.live.load(&self.context, path_id).await?;
        }
        let busy = std::io::Error::other("the path changes faster than requests can be kept");
        Err(StoreError::Unavailable(busy.into()).into())
    }

    /// A path that forwards refuses what it could not forward whole: its caller would not know otherwise.
    fn refusal_of(&self, path: &LivePath, request: &IncomingRequest) -> Option<Refusal> {
        let too_large = request.body_truncated || request.body.len() > self.context.options.max_payload;
        (!path.settings.forward_to.is_empty() && too_large).then_some(Refusal::TooLarge)
    }
}

#[derive(Clone, Debug)]
struct Commit {
    context: Arc<Context>,
    worker: Arc<Worker>,
    watchers: Arc<Watchers>,
}

impl Commit {
    async fn run(self, arrivals: Vec<Arrival>) -> Vec<Result<Kept, StoreError>> {
        // Ids are made here, where one batch follows the other, so that their order is that of the commits.
        let requests: Vec<_> = arrivals.into_iter().map(|arrival| self.new_capture(arrival)).collect();
        match self.context.in_time(self.context.store.capture(self.context.now(), &requests)).await {
            Ok(outcomes) => self.hand_over(requests, outcomes),
            Err(error) if requests.len() == 1 => vec![Err(error)],
            Err(error) if error.is_retryable() => {
                let text = error.to_string();
                requests.iter().map(|_| Err(StoreError::Unavailable(text.clone().into()))).collect()
            }
            // One bad request fails alone.
            Err(_) => {
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests {
                    let request = vec![request];
                    match self.context.in_time(self.context.store.capture(self.context.now(), &request)).await {
                        Ok(outcomes) => answers.extend(self.hand_over(request, outcomes)),
                        Err(error) => answers.push(Err(error)),
                    }
                }
                answers
            }
        }
    }

    fn new_capture(&self, arrival: Arrival) -> NewCapture {
        let Arrival { path, request, refusal, received_at } = arrival;
        let id = CaptureId::from_uuid(self.context.new_id());
        let forwards = match refusal {
            Some(_) => Vec::new(),
            None => path.settings.forward_to.iter().map(|to| self.event(&path, &request, *to)).collect(),
        };
        let mut captured = CapturedRequest::new(id, path.tenant.clone(), path.path_id.clone(), request, received_at);
        captured.response_status = match (refusal, &path.response) {
            (Some(refusal), _) => refusal.status(),
            (None, Some(response)) => response.status,
            (None, None) => 200,
        };
        NewCapture { path: path.key, version: path.version, request: captured, forwards }
    }

    /// The event that a request becomes for one subscription, as ingest would make it.
    fn event(&self, path: &LivePath, request: &IncomingRequest, subscription: crate::SubscriptionId) -> AcceptItem {
        let text = |name: &str| {
            let value = request.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value)?;
            std::str::from_utf8(value).ok()
        };
        let mut event = Event::new(EventId::from_uuid(self.context.new_id()), path.tenant.clone(), self.context.now());
        event.event_type = text("x-event-type").and_then(|text| text.parse::<EventType>().ok());
        let content_type = text("content-type").filter(|text| http::HeaderValue::try_from(*text).is_ok());
        event.content_type = content_type.unwrap_or("application/octet-stream").to_owned();
        event.payload = request.body.clone();
        // The store adds the request's id, which it may raise.
        event.metadata = Some(serde_json::json!({ "path_id": path.path_id.as_str(), "method": request.method }));
        event.direct = true;
        let delivery =
            NewDelivery::new(DeliveryId::from_uuid(self.context.new_id()), Target::Subscription(subscription));
        AcceptItem::new(event, vec![delivery])
    }

    /// Tells who watches, and says that there are deliveries.
    fn hand_over(&self, requests: Vec<NewCapture>, outcomes: Vec<CaptureOutcome>) -> Vec<Result<Kept, StoreError>> {
        let (mut answers, mut hints) = (Vec::with_capacity(requests.len()), Vec::new());
        for (new, outcome) in requests.into_iter().zip(outcomes) {
            answers.push(Ok(match outcome {
                CaptureOutcome::Stored(id) => {
                    self.watchers.notify(new.path);
                    for item in &new.forwards {
                        crate::metrics::accepted(item.deliveries.len());
                        let hint = |new: &NewDelivery| Hint::new(new.id, new.target.id(), item.event.created_at);
                        hints.extend(item.deliveries.iter().map(hint));
                    }
                    Kept::Stored(id)
                }
                CaptureOutcome::Changed => Kept::Changed(Box::new(new.request.request)),
                CaptureOutcome::Missing => Kept::Missing(Box::new(new.request.request)),
            }));
        }
        if !hints.is_empty() {
            self.worker.offer(hints);
        }
        answers
    }
}

/// Who wants to know of new requests, by path: only a wake-up, as what there is the store knows.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    paths: Mutex<HashMap<PathKey, watch::Sender<()>>>,
}

impl Watchers {
    pub(super) fn subscribe(&self, path: PathKey) -> watch::Receiver<()> {
        let mut paths = self.paths();
        // Whoever comes clears up behind those who went.
        paths.retain(|_, sender| sender.receiver_count() > 0);
        paths.entry(path).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    pub(super) fn notify(&self, path: PathKey) {
        if let Some(sender) = self.paths().get(&path) {
            sender.send_replace(());
        }
    }

    fn paths(&self) -> MutexGuard<'_, HashMap<PathKey, watch::Sender<()>>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capturer {
    /// A path changed or went in this process: what is known of it counts no more.
    pub(super) fn path_changed(&self, path_id: &PathId, key: PathKey) {
        self.live.forget(path_id);
        self.watchers.notify(key);
    }
}

/// There is no such path, or it belongs to another tenant.
pub(super) const fn no_path() -> Error {
    Error::NotFound(Noun::Path)
}
