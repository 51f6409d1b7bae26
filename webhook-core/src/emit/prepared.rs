//! An event that is matched and numbered, ready to be stored.

use std::sync::Arc;

use crate::context::Context;
use crate::inbox;
use crate::index::TenantIndex;
use crate::store::{AcceptItem, AcceptUnit, IdempotencyKey, NewDelivery, SubscriptionChanges};
use crate::{
    AdHocTarget, DeliveryId, DirectTarget, Error, Event, EventId, Generation, NewEvent, Sealed, Source, SubscriptionId,
    Target, TargetId, TenantId, Timestamp,
};

/// Events of one call, matched and numbered: what an adapter's `emit_in` stores inside the host's own transaction.
#[derive(Clone, Debug)]
pub struct Prepared {
    context: Arc<Context>,
    index: Arc<TenantIndex>,
    unit: AcceptUnit,
    /// For each event, the version of each subscription it goes to.
    versions: Vec<Vec<Generation>>,
}

impl Prepared {
    /// What to store.
    pub fn unit(&self) -> &AcceptUnit {
        &self.unit
    }

    /// The time now, by the engine's clock: what an adapter's `emit_in` judges keys by.
    pub fn now(&self) -> Timestamp {
        self.context.now()
    }

    /// The generation that the events were matched at.
    pub fn generation(&self) -> Generation {
        self.unit.generation
    }

    /// The same events, matched again after `changes`, which start at [`Prepared::generation`].
    ///
    /// # Errors
    ///
    /// [`Error::FanOut`] when an event now matches too many subscriptions; [`Error::NotFound`] when the subscription
    /// of a direct event is gone.
    pub fn rematch(&self, changes: &SubscriptionChanges) -> Result<Self, Error> {
        self.index.apply(changes);
        self.again()
    }

    /// The same events, matched again by the index as it is now.
    fn again(&self) -> Result<Self, Error> {
        let mut prepared = self.clone();
        prepared.match_all()?;
        Ok(prepared)
    }

    /// The same events, matched again by this index of their tenant.
    pub(crate) fn by(&self, index: Arc<TenantIndex>) -> Result<Self, Error> {
        Self { index, ..self.clone() }.again()
    }

    /// The subscription that a direct event goes to.
    pub(crate) fn direct_subscription(&self) -> Option<SubscriptionId> {
        let direct = self.unit.items.iter().find(|item| item.event.direct)?;
        direct.deliveries.first()?.target.subscription()
    }

    pub(crate) fn matched(
        context: &Arc<Context>,
        index: Arc<TenantIndex>,
        tenant: &TenantId,
        events: Vec<NewEvent>,
    ) -> Result<Self, Error> {
        let items = events.into_iter().map(|event| item(context, tenant, event, false)).collect();
        let unit = AcceptUnit::new(tenant.clone(), Generation::ZERO, items);
        let mut prepared = Self { context: Arc::clone(context), index, unit, versions: Vec::new() };
        prepared.match_all()?;
        Ok(prepared)
    }

    /// A direct event, as of a generation of the tenant's subscriptions and a version of the one that it goes to.
    pub(crate) fn direct(
        context: &Arc<Context>,
        index: Arc<TenantIndex>,
        tenant: &TenantId,
        event: NewEvent,
        target: DirectTarget,
        (generation, version): (Generation, Generation),
    ) -> Result<Self, Error> {
        let mut item = item(context, tenant, event, true);
        let id = DeliveryId::from_uuid(context.new_id());
        let target = match target {
            DirectTarget::Subscription(subscription) => Target::Subscription(subscription),
            DirectTarget::AdHoc(target) => ad_hoc(context, tenant, id, &target)?,
            DirectTarget::Handler(source) => handler(context, tenant, id, &source),
        };
        item.deliveries = vec![NewDelivery::new(id, target)];
        let unit = AcceptUnit::new(tenant.clone(), generation, vec![item]);
        Ok(Self { context: Arc::clone(context), index, unit, versions: vec![vec![version]] })
    }

    /// With the idempotency key of the whole call.
    pub(crate) fn with_key(mut self, key: Option<IdempotencyKey>) -> Self {
        self.unit.key = key;
        self
    }

    /// Shows every delivery with its event's position, its own, the version of its subscription, and the event's size.
    pub(crate) fn each_delivery(&mut self, mut f: impl FnMut(usize, usize, &mut NewDelivery, Generation, usize)) {
        for (position, (item, versions)) in self.unit.items.iter_mut().zip(&self.versions).enumerate() {
            let payload_bytes = item.event.payload.len();
            for (number, (delivery, version)) in item.deliveries.iter_mut().zip(versions).enumerate() {
                f(position, number, delivery, *version, payload_bytes);
            }
        }
    }

