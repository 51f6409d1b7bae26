//! Promises of `CaptureStore` about paths.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{Scene, at, key};
use crate::capture::{IncomingRequest, PathId};
use crate::store::{KeyedAnswer, PATH_METHODS, PageRequest, PathInserted, PathRecord, PathUpdated, PathUsage};
use crate::{CaptureId, PathKey, PathVersion, Sealed, SubscriptionId};

async fn found(scene: &Scene, record: &PathRecord) -> Option<(PathRecord, PathUsage)> {
    scene.store.path(&record.tenant, &record.path_id).await.expect("the store works")
}

pub async fn a_path_comes_back_as_it_was_given(scene: Scene) {
    let mut record = scene.path_of(&scene.tenant, "Full.name_1-x", at(5));
    record.settings.description = Some("for \u{1f980} \"'\\".to_owned());
    record.settings.max_requests = Some(7);
    record.settings.max_bytes = Some(1 << 40);
    record.settings.ttl = Some(Duration::from_secs(60));
    record.settings.forward_to = vec![SubscriptionId::from_uuid(scene.uuid(at(1)))];
    record.response = Some(Sealed::from_bytes(vec![0, 255, 7]));
    record.expires_at = Some(at(65));
    record.updated_at = at(6);
    let plain = scene.path_of(&scene.tenant, "x", at(5));
    for record in [&record, &plain] {
        assert_eq!(scene.store.insert_path(record, None).await.expect("the store works"), PathInserted::Created);
        assert_eq!(found(&scene, record).await, Some((record.clone(), PathUsage::default())));
    }
}

pub async fn a_path_id_is_taken_over_all_tenants_and_the_key_not_used_up(scene: Scene) {
    scene.create(scene.path_of(&scene.tenant, "mine", at(1))).await;
    let answer = KeyedAnswer { key: key("k", 1), answer: Sealed::from_bytes(*b"first") };
    for tenant in [&scene.tenant, &scene.stranger] {
        let again = scene.path_of(tenant, "mine", at(2));
        let outcome = scene.store.insert_path(&again, Some(&answer)).await.expect("the store works");
        assert_eq!(outcome, PathInserted::Taken);
        let other = scene.path_of(tenant, &format!("free-{tenant}"), at(2));
        let outcome = scene.store.insert_path(&other, Some(&answer)).await.expect("the store works");
        assert_eq!(outcome, PathInserted::Created);
    }
    let case = scene.path_of(&scene.stranger, "Mine", at(2));
    assert_eq!(scene.store.insert_path(&case, None).await.expect("the store works"), PathInserted::Created);
}

pub async fn what_a_key_of_a_path_stands_for_is_told_and_nothing_is_created(scene: Scene) {
    let ask = async |tenant, fingerprint, second| {
        let key = key("k", fingerprint);
        scene.store.keyed_path(tenant, &key, at(second)).await.expect("the store works")
    };
    assert_eq!((ask(&scene.tenant, 1, 1).await, ask(&scene.tenant, 1, 1).await), (None, None), "it is not used up");
    let record = scene.path_of(&scene.tenant, "a", at(1));
    let answer = KeyedAnswer { key: key("k", 1), answer: Sealed::from_bytes(*b"first") };
    scene.store.insert_path(&record, Some(&answer)).await.expect("the store works");
    let first = PathInserted::Repeated(Sealed::from_bytes(*b"first"));
    assert_eq!(ask(&scene.tenant, 1, 9_999).await, Some(first));
    assert_eq!(ask(&scene.tenant, 2, 2).await, Some(PathInserted::Conflict));
    assert_eq!(ask(&scene.tenant, 1, 10_000).await, None, "the key has expired");
    assert_eq!(ask(&scene.stranger, 1, 2).await, None);
}

pub async fn a_key_used_again_for_a_path_gives_the_first_answer(scene: Scene) {
    let first = KeyedAnswer { key: key("k", 1), answer: Sealed::from_bytes(*b"first") };
    let insert = async |name: &str, keyed: &KeyedAnswer, second| {
        let record = scene.path_of(&scene.tenant, name, at(second));
        scene.store.insert_path(&record, Some(keyed)).await.expect("the store works")
    };
    assert_eq!(insert("a", &first, 1).await, PathInserted::Created);
    let second = KeyedAnswer { key: key("k", 1), answer: Sealed::from_bytes(*b"second") };
    assert_eq!(insert("b", &second, 2).await, PathInserted::Repeated(Sealed::from_bytes(*b"first")));
    assert_eq!(insert("a", &second, 2).await, PathInserted::Repeated(Sealed::from_bytes(*b"first")), "a is taken");
    let other = KeyedAnswer { key: key("k", 2), answer: Sealed::from_bytes(*b"other") };
    assert_eq!(insert("b", &other, 2).await, PathInserted::Conflict);
    assert_eq!(scene.store.find_path(&name("b")).await.expect("the store works"), None);
    assert_eq!(insert("b", &other, 10_000).await, PathInserted::Created, "the key has expired");
}

