//! Draws the account: the callers' ledger, the endpoints' and the database's, side by side.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use webhook_core::DeliveryState;

use crate::audit;
use crate::ledger::{Arrival, Endpoint, Ledger, SLOTS, TENANTS, captured_body};
use crate::node::ATTEMPT;
use crate::temper::Temper;

/// The steps between attempts, in seconds.
pub(crate) const STEPS: [u64; 15] = [1, 1, 2, 2, 3, 3, 5, 5, 5, 8, 8, 8, 8, 8, 8];
/// An attempt may be held by so much more than its deadline before that is one that has none.
const HELD: Duration = Duration::from_secs(4);
/// Clocks that are off, twice, and what it takes to answer.
const EARLY: Duration = Duration::from_millis(750);

/// What came of a run. What [`crate::judgement`] names must be zero.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) acknowledged: usize,
    pub(crate) retried: usize,
    pub(crate) stored: usize,
    pub(crate) lost: usize,
    pub(crate) invented: usize,
    pub(crate) payloads: usize,
    pub(crate) expected: usize,
    pub(crate) deliveries: usize,
    pub(crate) without_delivery: usize,
    pub(crate) states: BTreeMap<&'static str, usize>,
    pub(crate) lost_leases: i64,
    pub(crate) ended_by_lost_leases: usize,
    pub(crate) misnumbered: usize,
    pub(crate) requests: usize,
    pub(crate) to_healthy: usize,
    pub(crate) unreached: usize,
    pub(crate) duplicates: usize,
    pub(crate) untrue: usize,
    pub(crate) unheard: usize,
    pub(crate) unfenced: (usize, String),
    pub(crate) stolen: (usize, String),
    pub(crate) early: usize,
    pub(crate) held: usize,
    pub(crate) unsigned: usize,
    pub(crate) inexact: usize,
    pub(crate) crossed: usize,
    pub(crate) captured: usize,
    pub(crate) captures_lost: usize,
    pub(crate) captures_invented: usize,
}

/// What a run knows that neither book has.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) ledger: &'a Ledger,
    /// Each subscription's endpoint.
    pub(crate) subscriptions: &'a HashMap<Uuid, Endpoint>,
    /// When servers stood still: their attempts lasted for longer.
    pub(crate) freezes: &'a [(Duration, Duration)],
    /// From then on operators made attempts due by hand.
    pub(crate) calm_at: Duration,
}

impl Account {
    pub(crate) async fn draw(url: &str, known: &Circumstances<'_>) -> Self {
        let mut database = PgConnection::connect(url).await.unwrap();
        let mut account = Self::default();
        let numbers = account.events(&mut database, known).await;
        let answered = account.arrivals(known, &numbers);
        account.deliveries(&mut database, known, &numbers, &answered).await;
        account.captures(&mut database, known).await;
        account.unfenced = audit::seen(&mut database, "unfenced").await;
        account.stolen = audit::seen(&mut database, "early").await;
        let misnumbered = "SELECT count(*) FROM webhook.delivery d LEFT JOIN (SELECT delivery_id, count(*) AS rows, \
                           min(number) AS first, max(number) AS last FROM webhook.attempt GROUP BY 1) a \
                           ON a.delivery_id = d.id WHERE d.attempts <> coalesce(a.rows, 0) OR (a.rows > 0 AND \
                           (a.first <> 1 OR a.last <> d.attempts))";
        account.misnumbered = number(&mut database, misnumbered).await;
        let crossed = "SELECT count(*) FROM webhook.every_delivery d JOIN webhook.event e ON e.id = d.event_id \
                       JOIN webhook.subscription s ON s.id = d.subscription_id \
                       WHERE d.tenant <> e.tenant OR d.tenant <> s.tenant";
        account.crossed += number(&mut database, crossed).await;
        account
    }

    /// Accepted and stored; the number of each event that is.
    async fn events(&mut self, database: &mut PgConnection, known: &Circumstances<'_>) -> HashMap<Uuid, u32> {
        let numbers = self.acknowledgements(known);
        let mut found = 0;
        let mut rows = sqlx::query_as::<_, (Uuid, Vec<u8>)>("SELECT id, payload FROM webhook.event").fetch(database);
        while let Some((id, payload)) = rows.try_next().await.unwrap() {
            self.stored += 1;
            match numbers.get(&id) {
                Some(n) => {
                    found += 1;
                    self.payloads += usize::from(payload != crate::ledger::payload(*n).as_bytes());
                }
                None => self.invented += 1,
            }
        }
        self.lost += numbers.len() - found;
        numbers
    }

    /// What callers were told; the number of each event.
    fn acknowledgements(&mut self, known: &Circumstances<'_>) -> HashMap<Uuid, u32> {
        let acknowledged = known.ledger.acknowledged();
        let numbers: HashMap<_, _> = acknowledged.iter().map(|(n, event)| (event.id, *n)).collect();
        self.acknowledged = acknowledged.len();
        self.retried = acknowledged.values().filter(|event| event.tries > 1).count();
        self.expected = acknowledged.values().map(|event| event.deliveries as usize).sum();
        // Two events with one id would be one too few.
        self.lost += acknowledged.len() - numbers.len();
        numbers
    }

