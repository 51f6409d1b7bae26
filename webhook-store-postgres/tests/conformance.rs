//! The store keeps every promise of the suite.

#![expect(clippy::expect_used, reason = "a broken test panics")]

use std::sync::Arc;

use webhook_core::Store;
use webhook_store_postgres::PostgresStore;
use webhook_test_servers::TestDatabase;

async fn fresh() -> (Arc<dyn Store>, TestDatabase) {
    let database = TestDatabase::fresh();
    let store = PostgresStore::open(database.url()).await.expect("the store opens");
    (Arc::new(store), database)
}

webhook_core::store_conformance!(fresh);
webhook_core::store_model!(fresh, 24);
