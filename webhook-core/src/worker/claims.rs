//! The claim loop: asks for as many due deliveries as there are places and room.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::hints::Hints;
use crate::store::{ClaimRequest, Claimed, LeaseToken, Room};
use crate::{DeliveryId, Grant, Hint, RateLimit, StoreError, TargetId, Timestamp, TokenRequest};

/// Leases of one claim at most.
const CLAIM: usize = 256;
/// So many places are waited for while there is more to claim, and so long.
const HANDFUL: usize = 64;
const HANDFUL_WAIT: Duration = Duration::from_millis(5);
/// While a walk over the targets is under way, it goes on this often though nothing was found.
const WALK_INTERVAL: Duration = Duration::from_millis(100);
/// With a queue, the store is asked directly this often: what the queue has lost is found then.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the loop remembers from claim to claim.
#[derive(Debug)]
struct Progress {
    cursor: Option<TargetId>,
    /// The store is asked again then, whatever happens.
    poll_at: Timestamp,
    /// The last claim found something: there may be more.
    more: bool,
    /// With a queue: the store is asked directly then, for what has no hint.
    reconcile_at: Timestamp,
    /// With a queue: the store is known to have more that has no hint.
    behind: bool,
    /// The last claim asked the store, and not the queue.
    asked_store: bool,
    pause: Duration,
}

