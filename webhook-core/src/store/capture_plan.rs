//! Keeping requests: the rules between what is asked and what is answered that no adapter should write again.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{AcceptItem, CaptureOutcome, NewCapture, PathRecord, PathUsage};
use crate::{CaptureId, PathKey, PathVersion, SubscriptionId, TenantId, Timestamp};

/// So many requests beyond those that came go at once where a path holds more than its quotas, which happens when a
/// quota was lowered. The transaction that keeps requests stays short.
const EVICT_AT_ONCE: u32 = 1000;

/// What a transaction that keeps requests has to read of a path, in a way that no other transaction can change before
/// this one commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathState {
    /// Its version.
    pub version: PathVersion,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// At most so many requests are kept.
    pub max_requests: Option<u64>,
    /// At most so many bytes of bodies are kept.
    pub max_bytes: Option<u64>,
    /// What it holds.
    pub usage: PathUsage,
}

impl PathState {
    /// What there is to know of a path that holds so much.
    pub fn of(record: &PathRecord, usage: PathUsage) -> Self {
        Self {
            version: record.version,
            expires_at: record.expires_at,
            max_requests: record.settings.max_requests,
            max_bytes: record.settings.max_bytes,
            usage,
        }
    }
}

/// A request to insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCapture<'a> {
    /// Its id, which may be above the one that was given.
    pub id: CaptureId,
    /// Its number.
    pub number: u64,
    /// The request.
    pub new: &'a NewCapture,
}

/// What is to go from a path that holds more than its quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The path.
    pub path: PathKey,
    /// Look at no more of its oldest requests than this.
    pub limit: u32,
    /// Requests beyond the quota.
    requests: u64,
    /// Bytes beyond the quota.
    bytes: u64,
    newest: CaptureId,
}

/// Requests that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// All of the path up to and including this id.
    pub through: CaptureId,
    /// How many these are: the path's usage is to be lowered by it.
    pub requests: u64,
    /// Bytes of their bodies: the path's usage is to be lowered by it.
    pub bytes: u64,
}

impl Eviction {
    /// What goes, given the path's oldest requests in order, at most [`Eviction::limit`]: id, and bytes of its body that
    /// are kept.
    pub fn choose(&self, oldest: impl IntoIterator<Item = (CaptureId, u64)>) -> Option<Evicted> {
        let mut evicted: Option<Evicted> = None;
        for (id, kept) in oldest {
            let (requests, bytes) = evicted.map_or((0, 0), |evicted| (evicted.requests, evicted.bytes));
            if (requests >= self.requests && bytes >= self.bytes) || id >= self.newest {
                break;
            }
            evicted = Some(Evicted { through: id, requests: requests + 1, bytes: bytes + kept });
        }
        evicted
    }
}

/// What a transaction that keeps requests has to write, decided from what it has read.
///
/// An adapter reads the states of the paths, which it locks, and which of [`CapturePlan::subscriptions_of`] there are,
/// calls [`CapturePlan::resolve`], writes [`CapturePlan::requests`], [`CapturePlan::usage`] and [`CapturePlan::events`],
/// works [`CapturePlan::evictions`] off, commits, and answers [`CapturePlan::outcomes`].
#[derive(Debug, Default)]
pub struct CapturePlan<'a> {
    /// The requests to insert.
    pub requests: Vec<PlannedCapture<'a>>,
    /// The paths' new usage.
    pub usage: Vec<(PathKey, PathUsage)>,
    /// The paths that hold too much then.
    pub evictions: Vec<Eviction>,
    /// The events to insert with their deliveries; each names the request that it comes from by the id in
    /// [`CapturePlan::requests`], as `captured_request` in its metadata.
    pub events: Vec<AcceptItem>,
    /// The answers, one for each request.
    pub outcomes: Vec<CaptureOutcome>,
}

impl<'a> CapturePlan<'a> {
    /// The paths that the requests reached, each once, in the order of their keys: transactions that lock them in this
    /// order do not block each other for ever.
    pub fn paths_of(requests: &[NewCapture]) -> Vec<PathKey> {
        let mut paths: Vec<_> = requests.iter().map(|new| new.path).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// The subscriptions that the requests' events are for.
    pub fn subscriptions_of(requests: &[NewCapture]) -> HashSet<(TenantId, SubscriptionId)> {
        requests.iter().flat_map(|new| &new.forwards).filter_map(subscription_of).collect()
    }

    /// Decides what happens to each request, as if they came one after the other.
    ///
    /// `paths` are those that there are; `live` those of [`CapturePlan::subscriptions_of`] that are not deleted.
    pub fn resolve(
        requests: &'a [NewCapture],
        now: Timestamp,
        mut paths: HashMap<PathKey, PathState>,
        live: &HashSet<(TenantId, SubscriptionId)>,
    ) -> Self {
        let mut plan = Self { outcomes: Vec::with_capacity(requests.len()), ..Self::default() };
        let mut added: HashMap<PathKey, u32> = HashMap::new();
        for new in requests {
            let state = paths.get_mut(&new.path).filter(|state| state.expires_at.is_none_or(|end| end > now));
            let outcome = match state {
                None => CaptureOutcome::Missing,
                Some(state) if state.version != new.version => CaptureOutcome::Changed,
                Some(state) => {
                    let usage = &mut state.usage;
                    let id = usage.last_id.filter(|last| *last >= new.request.id);
                    let id = id.map_or(new.request.id, CaptureId::next);
                    usage.requests += 1;
                    usage.bytes += new.request.body_kept;
                    usage.last_number += 1;
                    usage.last_id = Some(id);
                    usage.last_request_at = Some(new.request.received_at);
                    plan.requests.push(PlannedCapture { id, number: usage.last_number, new });
                    *added.entry(new.path).or_default() += 1;
                    let there = |item: &&AcceptItem| subscription_of(item).is_some_and(|key| live.contains(&key));
                    plan.events.extend(new.forwards.iter().filter(there).map(|item| naming(item, id)));
                    CaptureOutcome::Stored(id)
                }
            };
            plan.outcomes.push(outcome);
        }
        for (path, added) in added {
            let Some(state) = paths.get(&path) else { continue };
            plan.usage.push((path, state.usage));
            let over = |held: u64, quota: Option<u64>| quota.map_or(0, |quota| held.saturating_sub(quota));
            let requests = over(state.usage.requests, state.max_requests);
            let bytes = over(state.usage.bytes, state.max_bytes);
            if let (true, Some(newest)) = (requests + bytes > 0, state.usage.last_id) {
                plan.evictions.push(Eviction { path, limit: added + EVICT_AT_ONCE, requests, bytes, newest });
            }
        }
        plan.usage.sort_unstable_by_key(|(path, _)| *path);
        plan
    }
}

/// The event, with the id of the request that it comes from in its metadata.
fn naming(item: &AcceptItem, request: CaptureId) -> AcceptItem {
    let mut item = item.clone();
    let metadata = item.event.metadata.get_or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(fields) = metadata {
        fields.insert("captured_request".to_owned(), Value::String(request.to_string()));
    }
    item
}

fn subscription_of(item: &AcceptItem) -> Option<(TenantId, SubscriptionId)> {
    let delivery = item.deliveries.first()?;
    Some((item.event.tenant.clone(), delivery.target.subscription()?))
}
