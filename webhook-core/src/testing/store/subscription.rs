//! Promises of `SubscriptionStore`.

use std::collections::BTreeMap;

use super::scene::{Scene, at, key};
use crate::store::{Inserted, KeyedAnswer, PageRequest, TargetEffect, Updated};
use crate::{DisabledReason, EventPattern, Generation, Sealed, SubscriptionId, SubscriptionRecord};

fn keyed(text: &str, fingerprint: u8, answer: &[u8]) -> KeyedAnswer {
    KeyedAnswer { key: key(text, fingerprint), answer: Sealed::from_bytes(answer.to_vec()) }
}

async fn insert_keyed(scene: &Scene, record: &SubscriptionRecord, key: &KeyedAnswer) -> Inserted {
    scene.store.insert_subscription(record, Some(key)).await.expect("the store works")
}

async fn update(scene: &Scene, record: &SubscriptionRecord) -> Updated {
    scene.store.update_subscription(record).await.expect("the store works")
}

async fn delete(scene: &Scene, record: &SubscriptionRecord) -> bool {
    scene.store.delete_subscription(&record.tenant, record.id, at(50)).await.expect("the store works")
}

pub async fn an_inserted_subscription_takes_the_next_generation_as_its_version(scene: Scene) {
    let mut record = scene.record_of(&scene.tenant, at(0));
    record.settings.description = Some("caf\u{e9} \"quoted\" \u{1f980}".to_owned());
    record.settings.events = vec!["order.paid".parse().expect("a legal pattern"), EventPattern::any()];
    record.settings.metadata.insert("a\u{0}b".to_owned(), serde_json::json!({"deep": [1, null, {"x": "\u{e9}"}]}));
    let record = scene.insert(record).await;
    assert!(record.version > Generation::ZERO);
    assert_eq!(scene.stored(&record).await, record);
    let next = scene.subscribe().await.version;
    assert!(next > record.version);
    assert_eq!(scene.generation(&scene.tenant).await, next);
    assert_eq!(scene.generation(&scene.stranger).await, Generation::ZERO);
}

pub async fn a_key_used_again_creates_nothing_and_gives_the_first_answer(scene: Scene) {
    let (first, second) = (scene.record_of(&scene.tenant, at(0)), scene.record_of(&scene.tenant, at(1)));
    let created = insert_keyed(&scene, &first, &keyed("k", 1, b"first\x00\xff")).await;
    let Inserted::Created(version) = created else { panic!("the key is new: {created:?}") };
    let repeated = insert_keyed(&scene, &second, &keyed("k", 1, b"second")).await;
    assert_eq!(repeated, Inserted::Repeated(Sealed::from_bytes(b"first\x00\xff".to_vec())));
    assert_eq!(insert_keyed(&scene, &second, &keyed("k", 2, b"second")).await, Inserted::Conflict);
    assert_eq!(scene.generation(&scene.tenant).await, version);
    assert_eq!(scene.store.find_subscription(second.id).await.expect("the store works"), None);
}

pub async fn a_key_counts_for_its_tenant_and_until_it_expires(scene: Scene) {
    let first = scene.record_of(&scene.tenant, at(0));
    let foreign = scene.record_of(&scene.stranger, at(0));
    let late = scene.record_of(&scene.tenant, at(10_000));
    for record in [&first, &foreign, &late] {
        let inserted = insert_keyed(&scene, record, &keyed("k", 1, b"answer")).await;
        assert!(matches!(inserted, Inserted::Created(_)), "{inserted:?}");
    }
}

pub async fn an_update_replaces_settings_secrets_and_state_and_takes_the_next_generation(scene: Scene) {
    let mut record = scene.subscribe().await;
    record.settings.target_url = "https://example.com/other".to_owned();
    record.secrets = Sealed::from_bytes(vec![9; 100]);
    record.disabled = Some(DisabledReason::Requested);
    record.updated_at = at(5);
    let updated = update(&scene, &record).await;
    let Updated::Done(version) = updated else { panic!("it is of the stored version: {updated:?}") };
    assert!(version > record.version);
    record.version = version;
    assert_eq!(scene.stored(&record).await, record);
    assert_eq!(scene.generation(&scene.tenant).await, version);
}

pub async fn an_update_of_another_version_does_nothing(scene: Scene) {
    let read = scene.subscribe().await;
    let mut first = read.clone();
    first.settings.description = Some("first".to_owned());
    let updated = update(&scene, &first).await;
    let Updated::Done(version) = updated else { panic!("it is of the stored version: {updated:?}") };
    let mut second = read;
    second.settings.description = Some("second".to_owned());
    assert_eq!(update(&scene, &second).await, Updated::Changed);
    assert_eq!(scene.stored(&first).await.settings.description.as_deref(), Some("first"));
    assert_eq!(scene.generation(&scene.tenant).await, version);
}

