//! The handle's methods about events.

use sha2::{Digest, Sha256};

use crate::emit::own_key;
use crate::error::Noun;
use crate::store::{DeliveryFilter, EventFilter, IdempotencyKey, Page, PageRequest};
use crate::{
    DeliveryState, DeliveryView, DirectTarget, Emitted, Error, Event, EventId, EventSummary, Generation, NewEvent,
    Prepared, TenantId, Webhooks,
};

/// How an event fares, over all its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventStatus {
    /// It matched nothing.
    NoSubscribers,
    /// A delivery is open.
    Pending,
    /// All deliveries arrived.
    Delivered,
    /// Some arrived.
    PartiallyDelivered,
    /// None arrived.
    Failed,
}

impl EventStatus {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSubscribers => "no_subscribers",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::PartiallyDelivered => "partially_delivered",
            Self::Failed => "failed",
        }
    }

    fn of(deliveries: &[DeliveryView]) -> Self {
        let count = |state| deliveries.iter().filter(|view| view.delivery.state == state).count();
        if deliveries.is_empty() {
            Self::NoSubscribers
        } else if count(DeliveryState::Pending) > 0 {
            Self::Pending
        } else {
            match count(DeliveryState::Delivered) {
                0 => Self::Failed,
                delivered if delivered == deliveries.len() => Self::Delivered,
                _ => Self::PartiallyDelivered,
            }
        }
    }
}

