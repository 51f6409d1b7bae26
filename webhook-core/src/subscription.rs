//! Where events go: a target URL with its secrets, filter, limits and state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{EventPattern, RateLimit, RetrySpec, Sealed, Secret, SubscriptionId, TenantId, Timestamp};

/// Orders the changes to a tenant's subscriptions: each change takes a greater number.
///
/// A number belongs to one change and to no other, also where a store was restored from a backup or made anew: caches
/// that outlive it know by that what is not of its history. So it is made of the time; see [`Generation::after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(i64);

impl Generation {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The generation with this number.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The one for a change after it, at that time: the time in milliseconds times 2^20, or the next number when the
    /// clock is behind.
    pub fn after(self, now: Timestamp) -> Self {
        Self((self.0 + 1).max(now.as_millis() << 20))
    }
}

/// What the owner of a subscription decides, secrets apart. Stores keep it as one JSON document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionSettings {
    /// Where deliveries are POSTed.
    pub target_url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which events match: at least one pattern.
    pub events: Vec<EventPattern>,
    /// The signature scheme's name.
    pub scheme: String,
    /// The deadline of one attempt, 1 s to 30 s; none means the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The retry policy; none means the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// At most so many attempts a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// At most so many attempts at once; none means the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The owner's own notes, a JSON object.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl SubscriptionSettings {
    /// All events to `target_url`, signed by the `standard` scheme, everything else by default.
    pub fn new(target_url: impl Into<String>) -> Self {
        Self {
            target_url: target_url.into(),
            description: None,
            events: vec![EventPattern::any()],
            scheme: "standard".to_owned(),
            timeout: None,
            retry: None,
            rate_limit: None,
            max_in_flight: None,
            metadata: serde_json::Map::new(),
        }
    }
}

/// What of a subscription is sealed at rest: its secrets and its headers, which may carry credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionSecrets {
    /// Signs every delivery.
    pub secret: Secret,
    /// Signs too, until its grace ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousSecret>,
    /// Verifies what comes in through ingest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_secret: Option<Secret>,
    /// The subscription's own headers, sent with every delivery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
}

/// A secret that was rotated away and signs until its grace ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PreviousSecret {
    /// The secret.
    pub secret: Secret,
    /// The end of its grace.
    pub expires_at: Timestamp,
}

impl PreviousSecret {
    /// `secret`, which signs until `expires_at`.
    pub fn new(secret: Secret, expires_at: Timestamp) -> Self {
        Self { secret, expires_at }
    }
}

impl SubscriptionSecrets {
    /// Only a signing secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, previous: None, ingest_secret: None, headers: BTreeMap::new() }
    }

    /// The secrets that sign at `now`, newest first.
    pub fn live(&self, now: Timestamp) -> Vec<Secret> {
        let previous = self.previous.iter().filter(|previous| previous.expires_at > now);
        std::iter::once(&self.secret).chain(previous.map(|previous| &previous.secret)).cloned().collect()
    }
}

/// Why a subscription takes no deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DisabledReason {
    /// Its owner switched it off.
    Requested,
    /// Its target answered 410.
    Gone,
}

impl DisabledReason {
    /// Its name in the API and in stores.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
        }
    }

    /// The one with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Requested, Self::Gone].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// A subscription as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionRecord {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose subscription this is.
    pub tenant: TenantId,
    /// The tenant's generation when it last changed; the store sets it.
    pub version: Generation,
    /// Why it is disabled; none means that it is enabled.
    pub disabled: Option<DisabledReason>,
    /// What its owner decided.
    pub settings: SubscriptionSettings,
    /// Its [`SubscriptionSecrets`], sealed by core.
    pub secrets: Sealed,
    /// Its target asked for a pause: deliveries wait until then.
    pub paused_until: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl SubscriptionRecord {
    /// An enabled subscription created at `now`; set the public fields to change it.
    pub fn new(
        id: SubscriptionId,
        tenant: TenantId,
        settings: SubscriptionSettings,
        secrets: Sealed,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant,
            version: Generation::ZERO,
            disabled: None,
            settings,
            secrets,
            paused_until: None,
            created_at: now,
            updated_at: now,
        }
    }
}
