//! Identifiers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Entropy, Timestamp};

/// The text is not a UUID (RFC 9562).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct ParseIdError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with this UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Its UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// The smallest version 7 id of that millisecond: ids made from then on are not below it.
            pub fn floor(time: Timestamp) -> Self {
                Self(floor(time))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseIdError)
            }
        }
    };
}

uuid_id!(
    /// The id of a subscription.
    SubscriptionId
);
uuid_id!(
    /// The id of an event.
    EventId
);
uuid_id!(
    /// The id of a delivery.
    DeliveryId
);
uuid_id!(
    /// The id of an attempt.
    AttemptId
);
uuid_id!(
    /// The id of a capture path itself, whatever it is called.
    PathKey
);
uuid_id!(
    /// The id of a captured request.
    CaptureId
);
uuid_id!(
    /// What a delivery goes to, as far as fairness, limits and hints are concerned: a subscription, or a direct
    /// target's own key.
    TargetId
);

impl CaptureId {
    /// The smallest one above it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().saturating_add(1)))
    }
}

impl From<SubscriptionId> for TargetId {
    fn from(id: SubscriptionId) -> Self {
        Self(id.0)
    }
}

fn floor(time: Timestamp) -> Uuid {
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8] = 0x80;
    Uuid::from_bytes(bytes)
}

/// When a version 7 UUID was made.
pub(crate) fn time_of(uuid: Uuid) -> Timestamp {
    let bytes = uuid.as_bytes();
    let millis = bytes[..6].iter().fold(0_i64, |millis, byte| (millis << 8) | i64::from(*byte));
    Timestamp::from_millis(millis)
}

/// Whose data something is: 1 to 64 characters of `A-Za-z0-9._-`.
///
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// The text cannot name a tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'")]
pub struct ParseTenantError;

impl TenantId {
    /// The tenant of hosts that have only one: `default`.
    pub fn default_tenant() -> Self {
        Self(Arc::from("default"))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self::default_tenant()
    }
}

impl FromStr for TenantId {
    type Err = ParseTenantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
            return Err(ParseTenantError);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for TenantId {
    type Error = ParseTenantError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes version 7 UUIDs that grow strictly within the process, also inside one millisecond
/// (RFC 9562 section 6.2, method 1: a counter in `rand_a`).
#[derive(Debug)]
pub(crate) struct Ids {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Milliseconds in the upper 52 bits, the counter in the lower 12.
    last: AtomicU64,
}

impl Ids {
    pub(crate) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, last: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> Uuid {
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(0) << 12;
        let advance = |last: u64| now.max(last + 1);
        let stamp = match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(advance(last))) {
            Ok(last) | Err(last) => advance(last),
        };
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes[8..]);
        bytes[..6].copy_from_slice(&(stamp >> 12).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | (stamp & 0x0fff) as u16).to_be_bytes());
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Uuid::from_bytes(bytes)
    }

    /// Ids in runs: up to [`RUN`] follow each other without a gap, and differ in their last six bits only.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Uuid> {
        std::iter::repeat_with(|| self.next().as_u128() & !(RUN - 1))
            .flat_map(|first| (first..first + RUN).map(Uuid::from_u128))
    }
}

/// Length of a run of ids.
const RUN: u128 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OsEntropy, SystemClock};

    #[test]
    fn ids_are_version_7_and_grow_strictly() {
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(OsEntropy));
        let mut last = ids.next();
        for _ in 0..10_000 {
            let next = ids.next();
            assert!(next > last);
            assert_eq!(next.get_version_num(), 7);
            last = next;
        }
    }

    #[test]
    fn ids_in_runs_grow_too_and_stay_version_7() {
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(OsEntropy));
        let all: Vec<_> = ids.runs().take(200).collect();
        assert!(all.is_sorted() && all.iter().all(|id| id.get_version_num() == 7));
        let run: Vec<_> = all.chunk_by(|a, b| a.as_u128() >> 6 == b.as_u128() >> 6).map(<[_]>::len).collect();
        assert_eq!(run, [64, 64, 64, 8]);
        assert!(ids.next() > all[199]);
    }

    #[test]
    fn the_floor_of_a_time_is_below_its_ids() {
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(OsEntropy));
        let before = SystemClock.now();
        let id = EventId::from_uuid(ids.next());
        assert!(EventId::floor(before) <= id);
        assert!(EventId::floor(before + std::time::Duration::from_secs(1)) > id);
    }

    #[test]
    fn tenants_are_short_plain_text() {
        assert!("acme-1.eu_west".parse::<TenantId>().is_ok());
        for text in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(text.parse::<TenantId>(), Err(ParseTenantError), "{text}");
        }
    }
}
