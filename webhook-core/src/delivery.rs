//! One event on its way to one target.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DeliveryId, ErrorKind, EventId, EventType, SubscriptionId, TargetId, TenantId, Timestamp};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $text:literal = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Its number in stores.
            pub const fn code(self) -> i16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The one with this number, if there is one.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named!(
    /// Where a delivery stands.
    DeliveryState {
        /// Open: due now or later.
        Pending => "pending" = 0,
        /// Its target answered 2xx.
        Delivered => "delivered" = 1,
        /// Given up; the reason says why.
        Exhausted => "exhausted" = 2,
        /// Called off; the reason says why.
        Cancelled => "cancelled" = 3,
    }
);

/// The text names no delivery state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of pending, delivered, exhausted, cancelled")]
pub struct ParseDeliveryStateError;

impl FromStr for DeliveryState {
    type Err = ParseDeliveryStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text).ok_or(ParseDeliveryStateError)
    }
}

named!(
    /// Why a delivery ended without having been delivered.
    Reason {
        /// The policy allows no further attempt.
        AttemptsExhausted => "attempts_exhausted" = 1,
        /// The target answered 410 and wants no more.
        Gone => "gone" = 2,
        /// The address guard refused the target.
        Blocked => "blocked" = 3,
        /// Five workers lost their lease on it.
        LostLeases => "lost_leases" = 4,
        /// Somebody asked for it.
        Requested => "requested" = 5,
        /// Its subscription was deleted.
        SubscriptionDeleted => "subscription_deleted" = 6,
        /// Its target cannot be used: the secret or the URL does not open or parse.
        Unusable => "unusable" = 7,
    }
);

/// One event × one target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Whose delivery this is.
    pub tenant: TenantId,
    /// The event it carries.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: Option<EventType>,
    /// The subscription it goes to; none for an ad-hoc target.
    pub subscription_id: Option<SubscriptionId>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why it ended without having been delivered.
    pub reason: Option<Reason>,
    /// When it is due, or when its lease ends.
    pub next_at: Timestamp,
    /// A worker holds a lease on it, which may have run out: see `next_at`.
    pub leased: bool,
    /// It is pending and its subscription is disabled.
    pub held: bool,
    /// Attempts recorded so far.
    pub attempts: u32,
    /// Leases lost so far.
    pub lost_leases: u32,
    /// The status of its last attempt.
    pub last_status_code: Option<u16>,
    /// The failure of its last attempt.
    pub last_error: Option<ErrorKind>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its last attempt started.
    pub last_attempt_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

impl Delivery {
    /// A delivery that was just created and is due at once; set the public fields to change it.
    pub fn new(id: DeliveryId, tenant: TenantId, event_id: EventId, created_at: Timestamp) -> Self {
        Self {
            id,
            tenant,
            event_id,
            event_type: None,
            subscription_id: None,
            state: DeliveryState::Pending,
            reason: None,
            next_at: created_at,
            leased: false,
            held: false,
            attempts: 0,
            lost_leases: 0,
            last_status_code: None,
            last_error: None,
            created_at,
            last_attempt_at: None,
            completed_at: None,
        }
    }

    /// A worker is attempting it right now.
    pub fn in_flight(&self, now: Timestamp) -> bool {
        self.state == DeliveryState::Pending && self.leased && self.next_at > now
    }
}

/// Says "look at this delivery about then"; losing, doubling and reordering hints harms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hint {
    /// The delivery.
    pub delivery: DeliveryId,
    /// What it goes to, so that a queue can be fair and park.
    pub target: TargetId,
    /// When it is due.
    pub due: Timestamp,
}

impl Hint {
    /// A hint at `delivery`, which goes to `target` and is due at `due`.
    pub const fn new(delivery: DeliveryId, target: TargetId, due: Timestamp) -> Self {
        Self { delivery, target, due }
    }
}
