//! The role that leases deliveries to workers and records what came of them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::{ClaimRequest, Claimed, LeaseToken, Release, StoreError};
use crate::{Attempt, DeliveryId, DeliveryState, Reason, TenantId, Timestamp};

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// It waits for its next attempt.
    RetryAt(Timestamp),
    /// It ends.
    End(DeliveryState, Option<Reason>),
}

/// What an outcome means for the delivery's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetEffect {
    /// Nothing.
    None,
    /// Its other deliveries wait until then: the later of this and a pause that stands.
    Pause(Timestamp),
    /// A pause ends.
    Resume,
    /// It takes no more deliveries: the target answered 410.
    DisableGone,
}

/// What a worker has to say about a delivery it holds a lease on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Whose delivery this is.
    pub tenant: TenantId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The lease's token.
    pub token: LeaseToken,
    /// The attempt; none when the delivery ended without one. Shared, as outcomes are handed on until they are recorded.
    pub attempt: Option<Arc<Attempt>>,
    /// What becomes of the delivery.
    pub next: NextStep,
    /// What it means for the subscription.
    pub effect: TargetEffect,
}

impl Outcome {
    /// The delivery takes its next step without an attempt and without an effect.
    pub fn new(tenant: TenantId, delivery: DeliveryId, token: LeaseToken, next: NextStep) -> Self {
        Self { tenant, delivery, token, attempt: None, next, effect: TargetEffect::None }
    }
}

/// How recording an outcome ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is written.
    Done,
    /// The lease was not the current one any more; nothing was changed.
    Fenced,
}

/// Leases deliveries and records what came of them.
#[async_trait]
pub trait DeliveryStore: Debug + Send + Sync + 'static {
    /// Leases due deliveries.
    ///
    /// # Contract
    ///
    /// - Only pending deliveries with `next_at <= now` whose subscription is enabled, not deleted and not paused
    ///   beyond `now` are leased; `next_at` becomes `lease_until`.
    /// - No delivery is leased twice at the same time, whoever asks.
    /// - No target gets more than its room, and there are at most `limit` leases.
    /// - A delivery that is found still leased lost that lease: `lost_leases` grows by one and no attempt is spent;
    ///   the fifth ends it as exhausted with the reason `lost_leases`.
    /// - Fair: repeated claims that go on from the returned cursor reach every target that has due deliveries, however
    ///   many another one has, in a number of calls that depends on how many targets have open deliveries only.
    /// - Deliveries of one target come oldest due first, as far as a claim sees: it looks at a bounded number of what is
    ///   due, so that a target's turn may be brought by a younger one. Where order matters, the receiver goes by the
    ///   message's own time.
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError>;

    /// Leases these deliveries, as far as [`DeliveryStore::claim`] would: the answer to hints.
    ///
    /// # Contract
    ///
    /// - What [`DeliveryStore::claim`] says of which deliveries are leased, of lost leases, room and limit holds here.
    /// - Unknown ids and ids given twice do no harm.
    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError>;

    /// Records outcomes in one transaction; one answer for each, in order.
    ///
    /// # Contract
    ///
    /// - An outcome whose token is not that of the current lease changes nothing and is fenced (I4), also when the
    ///   delivery was cancelled or deleted meanwhile.
    /// - The attempt, the delivery's new state or due time, its last status and error, and the effect on the
    ///   subscription are written together, or not at all (I5).
    /// - The attempt count becomes the attempt's number.
    /// - A delivery that ends has `completed_at` = `now` and is no longer leased or reopened.
    /// - A delivery that goes on is due at its new time and no longer leased; one that was reopened stays so.
    /// - `Pause` and `Resume` are no change of the subscription: its version and the generation stay.
    /// - `DisableGone` disables the subscription with the reason `gone` and counts as a change of it. One that is
    ///   disabled already stays as it is.
    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError>;

    /// Gives leases back unused.
    ///
    /// # Contract
    ///
    /// - The delivery is due again at the given time, no attempt is spent and no lease counts as lost.
    /// - A token that is not that of the current lease changes nothing.
    async fn release(&self, releases: &[Release]) -> Result<(), StoreError>;
}
