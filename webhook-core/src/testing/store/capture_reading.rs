//! Promises of `CaptureStore` about reading and removing requests.

use super::capture::followed;
use super::scene::{Scene, at};
use crate::capture::{CaptureFilter, CapturedRequest};
use crate::store::{
    CaptureOutcome, CapturePruneRequest, CapturePruneStep, Page, PageRequest, PathInserted, PathRecord, ReadLimit,
};
use crate::{CaptureId, Timestamp};

async fn list(scene: &Scene, record: &PathRecord, filter: &CaptureFilter, page: PageRequest) -> Page<CapturedRequest> {
    let page = scene.store.list_captured(&record.tenant, &record.path_id, filter, page, u32::MAX).await;
    page.expect("the store works")
}

/// So many requests, one each second, oldest first.
async fn captured(scene: &Scene, record: &PathRecord, count: u64) -> Vec<CaptureId> {
    let mut ids = Vec::new();
    for second in 0..count {
        ids.push(scene.capture_one(record, at(second), b"x").await);
    }
    ids
}

fn ids(requests: &[CapturedRequest]) -> Vec<CaptureId> {
    requests.iter().map(|captured| captured.id).collect()
}

pub async fn requests_of_other_paths_and_tenants_are_unknown(scene: Scene) {
    let mine = scene.create(scene.path_of(&scene.tenant, "mine", at(1))).await;
    let other = scene.create(scene.path_of(&scene.tenant, "other", at(1))).await;
    let id = scene.capture_one(&mine, at(2), b"x").await;
    for (tenant, path) in [(&scene.stranger, &mine), (&scene.tenant, &other)] {
        let read = scene.store.captured(tenant, &path.path_id, id).await;
        assert_eq!(read.expect("the store works"), None);
        let page = PageRequest::offset(10, 0);
        let listed = scene.store.list_captured(tenant, &path.path_id, &Default::default(), page, 9).await;
        let listed = listed.expect("the store works");
        assert_eq!((listed.items.len(), listed.total), (0, Some(0)));
        let after = scene.store.captured_after(tenant, &path.path_id, None, ReadLimit::requests(10)).await;
        assert_eq!(after.expect("the store works"), []);
        assert!(!scene.store.remove_captured(tenant, &path.path_id, id).await.expect("the store works"));
        let through = scene.store.remove_captured_through(tenant, &path.path_id, id, 10).await;
        assert_eq!(through.expect("the store works"), 0);
    }
    assert_eq!(scene.bodies(&mine).await, ["x"]);
    assert_eq!(scene.usage(&mine).await.requests, 1);
}

pub async fn pages_of_requests_show_each_once(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let other = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    captured(&scene, &other, 3).await;
    let mut expected = captured(&scene, &record, 7).await;
    expected.reverse();
    let filter = CaptureFilter::new();
    let show = async |page| {
        let page = list(&scene, &record, &filter, page).await;
        (ids(&page.items), page.has_more, page.total)
    };
    assert_eq!(show(PageRequest::newest(3)).await, (expected[..3].to_vec(), true, None));
    assert_eq!(show(PageRequest::after(4, expected[2].as_uuid())).await, (expected[3..].to_vec(), false, None));
    assert_eq!(show(PageRequest::offset(3, 2)).await, (expected[2..5].to_vec(), true, Some(7)));
    assert_eq!(show(PageRequest::offset(3, 9)).await, (Vec::new(), false, Some(7)));
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = scene
            .store
            .captured_after(&scene.tenant, &record.path_id, after, ReadLimit::requests(3))
            .await
            .expect("the store works");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(ids(&page));
    }
    seen.reverse();
    assert_eq!(seen, expected);
}

pub async fn whoever_reads_on_gets_no_more_bytes_than_asked_for_and_always_one_request(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let other = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    for (second, size) in [40, 60, 1, 101, 0, 100, 30, 30, 30, 30].into_iter().enumerate() {
        scene.capture_one(&other, at(second as u64), &[b'y'; 50]).await;
        scene.capture_one(&record, at(second as u64), &vec![b'x'; size]).await;
    }
    let (mut after, mut sizes) = (None, Vec::new());
    loop {
        let limit = ReadLimit::requests(3).with_bytes(100);
        let page = scene.store.captured_after(&scene.tenant, &record.path_id, after, limit).await;
        let page = page.expect("the store works");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        sizes.push(page.iter().map(|captured| captured.request.body.len()).collect::<Vec<_>>());
    }
    assert_eq!(sizes, [vec![40, 60], vec![1], vec![101], vec![0, 100], vec![30, 30, 30], vec![30]]);
}