pub async fn a_changed_url_or_state_ends_a_pause_and_another_change_keeps_it(scene: Scene) {
    for (change, paused) in [("description", true), ("url", false), ("state", false)] {
        let record = scene.subscribe().await;
        let (_, delivery) = scene.emit(&record, at(1)).await;
        scene.affect(delivery, at(2), TargetEffect::Pause(at(500))).await;
        let mut record = scene.stored(&record).await;
        assert_eq!(record.paused_until, Some(at(500)));
        match change {
            "description" => record.settings.description = Some("new".to_owned()),
            "url" => record.settings.target_url.push_str("/new"),
            _ => record.disabled = Some(DisabledReason::Requested),
        }
        record.paused_until = None;
        assert!(matches!(update(&scene, &record).await, Updated::Done(_)));
        assert_eq!(scene.stored(&record).await.paused_until, paused.then(|| at(500)), "{change}");
    }
}

pub async fn a_deleted_or_foreign_subscription_cannot_be_updated(scene: Scene) {
    let record = scene.subscribe().await;
    let foreign = SubscriptionRecord { tenant: scene.stranger.clone(), ..record.clone() };
    assert_eq!(update(&scene, &foreign).await, Updated::Missing);
    assert!(delete(&scene, &record).await);
    let version = scene.generation(&scene.tenant).await;
    assert_eq!(update(&scene, &SubscriptionRecord { version, ..record }).await, Updated::Missing);
}

pub async fn a_deletion_takes_the_next_generation_and_shows_in_the_changes(scene: Scene) {
    let record = scene.subscribe().await;
    assert!(delete(&scene, &record).await);
    let version = scene.generation(&scene.tenant).await;
    assert!(version > record.version);
    let changes = scene.store.subscription_changes(&scene.tenant, record.version, 10).await;
    let changes = changes.expect("the store works");
    assert_eq!((changes.generation, changes.complete), (version, true));
    assert_eq!(changes.entries.len(), 1);
    assert_eq!((changes.entries[0].id, changes.entries[0].patterns.len()), (record.id, 0));
    assert!(!delete(&scene, &record).await, "it is deleted only once");
    assert_eq!(scene.generation(&scene.tenant).await, version);
}

pub async fn a_deleted_subscription_is_found_and_claimed_no_more(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    scene.emit(&record, at(1)).await;
    let (_, delivery) = scene.emit(&other, at(1)).await;
    assert!(delete(&scene, &record).await);
    assert_eq!(scene.store.find_subscription(record.id).await.expect("the store works"), None);
    let ids = [(record.tenant.clone(), record.id)];
    assert_eq!(scene.store.subscriptions(&ids).await.expect("the store works"), []);
    let listed = scene.store.list_subscriptions(&scene.tenant, PageRequest::newest(10)).await;
    assert_eq!(listed.expect("the store works").items, [other]);
    let leases = scene.claim(at(60), 10).await;
    assert_eq!(leases.iter().map(|lease| lease.delivery).collect::<Vec<_>>(), [delivery]);
}

pub async fn another_tenants_subscription_cannot_be_deleted(scene: Scene) {
    let record = scene.subscribe().await;
    let deleted = scene.store.delete_subscription(&scene.stranger, record.id, at(1)).await;
    assert!(!deleted.expect("the store works"));
    assert_eq!(scene.stored(&record).await, record);
}

pub async fn foreign_and_unknown_subscriptions_are_left_out(scene: Scene) {
    let mine = scene.subscribe().await;
    let foreign = scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    let unknown = SubscriptionId::from_uuid(scene.uuid(at(0)));
    let ids = [mine.id, foreign.id, unknown].map(|id| (scene.tenant.clone(), id));
    assert_eq!(scene.store.subscriptions(&ids).await.expect("the store works"), [mine]);
    assert_eq!(scene.store.subscriptions(&[]).await.expect("the store works"), []);
}

pub async fn a_subscription_is_found_by_its_id_alone_also_when_disabled(scene: Scene) {
    let mut record = scene.record_of(&scene.stranger, at(0));
    record.disabled = Some(DisabledReason::Requested);
    let record = scene.insert(record).await;
    assert_eq!(scene.store.find_subscription(record.id).await.expect("the store works"), Some(record.clone()));
    assert!(delete(&scene, &record).await);
    assert_eq!(scene.store.find_subscription(record.id).await.expect("the store works"), None);
}

