//! The handle's methods about deliveries, attempts and figures.

use std::collections::HashMap;

use crate::error::{Conflict, Noun};
use crate::store::{Activity, AddedDelivery, CancelOutcome, DeliveryFilter, Page, PageRequest, RetryOutcome, Stats};
use crate::{
    Attempt, Delivery, DeliveryId, DeliveryState, DirectTarget, Error, EventId, NewEvent, SubscriptionId,
    SubscriptionRecord, TenantId, Timestamp, Webhooks,
};

const RECOVERED_AT_ONCE: u32 = 500;

/// A delivery with what follows from its subscription and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryView {
    /// The delivery.
    pub delivery: Delivery,
    /// A worker is attempting it right now.
    pub in_flight: bool,
    /// How many attempts the policy allows.
    pub max_attempts: u32,
    /// When it will be attempted next: when it is due, or when its subscription's pause (429, 502, 503, 504) ends, if
    /// that is later. None unless it is pending and not in flight.
    pub next_attempt_at: Option<Timestamp>,
}

impl Webhooks {
    /// One delivery of the tenant.
    pub async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<DeliveryView, Error> {
        let delivery = self
            .context()
            .in_time(self.context().store.delivery(tenant, id))
            .await?
            .ok_or(Error::NotFound(Noun::Delivery))?;
        let views = self.views(tenant, vec![delivery]).await?;
        views.into_iter().next().ok_or(Error::NotFound(Noun::Delivery))
    }

    /// The tenant's deliveries, newest first.
    pub async fn deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>, Error> {
        let page = self.context().in_time(self.context().store.list_deliveries(tenant, filter, page)).await?;
        let items = self.views(tenant, page.items).await?;
        Ok(Page { items, has_more: page.has_more, total: page.total })
    }

    /// The attempts of one delivery, oldest first.
    pub async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, Error> {
        Ok(self.context().in_time(self.context().store.attempts_of(tenant, delivery)).await?)
    }

    /// The attempts that went to one subscription, newest first.
    pub async fn attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, Error> {
        self.subscription(tenant, subscription).await?;
        Ok(self.context().in_time(self.context().store.list_attempts(tenant, subscription, page)).await?)
    }

    /// Attempts a delivery now: an ended one is opened again for exactly one attempt.
    ///
    /// # Errors
    ///
    /// [`Conflict::InFlight`] while it is being attempted; [`Conflict::SubscriptionDeleted`].
    pub async fn retry(&self, tenant: &TenantId, id: DeliveryId) -> Result<(), Error> {
        match self.context().in_time(self.context().store.retry(tenant, id, self.now())).await? {
            RetryOutcome::Done => {
                // It is done, whatever comes of this: a pause that this process remembers ends by itself too.
                match self.context().in_time(self.context().store.delivery(tenant, id)).await {
                    Ok(delivery) => {
                        if let Some(subscription) = delivery.and_then(|delivery| delivery.subscription_id) {
                            self.worker().resume(subscription.into());
                        }
                    }
                    Err(error) => tracing::warn!(delivery = %id, %error, "a retried delivery was not read again"),
                }
                self.wake();
                Ok(())
            }
            RetryOutcome::Leased => Err(Conflict::InFlight.into()),
            RetryOutcome::TargetGone => Err(Conflict::SubscriptionDeleted.into()),
            RetryOutcome::Missing => Err(Error::NotFound(Noun::Delivery)),
        }
    }

    /// Calls a pending delivery off; an attempt that is under way counts for nothing.
    ///
    /// # Errors
    ///
    /// [`Conflict::Ended`] when it has ended.
    pub async fn cancel(&self, tenant: &TenantId, id: DeliveryId) -> Result<(), Error> {
        match self.context().in_time(self.context().store.cancel(tenant, id, self.now())).await? {
            CancelOutcome::Done => Ok(()),
            CancelOutcome::Finished => Err(Conflict::Ended.into()),
            CancelOutcome::Missing => Err(Error::NotFound(Noun::Delivery)),
        }
    }

