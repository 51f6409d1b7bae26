//! What each subscription of a run is like, told by its number alone: also of those whose creation nobody confirmed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use webhook_core::{EventPattern, RateLimit, RetrySchedule, Secret, SubscriptionDraft, TenantId};

use crate::chance::Chance;

/// How an endpoint behaves until the calm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    Healthy,
    Flapping,
    Busy,
    Slow,
    Hanging,
    Dripping,
    Redirecting,
    Leaving,
    Lying,
}

const TEMPERS: [Temper; 12] = [
    Temper::Healthy,
    Temper::Healthy,
    Temper::Flapping,
    Temper::Flapping,
    Temper::Busy,
    Temper::Busy,
    Temper::Slow,
    Temper::Hanging,
    Temper::Dripping,
    Temper::Redirecting,
    Temper::Leaving,
    Temper::Lying,
];

pub(crate) const EVENT_TYPES: [&str; 4] = ["order.created", "order.paid", "user.created", "user.left"];
const PATTERNS: [&str; 5] = ["**", "order.*", "*.created", "user.left", "order.paid"];

/// A subscription as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) temper: Temper,
    pub(crate) delays: Vec<Duration>,
    pub(crate) secret: Secret,
    pub(crate) draft: SubscriptionDraft,
}

impl Plan {
    pub(crate) fn of(seed: u64, index: u32) -> Self {
        let chance = Chance::new(seed, &format!("subscription {index}"));
        let temper = chance.pick(&TEMPERS).copied().unwrap_or(Temper::Healthy);
        let steps = 1 + chance.below(4);
        let step = || chance.between(Duration::ZERO, Duration::from_secs(12));
        let delays: Vec<_> = (0..steps).map(|_| step()).collect();
        let mut key = [0; 24];
        chance.entropy().fill(&mut key);
        let secret = Secret::new(format!("whsec_{}", STANDARD.encode(key)));
        let mut draft =
            SubscriptionDraft::new(format!("https://hooks.example.com/{index}")).with_secret(secret.clone());
        draft.settings.events = patterns(&chance);
        draft.settings.retry = Some(RetrySchedule::new(delays.clone()).unwrap().into());
        if chance.hits(300) {
            draft.settings.rate_limit = Some(RateLimit::per_second(2.0).unwrap());
        }
        if chance.hits(300) {
            draft.settings.max_in_flight = Some(1 + u32::try_from(chance.below(3)).unwrap());
        }
        Self { temper, delays, secret, draft }
    }

    /// How many attempts its policy allows.
    pub(crate) fn attempts(&self) -> u32 {
        u32::try_from(self.delays.len()).unwrap() + 1
    }
}

pub(crate) fn patterns(chance: &Chance) -> Vec<EventPattern> {
    let count = 1 + chance.below(2);
    (0..count).filter_map(|_| chance.pick(&PATTERNS)).map(|pattern| pattern.parse().unwrap()).collect()
}

/// The tenant of a number.
pub(crate) fn tenant(number: u64) -> TenantId {
    format!("tenant-{number}").parse().unwrap()
}
