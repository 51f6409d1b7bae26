//! Promises of `CaptureStore` about keeping requests.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::scene::{Scene, at};
use crate::capture::{CapturedRequest, HeaderField};
use crate::store::{
    AcceptItem, CaptureOutcome, DeliveryFilter, EventFilter, NewCapture, PageRequest, PathRecord, ReadLimit,
};
use crate::{CaptureId, DeliveryId, PathKey, PathVersion, SubscriptionRecord, TenantId};

/// Bytes that text columns, JSON and C strings do not survive.
const HOSTILE: [&[u8]; 6] =
    [b"", b"\x00", b"\xff\xfe\x00 not UTF-8 \xc3\x28", b"\r\n'\"\\%_\x1b[0m", b"\x1f\x8b\x08\x00", &[0xa5; 300_000]];

pub async fn a_captured_request_comes_back_byte_for_byte(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let field = |name: &str, value: &[u8]| -> HeaderField { (name.to_owned(), Bytes::copy_from_slice(value)) };
    let (mut news, mut expected) = (Vec::new(), Vec::new());
    for (number, body) in (1..).zip(HOSTILE) {
        let mut new = scene.incoming(&record, at(number), body);
        let captured = &mut new.request;
        captured.number = number;
        captured.response_status = 599;
        captured.received_at = at(number - 1);
        let request = &mut captured.request;
        request.method = "M!#$%&'*+-.^_`|~9".to_owned();
        request.path = "/webhook/p/%2e%2e//\u{e9}'\"\\;%00/".to_owned();
        request.query =
            [None, Some(String::new()), Some("a=%zz&a=1?&\u{1f980}".to_owned())][number as usize % 3].clone();
        request.headers = vec![field("x-a", b"\xff\x80: \t"), field("x-a", b""), field("b", b"2"), field("x-a", b"3")];
        request.trailers = if number % 2 == 0 { vec![field("x-t", b"\xe9")] } else { Vec::new() };
        request.http_version = "HTTP/2.0".to_owned();
        request.ip_address =
            [None, Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16]))][number as usize % 2];
        request.peer_address = [Some(IpAddr::from([192, 0, 2, 1])), None][number as usize % 2];
        request.body_size = (1 << 40) + number;
        request.body_sha256 = [number as u8; 32];
        request.body_truncated = number % 2 == 0;
        expected.push(captured.clone());
        news.push(new);
    }
    let outcomes = scene.store.capture(at(9), &news).await.expect("the store works");
    assert_eq!(outcomes, expected.iter().map(|captured| CaptureOutcome::Stored(captured.id)).collect::<Vec<_>>());
    for captured in &expected {
        let stored = scene.store.captured(&scene.tenant, &record.path_id, captured.id).await;
        assert_eq!(stored.expect("the store works"), Some(captured.clone()));
    }
    let followed = scene.store.captured_after(&scene.tenant, &record.path_id, None, ReadLimit::requests(100)).await;
    assert_eq!(followed.expect("the store works"), expected);
    expected.reverse();
    let page = PageRequest::newest(100);
    let listed = scene.store.list_captured(&scene.tenant, &record.path_id, &Default::default(), page, u32::MAX).await;
    assert_eq!(listed.expect("the store works").items, expected);
}

pub async fn a_path_tells_what_it_holds(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    scene.capture_one(&record, at(2), b"12345").await;
    let mut news = vec![scene.incoming(&record, at(4), b"123"), scene.incoming(&record, at(4), b"")];
    news[1].request.received_at = at(3);
    let last = news[1].request.id;
    scene.store.capture(at(4), &news).await.expect("the store works");
    let usage = scene.usage(&record).await;
    assert_eq!((usage.requests, usage.bytes, usage.last_number), (3, 8, 3));
    assert_eq!((usage.last_id, usage.last_request_at), (Some(last), Some(at(3))));
}

pub async fn what_reaches_no_path_or_another_version_of_it_leaves_nothing_behind(scene: Scene) {
    let good = scene.create(scene.path_of(&scene.tenant, "good", at(1))).await;
    let mut expired = scene.path_of(&scene.tenant, "expired", at(1));
    expired.expires_at = Some(at(5));
    let expired = scene.create(expired).await;
    let deleted = scene.create(scene.path_of(&scene.tenant, "deleted", at(1))).await;
    scene.store.delete_path(&scene.tenant, &deleted.path_id).await.expect("the store works");
    let unknown = PathRecord { key: PathKey::from_uuid(scene.uuid(at(1))), ..good.clone() };
    let mut changed = good.clone();
    changed.version = PathVersion::new(2);
    let news: Vec<_> = [&good, &expired, &deleted, &unknown, &changed, &good]
        .map(|record| scene.incoming(record, at(5), b"x"))
        .to_vec();
    let (first, last) = (news[0].request.id, news[5].request.id);
    let outcomes = scene.store.capture(at(5), &news).await.expect("the store works");
    assert_eq!(
        outcomes,
        [
            CaptureOutcome::Stored(first),
            CaptureOutcome::Missing,
            CaptureOutcome::Missing,
            CaptureOutcome::Missing,
            CaptureOutcome::Changed,
            CaptureOutcome::Stored(last),
        ]
    );
    assert_eq!(scene.bodies(&good).await, ["x", "x"]);
    assert_eq!(scene.usage(&good).await.requests, 2);
    assert_eq!(scene.usage(&expired).await.requests, 0);
    let before = scene.incoming(&expired, at(4), b"x");
    let outcomes = scene.store.capture(at(4), &[before]).await.expect("the store works");
    assert!(matches!(outcomes[..], [CaptureOutcome::Stored(_)]), "it ends at 5");
}

