//! Targets made ready for sending, and the cache of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use crate::context::Context;
use crate::emit::open_ad_hoc;
use crate::inbox;
use crate::store::Lease;
use crate::{
    AdHocTarget, Error, Generation, InboxHandler, RateLimit, RetryPolicy, Secret, Signer, StandardSigner,
    SubscriptionId, SubscriptionRecord, SubscriptionSecrets, Timestamp,
};

/// Everything an attempt needs to know of its target.
#[derive(Debug)]
pub(crate) struct LiveTarget {
    pub(crate) version: Generation,
    pub(crate) url: Url,
    pub(crate) method: Method,
    /// The target's own headers; their values are secret.
    pub(crate) headers: HeaderMap,
    pub(crate) signer: Option<Arc<dyn Signer>>,
    /// Called in place of the URL.
    pub(crate) handler: Option<Arc<dyn InboxHandler>>,
    pub(crate) secrets: LiveSecrets,
    pub(crate) timeout: Duration,
    pub(crate) retry: Arc<dyn RetryPolicy>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) paused_until: Option<Timestamp>,
    /// It takes no deliveries.
    pub(crate) disabled: bool,
    loaded_at: Timestamp,
}

/// The secrets that sign.
#[derive(Debug)]
pub(crate) enum LiveSecrets {
    Subscription(SubscriptionSecrets),
    One(Option<Secret>),
}

impl LiveSecrets {
    /// Those that sign at `now`, newest first.
    pub(crate) fn at(&self, now: Timestamp) -> Vec<Secret> {
        match self {
            Self::Subscription(secrets) => secrets.live(now),
            Self::One(secret) => secret.iter().cloned().collect(),
        }
    }
}

/// Why a target cannot be used: for the delivery's attempt log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Unusable {
    text: String,
    mendable: bool,
}

impl Unusable {
    /// What is stored makes no sense, and will not.
    fn never(error: impl ToString) -> Self {
        Self { text: error.to_string(), mendable: false }
    }

    /// This process lacks something: a key, a scheme.
    fn here(error: impl ToString) -> Self {
        Self { text: error.to_string(), mendable: true }
    }

    /// Another configuration of this process may make it usable.
    pub(crate) const fn can_be_mended(&self) -> bool {
        self.mendable
    }
}

impl LiveTarget {
    /// Made of what was read from the store at `read_at`.
    pub(crate) fn of_subscription(
        context: &Context,
        record: SubscriptionRecord,
        read_at: Timestamp,
    ) -> Result<Self, Unusable> {
        let secrets = context.unseal(&record).map_err(Unusable::here)?;
        let url = Url::parse(&record.settings.target_url).map_err(Unusable::never)?;
        let signer = context.signers.get(&record.settings.scheme).cloned();
        let signer =
            signer.ok_or_else(|| Unusable::here(format!("unknown signature scheme {}", record.settings.scheme)))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &secrets.headers {
            insert(&mut headers, name, value)?;
        }
        let retry = record.settings.retry.as_ref().map(crate::RetrySpec::policy);
        Ok(Self {
            version: record.version,
            url,
            method: Method::POST,
            headers,
            signer: Some(signer),
            handler: None,
            secrets: LiveSecrets::Subscription(secrets),
            timeout: record.settings.timeout.unwrap_or(context.options.timeout).min(context.options.max_timeout),
            retry: retry.unwrap_or_else(|| Arc::clone(&context.retry)),
            rate_limit: record.settings.rate_limit,
            max_in_flight: record.settings.max_in_flight,
            paused_until: record.paused_until,
            disabled: record.disabled.is_some(),
            loaded_at: read_at,
        })
    }

    pub(crate) fn ad_hoc(context: &Context, lease: &Lease, sealed: &crate::Sealed) -> Result<Self, Unusable> {
        let opened = open_ad_hoc(context, &lease.tenant, lease.delivery, sealed);
        let target: AdHocTarget = opened.map_err(|error: Error| Unusable::here(error))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            insert(&mut headers, name, value)?;
        }
        let signer = target.secret.as_ref().and_then(|_| context.signers.get(StandardSigner::SCHEME)).cloned();
        let url = Url::parse(&target.url).map_err(Unusable::never)?;
        let (handler, timeout) = if url.scheme() == inbox::SCHEME {
            let handler = context.handlers.get(url.path());
            let unknown = || Unusable::here(format!("no handler for messages from {}", url.path()));
            (Some(handler.ok_or_else(unknown)?), context.options.max_timeout)
        } else {
            (None, context.options.timeout.min(context.options.max_timeout))
        };
        Ok(Self {
            version: Generation::ZERO,
            url,
            handler,
            method: Method::from_bytes(target.method.as_bytes()).map_err(Unusable::never)?,
            headers,
            signer,
            secrets: LiveSecrets::One(target.secret),
            timeout,
            retry: Arc::clone(&context.retry),
            rate_limit: None,
            max_in_flight: None,
            paused_until: None,
            disabled: false,
            loaded_at: context.now(),
        })
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &Secret) -> Result<(), Unusable> {
    let name = HeaderName::try_from(name).map_err(Unusable::never)?;
    let mut value = HeaderValue::try_from(value.expose()).map_err(Unusable::never)?;
    value.set_sensitive(true);
    headers.append(name, value);
    Ok(())
}

/// At most so many subscriptions are kept ready.
const CAPACITY: usize = 10_000;

/// Subscriptions made ready for sending. An entry counts only at the version that a lease or an index names.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    ready: Mutex<HashMap<SubscriptionId, Arc<LiveTarget>>>,
}

impl Targets {
    /// The subscription at exactly this version, unless it is too old to be believed.
    pub(crate) fn get(&self, context: &Context, id: SubscriptionId, version: Generation) -> Option<Arc<LiveTarget>> {
        let target = self.ready().get(&id).filter(|target| target.version == version).cloned()?;
        (context.now().since(target.loaded_at) < context.options.cache_ttl).then_some(target)
    }

    pub(crate) fn insert(&self, id: SubscriptionId, target: Arc<LiveTarget>) {
        let mut ready = self.ready();
        if ready.len() >= CAPACITY && !ready.contains_key(&id) {
            let mut ages: Vec<_> = ready.values().map(|target| target.loaded_at).collect();
            let (_, median, _) = ages.select_nth_unstable(CAPACITY / 2);
            let median = *median;
            ready.retain(|_, target| target.loaded_at > median);
        }
        ready.insert(id, target);
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Arc<LiveTarget>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