impl Worker {
    pub(super) async fn claim_until(&self, shutdown: &CancellationToken) {
        let start = self.context.now();
        let mut progress = Progress {
            cursor: None,
            poll_at: start,
            more: false,
            reconcile_at: start,
            behind: false,
            asked_store: false,
            pause: FIRST_PAUSE,
        };
        loop {
            let places = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                places = self.free_places(progress.more) => places,
            };
            let wait = match self.claim_once(places, &mut progress).await {
                Ok(wait) => {
                    if progress.pause != FIRST_PAUSE {
                        tracing::info!("the store answers again");
                        progress.pause = FIRST_PAUSE;
                    }
                    wait
                }
                Err(error) => {
                    if progress.pause == FIRST_PAUSE {
                        tracing::warn!(%error, "claiming failed; trying again until the store answers");
                    }
                    progress.pause = (progress.pause * 2).min(LONGEST_PAUSE);
                    Some(progress.pause)
                }
            };
            let Some(wait) = wait else { continue };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.alarm.changed(), if progress.pause == FIRST_PAUSE => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// All free places up to the size of a claim; waits for the first. While there is more to claim than places, it waits
    /// a moment for a handful: a claim for each place that frees up would be dear.
    async fn free_places(&self, more: bool) -> Vec<OwnedSemaphorePermit> {
        let mut places = Vec::new();
        if more {
            let handful = u32::try_from((self.context.options.concurrency / 8).clamp(1, HANDFUL)).unwrap_or(1);
            let waiting = Arc::clone(&self.places).acquire_many_owned(handful);
            if let Ok(Ok(mut permits)) = tokio::time::timeout(HANDFUL_WAIT, waiting).await {
                places.extend(std::iter::from_fn(|| permits.split(1)));
            }
        }
        if places.is_empty()
            && let Ok(first) = Arc::clone(&self.places).acquire_owned().await
        {
            places.push(first);
        }
        while places.len() < CLAIM
            && let Ok(next) = Arc::clone(&self.places).try_acquire_owned()
        {
            places.push(next);
        }
        places
    }

    /// Claims what is due; how long to wait before the next claim, none when there may be more at once.
    async fn claim_once(
        &self,
        places: Vec<OwnedSemaphorePermit>,
        progress: &mut Progress,
    ) -> Result<Option<Duration>, StoreError> {
        let now = self.context.now();
        if let Some(wait) = self.too_early(now, progress) {
            return Ok(Some(wait));
        }
        self.alarm.clear();
        progress.more = false;
        let mut room = self.admission.room(now);
        let tokens = self.take_tokens(now, &mut room).await;
        let limit = u32::try_from(places.len()).unwrap_or(u32::MAX);
        // What waits for tokens waits in the store.
        progress.behind |= !tokens.is_empty();
        let claimed = match self.claim_from_somewhere(now, limit, &room, progress).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.return_tokens(now, tokens, &BTreeMap::new()).await;
                return Err(error);
            }
        };
        self.last_claim.store(self.context.now().as_millis(), Ordering::Relaxed);
        let mut counts: BTreeMap<TargetId, u32> = BTreeMap::new();
        for lease in &claimed.leases {
            *counts.entry(lease.target.id()).or_default() += 1;
        }
        crate::metrics::claimed(claimed.leases.len(), claimed.lost, claimed.exhausted);
        let found = claimed.leases.len();
        self.dispatch(claimed.leases, places, &tokens, &counts).await;
        self.admission.claimed(&counts, &room);
        self.return_tokens(now, tokens, &counts).await;
        for due in [claimed.next_due, self.admission.next_opening(now)].into_iter().flatten() {
            self.alarm.set(due);
        }
        progress.cursor = claimed.cursor;
        progress.poll_at = now + self.context.options.poll_interval;
        // Fewer than there are places may be a share of each target: only an empty claim says that nothing is left.
        progress.more |= found > 0;
        Ok(match progress.cursor {
            _ if progress.more => None,
            Some(_) => Some(WALK_INTERVAL.min(self.until_due(progress))),
            None => Some(self.until_due(progress)),
        })
    }

    /// How long nothing is due for, as far as is known.
    fn too_early(&self, now: Timestamp, progress: &Progress) -> Option<Duration> {
        let walking = progress.cursor.is_some();
        let due = self.alarm.earliest().is_some_and(|due| due <= now);
        let polls = is_over(progress.poll_at, self.context.options.poll_interval, now);
        (!due && !walking && !progress.more && !polls).then(|| self.until_due(progress))
    }

    fn until_due(&self, progress: &Progress) -> Duration {
        let earliest = self.alarm.earliest().map_or(progress.poll_at, |due| due.min(progress.poll_at));
        let wait = earliest.since(self.context.now()).min(self.context.options.poll_interval);
        wait.max(Duration::from_millis(1))
    }

    /// From the queue's hints; from the store where there is no queue, it is away or has nothing, or the store may have
    /// what the queue does not know. Then the two take turns, so that neither waits for the other.
    async fn claim_from_somewhere(
        &self,
        now: Timestamp,
        limit: u32,
        room: &Room,
        progress: &mut Progress,
    ) -> Result<Claimed, StoreError> {
        let token = LeaseToken::new(self.context.entropy.next_u64());
        let until = now + self.context.options.lease();
        let request = ClaimRequest::new(now, until, token, limit, room).with_cursor(progress.cursor);
        let Some(hints) = &self.hints else { return self.context.in_time(self.context.store.claim(request)).await };
        let turn = is_over(progress.reconcile_at, RECONCILE_INTERVAL, now)
            || (!progress.asked_store && self.is_behind(progress));
        if !turn && let Some(popped) = hints.pop(now, until, limit).await.filter(|popped| !popped.is_empty()) {
            return self.claim_hinted(hints, request, &popped, progress).await;
        }
        progress.asked_store = true;
        progress.reconcile_at = now + RECONCILE_INTERVAL;
        let claimed = self.context.in_time(self.context.store.claim(request)).await?;
        progress.behind &= claimed.leases.len() == limit as usize || claimed.cursor.is_some();
        // The next pop should not bring what is leased already.
        hints.forget(claimed.leases.iter().map(|lease| Hint::new(lease.delivery, lease.target.id(), until)).collect());
        Ok(claimed)
    }

    fn is_behind(&self, progress: &mut Progress) -> bool {
        progress.behind |= self.alarm.take_without_hint();
        progress.behind
    }

    /// Leases what the queue says is due. Hints that give no lease are forgotten: if their deliveries are still open,
    /// the store knows.
    async fn claim_hinted(
        &self,
        hints: &Hints,
        request: ClaimRequest<'_>,
        popped: &[Hint],
        progress: &mut Progress,
    ) -> Result<Claimed, StoreError> {
        progress.asked_store = false;
        let ids: Vec<DeliveryId> = popped.iter().map(|hint| hint.delivery).collect();
        let claimed = self.context.in_time(self.context.store.claim_ids(request, &ids)).await?;
        let leased: HashSet<_> = claimed.leases.iter().map(|lease| lease.delivery).collect();
        let mut counts: BTreeMap<TargetId, u32> = BTreeMap::new();
        for lease in &claimed.leases {
            *counts.entry(lease.target.id()).or_default() += 1;
        }
        let refused: Vec<_> = popped.iter().copied().filter(|hint| !leased.contains(&hint.delivery)).collect();
        let full = |target| counts.get(&target).copied().unwrap_or(0) >= request.room.get(target);
        progress.behind |= refused.iter().any(|hint| full(hint.target));
        progress.more = popped.len() == request.limit as usize;
        hints.forget(refused);
        Ok(Claimed { cursor: progress.cursor, ..claimed })
    }

    /// Takes tokens for the limited targets that wait for some, and makes their room fit.
    async fn take_tokens(&self, now: Timestamp, room: &mut Room) -> BTreeMap<TargetId, (RateLimit, u32)> {
        let requests: Vec<_> = self
            .admission
            .limited(now)
            .into_iter()
            .map(|(target, limit, want)| TokenRequest { target, limit, want })
            .collect();
        let mut tokens = BTreeMap::new();
        for (request, grant) in requests.iter().zip(self.grants(now, &requests).await) {
            if grant.tokens < request.want {
                self.admission.dry(request.target, request.limit, grant.retry_at, now);
            }
            let fits = room.get(request.target).min(grant.tokens);
            room.of.insert(request.target, fits);
            tokens.insert(request.target, (request.limit, grant.tokens));
        }
        tokens
    }

    /// What the limiter grants; while it does not answer, one token a target.
    pub(super) async fn grants(&self, now: Timestamp, requests: &[TokenRequest]) -> Vec<Grant> {
        if requests.is_empty() {
            return Vec::new();
        }
        match self.context.limiter.take(now, requests).await {
            Ok(grants) => grants,
            Err(error) => {
                tracing::warn!(%error, "the rate limiter does not answer");
                let retry_at = now + LONGEST_PAUSE;
                requests.iter().map(|_| Grant { tokens: 1, retry_at }).collect()
            }
        }
    }

    /// Gives back the tokens that no lease used. A target that used fewer than it got waits for none.
    async fn return_tokens(
        &self,
        now: Timestamp,
        tokens: BTreeMap<TargetId, (RateLimit, u32)>,
        counts: &BTreeMap<TargetId, u32>,
    ) {
        let mut unused = Vec::new();
        for (target, (limit, taken)) in tokens {
            let left = taken.saturating_sub(counts.get(&target).copied().unwrap_or(0));
            if left > 0 {
                self.admission.wet(target);
                unused.push(TokenRequest { target, limit, want: left });
            }
        }
        if unused.is_empty() {
            return;
        }
        if let Err(error) = self.context.limiter.give_back(now, &unused).await {
            tracing::debug!(%error, "unused tokens were not given back");
        }
    }
}

/// Whether the time has come that was one `interval` ahead when it was set: if it is further away by now, the clock went
/// back.
fn is_over(at: Timestamp, interval: Duration, now: Timestamp) -> bool {
    at <= now || at.since(now) > interval
}
