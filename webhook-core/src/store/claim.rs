//! Leases: the fenced right to attempt a delivery.

use std::collections::HashMap;

use crate::{DeliveryId, DeliveryState, EventId, Generation, Reason, Target, TargetId, TenantId, Timestamp};

/// Fences a lease: a fresh random number with each claim. A result counts only with the token of the current lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(i64);

impl LeaseToken {
    /// The token with this number; its sign bit is dropped.
    pub const fn new(number: u64) -> Self {
        Self((number >> 1) as i64)
    }

    /// The token that a store kept as this number.
    pub const fn from_stored(number: i64) -> Self {
        Self(number)
    }

    /// Its number, not negative.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl std::fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseToken(..)")
    }
}

/// How many more deliveries each target may be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// For targets without an entry.
    pub default: u32,
    /// For these targets.
    pub of: HashMap<TargetId, u32>,
}

impl Room {
    /// The same room for every target.
    pub fn all(default: u32) -> Self {
        Self { default, of: HashMap::new() }
    }

    /// How many more deliveries `target` may be given.
    pub fn get(&self, target: TargetId) -> u32 {
        self.of.get(&target).copied().unwrap_or(self.default)
    }
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClaimRequest<'a> {
    /// The time now.
    pub now: Timestamp,
    /// When the leases end.
    pub lease_until: Timestamp,
    /// The token of the leases.
    pub token: LeaseToken,
    /// At most so many leases.
    pub limit: u32,
    /// At most so many leases for each target.
    pub room: &'a Room,
    /// Where the walk over the targets went on to last time.
    pub cursor: Option<TargetId>,
}

impl<'a> ClaimRequest<'a> {
    /// At most `limit` leases from `now` to `lease_until`, within `room`.
    pub fn new(now: Timestamp, lease_until: Timestamp, token: LeaseToken, limit: u32, room: &'a Room) -> Self {
        Self { now, lease_until, token, limit, room, cursor: None }
    }

    /// Goes on after `cursor`.
    #[must_use]
    pub fn with_cursor(mut self, cursor: Option<TargetId>) -> Self {
        self.cursor = cursor;
        self
    }
}

/// The right to attempt one delivery until the lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whose delivery this is.
    pub tenant: TenantId,
    /// The event it carries.
    pub event: EventId,
    /// What it goes to.
    pub target: Target,
    /// The version of the subscription it goes to, to tell whether a cached one is current.
    pub version: Generation,
    /// Fences the lease.
    pub token: LeaseToken,
    /// When the lease ends.
    pub until: Timestamp,
    /// Attempts recorded so far.
    pub attempts: u32,
    /// It was reopened from this end by an explicit retry: one attempt, and if that fails the end is back.
    pub reopened: Option<(DeliveryState, Option<Reason>)>,
    /// The length of the event's payload in bytes.
    pub payload_bytes: u32,
    /// The target is paused, or was until now: a success ends that.
    pub paused: bool,
}

impl Lease {
    /// A first lease on a new delivery.
    pub fn new(
        delivery: DeliveryId,
        tenant: TenantId,
        event: EventId,
        target: Target,
        token: LeaseToken,
        until: Timestamp,
    ) -> Self {
        Self {
            delivery,
            tenant,
            event,
            target,
            version: Generation::ZERO,
            token,
            until,
            attempts: 0,
            reopened: None,
            payload_bytes: 0,
            paused: false,
        }
    }
}

/// What a claim gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The leases, in the order they should be attempted.
    pub leases: Vec<Lease>,
    /// Where to go on next time; none when the walk came to the end.
    pub cursor: Option<TargetId>,
    /// When the next delivery is due that is not due yet: a hint when to ask again.
    pub next_due: Option<Timestamp>,
    /// Leases that other workers lost.
    pub lost: u32,
    /// Deliveries that ended because five leases on them were lost.
    pub exhausted: u32,
}

/// A lease that is given back unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The lease's token.
    pub token: LeaseToken,
    /// When the delivery is due again.
    pub due: Timestamp,
}
