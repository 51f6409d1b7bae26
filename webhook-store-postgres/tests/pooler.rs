//! The store keeps every promise of the suite behind a pooler in transaction mode too, with fewer sessions than
//! connections: no two calls may count on the same session.

#![expect(clippy::expect_used, reason = "a broken test panics")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use sqlx::{Connection, PgConnection};
use webhook_core::Store;
use webhook_core::store::MaintenanceStore as _;
use webhook_store_postgres::{PostgresStore, PostgresStoreOptions};
use webhook_test_servers::{PgBouncer, PostgresServer};

static SERVER: LazyLock<PostgresServer> =
    LazyLock::new(|| PostgresServer::start_with(&["fsync=off", "full_page_writes=off", "max_connections=1000"]));
static CREATED: AtomicU32 = AtomicU32::new(0);
static POOLER: LazyLock<PgBouncer> = LazyLock::new(|| PgBouncer::start(SERVER.addr(), 4));

/// The URL of a new database, by way of the pooler.
async fn database() -> String {
    let name = format!("pooled_{}", CREATED.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect(&SERVER.url()).await.expect("it connects");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut admin).await.expect("it creates");
    let (server, _) =
        SERVER.url().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.to_owned())).expect("a URL");
    POOLER.rewrite(&format!("{server}/{name}"))
}

async fn fresh() -> (Arc<dyn Store>, ()) {
    let options: PostgresStoreOptions = database().await.parse().expect("a URL");
    let store = PostgresStore::connect(options.behind_pooler()).await.expect("it connects");
    store.migrate().await.expect("it migrates");
    assert!(store.notifier().is_none(), "nobody listens through a pooler");
    (Arc::new(store), ())
}

webhook_core::store_conformance!(fresh);