    /// What the endpoints saw; how often each event was answered 200 by each endpoint of its tenant.
    fn arrivals(&mut self, known: &Circumstances<'_>, numbers: &HashMap<Uuid, u32>) -> HashMap<(u32, usize), u32> {
        let mut arrivals = known.ledger.arrivals();
        arrivals.sort_unstable_by_key(|arrival| (arrival.n, arrival.endpoint, arrival.arrived));
        let mut answered = HashMap::new();
        for arrival in arrivals.iter() {
            self.requests += 1;
            self.invented += usize::from(numbers.get(&arrival.event) != Some(&arrival.n));
            self.unsigned += usize::from(!arrival.signed);
            self.inexact += usize::from(!arrival.exact);
            self.crossed += usize::from(arrival.endpoint.tenant != crate::ledger::tenant_of(arrival.n));
            if arrival.status == 200 {
                *answered.entry((arrival.n, arrival.endpoint.slot)).or_default() += 1;
            }
            let frozen = known.freezes.iter().any(|(from, to)| arrival.arrived <= *to && arrival.ended >= *from);
            self.held += usize::from(arrival.ended - arrival.arrived > ATTEMPT + HELD && !frozen);
        }
        self.duplicates = answered.values().map(|times: &u32| *times as usize - 1).sum();
        for delivery in arrivals.chunk_by(|a, b| (a.n, a.endpoint) == (b.n, b.endpoint)) {
            self.early += delivery.windows(2).filter(|pair| is_early(&pair[0], &pair[1], known.calm_at)).count();
        }
        answered
    }

    async fn deliveries(
        &mut self,
        database: &mut PgConnection,
        known: &Circumstances<'_>,
        numbers: &HashMap<Uuid, u32>,
        answered: &HashMap<(u32, usize), u32>,
    ) {
        // One bit for each slot.
        let mut slots = HashMap::<u32, u8>::new();
        let sql = "SELECT event_id, subscription_id, state, lost, reason FROM webhook.every_delivery";
        let mut rows = sqlx::query_as::<_, (Uuid, Option<Uuid>, i16, i32, Option<i16>)>(sql).fetch(database);
        while let Some((event, subscription, state, lost, reason)) = rows.try_next().await.unwrap() {
            self.deliveries += 1;
            self.lost_leases += i64::from(lost);
            let state = DeliveryState::from_code(state).unwrap();
            *self.states.entry(state.as_str()).or_default() += 1;
            let lost_leases = webhook_core::Reason::LostLeases.code();
            self.ended_by_lost_leases += usize::from(reason == Some(lost_leases));
            let endpoint = subscription.and_then(|id| known.subscriptions.get(&id));
            let (Some(n), Some(endpoint)) = (numbers.get(&event), endpoint) else { continue };
            let arrived = answered.contains_key(&(*n, endpoint.slot));
            self.untrue += usize::from(state == DeliveryState::Delivered && !arrived);
            self.unheard += usize::from(state == DeliveryState::Exhausted && arrived);
            if endpoint.slot == 0 {
                self.to_healthy += 1;
                self.unreached += usize::from(!arrived);
            }
            *slots.entry(*n).or_default() |= 1 << endpoint.slot;
        }
        for n in numbers.values() {
            let has = slots.get(n).copied().unwrap_or(0);
            // One that answered 410 is disabled, and new events do not match it.
            let gone = Temper::of(*n as usize % TENANTS) == Temper::Gone;
            let wanted = (0..SLOTS).filter(|slot| !(gone && *slot == SLOTS - 1));
            self.without_delivery += wanted.filter(|slot| has & (1 << slot) == 0).count();
        }
    }

    async fn captures(&mut self, database: &mut PgConnection, known: &Circumstances<'_>) {
        let mut rows_of = HashMap::<u32, u32>::new();
        let sql = "SELECT body, tenant FROM webhook.captured_request";
        let mut rows = sqlx::query_as::<_, (Vec<u8>, String)>(sql).fetch(database);
        while let Some((body, tenant)) = rows.try_next().await.unwrap() {
            let text = String::from_utf8_lossy(&body);
            let n = text.split(' ').nth(1).and_then(|n| n.parse::<u32>().ok());
            match n.filter(|n| body == captured_body(*n).as_bytes()) {
                Some(n) => {
                    *rows_of.entry(n).or_default() += 1;
                    let owner = format!("tenant-{}", crate::ledger::tenant_of(n));
                    self.crossed += usize::from(tenant != owner);
                }
                None => self.captures_invented += 1,
            }
        }
        let captured = known.ledger.captured();
        self.captured = captured.len();
        for (n, captured) in captured.iter() {
            let rows = rows_of.remove(n).unwrap_or(0);
            self.captures_lost += usize::from(rows < captured.acknowledged);
            self.captures_invented += rows.saturating_sub(captured.tries) as usize;
        }
        self.captures_invented += rows_of.len();
    }
}

/// The next attempt came before it was due. Those that a crash repeats have no due time of their own.
fn is_early(one: &Arrival, next: &Arrival, calm_at: Duration) -> bool {
    let step = usize::from(one.attempt).checked_sub(1).and_then(|step| STEPS.get(step));
    let (Some(step), true) = (step, next.attempt == one.attempt + 1 && next.arrived < calm_at) else { return false };
    next.arrived + EARLY < one.arrived + Duration::from_secs(*step) / 2
}

async fn number(database: &mut PgConnection, sql: &'static str) -> usize {
    sqlx::query_scalar::<_, i64>(sql).fetch_one(database).await.unwrap() as usize
}
