//! Callers of the library: they emit, subscribe, change, retry and cancel, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use webhook_core::{
    CaptureId, Conflict, DeliveryId, DirectTarget, Error, Event, EventId, IncomingRequest, NewEvent, PathDraft, PathId,
    SubscriptionId, TenantId, Webhooks,
};

use crate::chance::Chance;
use crate::plan::{EVENT_TYPES, patterns, tenant};
use crate::world::World;

/// A caller gives up on a call after so long: it may have happened.
const PATIENCE: Duration = Duration::from_secs(10);
const TENANTS: u64 = 2;

/// What callers know: the ledger that the store is held against in the end.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Every payload that was ever tried, with its tenant and key.
    pub(crate) tried: BTreeMap<String, (TenantId, Option<String>)>,
    /// What was answered as accepted.
    pub(crate) acked: Vec<(EventId, TenantId, String)>,
    /// Keyed events without a definite answer.
    pub(crate) unknown: Vec<(TenantId, String, NewEvent)>,
    /// The ids that each key was answered with.
    pub(crate) keys: BTreeMap<(TenantId, String), EventId>,
    pub(crate) deliveries: Vec<(TenantId, DeliveryId)>,
    pub(crate) subscriptions: Vec<(TenantId, SubscriptionId, u32)>,
    pub(crate) tenant_of: BTreeMap<u32, TenantId>,
    /// Every body that was sent to a capture path.
    pub(crate) sent: BTreeSet<String>,
    /// What was answered as kept.
    pub(crate) kept: Vec<(TenantId, CaptureId, String)>,
}

/// The capture path of a tenant.
pub(crate) fn path_of(tenant: &TenantId) -> PathId {
    format!("path-{tenant}").parse().unwrap()
}

/// All callers of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    world: Arc<World>,
    /// The engines that can be called now.
    pub(crate) engines: Mutex<Vec<Webhooks>>,
    pub(crate) ledger: Mutex<Ledger>,
    next_payload: AtomicU64,
    next_index: AtomicU32,
}

