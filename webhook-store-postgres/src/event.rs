//! Accepting events.

use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder};
use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptPlan, AcceptUnit, EventFilter, EventStore, ItemOutcome, Page, PageRequest,
    Position,
};
use webhook_core::{Event, EventId, EventReceipt, EventSummary, EventType, StoreError, Target, TenantId, Timestamp};

use crate::error::Fault;
use crate::fan_out::FanOuts;
use crate::session::Conn;
use crate::store::PostgresStore;
use crate::{history, key, rows, subscription};

#[async_trait]
impl EventStore for PostgresStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        if AcceptPlan::keys_of(units).next().is_some() {
            let mut session = self.writer().await?;
            let outcomes = accept(&mut session.conn(), now, units).await;
            return self.end(session, outcomes).await;
        }
        let mut session = self.reader().await?;
        let outcomes = accept_unkeyed(&mut session.conn(), units).await;
        self.end(session, outcomes).await
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        let mut session = self.reader().await?;
        let found = find(&mut session.conn(), tenant, id).await;
        self.end(session, found).await
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        let mut session = self.reader().await?;
        let page = list(&mut session.conn(), tenant, filter, page).await;
        self.end(session, page).await
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        let mut session = self.worker_reader().await?;
        let events = load(&mut session.conn(), ids).await;
        self.end(session, events).await
    }
}

/// Accepts units inside the transaction that `conn` is in.
async fn accept(conn: &mut Conn<'_>, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, Fault> {
    key::lock(conn, AcceptPlan::keys_of(units)).await?;
    let (generations, _) = subscription::generations_locked(conn, units.iter().map(|unit| &unit.tenant)).await?;
    let stored = key::stored(conn, AcceptPlan::keys_of(units)).await?;
    let plan = AcceptPlan::resolve(units, now, &generations, stored);
    // The generations are known to be the current ones: these are compared with what was read under the lock.
    insert_all(conn, &plan.events).await?;
    key::remember(conn, &plan.keys).await?;
    Ok(plan.outcomes)
}

/// Accepts units that name no key, in one statement.
async fn accept_unkeyed(conn: &mut Conn<'_>, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, Fault> {
    let mut items = Vec::with_capacity(units.len());
    for (unit, of) in units.iter().enumerate() {
        items.extend(of.items.iter().map(|item| (count(unit), item)));
    }
    let stale = insert(conn, units, &items).await?;
    let outcome = |(unit, of): (usize, &AcceptUnit)| {
        if stale.contains(&count(unit)) {
            return AcceptOutcome::Stale;
        }
        let created = |item: &AcceptItem| ItemOutcome::Created(EventReceipt::of(&item.event, &item.deliveries));
        AcceptOutcome::Done(of.items.iter().map(created).collect())
    };
    Ok(units.iter().enumerate().map(outcome).collect())
}

/// Accepts one unit inside the host's transaction.
pub(crate) async fn accept_in(conn: &mut Conn<'_>, now: Timestamp, unit: &AcceptUnit) -> Result<AcceptOutcome, Fault> {
    let units = std::slice::from_ref(unit);
    let outcomes = match AcceptPlan::keys_of(units).next() {
        Some(_) => accept(conn, now, units).await?,
        None => accept_unkeyed(conn, units).await?,
    };
    outcomes.into_iter().next().ok_or_else(|| StoreError::Other("a unit was left without an outcome".into()).into())
}

