//! The index of pending deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use uuid::Uuid;

use crate::{DeliveryId, TargetId, Timestamp};

type Due = (Timestamp, DeliveryId);

/// Pending deliveries by when they are due, over all targets and for each: what a claim looks at, whose cost must not
/// grow with the backlog.
#[derive(Default)]
pub(super) struct OpenIndex {
    by_due: BTreeMap<Due, Slot>,
    by_target: BTreeMap<TargetId, BTreeSet<Due>>,
}

/// A pending delivery, as far as can be told without looking it up.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) target: TargetId,
    pub(super) leased: bool,
}

/// The last place among those that are due at `time`.
fn end_of(time: Timestamp) -> Due {
    (time, DeliveryId::from_uuid(Uuid::max()))
}

impl OpenIndex {
    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }

    pub(super) fn insert(&mut self, due: Timestamp, id: DeliveryId, slot: Slot) {
        self.by_due.insert((due, id), slot);
        self.by_target.entry(slot.target).or_default().insert((due, id));
    }

    pub(super) fn remove(&mut self, due: Timestamp, id: DeliveryId) {
        let Some(slot) = self.by_due.remove(&(due, id)) else { return };
        if let Some(of_target) = self.by_target.get_mut(&slot.target) {
            of_target.remove(&(due, id));
            if of_target.is_empty() {
                self.by_target.remove(&slot.target);
            }
        }
    }

    /// What is due, oldest first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, DeliveryId, Slot)> {
        self.by_due.range(..=end_of(now)).map(|((due, id), slot)| (*due, *id, *slot))
    }

    /// What of `target` is due, oldest first.
    pub(super) fn due_of(&self, target: TargetId, now: Timestamp) -> impl Iterator<Item = DeliveryId> {
        self.by_target.get(&target).into_iter().flat_map(move |of| of.range(..=end_of(now)).map(|(_, id)| *id))
    }

    /// The targets with pending deliveries after `cursor`, and whether one of theirs is due.
    pub(super) fn targets(&self, cursor: Option<TargetId>, now: Timestamp) -> impl Iterator<Item = (TargetId, bool)> {
        let start = cursor.map_or(Unbounded, Excluded);
        self.by_target
            .range((start, Unbounded))
            .map(move |(target, of)| (*target, of.first().is_some_and(|(due, _)| *due <= now)))
    }

    /// All pending deliveries of `target`.
    pub(super) fn all_of(&self, target: TargetId) -> impl Iterator<Item = DeliveryId> {
        self.by_target.get(&target).into_iter().flatten().map(|(_, id)| *id)
    }

    /// When the next one is due after `now`.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (Excluded(end_of(now)), Included(end_of(Timestamp::MAX)));
        self.by_due.range(later).next().map(|((due, _), _)| *due)
    }
}