pub async fn a_filter_with_text_that_a_column_cannot_hold_finds_nothing(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    captured(&scene, &record, 3).await;
    for method in ["\0", "POST\0", "\u{fffd}", "\u{1f980}'\"%_", "\r\n"] {
        let filter = CaptureFilter::new().with_method(method);
        for filter in [filter.clone(), filter.with_text("x"), CaptureFilter::new().with_text(method)] {
            let page = list(&scene, &record, &filter, PageRequest::newest(10)).await;
            assert_eq!((page.items.len(), page.total), (0, None), "{filter:?}");
            let page = list(&scene, &record, &filter, PageRequest::offset(10, 1)).await;
            assert_eq!((page.items.len(), page.has_more, page.total), (0, false, Some(0)), "{filter:?}");
        }
    }
}

pub async fn the_conditions_of_a_capture_filter_all_hold(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let mut all = Vec::new();
    for second in 0..8 {
        let body = if second % 4 == 3 { "needle" } else { "hay" };
        let mut new = scene.incoming(&record, at(second), body.as_bytes());
        new.request.request.method = if second % 2 == 1 { "PuRGE" } else { "POST" }.to_owned();
        all.push(scene.capture(at(second), new).await);
    }
    for (filter, expected) in [
        (CaptureFilter::new().with_method("purge"), vec![7, 5, 3, 1]),
        (CaptureFilter::new().with_method("PURG"), vec![]),
        (CaptureFilter::new().with_since(at(5)), vec![7, 6, 5]),
        (CaptureFilter::new().with_until(at(2)), vec![1, 0]),
        (CaptureFilter::new().with_text("NEEDLE"), vec![7, 3]),
        (CaptureFilter::new().with_method("PURGE").with_since(at(1)).with_until(at(7)).with_text("edl"), vec![3]),
    ] {
        let page = list(&scene, &record, &filter, PageRequest::offset(10, 0)).await;
        let expected: Vec<_> = expected.into_iter().map(|index| all[index]).collect();
        assert_eq!((ids(&page.items), page.total), (expected.clone(), Some(expected.len() as u64)), "{filter:?}");
    }
    let filter = CaptureFilter::new().with_method("PURGE");
    let page = list(&scene, &record, &filter, PageRequest::offset(2, 1)).await;
    assert_eq!((ids(&page.items), page.has_more, page.total), (vec![all[5], all[3]], true, Some(4)));
    let page = list(&scene, &record, &filter, PageRequest::after(1, all[4].as_uuid())).await;
    assert_eq!((ids(&page.items), page.has_more), (vec![all[3]], true));
}

pub async fn a_range_of_times_goes_by_arrival_and_not_by_ids(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let mut all = Vec::new();
    // The last id that was given is an hour ahead of when the requests after it arrive; clocks differ by some seconds.
    for (arrived, id) in [(10, 10), (18, 13), (19, 19), (20, 3_620), (21, 20), (22, 22)] {
        let mut new = scene.incoming(&record, at(id), b"x");
        new.request.received_at = at(arrived);
        all.push(scene.capture(at(arrived), new).await);
    }
    assert!(all[4..].iter().all(|id| *id > CaptureId::floor(at(3_620))), "they were raised");
    for (since, until, expected) in [
        (Some(10), None, vec![5, 4, 3, 2, 1, 0]),
        (Some(18), None, vec![5, 4, 3, 2, 1]),
        (Some(22), None, vec![5]),
        (Some(23), None, vec![]),
        (None, Some(10), vec![]),
        (None, Some(19), vec![1, 0]),
        (None, Some(22), vec![4, 3, 2, 1, 0]),
        (Some(18), Some(22), vec![4, 3, 2, 1]),
    ] {
        let filter = CaptureFilter { since: since.map(at), until: until.map(at), ..CaptureFilter::new() };
        let page = list(&scene, &record, &filter, PageRequest::offset(10, 0)).await;
        let expected: Vec<_> = expected.into_iter().map(|index| all[index]).collect();
        assert_eq!((ids(&page.items), page.total), (expected.clone(), Some(expected.len() as u64)), "{filter:?}");
        let found = list(&scene, &record, &filter.with_text("X"), PageRequest::newest(10)).await;
        assert_eq!(ids(&found.items), expected);
    }
}

