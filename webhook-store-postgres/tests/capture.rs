//! Searches of captured requests take no connection from those who capture.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::time::Duration;

use futures_util::future::join_all;
use scene::{Scene, at, uuid};
use tokio::time::Instant;
use webhook_core::store::{CaptureOutcome, CaptureStore, MaintenanceStore, NewCapture, PageRequest, PathRecord};
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, IncomingRequest, PathKey, TenantId};
use webhook_store_postgres::PostgresStore;

async fn capture(store: &PostgresStore, path: &PathRecord, number: u64, body: Vec<u8>) {
    let request = IncomingRequest::new("POST", "/webhook/p").with_body(body);
    let id = CaptureId::from_uuid(uuid(number));
    let captured = CapturedRequest::new(id, path.tenant.clone(), path.path_id.clone(), request, at(1));
    let outcomes = store.capture(at(1), &[NewCapture::new(path.key, path.version, captured)]).await;
    assert!(matches!(outcomes.expect("it works")[..], [CaptureOutcome::Stored(_)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_searches_wait_for_each_other_and_captures_wait_for_none() {
    let scene = Scene::new();
    let options = scene.options().with_max_connections(8).with_acquire_timeout(Duration::from_millis(200));
    let store = PostgresStore::connect(options).await.expect("it connects");
    store.migrate().await.expect("it migrates");
    let name = "p".parse().expect("a name");
    let path = PathRecord::new(PathKey::from_uuid(uuid(1)), name, TenantId::default(), at(1));
    store.insert_path(&path, None).await.expect("it works");
    for number in 0..6 {
        let mut body = vec![b'x'; 1 << 20];
        body[0] = if number % 3 == 0 { b'!' } else { b'x' };
        capture(&store, &path, 100 + number, body).await;
    }
    // All connections are there before it is measured who waits for one.
    join_all((0..6).map(|_| async { store.ping().await.expect("it works") })).await;
    let filter = CaptureFilter::new().with_text("!");
    let searches = join_all((0..80).map(|_| async {
        let page = PageRequest::offset(1, 0);
        let page =
            store.list_captured(&path.tenant, &path.path_id, &filter, page, 10).await.expect("it waits its turn");
        assert_eq!((page.items.len(), page.has_more, page.total), (1, true, Some(2)));
        assert_eq!(page.items[0].request.body.len(), 10);
    }));
    let mut searches = std::pin::pin!(searches);
    let (mut during, mut slowest) = (0, Duration::ZERO);
    loop {
        let began = Instant::now();
        let captured = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            capture(&store, &path, 1000 + during, b"small".to_vec()).await;
        };
        tokio::select! {
            biased;
            _ = &mut searches => break,
            () = captured => {}
        }
        during += 1;
        slowest = slowest.max(began.elapsed());
    }
    assert!(during > 10, "captures went on meanwhile: {during}");
    assert!(slowest < Duration::from_secs(2), "none waited for the searches: {slowest:?}");
}
