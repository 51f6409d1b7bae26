//! A part of a Redis server for one test.

use std::env;
use std::sync::LazyLock;

use crate::RedisServer;
use crate::database::unique;

static SHARED: LazyLock<RedisServer> = LazyLock::new(RedisServer::start);

/// A key prefix of a test's own.
///
/// It is on the server that `TEST_REDIS_URL` names; without that variable on a private one, which all tests of the
/// process share. A test that flushes or kills takes a [`RedisServer`].
#[derive(Debug)]
pub struct TestRedis {
    url: String,
    prefix: String,
}

impl TestRedis {
    /// A prefix under which there is no key.
    pub fn fresh() -> Self {
        let url = env::var("TEST_REDIS_URL").unwrap_or_else(|_| SHARED.url());
        Self { url, prefix: Self::prefix_of_its_own() }
    }

    /// A prefix that no other test uses, for any server.
    pub fn prefix_of_its_own() -> String {
        format!("test-{}", unique())
    }

    /// The URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the keys of this test start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}
