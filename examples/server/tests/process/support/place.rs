//! Where a server keeps its data; gone with the test.

use tempfile::TempDir;
use webhook_test_servers::TestDatabase;

use super::server::{Server, sqlite_url};

/// Where a server keeps its data.
pub(crate) struct Place {
    url: String,
    _directory: Option<TempDir>,
    _database: Option<TestDatabase>,
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self { url: "memory:".to_owned(), _directory: None, _database: None }
    }

    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { url: sqlite_url(directory.path()), _directory: Some(directory), _database: None }
    }

    pub(crate) async fn postgres() -> Self {
        let database = tokio::task::spawn_blocking(TestDatabase::fresh).await.unwrap();
        Self { url: database.url().to_owned(), _directory: None, _database: Some(database) }
    }

    /// A server on it.
    pub(crate) async fn launch(&self, arguments: &[&str]) -> Server {
        Server::on(&self.url, arguments).await
    }
}