pub async fn pages_of_subscriptions_show_each_once(scene: Scene) {
    let mut expected = scene.subscribe_many(7).await;
    scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    expected.reverse();
    let list = async |page| scene.store.list_subscriptions(&scene.tenant, page).await.expect("the store works");
    let first = list(PageRequest::newest(3)).await;
    assert_eq!((first.items.as_slice(), first.has_more, first.total), (&expected[..3], true, None));
    let second = list(PageRequest::after(4, expected[2].id.as_uuid())).await;
    assert_eq!((second.items.as_slice(), second.has_more), (&expected[3..], false));
    let middle = list(PageRequest::offset(3, 2)).await;
    assert_eq!((middle.items.as_slice(), middle.has_more, middle.total), (&expected[2..5], true, Some(7)));
    let past = list(PageRequest::offset(3, 7)).await;
    assert_eq!((past.items.as_slice(), past.has_more, past.total), (&[][..], false, Some(7)));
}

/// Changes in steps of `limit`, applied one after the other.
async fn state_after(scene: &Scene, after: Generation, limit: u32) -> BTreeMap<SubscriptionId, Vec<EventPattern>> {
    let (mut state, mut after) = (BTreeMap::new(), after);
    loop {
        let changes = scene.store.subscription_changes(&scene.tenant, after, limit).await.expect("the store works");
        assert!(changes.entries.len() <= limit as usize);
        state.extend(changes.entries.into_iter().map(|entry| (entry.id, entry.patterns)));
        if changes.complete {
            assert_eq!(changes.generation, scene.generation(&scene.tenant).await);
            state.retain(|_, patterns| !patterns.is_empty());
            return state;
        }
        assert!(changes.generation > after, "a step that is not the last goes on");
        after = changes.generation;
    }
}

pub async fn changes_in_small_steps_give_the_same_as_all_at_once(scene: Scene) {
    let records = scene.subscribe_many(9).await;
    for (index, record) in records.iter().enumerate() {
        let mut record = record.clone();
        match index % 4 {
            0 => assert!(delete(&scene, &record).await),
            1 => {
                record.settings.events = vec!["order.paid".parse().expect("a legal pattern")];
                assert!(matches!(update(&scene, &record).await, Updated::Done(_)));
            }
            2 => {
                record.disabled = Some(DisabledReason::Requested);
                assert!(matches!(update(&scene, &record).await, Updated::Done(_)));
            }
            _ => {}
        }
    }
    scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    let whole = state_after(&scene, Generation::ZERO, 1_000).await;
    assert_eq!(whole.len(), 4, "two changed ones and two that were left alone");
    let changes = scene.store.subscription_changes(&scene.tenant, Generation::ZERO, 1_000).await;
    assert_eq!(changes.expect("the store works").entries.len(), 9, "each comes once, at its last change");
    assert_eq!(whole[&records[1].id], ["order.paid".parse().expect("a legal pattern")]);
    for limit in [1, 2, 5] {
        assert_eq!(state_after(&scene, Generation::ZERO, limit).await, whole, "in steps of {limit}");
    }
    let now = scene.generation(&scene.tenant).await;
    let nothing = scene.store.subscription_changes(&scene.tenant, now, 10).await.expect("the store works");
    assert_eq!((nothing.entries.len(), nothing.generation, nothing.complete), (0, now, true));
}

pub async fn disabled_subscriptions_come_without_patterns_and_again_when_enabled(scene: Scene) {
    let mut record = scene.subscribe().await;
    for disabled in [Some(DisabledReason::Requested), None] {
        let before = record.version;
        record.disabled = disabled.clone();
        let Updated::Done(version) = update(&scene, &record).await else { panic!("the update is current") };
        record.version = version;
        let changes = scene.store.subscription_changes(&scene.tenant, before, 10).await.expect("the store works");
        assert_eq!(changes.entries.len(), 1);
        assert_eq!(changes.entries[0].patterns.is_empty(), disabled.is_some());
    }
}

pub async fn generations_come_in_order_and_begin_at_zero(scene: Scene) {
    let newest = scene.subscribe_many(2).await[1].version;
    let tenants = [scene.stranger.clone(), scene.tenant.clone(), scene.stranger.clone()];
    let generations = scene.store.generations(&tenants).await.expect("the store works");
    assert_eq!(generations, [Generation::ZERO, newest, Generation::ZERO]);
}

pub async fn changes_after_what_never_was_tell_the_generation_that_is(scene: Scene) {
    let record = scene.subscribe().await;
    let never = Generation::new(record.version.get() + 1_000);
    for (tenant, generation) in [(&scene.tenant, record.version), (&scene.stranger, Generation::ZERO)] {
        let changes = scene.store.subscription_changes(tenant, never, 10).await.expect("the store works");
        assert_eq!((changes.entries.len(), changes.generation, changes.complete), (0, generation, true));
    }
}