pub async fn ids_grow_and_numbers_have_no_gap_whatever_ids_were_given(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let early = CaptureId::from_uuid(scene.uuid(at(1)));
    let first = scene.capture_one(&record, at(9), b"0").await;
    let mut news: Vec<_> = (1..4).map(|n: u8| scene.incoming(&record, at(2), &[b'0' + n])).collect();
    news[1].request.id = early;
    let outcomes = scene.store.capture(at(10), &news).await.expect("the store works");
    let stored = scene
        .store
        .captured_after(&scene.tenant, &record.path_id, None, ReadLimit::requests(10))
        .await
        .expect("the store works");
    let bodies: Vec<_> = stored.iter().map(|captured| captured.request.body.clone()).collect();
    assert_eq!(bodies, ["0", "1", "2", "3"], "in the order of their capture");
    assert_eq!(stored.iter().map(|captured| captured.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(stored.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(stored[0].id, first);
    let told: Vec<_> = stored[1..].iter().map(|captured| CaptureOutcome::Stored(captured.id)).collect();
    assert_eq!(outcomes, told);
    assert_eq!(scene.usage(&record).await.last_id, Some(stored[3].id));
}

pub async fn whoever_follows_a_path_sees_all_of_concurrent_calls_once(scene: Scene) {
    const CALLS: u8 = 40;
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..CALLS {
        let news: Vec<_> = (0..5).map(|_| scene.incoming(&record, at(u64::from(call % 7)), &[call])).collect();
        let store = Arc::clone(&scene.store);
        calls.spawn(async move { store.capture(at(9), &news).await.expect("the store works") });
    }
    let (mut after, mut numbers) = (None, Vec::new());
    while numbers.len() < usize::from(CALLS) * 5 {
        let page = scene
            .store
            .captured_after(&scene.tenant, &record.path_id, after, ReadLimit::requests(7))
            .await
            .expect("the store works");
        after = page.last().map(|captured| captured.id).or(after);
        numbers.extend(page.iter().map(|captured| captured.number));
        if page.is_empty() {
            assert!(!calls.is_empty(), "only {} of all were seen: {numbers:?}", numbers.len());
            calls.join_next().await;
        }
    }
    assert_eq!(numbers, (1..=u64::from(CALLS) * 5).collect::<Vec<_>>());
}

pub async fn the_oldest_requests_go_beyond_a_quota_of_requests(scene: Scene) {
    let mut record = scene.path_of(&scene.tenant, "p", at(1));
    record.settings.max_requests = Some(3);
    let record = scene.create(record).await;
    let other = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    scene.capture_one(&other, at(1), b"stays").await;
    for number in 0..5_u8 {
        scene.capture_one(&record, at(2), &[b'0' + number]).await;
    }
    assert_eq!(scene.bodies(&record).await, ["4", "3", "2"]);
    let usage = scene.usage(&record).await;
    assert_eq!((usage.requests, usage.bytes, usage.last_number), (3, 3, 5));
    let news: Vec<_> = (5..9_u8).map(|number| scene.incoming(&record, at(3), &[b'0' + number])).collect();
    let outcomes = scene.store.capture(at(3), &news).await.expect("the store works");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, CaptureOutcome::Stored(_))));
    assert_eq!(scene.bodies(&record).await, ["8", "7", "6"], "more of them than the quota at once");
    assert_eq!(scene.usage(&record).await.requests, 3);
    assert_eq!(scene.bodies(&other).await, ["stays"]);
}

pub async fn the_oldest_requests_go_beyond_a_quota_of_bytes_and_the_newest_stays(scene: Scene) {
    let mut record = scene.path_of(&scene.tenant, "p", at(1));
    record.settings.max_bytes = Some(10);
    let record = scene.create(record).await;
    for body in ["aaaa", "bbbb", "cc", "ddd"] {
        scene.capture_one(&record, at(2), body.as_bytes()).await;
    }
    assert_eq!(scene.bodies(&record).await, ["ddd", "cc", "bbbb"]);
    assert_eq!(scene.usage(&record).await.bytes, 9);
    scene.capture_one(&record, at(3), b"larger than the quota").await;
    assert_eq!(scene.bodies(&record).await, ["larger than the quota"]);
    let usage = scene.usage(&record).await;
    assert_eq!((usage.requests, usage.bytes), (1, 21));
    scene.capture_one(&record, at(4), b"e").await;
    assert_eq!(scene.bodies(&record).await, ["e"]);
}