    /// Sends a real signed delivery to one subscription, to try it.
    pub async fn send_test(&self, tenant: &TenantId, id: SubscriptionId, event: NewEvent) -> Result<DeliveryId, Error> {
        let emitted = self.emit_direct(tenant, event, DirectTarget::Subscription(id)).await?;
        emitted.delivery.ok_or(Error::NotFound(Noun::Delivery))
    }

    /// Sends again what failed in a time, and creates what was missed: events of that time that match the
    /// subscription as it is now. How many deliveries that makes.
    pub async fn recover(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<u64, Error> {
        let context = self.context();
        let subscription = self.subscription(tenant, id).await?;
        let (mut count, mut after): (u64, Option<EventId>) = (0, None);
        loop {
            let page =
                context.in_time(context.store.recoverable(tenant, id, since, until, after, RECOVERED_AT_ONCE)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            let mut missed = Vec::new();
            for candidate in &page {
                match candidate.delivery {
                    Some((delivery, DeliveryState::Exhausted)) => {
                        let outcome = context.in_time(context.store.retry(tenant, delivery, context.now())).await?;
                        count += u64::from(outcome == RetryOutcome::Done);
                    }
                    Some(_) => {}
                    None => {
                        let matches = |pattern: &crate::EventPattern| pattern.matches(candidate.event_type.as_ref());
                        if subscription.settings.events.iter().any(matches) {
                            let id = DeliveryId::from_uuid(context.new_id());
                            missed.push(AddedDelivery { id, event: candidate.event });
                        }
                    }
                }
            }
            if !missed.is_empty() {
                count += context.in_time(context.store.add_deliveries(tenant, id, &missed, context.now())).await?;
            }
            if page.len() < RECOVERED_AT_ONCE as usize {
                break;
            }
        }
        self.worker().resume(id.into());
        Ok(count)
    }

    /// Figures since a time, of the tenant or of one subscription.
    pub async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, Error> {
        if let Some(id) = subscription {
            self.subscription(tenant, id).await?;
        }
        Ok(self.context().in_time(self.context().store.stats(tenant, subscription, since)).await?)
    }

    /// The newest things that happened, newest first.
    pub async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, Error> {
        Ok(self.context().in_time(self.context().store.activity(tenant, limit)).await?)
    }

    async fn views(&self, tenant: &TenantId, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryView>, Error> {
        let mut ids: Vec<_> = deliveries.iter().filter_map(|delivery| delivery.subscription_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let context = self.context();
        let (mut policies, mut pauses) = (HashMap::new(), HashMap::new());
        for chunk in ids.chunks(500) {
            let keys: Vec<_> = chunk.iter().map(|id| (tenant.clone(), *id)).collect();
            for record in context.in_time(context.store.subscriptions(&keys)).await? {
                let SubscriptionRecord { id, settings, paused_until, .. } = record;
                if let Some(retry) = settings.retry {
                    policies.insert(id, retry.policy().max_attempts());
                }
                if let Some(until) = paused_until {
                    pauses.insert(id, until);
                }
            }
        }
        let default = context.retry.max_attempts();
        let now = context.now();
        let view = |delivery: Delivery| {
            let subscription = delivery.subscription_id;
            let max_attempts = subscription.and_then(|id| policies.get(&id)).copied().unwrap_or(default);
            let pause = subscription.and_then(|id| pauses.get(&id)).copied();
            let in_flight = delivery.in_flight(now);
            let waits = delivery.state == DeliveryState::Pending && !in_flight;
            let next_attempt_at = waits.then(|| pause.map_or(delivery.next_at, |until| delivery.next_at.max(until)));
            DeliveryView { in_flight, max_attempts, next_attempt_at, delivery }
        };
        Ok(deliveries.into_iter().map(view).collect())
    }
}
