//! The journal keeps every promise of the seam, and what it says when it is opened again.

#![expect(clippy::expect_used, reason = "a case without its directory cannot go on")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;
use webhook_core::store::{
    AcceptItem, AcceptUnit, ClaimRequest, DeliveryStore, EventStore, HistoryStore, Inserted, LeaseToken,
    MaintenanceStore, NewDelivery, Room, SubscriptionStore,
};
use webhook_core::{
    DeliveryId, Event, EventId, Sealed, Store, StoreError, SubscriptionId, SubscriptionRecord, SubscriptionSettings,
    Target, TenantId, Timestamp,
};
use webhook_example_custom_store::JournalStore;

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let dir = tempfile::tempdir().expect("a directory for the case");
    let store = JournalStore::open(dir.path().join("journal")).expect("a new journal opens");
    (Arc::new(store), dir)
}

webhook_core::store_conformance!(fresh);
webhook_core::store_model!(fresh, 48);

#[tokio::test]
async fn what_was_accepted_is_there_after_reopening_and_a_torn_line_is_not() -> Result<(), StoreError> {
    let dir = tempfile::tempdir().expect("a directory for the case");
    let path = dir.path().join("journal");
    let (tenant, now) = (TenantId::default_tenant(), Timestamp::from_millis(1_700_000_000_000));
    let settings = SubscriptionSettings::new("https://example.com/hook");
    let id = SubscriptionId::from_uuid(Uuid::from_u128(1));
    let record = SubscriptionRecord::new(id, tenant.clone(), settings, Sealed::from_bytes(vec![0, 255]), now);
    let mut event = Event::new(EventId::from_uuid(Uuid::from_u128(2)), tenant.clone(), now);
    event.payload = Bytes::from_static(b"\x00\xff{\"b\": 1.0}");
    let new = NewDelivery::new(DeliveryId::from_uuid(Uuid::from_u128(3)), Target::Subscription(id));
    let delivery = new.id;

    let store = JournalStore::open(&path)?;
    let Inserted::Created(generation) = store.insert_subscription(&record, None).await? else { panic!("it is new") };
    let item = AcceptItem::new(event.clone(), vec![new]);
    store.accept(now, &[AcceptUnit::new(tenant.clone(), generation, vec![item])]).await?;
    let room = Room::all(1);
    let until = now + Duration::from_secs(30);
    store.claim(ClaimRequest::new(now, until, LeaseToken::new(8), 1, &room)).await?;
    let before = store.delivery(&tenant, delivery).await?;
    assert!(matches!(JournalStore::open(&path), Err(StoreError::Unavailable(_))), "one process at a time");
    drop(store);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("the journal is a file");
    file.write_all(b"[{\"EventGone\":").expect("the journal can be written");
    drop(file);

    for _ in 0..2 {
        let store = JournalStore::open(&path)?;
        assert_eq!(store.event(&tenant, event.id).await?, Some((event.clone(), 1)));
        assert_eq!(store.delivery(&tenant, delivery).await?, before);
        assert_eq!(store.generations(std::slice::from_ref(&tenant)).await?, [generation]);
        assert_eq!(store.backlog(now).await?.pending, 1);
        store.cancel_orphans(now, 1).await?;
    }
    Ok(())
}