pub async fn text_is_found_in_every_part_in_any_ascii_case_and_nowhere_else(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let mut new = scene.incoming(&record, at(1), b"\x00\xffBody.Text\x00100%_[a-c]*\\200\xc3\xa9'\"\x80\x1f");
    let request = &mut new.request.request;
    request.path = "/webhook/p/Path%20Part".to_owned();
    request.query = Some("Query=Part".to_owned());
    request.headers = vec![("x-header".to_owned(), b"Header \xff Part"[..].into())];
    request.trailers = vec![("x-trailer".to_owned(), b"Trailer Part"[..].into())];
    let matching = new.request.clone();
    scene.capture(at(1), new).await;
    for (text, there) in [
        ("path%20PART", true),
        ("/webhook/p/", true),
        ("qUERY=part", true),
        ("X-Header: Header ", true),
        ("trailer part", true),
        ("BODY.TEXT", true),
        ("text\u{0}100%_[A-C]*\\200", true),
        ("\u{e9}'\"", true),
        ("\u{c9}'\"", false),
        ("%", true),
        ("_", true),
        ("b_dy", false),
        ("b%t", false),
        ("body.text\\000", false),
        ("\\377body", false),
        ("ff", false),
        ("\\x", false),
        ("body.text ", false),
        ("partquery", false),
        ("elsewhere", false),
    ] {
        let filter = CaptureFilter::new().with_text(text);
        assert_eq!(filter.matches(&matching), there, "{text:?}");
        let page = list(&scene, &record, &filter, PageRequest::offset(1, 0)).await;
        assert_eq!((page.items.len(), page.total), (usize::from(there), Some(u64::from(there))), "{text:?}");
    }
}

pub async fn lists_cut_bodies_and_other_reads_do_not(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let id = scene.capture_one(&record, at(2), b"0123456789").await;
    for (limit, body) in [(0, ""), (4, "0123"), (10, "0123456789"), (11, "0123456789")] {
        // Cutting is for showing: the whole body is searched.
        let filter = CaptureFilter::new().with_text("789");
        let page = PageRequest::newest(10);
        let page = scene.store.list_captured(&scene.tenant, &record.path_id, &filter, page, limit).await;
        let page = page.expect("the store works");
        let captured = &page.items[0];
        assert_eq!(captured.request.body, body);
        assert_eq!((captured.body_kept, captured.request.body_size), (10, 10));
        assert_eq!(captured.body_cut(), limit < 10);
    }
    let captured = scene.store.captured(&scene.tenant, &record.path_id, id).await.expect("the store works");
    assert_eq!(captured.expect("it is there").request.body, "0123456789");
    assert_eq!(followed(&scene, &record).await[0].request.body, "0123456789");
}

pub async fn a_removed_request_is_gone_and_its_path_holds_less(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    scene.capture_one(&record, at(1), b"12").await;
    let id = scene.capture_one(&record, at(2), b"345").await;
    let remove =
        async || scene.store.remove_captured(&scene.tenant, &record.path_id, id).await.expect("the store works");
    assert!(remove().await);
    assert!(!remove().await);
    let usage = scene.usage(&record).await;
    assert_eq!((usage.requests, usage.bytes), (1, 2));
    assert_eq!((usage.last_number, usage.last_id, usage.last_request_at), (2, Some(id), Some(at(2))), "it did come");
    let next = scene.capture_one(&record, at(1), b"6").await;
    assert!(next > id, "ids grow on");
    assert_eq!(followed(&scene, &record).await.iter().map(|captured| captured.number).collect::<Vec<_>>(), [1, 3]);
}

pub async fn requests_up_to_an_id_are_removed_in_steps_from_the_oldest(scene: Scene) {
    let record = scene.create(scene.path_of(&scene.tenant, "p", at(1))).await;
    let other = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    captured(&scene, &other, 2).await;
    let all = captured(&scene, &record, 7).await;
    let remove = async |limit| {
        let removed = scene.store.remove_captured_through(&scene.tenant, &record.path_id, all[4], limit).await;
        removed.expect("the store works")
    };
    assert_eq!(remove(3).await, 3);
    assert_eq!(ids(&followed(&scene, &record).await), all[3..]);
    assert_eq!((remove(3).await, remove(3).await), (2, 0));
    assert_eq!(ids(&followed(&scene, &record).await), all[5..]);
    let usage = scene.usage(&record).await;
    assert_eq!((usage.requests, usage.bytes, usage.last_number), (2, 2, 7));
    assert_eq!(scene.usage(&other).await.requests, 2);
}

async fn step(scene: &Scene, received_before: Timestamp, now: Timestamp, limit: u32) -> CapturePruneStep {
    let request = CapturePruneRequest { received_before, now, limit };
    scene.store.prune_captured(request).await.expect("the store works")
}

/// Steps until there is no more; how many requests went.
async fn prune(scene: &Scene, received_before: Timestamp, now: Timestamp, limit: u32) -> u64 {
    let mut removed = 0;
    for _ in 0..1_000 {
        let done = step(scene, received_before, now, limit).await;
        assert!(done.requests <= u64::from(limit));
        removed += done.requests;
        if !done.more {
            return removed;
        }
    }
    panic!("pruning does not come to an end");
}

