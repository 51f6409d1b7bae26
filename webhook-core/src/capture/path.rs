//! A capture URL and what it does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CustomResponse, PathId};
use crate::store::{PathRecord, PathUsage};
use crate::{Invalid, PathKey, SubscriptionId, TenantId, Timestamp};

const MAX_DESCRIPTION: usize = 1024;
/// A path forwards to so many subscriptions at most.
const MAX_FORWARDS: usize = 16;
/// Ten years: longer is for ever.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Counts the changes to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathVersion(i64);

impl PathVersion {
    /// That of a new path.
    pub const FIRST: Self = Self(1);

    /// The version with this number.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What the owner of a path decides, its response apart. Stores keep it as one JSON document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PathSettings {
    /// For people, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most so many requests are kept; the oldest go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// At most so many bytes of bodies are kept; the oldest requests go first, and the newest always stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The path ends so long after this was set, and its requests with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Every captured request becomes an event for each of these subscriptions, in the transaction that stores it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward_to: Vec<SubscriptionId>,
}

/// A path as its owner wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathDraft {
    /// Its name in the URL; generated for a new path where none is given. A path's name never changes.
    pub path_id: Option<PathId>,
    /// Everything but the response.
    pub settings: PathSettings,
    /// What it answers; none is the default answer.
    pub response: Option<CustomResponse>,
}

/// A capture path as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapturePath {
    /// Its own id, which no other path ever has, whatever it is called.
    pub key: PathKey,
    /// Its name in the URL.
    pub path_id: PathId,
    /// Whose path this is.
    pub tenant: TenantId,
    /// Grows with each change.
    pub version: PathVersion,
    /// Everything but the response.
    pub settings: PathSettings,
    /// What it answers; none is the default answer.
    pub response: Option<CustomResponse>,
    /// What it holds.
    pub usage: PathUsage,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl PathDraft {
    /// A path with a generated name and the default answer that keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A path of that name.
    pub fn named(path_id: PathId) -> Self {
        Self { path_id: Some(path_id), ..Self::default() }
    }

    /// That answers so.
    #[must_use]
    pub fn with_response(mut self, response: CustomResponse) -> Self {
        self.response = Some(response);
        self
    }

    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let mut invalid = Invalid::new();
        let settings = &self.settings;
        if settings.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION || text.contains('\0')) {
            invalid.push("description", format!("at most {MAX_DESCRIPTION} bytes without a NUL character"));
        }
        let count = |quota: Option<u64>| quota.is_none_or(|quota| (1..=i64::MAX as u64).contains(&quota));
        if !count(settings.max_requests) {
            invalid.push("max_requests", "1 or more");
        }
        if !count(settings.max_bytes) {
            invalid.push("max_bytes", "1 or more");
        }
        if settings.ttl.is_some_and(|ttl| ttl < Duration::from_secs(1) || ttl > MAX_TTL) {
            invalid.push("ttl_seconds", format!("1 to {}", MAX_TTL.as_secs()));
        }
        let mut targets = settings.forward_to.clone();
        targets.sort_unstable();
        targets.dedup();
        if targets.len() != settings.forward_to.len() {
            invalid.push("forward_to", "names a subscription twice");
        } else if targets.len() > MAX_FORWARDS {
            invalid.push("forward_to", format!("at most {MAX_FORWARDS} subscriptions"));
        }
        if let Some(response) = &self.response {
            response.check(&mut invalid);
        }
        invalid.into_result()
    }
}

impl CapturePath {
    pub(crate) fn of(record: PathRecord, usage: PathUsage, response: Option<CustomResponse>) -> Self {
        Self {
            key: record.key,
            path_id: record.path_id,
            tenant: record.tenant,
            version: record.version,
            settings: record.settings,
            response,
            usage,
            expires_at: record.expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}