/// Inserts events with their deliveries, whatever the generations.
pub(crate) async fn insert_all(conn: &mut Conn<'_>, items: &[&AcceptItem]) -> Result<(), Fault> {
    if !items.is_empty() {
        insert(conn, &[], &items.iter().map(|item| (0, *item)).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Inserts events with their deliveries, each with the number of its unit; the numbers of the units that are stale, of
/// which nothing was inserted. Asking again with the same events changes nothing: the first answer may have been lost
/// after the commit.
async fn insert(conn: &mut Conn<'_>, units: &[AcceptUnit], items: &[(i32, &AcceptItem)]) -> Result<Vec<i32>, Fault> {
    let (mut events, mut deliveries, mut fan_outs) = (Events::default(), Deliveries::default(), FanOuts::default());
    for (unit, item) in items.iter().copied() {
        events.push(unit, item)?;
        for delivery in fan_outs.take(unit, item).into_iter().filter_map(|position| item.deliveries.get(position)) {
            let lease = delivery.lease;
            deliveries.units.push(unit);
            deliveries.ids.push(delivery.id.as_uuid());
            deliveries.tenants.push(item.event.tenant.as_str());
            deliveries.events.push(item.event.id.as_uuid());
            deliveries.target_ids.push(delivery.target.id().as_uuid());
            deliveries.subscriptions.push(delivery.target.subscription().map(|id| id.as_uuid()));
            deliveries.targets.push(match &delivery.target {
                Target::AdHoc { sealed, .. } => Some(sealed.as_bytes()),
                _ => None,
            });
            deliveries.next_ats.push(lease.map_or(item.event.created_at, |lease| lease.until).as_millis());
            deliveries.tokens.push(lease.map(|lease| lease.token.get()));
            deliveries.payload_sizes.push(count(item.event.payload.len()));
            deliveries.created.push(item.event.created_at.as_millis());
        }
    }
    let stale = sqlx::query_scalar(
        "SELECT webhook.accept_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
           $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)",
    )
    .bind(units.iter().map(|unit| unit.tenant.as_str()).collect::<Vec<_>>())
    .bind(units.iter().map(|unit| unit.generation.get()).collect::<Vec<_>>())
    .bind(events.units)
    .bind(events.ids)
    .bind(events.tenants)
    .bind(events.types)
    .bind(events.content_types)
    .bind(events.payloads)
    .bind(events.metadata)
    .bind(events.directs)
    .bind(events.deliveries)
    .bind(events.created)
    .bind(deliveries.units)
    .bind(deliveries.ids)
    .bind(deliveries.tenants)
    .bind(deliveries.events)
    .bind(deliveries.target_ids)
    .bind(deliveries.subscriptions)
    .bind(deliveries.targets)
    .bind(deliveries.next_ats)
    .bind(deliveries.tokens)
    .bind(deliveries.payload_sizes)
    .bind(deliveries.created)
    .bind(fan_outs.units)
    .bind(fan_outs.ids)
    .bind(fan_outs.tenants)
    .bind(fan_outs.events)
    .bind(fan_outs.opens)
    .bind(fan_outs.targets)
    .bind(fan_outs.next_ats)
    .bind(fan_outs.tokens)
    .bind(fan_outs.payload_sizes)
    .bind(fan_outs.created)
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    Ok(stale)
}

/// Events, column by column.
#[derive(Default)]
struct Events<'a> {
    units: Vec<i32>,
    ids: Vec<uuid::Uuid>,
    tenants: Vec<&'a str>,
    types: Vec<Option<&'a str>>,
    content_types: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
    metadata: Vec<Option<String>>,
    directs: Vec<bool>,
    deliveries: Vec<i32>,
    created: Vec<i64>,
}

impl<'a> Events<'a> {
    fn push(&mut self, unit: i32, item: &'a AcceptItem) -> Result<(), Fault> {
        let event = &item.event;
        self.units.push(unit);
        self.ids.push(event.id.as_uuid());
        self.tenants.push(event.tenant.as_str());
        self.types.push(event.event_type.as_ref().map(EventType::as_str));
        self.content_types.push(&event.content_type);
        self.payloads.push(&event.payload);
        self.metadata.push(event.metadata.as_ref().map(serde_json::to_string).transpose()?);
        self.directs.push(event.direct);
        self.deliveries.push(count(item.deliveries.len()));
        self.created.push(event.created_at.as_millis());
        Ok(())
    }
}

/// Deliveries, column by column.
#[derive(Default)]
struct Deliveries<'a> {
    units: Vec<i32>,
    ids: Vec<uuid::Uuid>,
    tenants: Vec<&'a str>,
    events: Vec<uuid::Uuid>,
    target_ids: Vec<uuid::Uuid>,
    subscriptions: Vec<Option<uuid::Uuid>>,
    targets: Vec<Option<&'a [u8]>>,
    next_ats: Vec<i64>,
    tokens: Vec<Option<i64>>,
    payload_sizes: Vec<i32>,
    created: Vec<i64>,
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

async fn find(conn: &mut Conn<'_>, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, Fault> {
    let found = sqlx::query("SELECT * FROM webhook.event WHERE id = $1 AND tenant = $2")
        .bind(id.as_uuid())
        .bind(tenant.as_str())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    found.as_ref().map(|row| Ok((rows::event(row)?, rows::count(row, "deliveries")?))).transpose()
}

async fn load(conn: &mut Conn<'_>, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, Fault> {
    let found = sqlx::query(
        "SELECT e.* FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::uuid[])) AS j (tenant, id)
         JOIN webhook.event AS e ON e.id = j.id AND e.tenant = j.tenant",
    )
    .bind(ids.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(ids.iter().map(|(_, id)| id.as_uuid()).collect::<Vec<_>>())
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, rows::event)
}

async fn list(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<EventSummary>, Fault> {
    let select = |what: &str| {
        let mut query =
            QueryBuilder::<Postgres>::new(format!("SELECT {what} FROM webhook.event AS e WHERE e.tenant = "));
        query.push_bind(tenant.as_str().to_owned());
        if let Some(event_type) = &filter.event_type {
            query.push(" AND e.event_type = ").push_bind(EventType::as_str(event_type).to_owned());
        }
        if let Some(since) = filter.since {
            history::push_since(&mut query, "e", since);
        }
        if let Some(until) = filter.until {
            history::push_until(&mut query, "e", until);
        }
        query
    };
    let total = match page.position {
        Position::Offset(_) => Some(rows::big_count(
            &select("count(*) AS total").build().persistent(conn.persistent).fetch_one(&mut *conn.inner).await?,
            "total",
        )?),
        _ => None,
    };
    let mut query = select(
        "e.id, e.tenant, e.event_type, e.metadata, octet_length(e.payload)::bigint AS payload_bytes, e.deliveries, e.created_at",
    );
    history::push_page(&mut query, "e", page);
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    Ok(Page::from_probe(rows::all(&found, rows::event_summary)?, page.limit, total))
}
