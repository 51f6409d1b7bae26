//! Secrets, test deliveries and recovery: what is done to one subscription.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use webhook_core::Secret;

use super::{Seconds, Time};

/// The secrets of a subscription.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RevealedSecret {
    /// Signs its deliveries.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    secret: Secret,
    /// Signs too, until its grace ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousSecret>,
    /// What receivers verify with, where the scheme is asymmetric.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

/// A secret that was rotated away.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct PreviousSecret {
    /// The secret.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    secret: Secret,
    /// The end of its grace.
    expires_at: Time,
}

impl From<webhook_core::RevealedSecret> for RevealedSecret {
    fn from(given: webhook_core::RevealedSecret) -> Self {
        let previous = given.previous;
        Self {
            secret: given.secret,
            previous: previous.map(|old| PreviousSecret { secret: old.secret, expires_at: old.expires_at.into() }),
            public_key: given.public_key,
        }
    }
}

/// How a secret is rotated.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RotateInput {
    /// How long the old secret signs too, 0 to 2,592,000 (default 86,400: a day).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, minimum = 0, maximum = 2592000))]
    pub(crate) grace_seconds: Option<Seconds>,
    /// The new secret; generated where none is given.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    pub(crate) secret: Option<Secret>,
}

/// A new secret, shown this once.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RotatedSecret {
    /// The new secret.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    secret: Secret,
    /// The end of the old one's grace; null where it signs no more.
    previous_expires_at: Option<Time>,
}

impl From<webhook_core::RevealedSecret> for RotatedSecret {
    fn from(given: webhook_core::RevealedSecret) -> Self {
        Self { secret: given.secret, previous_expires_at: given.previous.map(|old| old.expires_at.into()) }
    }
}

/// A test delivery.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct TestInput<'a> {
    /// `webhook.test` by default.
    pub(crate) event_type: Option<String>,
    /// Any JSON.
    #[serde(borrow, default, deserialize_with = "given")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub(crate) payload: Option<&'a RawValue>,
}

/// Null is a payload as any other.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The time to recover.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RecoverInput {
    /// From this time on, inclusive.
    pub(crate) since: Time,
    /// Up to this time, exclusive; now by default.
    pub(crate) until: Option<Time>,
}

/// What was recovered.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Recovered {
    /// How many deliveries are on their way again.
    pub(crate) count: u64,
}