fn name(text: &str) -> PathId {
    text.parse().expect("a legal name")
}

pub async fn of_64_concurrent_calls_with_one_path_id_exactly_one_creates(scene: Scene) {
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..64 {
        let tenant = if number % 2 == 0 { &scene.tenant } else { &scene.stranger };
        let (store, record) = (Arc::clone(&scene.store), scene.path_of(tenant, "wanted", at(1)));
        calls.spawn(async move { store.insert_path(&record, None).await.expect("the store works") });
    }
    let outcomes = calls.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PathInserted::Created).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PathInserted::Taken).count(), 63);
}

pub async fn an_updated_path_has_the_next_version_and_what_was_given(scene: Scene) {
    let mut record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    scene.capture_one(&record, at(2), b"kept").await;
    let (_, usage) = found(&scene, &record).await.expect("it is there");
    record.settings.description = Some("changed".to_owned());
    record.response = Some(Sealed::from_bytes(*b"sealed"));
    record.expires_at = Some(at(900));
    record.updated_at = at(3);
    let outcome = scene.store.update_path(&record).await.expect("the store works");
    assert_eq!(outcome, PathUpdated::Done(PathVersion::new(2)));
    record.version = PathVersion::new(2);
    assert_eq!(found(&scene, &record).await, Some((record.clone(), usage)), "it holds what it held");
    record.settings = Default::default();
    (record.response, record.expires_at) = (None, None);
    let outcome = scene.store.update_path(&record).await.expect("the store works");
    assert_eq!(outcome, PathUpdated::Done(PathVersion::new(3)));
    record.version = PathVersion::new(3);
    assert_eq!(found(&scene, &record).await, Some((record, usage)));
}

pub async fn a_path_of_another_version_or_tenant_or_deleted_is_not_updated(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let update = async |record: &PathRecord| scene.store.update_path(record).await.expect("the store works");
    let mut stale = record.clone();
    stale.version = PathVersion::new(2);
    stale.settings.description = Some("stale".to_owned());
    assert_eq!(update(&stale).await, PathUpdated::Changed);
    let mut foreign = record.clone();
    foreign.tenant = scene.stranger.clone();
    assert_eq!(update(&foreign).await, PathUpdated::Missing);
    assert_eq!(found(&scene, &record).await.map(|(record, _)| record), Some(record.clone()));
    assert!(scene.store.delete_path(&record.tenant, &record.path_id).await.expect("the store works"));
    assert_eq!(update(&record).await, PathUpdated::Missing);
    let again = scene.create(scene.path_of(&scene.tenant, "p", at(2))).await;
    assert_eq!(update(&record).await, PathUpdated::Missing, "another path has the name now");
    assert_eq!(found(&scene, &again).await.map(|(record, _)| record), Some(again));
}

pub async fn a_deleted_path_is_gone_with_its_requests_and_its_name_is_free(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let id = scene.capture_one(&record, at(2), b"first life").await;
    let delete = async |tenant| scene.store.delete_path(tenant, &record.path_id).await.expect("the store works");
    assert!(!delete(&scene.stranger).await);
    assert_eq!(scene.bodies(&record).await, ["first life"]);
    assert!(delete(&scene.tenant).await);
    assert!(!delete(&scene.tenant).await, "once");
    assert_eq!(found(&scene, &record).await, None);
    assert_eq!(scene.store.find_path(&record.path_id).await.expect("the store works"), None);
    assert_eq!(scene.bodies(&record).await, [""; 0]);
    let again = scene.create(scene.path_of(&scene.tenant, "p", at(3))).await;
    assert_eq!(found(&scene, &again).await, Some((again.clone(), PathUsage::default())));
    assert_eq!(scene.bodies(&again).await, [""; 0], "what its name held before is not its own");
    let old = scene.store.captured(&scene.tenant, &again.path_id, id).await.expect("the store works");
    assert_eq!(old, None);
    scene.capture_one(&again, at(4), b"second life").await;
    assert_eq!(scene.bodies(&again).await, ["second life"]);
}

pub async fn an_expired_path_is_deleted_by_its_key_and_only_while_it_is_expired(scene: Scene) {
    let mut record = scene.path_of(&scene.tenant, "p", at(1));
    record.expires_at = Some(at(10));
    let mut record = scene.create(record).await;
    let endless = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    scene.capture_one(&record, at(2), b"first life").await;
    let delete = async |key, second| scene.store.delete_expired_path(key, at(second)).await.expect("the store works");
    assert!(!delete(record.key, 9).await, "not yet");
    assert!(!delete(endless.key, 9_999).await, "it never ends");
    assert!(!delete(PathKey::from_uuid(scene.uuid(at(1))), 9_999).await, "there is no such path");
    record.expires_at = Some(at(20));
    scene.store.update_path(&record).await.expect("the store works");
    assert!(!delete(record.key, 10).await, "it has a later end");
    assert_eq!(scene.bodies(&record).await, ["first life"]);
    assert!(delete(record.key, 20).await);
    assert!(!delete(record.key, 20).await, "once");
    assert_eq!(scene.store.find_path(&record.path_id).await.expect("the store works"), None);
    assert_eq!(scene.bodies(&record).await, [""; 0]);
    let mut again = scene.path_of(&scene.stranger, "p", at(21));
    again.expires_at = Some(at(22));
    let again = scene.create(again).await;
    assert!(!delete(record.key, 30).await, "the name is another path's");
    assert_eq!(found(&scene, &again).await.map(|(record, _)| record), Some(again));
    assert_eq!(found(&scene, &endless).await.map(|(record, _)| record), Some(endless));
}

