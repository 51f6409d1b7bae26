//! What reading and pruning captured requests cost, and whom they keep waiting.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::time::Duration;

use futures_util::future::join_all;
use scene::{Scene, at, uuid};
use tokio::time::Instant;
use webhook_core::store::{
    CapturePruneRequest, CaptureStore, MaintenanceStore, NewCapture, PageRequest, PathInserted, PathRecord,
};
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, IncomingRequest, PathKey, TenantId, Timestamp};
use webhook_store_sqlite::SqliteStore;

async fn create(store: &SqliteStore, number: u64, name: &str, expires_at: Option<Timestamp>) -> PathRecord {
    let name = name.parse().expect("a name");
    let mut path = PathRecord::new(PathKey::from_uuid(uuid(number)), name, TenantId::default(), at(1));
    path.expires_at = expires_at;
    assert_eq!(store.insert_path(&path, None).await.expect("it works"), PathInserted::Created);
    path
}

/// A request that arrived then.
fn arrived(path: &PathRecord, second: u64, body: Vec<u8>) -> NewCapture {
    let request = IncomingRequest::new("POST", "/webhook/p").with_body(body);
    let id = CaptureId::floor(at(second));
    let captured = CapturedRequest::new(id, path.tenant.clone(), path.path_id.clone(), request, at(second));
    NewCapture::new(path.key, path.version, captured)
}

#[tokio::test]
async fn asking_for_what_is_recent_costs_little_however_much_is_older() {
    let scene = Scene::new();
    let store = scene.open().await;
    let path = create(&store, 1, "p", None).await;
    let news: Vec<_> = (0..20_000).map(|second| arrived(&path, second, b"x".to_vec())).collect();
    for news in news.chunks(1_000) {
        store.capture(at(20_000), news).await.expect("it works");
    }
    // Others use the machine too: the shortest of some times is what it takes.
    let time = async |filter: CaptureFilter, expected: usize| {
        let mut shortest = Duration::MAX;
        for _ in 0..10 {
            let began = Instant::now();
            let page = PageRequest::offset(100, 0);
            let page = store.list_captured(&path.tenant, &path.path_id, &filter, page, 10).await.expect("it works");
            assert_eq!((page.items.len(), page.total), (expected, Some(expected as u64)));
            shortest = shortest.min(began.elapsed());
        }
        shortest
    };
    let all = time(CaptureFilter::new().with_until(at(0)), 0).await;
    let recent = time(CaptureFilter::new().with_since(at(19_990)), 10).await;
    assert!(recent * 5 < all, "what is recent takes {recent:?}, all takes {all:?}");
}

#[tokio::test]
async fn a_step_of_pruning_is_bounded_by_the_bytes_that_go() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (deleted, stays) = (create(&store, 1, "deleted", None).await, create(&store, 2, "stays", None).await);
    for second in 0..3 {
        let news = [arrived(&deleted, second, vec![b'x'; 25 << 20]), arrived(&stays, second + 3, vec![b'x'; 25 << 20])];
        store.capture(at(second), &news).await.expect("it works");
    }
    store.delete_path(&deleted.tenant, &deleted.path_id).await.expect("it works");
    let request = CapturePruneRequest { received_before: at(1_000), now: at(1_000), limit: 1_000 };
    let mut steps = vec![(0, true)];
    while let Some((_, true)) = steps.last() {
        let step = store.prune_captured(request).await.expect("it works");
        steps.push((step.requests, step.more));
    }
    assert_eq!(steps[1..], [(2, true), (1, true), (2, true), (1, false)]);
    let (_, usage) = store.path(&stays.tenant, &stays.path_id).await.expect("it works").expect("it is there");
    assert_eq!((usage.requests, usage.bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_searches_wait_for_each_other_and_nobody_else_waits_for_them() {
    let scene = Scene::new();
    let store = scene.open().await;
    let path = create(&store, 1, "p", None).await;
    let body = |second| {
        let mut body = vec![b'x'; 1 << 20];
        body[0] = if second % 3 == 0 { b'!' } else { b'x' };
        body
    };
    let news: Vec<_> = (0..6).map(|second| arrived(&path, second, body(second))).collect();
    store.capture(at(6), &news).await.expect("it works");
    // All readers are there before it is measured who waits for one.
    join_all((0..8).map(|_| async { store.ping().await.expect("it works") })).await;
    let began = Instant::now();
    let searches = tokio::spawn({
        let (store, path) = (store.clone(), path.clone());
        async move {
            let filter = CaptureFilter::new().with_text("!");
            join_all((0..40).map(|_| async {
                let page = PageRequest::offset(1, 0);
                let page = store.list_captured(&path.tenant, &path.path_id, &filter, page, 10).await;
                let page = page.expect("it waits its turn");
                assert_eq!((page.items.len(), page.has_more, page.total), (1, true, Some(2)));
                assert_eq!(page.items[0].request.body.len(), 10);
            }))
            .await;
        }
    });
    let mut slowest = Duration::ZERO;
    while !searches.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = Instant::now();
        store.ping().await.expect("it works");
        slowest = slowest.max(asked.elapsed());
    }
    searches.await.expect("all of them end");
    let whole = began.elapsed();
    assert!(slowest * 2 < whole, "somebody waited {slowest:?} while others searched for {whole:?}");
}
