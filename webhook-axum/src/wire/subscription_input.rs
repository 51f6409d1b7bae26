//! Subscriptions as they are given.

use std::collections::BTreeSet;

use serde::Deserialize;
use webhook_core::{
    EventPattern, Invalid, RateLimit, RetrySpec, Secret, SecretChange, SubscriptionDraft, SubscriptionSettings,
};

use super::subscription::REDACTED;
use super::{Seconds, Signature};
use crate::json::{Distinct, Object, Unique, has_nul};

/// What a subscription should be. Absent fields take their defaults; secrets change only where they are given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct SubscriptionInput {
    /// Where deliveries are POSTed: https, except inside allowed networks.
    target_url: String,
    /// For people, at most 1024 bytes.
    description: Option<String>,
    /// Which events are delivered: `order.created`, `order.*` (one level), `**` (all, the default). At most 100.
    events: Option<Vec<String>>,
    /// Signs every delivery; generated where none is given.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    secret: Option<Secret>,
    /// Verifies what comes in through ingest; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    ingest_secret: Option<Option<Secret>>,
    /// How deliveries are signed: by the scheme `standard` unless given.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Signature>))]
    signature: Option<Object<Signature>>,
    /// Sent with every delivery: at most 32, 8 KiB together.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<std::collections::BTreeMap<String, String>>))]
    headers: Option<Unique<String>>,
    /// The deadline of one attempt, 1 to 30 (default 15).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, minimum = 1, maximum = 30))]
    timeout_seconds: Option<Seconds>,
    /// When failed deliveries are attempted again.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Retry>))]
    retry: Option<Object<RetrySpec>>,
    /// At most so many attempts a second.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Rate>))]
    rate_limit: Option<Object<RateLimit>>,
    /// At most so many attempts at once, 1 to 10,000.
    max_in_flight: Option<u32>,
    /// Whether it takes deliveries (default true).
    enabled: Option<bool>,
    /// The owner's own notes, at most 16 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    metadata: Option<Unique<Distinct>>,
}

/// Tells `null` from an absent field.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Secret>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SubscriptionInput {
    pub(crate) fn into_draft(self) -> Result<SubscriptionDraft, Invalid> {
        let mut invalid = Invalid::new();
        let mut settings = SubscriptionSettings::new(self.target_url);
        if let Some(patterns) = self.events {
            settings.events = read_patterns(&patterns, &mut invalid);
        }
        if self.description.as_ref().is_some_and(|text| text.contains('\0')) {
            invalid.push("description", "has a NUL character");
        }
        settings.description = self.description;
        if let Some(Object(signature)) = self.signature {
            settings.scheme = signature.scheme;
        }
        settings.timeout = self.timeout_seconds.map(|seconds| seconds.0);
        settings.retry = self.retry.map(|retry| retry.0);
        settings.rate_limit = self.rate_limit.map(|limit| limit.0);
        settings.max_in_flight = self.max_in_flight;
        let metadata = self.metadata.map(|metadata| metadata.0).unwrap_or_default();
        settings.metadata = metadata.into_iter().map(|(name, value)| (name, value.0)).collect();
        if settings.metadata.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
            invalid.push("metadata", "has a NUL character");
        }
        let mut draft = SubscriptionDraft::from_settings(settings);
        if let Some(headers) = self.headers {
            check_headers(&headers, &mut invalid);
            draft.headers = headers.0.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        }
        draft.secret = self.secret;
        draft.ingest_secret = match self.ingest_secret {
            None => SecretChange::Keep,
            Some(None) => SecretChange::Remove,
            Some(Some(secret)) => SecretChange::Set(secret),
        };
        draft.enabled = self.enabled.unwrap_or(true);
        invalid.into_result()?;
        Ok(draft)
    }
}

fn read_patterns(given: &[String], invalid: &mut Invalid) -> Vec<EventPattern> {
    let mut patterns = Vec::with_capacity(given.len());
    for (index, text) in given.iter().enumerate() {
        match text.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => invalid.push(format!("events[{index}]"), error),
        }
    }
    patterns
}

fn check_headers(headers: &Unique<String>, invalid: &mut Invalid) {
    let mut names = BTreeSet::new();
    for (name, value) in &headers.0 {
        if !names.insert(name.to_ascii_lowercase()) {
            invalid.push(format!("headers.{name}"), "given more than once: names have no case");
        }
        if value == REDACTED {
            invalid.push(format!("headers.{name}"), "stands for a value that was not shown");
        }
    }
}

/// A fixed list of delays, or exponential: not both.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the JSON of a core type")]
pub(crate) struct Retry {
    /// The delays in seconds; n of them mean n + 1 attempts, at most 101.
    schedule: Option<Vec<f64>>,
    /// The first delay, which doubles.
    initial_seconds: Option<f64>,
    /// The longest delay.
    max_seconds: Option<f64>,
    /// How many attempts, 1 to 101.
    max_attempts: Option<u32>,
}

/// A rate of attempts.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the JSON of a core type")]
pub(crate) struct Rate {
    /// So many each second, 0.00001 to 100,000.
    per_second: f64,
    /// So many at once after a pause, 1 to 100,000.
    burst: Option<u32>,
}

/// A merge patch (RFC 7396): the fields of a subscription that change; null takes one back to its default.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a document that is merged before it is read")]
pub(crate) struct SubscriptionPatch {
    target_url: Option<String>,
    description: Option<String>,
    events: Option<Vec<String>>,
    #[schema(write_only)]
    secret: Option<String>,
    #[schema(write_only)]
    ingest_secret: Option<String>,
    signature: Option<Signature>,
    headers: Option<std::collections::BTreeMap<String, Option<String>>>,
    timeout_seconds: Option<f64>,
    retry: Option<Retry>,
    rate_limit: Option<Rate>,
    max_in_flight: Option<u32>,
    enabled: Option<bool>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
}
