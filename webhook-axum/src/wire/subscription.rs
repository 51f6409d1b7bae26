//! Subscriptions as they are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use webhook_core::{EventPattern, RateLimit, RetrySpec, Secret, SubscriptionSettings};

use super::{Id, Seconds, Time};

/// What stands for a header's value where the caller may not see it.
pub(crate) const REDACTED: &str = "[redacted]";

/// How deliveries are signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Signature {
    /// `standard`, `standard-ed25519`, `x-signature`, `x-webhook-signature-256` or `x-hub-signature-256`.
    pub(crate) scheme: String,
}

/// What a subscription's owner decides, secrets apart: the part of a subscription that is written as it is read.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Settings {
    /// Where deliveries are POSTed.
    target_url: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The patterns of the events that are delivered.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    events: Vec<EventPattern>,
    /// How deliveries are signed.
    signature: Signature,
    /// Sent with every delivery. Values read `[redacted]` without the scope `secrets`.
    headers: BTreeMap<String, String>,
    /// The deadline of one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    timeout_seconds: Option<Seconds>,
    /// The retry policy, where it is not the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::subscription_input::Retry>))]
    retry: Option<RetrySpec>,
    /// At most so many attempts a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::subscription_input::Rate>))]
    rate_limit: Option<RateLimit>,
    /// At most so many attempts at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    /// It takes deliveries.
    enabled: bool,
    /// The owner's own notes.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    metadata: Map<String, Value>,
}

/// A subscription.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Subscription {
    /// Its id.
    id: Id,
    #[serde(flatten)]
    settings: Settings,
    /// Why it takes no deliveries: `requested` or `gone` (its target answered 410).
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<&'static str>,
    /// When it was created.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
}

/// A new subscription, with the secret that is shown this once.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct CreatedSubscription {
    #[serde(flatten)]
    subscription: Subscription,
    /// Signs its deliveries; receivers verify with it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    secret: Secret,
}

/// Whether the values of headers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    Shown,
    Redacted,
}

impl Settings {
    fn of(settings: SubscriptionSettings, headers: BTreeMap<String, Secret>, enabled: bool, shown: Headers) -> Self {
        let value = |value: Secret| match shown {
            Headers::Shown => value.expose().to_owned(),
            Headers::Redacted => REDACTED.to_owned(),
        };
        Self {
            target_url: settings.target_url,
            description: settings.description,
            events: settings.events,
            signature: Signature { scheme: settings.scheme },
            headers: headers.into_iter().map(|(name, secret)| (name, value(secret))).collect(),
            timeout_seconds: settings.timeout.map(Seconds),
            retry: settings.retry,
            rate_limit: settings.rate_limit,
            max_in_flight: settings.max_in_flight,
            enabled,
            metadata: settings.metadata,
        }
    }

    /// The document that a merge patch changes.
    pub(crate) fn document(subscription: webhook_core::Subscription) -> Result<Value, serde_json::Error> {
        let enabled = subscription.disabled.is_none();
        serde_json::to_value(Self::of(subscription.settings, subscription.headers, enabled, Headers::Shown))
    }
}

impl Subscription {
    /// `timeout` is what the engine uses where the subscription does not say.
    pub(crate) fn of(mut given: webhook_core::Subscription, timeout: Duration, headers: Headers) -> Self {
        given.settings.timeout.get_or_insert(timeout);
        Self {
            id: given.id.into(),
            disabled_reason: given.disabled.as_ref().map(webhook_core::DisabledReason::as_str),
            settings: Settings::of(given.settings, given.headers, given.disabled.is_none(), headers),
            created_at: given.created_at.into(),
            updated_at: given.updated_at.into(),
        }
    }

    pub(crate) fn with_secret(self, secret: Secret) -> CreatedSubscription {
        CreatedSubscription { subscription: self, secret }
    }
}
