//! What a subscription should be: given by its owner, checked here.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use crate::context::Context;
use crate::{Invalid, Secret, SubscriptionSettings};

/// The headers of a subscription may be so many …
const MAX_HEADERS: usize = 32;
/// … and so long together, names and values, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_PATTERNS: usize = 100;
const MAX_DESCRIPTION: usize = 1024;
const MAX_METADATA: usize = 16 * 1024;
/// A text of fewer bytes than this is a weak secret (RFC 2104 section 3 wants at least the hash's length).
const WEAK_SECRET: usize = 24;

/// What should become of a subscription's secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes this one.
    Set(Secret),
    /// There is none any more.
    Remove,
}

/// A subscription as its owner wants it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionDraft {
    /// What is not secret.
    pub settings: SubscriptionSettings,
    /// Sent with every delivery: at most 32, 8 KiB together.
    pub headers: BTreeMap<String, Secret>,
    /// Signs every delivery. None keeps the present one, or generates one for a new subscription.
    pub secret: Option<Secret>,
    /// Verifies what comes in through ingest.
    pub ingest_secret: SecretChange,
    /// Whether it takes deliveries.
    pub enabled: bool,
}

impl SubscriptionDraft {
    /// All events to `target_url`, everything else by default.
    pub fn new(target_url: impl Into<String>) -> Self {
        Self::from_settings(SubscriptionSettings::new(target_url))
    }

    /// A subscription with these settings, everything else by default.
    pub fn from_settings(settings: SubscriptionSettings) -> Self {
        Self { settings, headers: BTreeMap::new(), secret: None, ingest_secret: SecretChange::Keep, enabled: true }
    }

    /// Only events that match one of `patterns`.
    ///
    /// # Errors
    ///
    /// A pattern that cannot be read is an error in the field `events`.
    pub fn with_events<P: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = P>) -> Result<Self, Invalid> {
        self.settings.events = patterns
            .into_iter()
            .map(|pattern| pattern.as_ref().parse())
            .collect::<Result<_, _>>()
            .map_err(|error| Invalid::field("events", error))?;
        Ok(self)
    }

    /// Signs by this scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: impl Into<String>) -> Self {
        self.settings.scheme = scheme.into();
        self
    }

    /// Signs with this secret.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Everything that is wrong with it.
    pub(crate) fn check(&self, context: &Context) -> Result<(), Invalid> {
        let mut invalid = Invalid::new();
        let settings = &self.settings;
        match context.guard.parse_target(&settings.target_url) {
            Ok(url) => {
                if let Err(error) = context.guard.check_url(&url) {
                    invalid.push("target_url", error);
                }
            }
            Err(error) => invalid.push("target_url", error),
        }
        if settings.events.is_empty() || settings.events.len() > MAX_PATTERNS {
            invalid.push("events", format!("1 to {MAX_PATTERNS} patterns"));
        }
        if settings.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
            invalid.push("description", format!("at most {MAX_DESCRIPTION} bytes"));
        }
        let limit = context.options.max_timeout;
        if settings.timeout.is_some_and(|timeout| timeout.as_millis() < 1000 || timeout > limit) {
            invalid.push("timeout_seconds", format!("1 to {} seconds", limit.as_secs()));
        }
        if settings.max_in_flight.is_some_and(|limit| !(1..=10_000).contains(&limit)) {
            invalid.push("max_in_flight", "1 to 10000");
        }
        if serde_json::to_vec(&settings.metadata).map_or(usize::MAX, |json| json.len()) > MAX_METADATA {
            invalid.push("metadata", format!("at most {MAX_METADATA} bytes of JSON"));
        }
        self.check_secrets(context, &mut invalid);
        self.check_headers(context, &mut invalid);
        invalid.into_result()
    }

    fn check_secrets(&self, context: &Context, invalid: &mut Invalid) {
        match (context.signers.get(&self.settings.scheme), &self.secret) {
            (None, _) => {
                let names: Vec<_> = context.signers.names().collect();
                invalid.push("signature.scheme", format!("one of {}", names.join(", ")));
            }
            (Some(signer), Some(secret)) => match signer.check_secret(secret) {
                Ok(()) => warn_of_weak("secret", secret),
                Err(error) => invalid.push("secret", error),
            },
            (Some(_), None) => {}
        }
        if let SecretChange::Set(secret) = &self.ingest_secret {
            let bytes = secret.expose().len();
            if !(1..=512).contains(&bytes) || secret.expose().chars().any(char::is_control) {
                invalid.push("ingest_secret", "1 to 512 bytes of text without control characters");
            } else {
                warn_of_weak("ingest_secret", secret);
            }
        }
    }

    fn check_headers(&self, context: &Context, invalid: &mut Invalid) {
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.expose().len()).sum();
        if self.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            invalid.push("headers", format!("at most {MAX_HEADERS} headers, {MAX_HEADER_BYTES} bytes together"));
        }
        for (name, value) in &self.headers {
            match HeaderName::try_from(name.as_str()) {
                Ok(header) if is_reserved(&header, context) => {
                    invalid.push(format!("headers.{name}"), "set by the delivery itself");
                }
                Ok(_) => {}
                Err(_) => invalid.push(format!("headers.{name}"), "not a header name"),
            }
            if HeaderValue::try_from(value.expose()).is_err() {
                invalid.push(format!("headers.{name}"), "not a header value");
            }
        }
    }
}

/// Says in the log that a given secret is short. Those of the standard schemes never are.
pub(crate) fn warn_of_weak(field: &'static str, secret: &Secret) {
    let bytes = secret.expose().len();
    if bytes < WEAK_SECRET {
        tracing::warn!(field, bytes, "a secret is short; use at least {WEAK_SECRET} bytes");
    }
}

/// Headers that belong to the connection, to the delivery, or to a signature.
fn is_reserved(name: &HeaderName, context: &Context) -> bool {
    const RESERVED: [&str; 16] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "webhook-attempt",
        "x-event-type",
    ];
    let name = name.as_str();
    let signs =
        |scheme: &str| context.signers.get(scheme).is_some_and(|signer| signer.signature_headers().contains(&name));
    RESERVED.contains(&name) || matches!(name, "webhook-id" | "webhook-timestamp") || context.signers.names().any(signs)
}