impl Webhooks {
    /// Accepts an event: when this returns, the event and a delivery for each matching subscription are committed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::TooLarge`], [`Error::FanOut`], [`crate::Conflict::KeyReused`]; when the store is
    /// unavailable it may have been accepted all the same: emit again with a key.
    pub async fn emit(&self, tenant: &TenantId, event: NewEvent) -> Result<Emitted, Error> {
        let keyed = (event.key.is_some() || event.idempotency_key.is_some()).then(|| event.clone());
        match (self.prepare(tenant, event).await, keyed) {
            (Ok(prepared), _) => self.only(prepared).await,
            // It may have matched fewer when it came first.
            (Err(error @ Error::FanOut { .. }), Some(event)) => {
                let keys = [self.call_key(&event, "events"), own_key(self.context(), &event)];
                self.first_answer(tenant, keys, error).await
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Accepts events like [`Webhooks::emit`], each on its own: one answer for each, in order. With a key they are
    /// accepted together, in one transaction, and a repeat gives the first answers.
    ///
    /// # Errors
    ///
    /// [`crate::Conflict::KeyReused`] when the key was used for other events; [`Error::Store`] when the store
    /// failed for all of them.
    pub async fn emit_batch(
        &self,
        tenant: &TenantId,
        events: Vec<NewEvent>,
        key: Option<String>,
    ) -> Result<Vec<Result<Emitted, Error>>, Error> {
        let Some(key) = key else {
            let calls = events.into_iter().map(|event| self.emit(tenant, event));
            let mut outcomes = futures_util::future::join_all(calls).await;
            let failed = |outcome: &Result<Emitted, Error>| matches!(outcome, Err(Error::Store(_)));
            return match outcomes.pop() {
                Some(Err(error @ Error::Store(_))) if outcomes.iter().all(failed) => Err(error),
                last => Ok(outcomes.into_iter().chain(last).collect()),
            };
        };
        let mut hash = Sha256::new();
        for event in &events {
            event.check(self.context())?;
            hash.update(event.fingerprint());
            hash.update(event.key.as_deref().unwrap_or_default());
            hash.update([0]);
        }
        let expires_at = self.now() + self.options().idempotency_window;
        let key = IdempotencyKey::new("events/batch", key, hash.finalize().into(), expires_at);
        let index = self.indexes().get(tenant).await?;
        match Prepared::matched(self.context(), index, tenant, events) {
            Ok(prepared) => self.emitter().accept(prepared.with_key(Some(key))).await,
            Err(error) => self.emitter().known(tenant, key).await?.ok_or(error),
        }
    }

    /// Accepts an event for one given target, without matching. A key counts for each subscription, and for each
    /// source, on its own.
    ///
    /// # Errors
    ///
    /// Like [`Webhooks::emit`]; [`Error::NotFound`] when the subscription is unknown.
    pub async fn emit_direct(
        &self,
        tenant: &TenantId,
        event: NewEvent,
        target: DirectTarget,
    ) -> Result<Emitted, Error> {
        let (scope, owner) = match &target {
            DirectTarget::Subscription(id) => ("direct", Some(id.to_string())),
            DirectTarget::AdHoc(_) => ("direct/ad-hoc", None),
            DirectTarget::Handler(source) => ("direct/handler", Some(source.to_string())),
        };
        let mut key = self.call_key(&event, scope);
        if let (Some(key), Some(owner)) = (&mut key, owner) {
            key.key = format!("{owner}/{}", key.key);
        }
        self.emit_direct_as(tenant, event, target, key).await
    }

    /// Like [`Webhooks::emit_direct`], with that key in place of the event's own.
    pub(crate) async fn emit_direct_as(
        &self,
        tenant: &TenantId,
        event: NewEvent,
        target: DirectTarget,
        key: Option<IdempotencyKey>,
    ) -> Result<Emitted, Error> {
        event.check(self.context())?;
        let index = self.indexes().get(tenant).await?;
        // Read before the subscription: whatever changes after that makes accepting match again.
        let generation = index.generation();
        let version = match &target {
            DirectTarget::Subscription(id) => match self.subscription(tenant, *id).await {
                Ok(subscription) => subscription.version,
                // It may have been there when the event came first.
                Err(error @ Error::NotFound(_)) => {
                    return self.first_answer(tenant, [key, own_key(self.context(), &event)], error).await;
                }
                Err(error) => return Err(error),
            },
            DirectTarget::AdHoc(_) | DirectTarget::Handler(_) => Generation::ZERO,
        };
        let prepared = Prepared::direct(self.context(), index, tenant, event, target, (generation, version))?;
        self.only(prepared.with_key(key)).await
    }

    /// Matches and numbers an event, for an adapter's `emit_in` inside the host's own transaction.
    pub async fn prepare(&self, tenant: &TenantId, event: NewEvent) -> Result<Prepared, Error> {
        event.check(self.context())?;
        let key = self.call_key(&event, "events");
        let index = self.indexes().get(tenant).await?;
        Ok(Prepared::matched(self.context(), index, tenant, vec![event])?.with_key(key))
    }

    /// One event of the tenant, with how many deliveries it was given.
    pub async fn event(&self, tenant: &TenantId, id: EventId) -> Result<(Event, u32), Error> {
        self.context().in_time(self.context().store.event(tenant, id)).await?.ok_or(Error::NotFound(Noun::Event))
    }

    /// The tenant's events, newest first.
    pub async fn events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, Error> {
        Ok(self.context().in_time(self.context().store.list_events(tenant, filter, page)).await?)
    }

    /// An event, how it fares, and all its deliveries.
    pub async fn event_status(
        &self,
        tenant: &TenantId,
        id: EventId,
    ) -> Result<(EventSummary, EventStatus, Vec<DeliveryView>), Error> {
        let (event, count) = self.event(tenant, id).await?;
        let filter = DeliveryFilter { event: Some(id), ..DeliveryFilter::default() };
        let mut deliveries: Vec<DeliveryView> = Vec::new();
        let mut request = PageRequest::newest(1000);
        loop {
            let page = self.deliveries(tenant, &filter, request).await?;
            deliveries.extend(page.items);
            match deliveries.last() {
                Some(last) if page.has_more => request = PageRequest::after(1000, last.delivery.id.as_uuid()),
                _ => break,
            }
        }
        Ok((EventSummary::of(&event, count), EventStatus::of(&deliveries), deliveries))
    }

    fn call_key(&self, event: &NewEvent, scope: &'static str) -> Option<IdempotencyKey> {
        let key = event.idempotency_key.clone()?;
        let mut hash = Sha256::new();
        hash.update(event.fingerprint());
        hash.update(event.key.as_deref().unwrap_or_default());
        let expires_at = self.now() + self.options().idempotency_window;
        Some(IdempotencyKey::new(scope, key, hash.finalize().into(), expires_at))
    }

    /// What was answered when one of the keys was used before; `otherwise` where none was.
    async fn first_answer(
        &self,
        tenant: &TenantId,
        keys: [Option<IdempotencyKey>; 2],
        otherwise: Error,
    ) -> Result<Emitted, Error> {
        for key in keys.into_iter().flatten() {
            if let Some(answer) = self.emitter().known(tenant, key).await?.and_then(|known| known.into_iter().next()) {
                return answer;
            }
        }
        Err(otherwise)
    }

    async fn only(&self, prepared: Prepared) -> Result<Emitted, Error> {
        let outcomes = self.emitter().accept(prepared).await?;
        outcomes.into_iter().next().unwrap_or(Err(Error::NotFound(Noun::Event)))
    }
}
