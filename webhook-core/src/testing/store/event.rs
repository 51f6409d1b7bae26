//! Promises of `EventStore`.

use bytes::Bytes;
use serde_json::json;

use super::scene::{Scene, at};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, ClaimRequest, DeliveryFilter, EventFilter, ItemOutcome, LeaseGrant,
    PageRequest, Room,
};
use crate::{Event, EventId, EventReceipt, EventSummary, Generation};

pub async fn an_accepted_event_is_there_with_all_its_deliveries(scene: Scene) {
    let records = scene.subscribe_many(3).await;
    let mut event = scene.event(&scene.tenant, at(5));
    event.payload = Bytes::from_static(b"{\"n\":1}");
    let deliveries: Vec<_> = records.iter().map(|record| scene.to(record, at(5))).collect();
    let item = AcceptItem::new(event.clone(), deliveries.clone());
    let unit = AcceptUnit::new(scene.tenant.clone(), records[2].version, vec![item]);
    let receipt = EventReceipt::of(&event, &deliveries);
    let outcomes = scene.accept_units(at(5), &[unit]).await;
    assert_eq!(outcomes, [AcceptOutcome::Done(vec![ItemOutcome::Created(receipt)])]);
    let stored = scene.store.event(&scene.tenant, event.id).await.expect("the store works");
    assert_eq!(stored, Some((event.clone(), 3)));
    for (new, record) in deliveries.iter().zip(&records) {
        let delivery = scene.delivery(new.id).await;
        assert_eq!((delivery.event_id, delivery.subscription_id), (event.id, Some(record.id)));
        assert_eq!(delivery.event_type, event.event_type);
    }
}

pub async fn an_event_without_deliveries_is_accepted(scene: Scene) {
    let event = scene.event(&scene.tenant, at(5));
    scene.accept(vec![AcceptItem::new(event.clone(), Vec::new())]).await;
    assert_eq!(scene.store.event(&scene.tenant, event.id).await.expect("the store works"), Some((event, 0)));
}

pub async fn a_stale_unit_leaves_nothing_behind_and_the_others_are_accepted(scene: Scene) {
    let record = scene.subscribe().await;
    let foreign = scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    let items = [scene.item(&record, at(1)), scene.item(&record, at(1)), scene.item(&foreign, at(1))];
    let ids = [0, 1, 2].map(|index| items[index].event.id);
    let [good, stale, other] = items;
    let units = [
        AcceptUnit::new(scene.tenant.clone(), record.version, vec![good]),
        AcceptUnit::new(scene.tenant.clone(), Generation::ZERO, vec![stale]),
        AcceptUnit::new(scene.stranger.clone(), foreign.version, vec![other]),
    ];
    let outcomes = scene.accept_units(at(1), &units).await;
    assert!(matches!(outcomes[0], AcceptOutcome::Done(_)));
    assert_eq!(outcomes[1], AcceptOutcome::Stale);
    assert!(matches!(outcomes[2], AcceptOutcome::Done(_)));
    let events = scene.store.list_events(&scene.tenant, &EventFilter::default(), PageRequest::newest(10)).await;
    assert_eq!(events.expect("the store works").items.iter().map(|event| event.id).collect::<Vec<_>>(), [ids[0]]);
    let filter = DeliveryFilter { event: Some(ids[1]), ..DeliveryFilter::default() };
    let deliveries = scene.store.list_deliveries(&scene.tenant, &filter, PageRequest::newest(10)).await;
    assert_eq!(deliveries.expect("the store works").items, []);
    assert!(scene.store.event(&scene.stranger, ids[2]).await.expect("the store works").is_some());
}

pub async fn payload_bytes_come_back_as_they_were_given(scene: Scene) {
    let payloads: [&[u8]; 7] = [
        b"",
        b"\x00",
        b"\xff\xfe\x00 not UTF-8 \xc3\x28",
        br#"{"b": 1.0,  "a":"\u00e9"}"#,
        b" [1e400, 1, 1] \r\n",
        "\u{feff}\u{1f980}".as_bytes(),
        &[0xa5; 300_000],
    ];
    for payload in payloads {
        let mut event = scene.event(&scene.tenant, at(1));
        event.payload = Bytes::copy_from_slice(payload);
        event.content_type = "application/octet-stream; x=\"y z\"".to_owned();
        let id = event.id;
        scene.accept(vec![AcceptItem::new(event.clone(), Vec::new())]).await;
        let stored = scene.store.event(&scene.tenant, id).await.expect("the store works").expect("it is there");
        assert_eq!(stored.0, event);
        let loaded = scene.store.load_events(&[(scene.tenant.clone(), id)]).await.expect("the store works");
        assert_eq!(loaded, [event]);
    }
}