pub async fn requests_go_when_they_are_old_enough_in_small_steps(scene: Scene) {
    let records = [
        scene.create(scene.path_of(&scene.tenant, "p", at(1))).await,
        scene.create(scene.path_of(&scene.stranger, "q", at(1))).await,
    ];
    let mut all = Vec::new();
    for record in &records {
        all.push(captured(&scene, record, 9).await);
    }
    assert_eq!(prune(&scene, at(0), at(500), 4).await, 0);
    let first = step(&scene, at(6), at(500), 4).await;
    assert_eq!(first, CapturePruneStep { requests: 4, more: true });
    assert_eq!(prune(&scene, at(6), at(500), 4).await, 8);
    for (record, all) in records.iter().zip(&all) {
        assert_eq!(ids(&followed(&scene, record).await), all[6..]);
        assert_eq!(scene.usage(record).await.requests, 3);
    }
}

pub async fn expired_paths_go_with_their_requests_and_their_names_are_free(scene: Scene) {
    let mut expiring = scene.path_of(&scene.tenant, "p", at(1));
    expiring.expires_at = Some(at(100));
    let expiring = scene.create(expiring).await;
    let stays = scene.create(scene.path_of(&scene.tenant, "q", at(1))).await;
    for record in [&expiring, &stays] {
        captured(&scene, record, 5).await;
    }
    assert_eq!(prune(&scene, at(0), at(99), 2).await, 0);
    assert_eq!(prune(&scene, at(0), at(100), 2).await, 5);
    assert_eq!(scene.store.find_path(&expiring.path_id).await.expect("the store works"), None);
    let again = scene.path_of(&scene.stranger, "p", at(101));
    assert_eq!(scene.store.insert_path(&again, None).await.expect("the store works"), PathInserted::Created);
    assert_eq!(scene.bodies(&again).await.len(), 0);
    assert_eq!(scene.bodies(&stays).await.len(), 5);
}

pub async fn what_deleted_paths_left_behind_goes_in_steps(scene: Scene) {
    let (gone, stays) = (
        scene.create(scene.path_of(&scene.tenant, "p", at(1))).await,
        scene.create(scene.path_of(&scene.tenant, "q", at(1))).await,
    );
    for record in [&gone, &stays] {
        captured(&scene, record, 5).await;
    }
    scene.store.delete_path(&scene.tenant, &gone.path_id).await.expect("the store works");
    let again = scene.create(scene.path_of(&scene.tenant, "p", at(2))).await;
    captured(&scene, &again, 3).await;
    // A store may have removed them already.
    assert!(prune(&scene, at(0), at(2), 2).await <= 5);
    assert_eq!((scene.bodies(&again).await.len(), scene.bodies(&stays).await.len()), (3, 5));
    assert_eq!(step(&scene, at(0), at(2), 2).await, CapturePruneStep::default());
}

pub async fn capture_figures_count_the_tenants_paths_and_show_the_newest_requests(scene: Scene) {
    let stats = async |now| {
        let stats = scene.store.capture_stats(&scene.tenant, at(now), at(50), 3).await.expect("the store works");
        (stats.paths, stats.active_paths, stats.requests, ids(&stats.recent))
    };
    assert_eq!(stats(60).await, (0, 0, 0, Vec::new()));
    let mut records = Vec::new();
    for name in ["a", "b", "c", "expired"] {
        let mut record = scene.path_of(&scene.tenant, name, at(1));
        record.expires_at = (name == "expired").then_some(at(70));
        records.push(scene.create(record).await);
    }
    let foreign = scene.create(scene.path_of(&scene.stranger, "s", at(1))).await;
    let mut all = Vec::new();
    for (index, second) in [(0, 10), (1, 20), (0, 49), (1, 50), (3, 60)] {
        all.push(scene.capture_one(&records[index], at(second), b"body").await);
    }
    scene.capture_one(&foreign, at(61), b"body").await;
    assert_eq!(stats(69).await, (4, 2, 5, vec![all[4], all[3], all[2]]));
    assert_eq!(stats(70).await, (3, 1, 4, vec![all[3], all[2], all[1]]));
    let recent = scene.store.capture_stats(&scene.tenant, at(69), at(50), 3).await.expect("the store works").recent;
    assert_eq!(recent[0].path_id, records[3].path_id);
    let whole = scene.store.captured(&scene.tenant, &records[3].path_id, all[4]).await.expect("the store works");
    assert_eq!(recent[0], whole.expect("it is there").cut_to(0));
    scene.store.remove_captured(&scene.tenant, &records[1].path_id, all[3]).await.expect("the store works");
    assert_eq!(stats(70).await, (3, 1, 3, vec![all[2], all[1], all[0]]));
    let outcomes = scene.store.capture(at(69), &[]).await.expect("the store works");
    assert_eq!(outcomes, [] as [CaptureOutcome; 0]);
}
