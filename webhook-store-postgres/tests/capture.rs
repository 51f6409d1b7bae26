//! What reading and pruning captured requests cost, and whom they keep waiting.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::time::Duration;

use futures_util::future::join_all;
use scene::{Scene, alone, at, uuid};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::Instant;
use webhook_core::store::{
    CaptureOutcome, CapturePruneRequest, CapturePruneStep, CaptureStore, MaintenanceStore, NewCapture, PageRequest,
    PathInserted, PathRecord,
};
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, IncomingRequest, PathKey, TenantId, Timestamp};
use webhook_store_postgres::PostgresStore;

async fn create(store: &PostgresStore, number: u64, name: &str, expires_at: Option<Timestamp>) -> PathRecord {
    let name = name.parse().expect("a name");
    let mut path = PathRecord::new(PathKey::from_uuid(uuid(number)), name, TenantId::default(), at(1));
    path.expires_at = expires_at;
    assert_eq!(store.insert_path(&path, None).await.expect("it works"), PathInserted::Created);
    path
}

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
    let path = create(&store, 1, "p", None).await;
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

/// Rows of captured requests that were read so far, once those who read them are gone.
async fn rows_read(host: &PgPool) -> i64 {
    alone(host).await;
    let sql = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'captured_request'";
    sqlx::query_scalar(sql).fetch_one(host).await.expect("it answers")
}

#[tokio::test]
async fn asking_for_what_is_recent_reads_no_more_than_that() {
    let scene = Scene::new();
    let store = scene.open().await;
    let path = create(&store, 1, "p", None).await;
    let news: Vec<_> = (0..3_000)
        .map(|second| {
            let id = CaptureId::from_uuid(CaptureId::floor(at(second)).as_uuid());
            let request = IncomingRequest::new("POST", "/webhook/p").with_body("x");
            let captured = CapturedRequest::new(id, path.tenant.clone(), path.path_id.clone(), request, at(second));
            NewCapture::new(path.key, path.version, captured)
        })
        .collect();
    store.capture(at(3_000), &news).await.expect("it works");
    store.close().await;
    let host = PgPoolOptions::new().max_connections(1).connect(scene.database.url()).await.expect("the host connects");
    sqlx::query("ANALYZE webhook.captured_request").execute(&host).await.expect("it works");
    for filter in [CaptureFilter::new(), CaptureFilter::new().with_text("x")] {
        let before = rows_read(&host).await;
        let store = PostgresStore::connect(scene.options()).await.expect("it connects");
        let (filter, page) = (filter.with_since(at(2_990)), PageRequest::offset(100, 0));
        let page = store.list_captured(&path.tenant, &path.path_id, &filter, page, 10).await.expect("it works");
        assert_eq!((page.items.len(), page.total), (10, Some(10)));
        store.close().await;
        let read = rows_read(&host).await - before;
        assert!((10..200).contains(&read), "{read} rows of 3,000 were read for {filter:?}");
    }
}

/// Steps of pruning until there is no more.
async fn prune(store: &PostgresStore) -> Vec<CapturePruneStep> {
    let request = CapturePruneRequest { received_before: at(1_000), now: at(1_000), limit: 1_000 };
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step: &CapturePruneStep| step.more) {
        steps.push(store.prune_captured(request).await.expect("it works"));
    }
    steps
}

#[tokio::test]
async fn pruning_never_waits_for_a_path_while_others_wait_for_the_one_it_holds() {
    for first_is_deleted in [false, true] {
        let scene = Scene::new();
        let store = scene.open().await;
        let first = create(&store, 1, "first", None).await;
        let expired = create(&store, 2, "expired", Some(at(10))).await;
        capture(&store, &first, 100, b"old".to_vec()).await;
        capture(&store, &expired, 101, b"old".to_vec()).await;
        if first_is_deleted {
            assert!(store.delete_path(&first.tenant, &first.path_id).await.expect("it works"));
        }
        // A batch of requests that reached both paths locks one after the other.
        let host = scene.host().await;
        let mut batch = host.begin().await.expect("it begins");
        let lock = "SELECT 1 FROM webhook.path_usage WHERE path_key = $1 FOR UPDATE";
        sqlx::query(lock).bind(first.key.as_uuid()).execute(&mut *batch).await.expect("it locks");
        let pruning = tokio::spawn({
            let store = store.clone();
            async move { prune(&store).await }
        });
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&host).await.expect("it answers") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sqlx::query(lock).bind(expired.key.as_uuid()).execute(&mut *batch).await.expect("nobody waits in a circle");
        batch.commit().await.expect("it commits");
        let steps = pruning.await.expect("it ends");
        assert_eq!(steps.iter().map(|step| step.requests).sum::<u64>(), 2);
    }
}

#[tokio::test]
async fn a_step_of_pruning_is_bounded_by_the_bytes_that_go() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (deleted, stays) = (create(&store, 1, "deleted", None).await, create(&store, 2, "stays", None).await);
    for number in 0..3 {
        capture(&store, &deleted, 100 + number, vec![b'x'; 25 << 20]).await;
        capture(&store, &stays, 200 + number, vec![b'x'; 25 << 20]).await;
    }
    store.delete_path(&deleted.tenant, &deleted.path_id).await.expect("it works");
    let steps = prune(&store).await;
    let steps: Vec<_> = steps.iter().map(|step| (step.requests, step.more)).collect();
    assert_eq!(steps, [(2, true), (1, true), (2, true), (1, false)]);
    let (_, usage) = store.path(&stays.tenant, &stays.path_id).await.expect("it works").expect("it is there");
    assert_eq!((usage.requests, usage.bytes), (0, 0));
}
