//! Where a server keeps its data; gone with the test.

use tempfile::TempDir;
use webhook_test_servers::TestDatabase;

use super::server::{Server, database_url};

/// Where a server keeps its data.
pub(crate) struct Place {
    directory: TempDir,
    /// The flag that names it.
    flag: String,
    _database: Option<TestDatabase>,
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), flag: "--database-url=memory:".to_owned(), _database: None }
    }

    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { flag: database_url(directory.path()), directory, _database: None }
    }

    pub(crate) async fn postgres() -> Self {
        let database = tokio::task::spawn_blocking(TestDatabase::fresh).await.unwrap();
        let flag = format!("--database-url={}", database.url());
        Self { directory: tempfile::tempdir().unwrap(), flag, _database: Some(database) }
    }

    /// A server on it.
    pub(crate) async fn launch(&self, arguments: &[&str]) -> Server {
        Server::start_on(&self.flag, self.directory.path(), arguments).await
    }
}
