//! The store keeps every promise of the suite.

#![expect(clippy::expect_used, reason = "a broken test panics")]

use std::sync::Arc;

use tempfile::TempDir;
use webhook_core::Store;
use webhook_store_sqlite::SqliteStore;

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("hooks.db");
    let store = SqliteStore::open(path.to_str().expect("a plain path")).await.expect("the store opens");
    (Arc::new(store), directory)
}

webhook_core::store_conformance!(fresh);
webhook_core::store_model!(fresh, 48);