    fn match_all(&mut self) -> Result<(), Error> {
        let limit = self.context.options.max_fan_out;
        // A change between two items would leave them at two generations: then all are matched again.
        loop {
            let mut versions = Vec::with_capacity(self.unit.items.len());
            let mut generation = None;
            for item in &mut self.unit.items {
                if item.event.direct {
                    versions.push(vec![Generation::ZERO; item.deliveries.len()]);
                    continue;
                }
                let matched = self.index.matches(item.event.event_type.as_ref(), limit)?;
                if *generation.get_or_insert(matched.generation) != matched.generation {
                    generation = None;
                    break;
                }
                item.deliveries = new_deliveries(&self.context, &matched.subscriptions);
                versions.push(matched.subscriptions.into_iter().map(|(_, version)| version).collect());
            }
            if versions.len() == self.unit.items.len() {
                self.unit.generation = generation.unwrap_or_else(|| self.index.generation());
                self.versions = versions;
                return Ok(());
            }
        }
    }
}

fn new_deliveries(context: &Context, subscriptions: &[(SubscriptionId, Generation)]) -> Vec<NewDelivery> {
    let new = |(id, (subscription, _)): (uuid::Uuid, &(SubscriptionId, Generation))| {
        NewDelivery::new(DeliveryId::from_uuid(id), Target::Subscription(*subscription))
    };
    context.new_ids().zip(subscriptions).map(new).collect()
}

/// The caller's own id of an event, as a key.
pub(crate) fn own_key(context: &Context, event: &NewEvent) -> Option<IdempotencyKey> {
    let expires_at = context.now() + context.options.idempotency_window;
    Some(IdempotencyKey::new("event-id", event.key.clone()?, event.fingerprint(), expires_at))
}

fn item(context: &Context, tenant: &TenantId, new: NewEvent, direct: bool) -> AcceptItem {
    let key = own_key(context, &new);
    let mut event = Event::new(EventId::from_uuid(context.new_id()), tenant.clone(), context.now());
    event.event_type = new.event_type;
    event.content_type = new.content_type;
    event.payload = new.payload;
    event.metadata = new.metadata;
    event.direct = direct;
    let mut item = AcceptItem::new(event, Vec::new());
    item.key = key;
    item
}

/// The handler of a source, as a target. Its messages of one tenant share fairness.
fn handler(context: &Context, tenant: &TenantId, id: DeliveryId, source: &Source) -> Target {
    let target = AdHocTarget::new(format!("{}:{source}", inbox::SCHEME));
    Target::AdHoc { key: shared_key(&format!("{tenant}/{}", target.url)), sealed: seal(context, tenant, id, &target) }
}

/// An ad-hoc target with its delivery. Targets on one host of one tenant share fairness and limits.
fn ad_hoc(context: &Context, tenant: &TenantId, id: DeliveryId, target: &AdHocTarget) -> Result<Target, Error> {
    let url = context.guard.parse_target(&target.url).map_err(|error| Error::invalid("target_url", error))?;
    context.guard.check_url(&url).map_err(|error| Error::invalid("target_url", error))?;
    if http::Method::from_bytes(target.method.as_bytes()).is_err() {
        return Err(Error::invalid("method", "not an HTTP method"));
    }
    if let (Some(secret), Some(signer)) = (&target.secret, context.signers.get(crate::StandardSigner::SCHEME)) {
        signer.check_secret(secret).map_err(|error| Error::invalid("secret", error))?;
    }
    let authority = format!("{}/{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
    let key = shared_key(&format!("{tenant}/{authority}"));
    Ok(Target::AdHoc { key, sealed: seal(context, tenant, id, target) })
}

fn seal(context: &Context, tenant: &TenantId, id: DeliveryId, target: &AdHocTarget) -> Sealed {
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(target).unwrap_or_default());
    context.keyring.seal(&*context.entropy, &ad_hoc_aad(tenant, id), &plain)
}

/// Opens what [`seal`] sealed.
pub(crate) fn open_ad_hoc(
    context: &Context,
    tenant: &TenantId,
    id: DeliveryId,
    sealed: &crate::Sealed,
) -> Result<AdHocTarget, Error> {
    let opened =
        context.keyring.open(&ad_hoc_aad(tenant, id), sealed).map_err(|error| Error::Unreadable(error.into()))?;
    serde_json::from_slice(&opened).map_err(|error| Error::Unreadable(error.into()))
}

fn ad_hoc_aad(tenant: &TenantId, id: DeliveryId) -> Vec<u8> {
    format!("ad-hoc/{tenant}/{id}").into_bytes()
}

fn shared_key(text: &str) -> TargetId {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    TargetId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
