//! Accepting events.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptPlan, AcceptUnit, EventFilter, EventStore, Page, PageRequest, Position,
};
use webhook_core::{Event, EventId, EventSummary, EventType, StoreError, Target, TenantId, Timestamp};

use crate::error::Fault;
use crate::store::SqliteStore;
use crate::{bulk, history, key, rows, subscription};

#[async_trait]
impl EventStore for SqliteStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        let items = units.iter().flat_map(|unit| &unit.items);
        let weight = items.map(|item| 1 + item.deliveries.len()).sum();
        let input = (now, units.to_vec());
        self.writer.run(weight, input, |conn, (now, units)| Box::pin(accept(conn, *now, units))).await
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        let found = sqlx::query("SELECT * FROM webhook_event WHERE id = ?1 AND tenant = ?2")
            .bind(id.as_uuid())
            .bind(tenant.as_str())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(Fault::from)?;
        let decode = |row| Ok::<_, Fault>((rows::event(row)?, rows::count(row, "deliveries")?));
        Ok(found.as_ref().map(decode).transpose()?)
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        Ok(list(&mut *self.reader().await?, tenant, filter, page).await?)
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|(tenant, id)| (tenant.as_str(), bulk::hex(id.as_uuid()))).collect();
        let found = sqlx::query(
            "SELECT e.* FROM (SELECT DISTINCT value ->> 0 AS tenant, unhex(value ->> 1) AS id FROM json_each(?1)) AS j
             CROSS JOIN webhook_event AS e ON e.id = j.id AND e.tenant = j.tenant",
        )
        .bind(bulk::json(&ids)?)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(Fault::from)?;
        Ok(rows::all(&found, rows::event)?)
    }
}

/// Accepts units inside the transaction that `conn` is in.
pub(crate) async fn accept(
    conn: &mut SqliteConnection,
    now: Timestamp,
    units: &[AcceptUnit],
) -> Result<Vec<AcceptOutcome>, Fault> {
    let generations = subscription::generations(conn, units.iter().map(|unit| &unit.tenant)).await?;
    let stored = key::stored(conn, AcceptPlan::keys_of(units)).await?;
    let plan = AcceptPlan::resolve(units, now, &generations, stored);
    insert_all(conn, &plan.events).await?;
    key::remember(conn, &plan.keys).await?;
    Ok(plan.outcomes)
}

/// Accepts one unit inside the host's transaction.
pub(crate) async fn accept_in(
    conn: &mut SqliteConnection,
    now: Timestamp,
    unit: &AcceptUnit,
) -> Result<AcceptOutcome, Fault> {
    // Takes the write lock before anything is read, in case the transaction was begun without it: what is read
    // afterwards is what stands when it commits.
    sqlx::query("UPDATE webhook_tenant SET generation = generation WHERE tenant = ?1")
        .bind(unit.tenant.as_str())
        .execute(&mut *conn)
        .await?;
    let outcomes = accept(conn, now, std::slice::from_ref(unit)).await?;
    outcomes.into_iter().next().ok_or_else(|| StoreError::Other("a unit was left without an outcome".into()).into())
}

/// Inserts events with their deliveries.
pub(crate) async fn insert_all(conn: &mut SqliteConnection, items: &[&AcceptItem]) -> Result<(), Fault> {
    insert_events(conn, items).await?;
    insert_deliveries(conn, items).await
}

/// Asking again with the same events changes nothing: the first answer may have been lost after the commit.
async fn insert_events(conn: &mut SqliteConnection, items: &[&AcceptItem]) -> Result<(), Fault> {
    bulk::insert(
        conn,
        "INSERT INTO webhook_event
           (id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)",
        9,
        "ON CONFLICT (id) DO NOTHING",
        items,
        |query, item| {
            let event = &item.event;
            Ok(query
                .bind(event.id.as_uuid())
                .bind(event.tenant.as_str().to_owned())
                .bind(event.event_type.as_ref().map(|event_type| event_type.as_str().to_owned()))
                .bind(event.content_type.clone())
                .bind(event.payload.to_vec())
                .bind(event.metadata.as_ref().map(bulk::json).transpose()?)
                .bind(event.direct)
                .bind(count(item.deliveries.len()))
                .bind(event.created_at.as_millis()))
        },
    )
    .await
}

async fn insert_deliveries(conn: &mut SqliteConnection, items: &[&AcceptItem]) -> Result<(), Fault> {
    let mut deliveries = Vec::new();
    for item in items {
        let event = &item.event;
        for delivery in &item.deliveries {
            let sealed = match &delivery.target {
                Target::AdHoc { sealed, .. } => Some(hex::encode(sealed.as_bytes())),
                _ => None,
            };
            deliveries.push((
                bulk::hex(delivery.id.as_uuid()),
                event.tenant.as_str(),
                bulk::hex(event.id.as_uuid()),
                bulk::hex(delivery.target.id().as_uuid()),
                delivery.target.subscription().is_some(),
                sealed,
                delivery.lease.map_or(event.created_at, |lease| lease.until).as_millis(),
                delivery.lease.map(|lease| lease.token.get()),
                count(event.payload.len()),
                event.created_at.as_millis(),
            ));
        }
    }
    if deliveries.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO webhook_delivery
           (id, tenant, event_id, target_id, subscription_id, target, next_at, leased, token, payload_bytes, created_at)
         SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), unhex(value ->> 3),
           CASE WHEN value ->> 4 THEN unhex(value ->> 3) END, unhex(value ->> 5), value ->> 6,
           value ->> 7 IS NOT NULL, coalesce(value ->> 7, 0), value ->> 8, value ->> 9
         FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(bulk::json(&deliveries)?)
    .execute(conn)
    .await?;
    Ok(())
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

async fn list(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<EventSummary>, Fault> {
    let select = |what: &str| {
        let mut query = QueryBuilder::<Sqlite>::new(format!("SELECT {what} FROM webhook_event AS e WHERE e.tenant = "));
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
        Position::Offset(_) => {
            Some(rows::big_count(&select("count(*) AS total").build().fetch_one(&mut *conn).await?, "total")?)
        }
        _ => None,
    };
    let mut query = select(
        "e.id, e.tenant, e.event_type, e.metadata, length(e.payload) AS payload_bytes, e.deliveries, e.created_at",
    );
    history::push_page(&mut query, "e", page);
    let found = query.build().fetch_all(conn).await?;
    Ok(Page::from_probe(rows::all(&found, rows::event_summary)?, page.limit, total))
}