pub async fn a_path_is_found_by_its_name_alone_also_when_it_has_expired(scene: Scene) {
    let mut record = scene.path_of(&scene.stranger, "theirs", at(1));
    record.expires_at = Some(at(2));
    let record = scene.create(record).await;
    assert_eq!(scene.store.find_path(&record.path_id).await.expect("the store works"), Some(record.clone()));
    assert_eq!(scene.store.find_path(&name("unknown")).await.expect("the store works"), None);
    assert!(found(&scene, &record).await.is_some());
}

pub async fn paths_of_other_tenants_are_unknown(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    scene.capture_one(&record, at(2), b"x").await;
    let foreign = PathRecord { tenant: scene.stranger.clone(), ..record.clone() };
    assert_eq!(found(&scene, &foreign).await, None);
    let methods = scene.store.path_methods(&scene.stranger, &record.path_id).await;
    assert_eq!(methods.expect("the store works"), []);
    let page = scene.store.list_paths(&scene.stranger, at(2), PageRequest::offset(10, 0)).await;
    let page = page.expect("the store works");
    assert_eq!((page.items.len(), page.total), (0, Some(0)));
}

pub async fn pages_of_paths_show_each_once_but_not_the_expired(scene: Scene) {
    let mut expected: Vec<PathKey> = Vec::new();
    for second in 0..7 {
        let mut record = scene.path_of(&scene.tenant, &format!("p{second}"), at(second));
        record.expires_at = (second == 5).then_some(at(100));
        expected.insert(0, scene.create(record).await.key);
        scene.create(scene.path_of(&scene.stranger, &format!("s{second}"), at(second))).await;
    }
    let list = async |now, page| {
        let page = scene.store.list_paths(&scene.tenant, at(now), page).await.expect("the store works");
        (page.items.iter().map(|(record, _)| record.key).collect::<Vec<_>>(), page.has_more, page.total)
    };
    assert_eq!(list(99, PageRequest::newest(3)).await, (expected[..3].to_vec(), true, None));
    expected.remove(1);
    let first = list(100, PageRequest::newest(2)).await;
    assert_eq!(first, (expected[..2].to_vec(), true, None));
    assert_eq!(list(100, PageRequest::after(4, expected[1].as_uuid())).await, (expected[2..].to_vec(), false, None));
    assert_eq!(list(100, PageRequest::offset(3, 2)).await, (expected[2..5].to_vec(), true, Some(6)));
    assert_eq!(list(100, PageRequest::offset(3, 9)).await, (Vec::new(), false, Some(6)));
}

pub async fn of_methods_that_are_made_up_the_most_frequent_are_counted(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    for number in 0..=PATH_METHODS {
        let mut request = scene.incoming(&record, at(2), b"");
        request.request.request.method = format!("{number:0>length$}", length = IncomingRequest::MAX_METHOD_BYTES);
        scene.capture(at(2), request.clone()).await;
        if number > 0 {
            request.request.id = CaptureId::from_uuid(scene.uuid(at(3)));
            scene.capture(at(3), request).await;
        }
    }
    let counted = scene.store.path_methods(&scene.tenant, &record.path_id).await.expect("the store works");
    assert_eq!(counted.len(), PATH_METHODS);
    assert!(counted.iter().all(|(_, requests)| *requests == 2), "{counted:?}");
}

pub async fn methods_are_counted_of_what_a_path_holds(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let other = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    scene.capture_one(&other, at(1), b"").await;
    let mut ids = Vec::new();
    for (second, method) in (2..).zip(["POST", "post", "PURGE", "POST"]) {
        let mut request = scene.incoming(&record, at(second), b"");
        request.request.request.method = method.to_owned();
        ids.push(scene.capture(at(second), request).await);
    }
    let counts = async || {
        let counted = scene.store.path_methods(&scene.tenant, &record.path_id).await;
        let mut methods = counted.expect("the store works");
        methods.sort();
        methods
    };
    let expect = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(counts().await, expect(&[("POST", 2), ("PURGE", 1), ("post", 1)]));
    for id in &ids[1..3] {
        scene.store.remove_captured(&scene.tenant, &record.path_id, *id).await.expect("the store works");
    }
    assert_eq!(counts().await, expect(&[("POST", 2)]));
}