impl Clients {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            engines: Mutex::default(),
            ledger: Mutex::default(),
            next_payload: AtomicU64::new(0),
            next_index: AtomicU32::new(0),
        })
    }

    fn engine(&self, chance: &Chance) -> Option<Webhooks> {
        chance.pick(&self.engines.lock().unwrap()).cloned()
    }

    /// One caller: so many calls, with pauses in between.
    pub(crate) async fn call(&self, name: &str, calls: u32) {
        let chance = self.world.chance(name);
        for _ in 0..calls {
            sleep(chance.between(Duration::ZERO, Duration::from_millis(1500))).await;
            let Some(engine) = self.engine(&chance) else { continue };
            let tenant = tenant(chance.below(TENANTS));
            match chance.below(100) {
                0..48 => self.emit(&engine, &chance, tenant).await,
                48..55 => self.capture(&engine, &chance, &tenant).await,
                55..60 => self.emit_many(&engine, &chance, &tenant).await,
                60..66 => self.emit_directly(&engine, &chance).await,
                66..72 => self.subscribe(&engine, &tenant).await,
                72..82 => self.change(&engine, &chance).await,
                82..84 => self.unsubscribe(&engine, &chance).await,
                84..90 => self.retry(&engine, &chance).await,
                90..94 => self.cancel(&engine, &chance).await,
                94..97 => self.recover(&engine, &chance).await,
                _ => self.pry(&engine, &chance).await,
            }
        }
    }

    /// A subscription of the next number.
    pub(crate) async fn subscribe(&self, engine: &Webhooks, tenant: &TenantId) {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        self.ledger.lock().unwrap().tenant_of.insert(index, tenant.clone());
        let draft = self.world.plan(index).draft.clone();
        match self.ask(&format!("subscribe {index}"), engine.subscribe(tenant, draft)).await {
            Some(Ok(new)) => {
                self.ledger.lock().unwrap().subscriptions.push((tenant.clone(), new.subscription.id, index));
            }
            Some(Err(error)) => self.only_the_store_fails(&error),
            None => {}
        }
    }

    /// Sends a request to the tenant's capture path, which is made first if it is not there.
    async fn capture(&self, engine: &Webhooks, chance: &Chance, tenant: &TenantId) {
        let path = path_of(tenant);
        let body = text(&self.new_event(chance, tenant));
        self.ledger.lock().unwrap().sent.insert(body.clone());
        for _ in 0..2 {
            let request = IncomingRequest::new("POST", format!("/webhook/{path}")).with_body(body.clone());
            match self.ask("capture", engine.capture(&path, request, None)).await {
                Some(Ok(kept)) => {
                    return self.ledger.lock().unwrap().kept.push((tenant.clone(), kept.id, body));
                }
                Some(Err(Error::NotFound(_))) => {
                    let made =
                        self.ask("create path", engine.create_path(tenant, PathDraft::named(path.clone()))).await;
                    if let Some(Err(error)) = made {
                        self.only_the_store_fails(&error);
                    }
                }
                Some(Err(error)) => return self.only_the_store_fails(&error),
                None => return,
            }
        }
    }

    async fn emit(&self, engine: &Webhooks, chance: &Chance, tenant: TenantId) {
        let mut event = self.new_event(chance, &tenant);
        let key = chance.hits(700).then(|| format!("key-{}", self.next_payload.load(Ordering::Relaxed)));
        if let Some(key) = &key {
            event = event.with_key(key);
        }
        self.try_event(&tenant, &event);
        for _ in 0..3 {
            let Some(answer) = self.ask("emit", engine.emit(&tenant, event.clone())).await else { break };
            match answer {
                Ok(emitted) => return self.acked(&tenant, &event, emitted.id, emitted.delivery),
                Err(error) => self.only_the_store_fails(&error),
            }
            if key.is_none() {
                return;
            }
        }
        if let Some(key) = key {
            self.ledger.lock().unwrap().unknown.push((tenant, key, event));
        }
    }

    /// In the calm, every keyed event whose fate is unknown is asked for again, until it is known.
    pub(crate) async fn settle(&self, engine: &Webhooks) {
        let unknown = std::mem::take(&mut self.ledger.lock().unwrap().unknown);
        for (tenant, _, event) in unknown {
            match self.ask("emit again", engine.emit(&tenant, event.clone())).await {
                Some(Ok(emitted)) => self.acked(&tenant, &event, emitted.id, emitted.delivery),
                other => self.world.wrong(format!("C1 an event was not accepted in the calm: {other:?}")),
            }
            let mut other = event.clone();
            other.payload = "{}".into();
            match self.ask("emit another under its key", engine.emit(&tenant, other)).await {
                Some(Err(Error::Conflict(Conflict::KeyReused))) => {}
                other => self.world.wrong(format!("C14 a key took another body: {other:?}")),
            }
        }
    }

    async fn emit_many(&self, engine: &Webhooks, chance: &Chance, tenant: &TenantId) {
        let events: Vec<_> = (0..1 + chance.below(5)).map(|_| self.new_event(chance, tenant)).collect();
        for event in &events {
            self.try_event(tenant, event);
        }
        let key = chance.hits(500).then(|| format!("batch-{}", self.next_payload.load(Ordering::Relaxed)));
        match self.ask("emit many", engine.emit_batch(tenant, events.clone(), key)).await {
            Some(Ok(answers)) => {
                for (event, answer) in events.iter().zip(answers) {
                    match answer {
                        Ok(emitted) => self.acked(tenant, event, emitted.id, emitted.delivery),
                        Err(error) => self.only_the_store_fails(&error),
                    }
                }
            }
            Some(Err(error)) => self.only_the_store_fails(&error),
            None => {}
        }
    }

    async fn emit_directly(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_subscription(chance) else { return };
        let event = self.new_event(chance, &tenant);
        self.try_event(&tenant, &event);
        let target = DirectTarget::Subscription(id);
        match self.ask("emit directly", engine.emit_direct(&tenant, event.clone(), target)).await {
            Some(Ok(emitted)) => self.acked(&tenant, &event, emitted.id, emitted.delivery),
            Some(Err(error)) => self.only_the_store_fails(&error),
            None => {}
        }
    }

    /// Switches a subscription on or off, and changes what it wants.
    async fn change(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_subscription(chance) else { return };
        let index = self.index(id);
        let mut draft = self.world.plan(index).draft.clone();
        draft.enabled = chance.hits(650);
        draft.settings.events = patterns(chance);
        let what = format!("change {index}, enabled {}", draft.enabled);
        if let Some(Err(error)) = self.ask(&what, engine.replace_subscription(&tenant, id, draft, None)).await {
            self.only_the_store_fails(&error);
        }
    }

    async fn unsubscribe(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_subscription(chance) else { return };
        if let Some(Err(error)) = self.ask("unsubscribe", engine.unsubscribe(&tenant, id)).await {
            self.only_the_store_fails(&error);
        }
    }

    async fn retry(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_delivery(chance) else { return };
        if let Some(Err(error)) = self.ask("retry", engine.retry(&tenant, id)).await {
            self.only_the_store_fails(&error);
        }
    }

    async fn cancel(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_delivery(chance) else { return };
        if let Some(Err(error)) = self.ask("cancel", engine.cancel(&tenant, id)).await {
            self.only_the_store_fails(&error);
        }
    }

    async fn recover(&self, engine: &Webhooks, chance: &Chance) {
        let Some((tenant, id)) = self.some_subscription(chance) else { return };
        let now = engine.now();
        let since = now - Duration::from_secs(60);
        if let Some(Err(error)) = self.ask("recover", engine.recover(&tenant, id, since, now)).await {
            self.only_the_store_fails(&error);
        }
    }

    /// C13: what belongs to one tenant is not there for another.
    async fn pry(&self, engine: &Webhooks, chance: &Chance) {
        let stranger = tenant(TENANTS);
        let Some((_, id)) = self.some_delivery(chance) else { return };
        match self.ask("pry", engine.delivery(&stranger, id)).await {
            None | Some(Err(Error::NotFound(_) | Error::Store(_))) => {}
            other => self.world.wrong(format!("C13 a stranger sees a delivery: {other:?}")),
        }
        match self.ask("meddle", engine.cancel(&stranger, id)).await {
            None | Some(Err(Error::NotFound(_) | Error::Store(_))) => {}
            other => self.world.wrong(format!("C13 a stranger cancels a delivery: {other:?}")),
        }
    }

    /// A call with its answer; none when the caller gave up on it.
    async fn ask<T>(&self, what: &str, call: impl Future<Output = Result<T, Error>>) -> Option<Result<T, Error>> {
        let answer = timeout(PATIENCE, call).await.ok();
        let told = match &answer {
            None => "no answer".to_owned(),
            Some(Ok(_)) => "ok".to_owned(),
            Some(Err(error)) => error.to_string(),
        };
        self.world.log(format_args!("client: {what}: {told}"));
        answer
    }

    /// Callers ask for nothing unreasonable: any other error is a mistake.
    fn only_the_store_fails(&self, error: &Error) {
        if !matches!(error, Error::Store(_) | Error::NotFound(_) | Error::Conflict(_)) {
            self.world.wrong(format!("a call failed: {error:?}"));
        }
    }

    fn new_event(&self, chance: &Chance, tenant: &TenantId) -> NewEvent {
        let number = self.next_payload.fetch_add(1, Ordering::Relaxed);
        let event_type = chance.pick(&EVENT_TYPES).unwrap().parse().unwrap();
        NewEvent::new(event_type, format!("{{ \"tenant\":\"{tenant}\",\t\"number\":{number} }}"))
    }

    fn try_event(&self, tenant: &TenantId, event: &NewEvent) {
        let tried = (tenant.clone(), event.key.clone());
        self.ledger.lock().unwrap().tried.insert(text(event), tried);
    }

    fn acked(&self, tenant: &TenantId, event: &NewEvent, id: EventId, delivery: Option<DeliveryId>) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.acked.push((id, tenant.clone(), text(event)));
        ledger.deliveries.extend(delivery.map(|id| (tenant.clone(), id)));
        if let Some(key) = &event.key
            && let Some(before) = ledger.keys.insert((tenant.clone(), key.clone()), id)
            && before != id
        {
            self.world.wrong(format!("C14 key {key} stands for {before} and {id}"));
        }
    }

    fn some_subscription(&self, chance: &Chance) -> Option<(TenantId, SubscriptionId)> {
        let ledger = self.ledger.lock().unwrap();
        chance.pick(&ledger.subscriptions).map(|(tenant, id, _)| (tenant.clone(), *id))
    }

    fn index(&self, id: SubscriptionId) -> u32 {
        let ledger = self.ledger.lock().unwrap();
        ledger.subscriptions.iter().find(|(_, other, _)| *other == id).map_or(0, |(_, _, index)| *index)
    }

    fn some_delivery(&self, chance: &Chance) -> Option<(TenantId, DeliveryId)> {
        chance.pick(&self.ledger.lock().unwrap().deliveries).cloned()
    }
}

fn text(event: &NewEvent) -> String {
    String::from_utf8_lossy(&event.payload).into_owned()
}

/// What an accepted event is in the ledger's words.
pub(crate) fn text_of(event: &Event) -> String {
    String::from_utf8_lossy(&event.payload).into_owned()
}