pub async fn a_lowered_quota_is_reached_in_steps(scene: Scene) {
    let mut record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let news: Vec<_> = (0..1_500).map(|_| scene.incoming(&record, at(2), b"x")).collect();
    scene.store.capture(at(2), &news).await.expect("the store works");
    record.settings.max_requests = Some(2);
    scene.store.update_path(&record).await.expect("the store works");
    record.version = record.version.next();
    scene.capture_one(&record, at(3), b"y").await;
    assert_eq!(scene.usage(&record).await.requests, 500, "a transaction stays short");
    scene.capture_one(&record, at(4), b"z").await;
    assert_eq!(scene.bodies(&record).await, ["z", "y"]);
}

/// A request with one event for the subscription.
fn forwarded(scene: &Scene, record: &PathRecord, to: &SubscriptionRecord, tenant: &TenantId) -> NewCapture {
    let mut new = scene.incoming(record, at(5), b"forwarded");
    let mut event = scene.event(tenant, at(5));
    event.direct = true;
    event.event_type = None;
    event.payload = new.request.request.body.clone();
    new.forwards = vec![AcceptItem::new(event, vec![scene.to(to, at(5))])];
    new
}

async fn delivery_ids(scene: &Scene) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for tenant in [&scene.tenant, &scene.stranger] {
        let filter = DeliveryFilter::default();
        let page = scene.store.list_deliveries(tenant, &filter, PageRequest::newest(100)).await;
        ids.extend(page.expect("the store works").items.iter().map(|delivery| delivery.id));
    }
    ids
}

pub async fn requests_become_events_in_the_same_transaction(scene: Scene) {
    let subscription = scene.subscribe().await;
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let new = forwarded(&scene, &record, &subscription, &scene.tenant);
    let mut stale = forwarded(&scene, &record, &subscription, &scene.tenant);
    stale.version = PathVersion::new(7);
    let mut item = new.forwards[0].clone();
    item.event.metadata = Some(json!({ "captured_request": new.request.id.to_string() }));
    scene.store.capture(at(5), &[new, stale]).await.expect("the store works");
    let stored = scene.store.event(&scene.tenant, item.event.id).await.expect("the store works");
    assert_eq!(stored, Some((item.event, 1)));
    assert_eq!(delivery_ids(&scene).await, [item.deliveries[0].id], "what was not stored is not forwarded");
    let delivery = scene.delivery(item.deliveries[0].id).await;
    assert_eq!((delivery.next_at, delivery.subscription_id), (at(5), Some(subscription.id)));
    let leases = scene.claim(at(5), 10).await;
    assert_eq!(leases.iter().map(|lease| lease.delivery).collect::<Vec<_>>(), [delivery.id]);
}

pub async fn an_event_names_its_request_by_the_id_that_is_stored(scene: Scene) {
    let subscription = scene.subscribe().await;
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let mut news = [(); 3].map(|()| forwarded(&scene, &record, &subscription, &scene.tenant));
    news[1].forwards[0].event.metadata = Some(json!({ "method": "PUT" }));
    // Another node, whose clock is ahead, has captured already.
    scene.capture_one(&record, at(60), b"ahead").await;
    let outcomes = scene.store.capture(at(5), &news).await.expect("the store works");
    for (new, outcome) in news.iter().zip(outcomes) {
        let CaptureOutcome::Stored(id) = outcome else { panic!("not stored: {outcome:?}") };
        assert!(id > new.request.id, "it was raised");
        let event = scene.store.event(&scene.tenant, new.forwards[0].event.id).await.expect("the store works");
        let metadata = event.expect("it is there").0.metadata.expect("there is metadata");
        let named = metadata["captured_request"].as_str().expect("a text").parse().expect("an id");
        assert_eq!(named, id);
        let given = new.forwards[0].event.metadata.as_ref();
        assert_eq!(metadata.get("method"), given.and_then(|given| given.get("method")), "the rest is as it was");
        let named = scene.store.captured(&scene.tenant, &record.path_id, named).await.expect("the store works");
        assert!(named.is_some(), "whoever follows it finds it");
    }
}

pub async fn nothing_is_forwarded_to_deleted_and_foreign_subscriptions(scene: Scene) {
    let deleted = scene.subscribe().await;
    let foreign = scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    scene.store.delete_subscription(&scene.tenant, deleted.id, at(1)).await.expect("the store works");
    while scene.store.cancel_orphans(at(1), 10).await.expect("the store works") > 0 {}
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let news = [&deleted, &foreign].map(|to| forwarded(&scene, &record, to, &scene.tenant));
    let outcomes = scene.store.capture(at(5), &news).await.expect("the store works");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, CaptureOutcome::Stored(_))));
    assert_eq!(delivery_ids(&scene).await, []);
    let events = scene.store.list_events(&scene.tenant, &EventFilter::default(), PageRequest::newest(10)).await;
    assert_eq!(events.expect("the store works").items, []);
    assert_eq!(scene.bodies(&record).await, ["forwarded", "forwarded"]);
}

/// All of them, oldest first.
pub(super) async fn followed(scene: &Scene, record: &PathRecord) -> Vec<CapturedRequest> {
    scene
        .store
        .captured_after(&record.tenant, &record.path_id, None, ReadLimit::requests(1_000))
        .await
        .expect("the store works")
}