pub async fn types_metadata_and_directness_come_back_as_they_were_given(scene: Scene) {
    let deep = (0..60).fold(json!("\u{1f980} \u{0} \u{e9} \"'\\"), |inner, _| json!([{ "d": inner }]));
    for (metadata, direct) in [(None, true), (Some(json!({})), false), (Some(json!({"k\u{e9}": deep, "n": 1.5})), true)]
    {
        let mut event = scene.event(&scene.tenant, at(1));
        event.metadata = metadata;
        event.direct = direct;
        event.event_type = if direct { None } else { event.event_type };
        scene.accept(vec![AcceptItem::new(event.clone(), Vec::new())]).await;
        let stored = scene.store.event(&scene.tenant, event.id).await.expect("the store works");
        assert_eq!(stored, Some((event, 0)));
    }
}

pub async fn deliveries_are_due_at_the_events_time_unless_they_are_leased_from_the_start(scene: Scene) {
    let record = scene.subscribe().await;
    let mut item = scene.item(&record, at(5));
    let token = scene.token();
    let mut leased = scene.item(&record, at(5));
    leased.deliveries[0].lease = Some(LeaseGrant { token, until: at(35) });
    let (waiting, leased_id) = (item.deliveries[0].id, leased.deliveries[0].id);
    item.event.created_at = at(5);
    scene.accept(vec![item, leased]).await;
    let delivery = scene.delivery(waiting).await;
    assert_eq!((delivery.next_at, delivery.leased), (at(5), false));
    let delivery = scene.delivery(leased_id).await;
    assert_eq!((delivery.next_at, delivery.leased, delivery.attempts), (at(35), true, 0));

    let claimed = scene.claim(at(6), 10).await;
    assert_eq!(claimed.iter().map(|lease| lease.delivery).collect::<Vec<_>>(), [waiting]);
    let room = Room::all(10);
    let claimed = scene.claim_with(ClaimRequest::new(at(35), at(65), scene.token(), 10, &room)).await;
    assert_eq!(claimed.lost, 1, "the first lease is fenced like any other");
}

pub async fn events_of_other_tenants_are_unknown(scene: Scene) {
    let mine = scene.event(&scene.tenant, at(1));
    let foreign = scene.event(&scene.stranger, at(1));
    for event in [&mine, &foreign] {
        scene.accept(vec![AcceptItem::new(event.clone(), Vec::new())]).await;
    }
    assert_eq!(scene.store.event(&scene.tenant, foreign.id).await.expect("the store works"), None);
    let unknown = EventId::from_uuid(scene.uuid(at(1)));
    let ids = [mine.id, foreign.id, unknown].map(|id| (scene.tenant.clone(), id));
    assert_eq!(scene.store.load_events(&ids).await.expect("the store works"), [mine]);
}

/// Seven events, one each second, oldest first; every other one a refund.
async fn seven_events(scene: &Scene) -> Vec<Event> {
    let mut events = Vec::new();
    for second in 0..7 {
        let mut event = scene.event(&scene.tenant, at(second));
        if second % 2 == 1 {
            event.event_type = Some("order.refunded".parse().expect("a legal type"));
        }
        scene.accept(vec![AcceptItem::new(event.clone(), Vec::new())]).await;
        events.push(event);
    }
    scene.accept(vec![AcceptItem::new(scene.event(&scene.stranger, at(3)), Vec::new())]).await;
    events
}

pub async fn pages_of_events_show_each_once(scene: Scene) {
    let expected: Vec<_> = seven_events(&scene).await.iter().rev().map(|event| EventSummary::of(event, 0)).collect();
    let filter = EventFilter::default();
    let list = async |page| scene.store.list_events(&scene.tenant, &filter, page).await.expect("the store works");
    let first = list(PageRequest::newest(3)).await;
    assert_eq!((first.items.as_slice(), first.has_more, first.total), (&expected[..3], true, None));
    let second = list(PageRequest::after(4, expected[2].id.as_uuid())).await;
    assert_eq!((second.items.as_slice(), second.has_more), (&expected[3..], false));
    let middle = list(PageRequest::offset(3, 2)).await;
    assert_eq!((middle.items.as_slice(), middle.has_more, middle.total), (&expected[2..5], true, Some(7)));
    let past = list(PageRequest::offset(3, 9)).await;
    assert_eq!((past.items.len(), past.has_more, past.total), (0, false, Some(7)));
}

pub async fn the_conditions_of_an_event_filter_all_hold(scene: Scene) {
    let events = seven_events(&scene).await;
    let filter = EventFilter {
        event_type: Some("order.refunded".parse().expect("a legal type")),
        since: Some(at(1)),
        until: Some(at(5)),
    };
    let page = scene.store.list_events(&scene.tenant, &filter, PageRequest::offset(1, 1)).await;
    let page = page.expect("the store works");
    assert_eq!(page.items.iter().map(|event| event.id).collect::<Vec<_>>(), [events[1].id], "5 is not before 5");
    assert_eq!((page.has_more, page.total), (false, Some(2)));
}
