//! A PostgreSQL database of a test's own.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::LazyLock;

use crate::postgres::psql;
use crate::{PostgresServer, binaries};

/// For tests that kill nothing: what they wait for is not the disk.
static SHARED: LazyLock<PostgresServer> =
    LazyLock::new(|| PostgresServer::start_with(&["fsync=off", "full_page_writes=off"]));

/// An empty database, dropped with this.
///
/// It is on the server that `TEST_DATABASE_URL` names, whose user must be allowed to create databases; without that
/// variable on a private one without `fsync`, which all tests of the process share.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    /// Another database of the same server.
    admin_url: String,
    binaries: PathBuf,
}

impl TestDatabase {
    /// An empty database.
    pub fn fresh() -> Self {
        let (binaries, admin_url) = match env::var("TEST_DATABASE_URL") {
            Ok(url) => (binaries::postgres_dir(), url),
            Err(_) => (binaries::postgres_dir(), SHARED.url()),
        };
        let name = format!("webhook_test_{}", unique());
        psql(&binaries, &admin_url, &format!("create database {name}"));
        Self { url: with_database(&admin_url, &name), name, admin_url, binaries }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        psql(&self.binaries, &self.admin_url, &format!("drop database if exists {} with (force)", self.name));
    }
}

/// Sixteen hexadecimal digits that no other process has.
pub(crate) fn unique() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn with_database(url: &str, name: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, String::new()), |(url, query)| (url, format!("?{query}")));
    let authority = before.find("://").map_or(0, |scheme| scheme + 3);
    let path = before[authority..].find('/').map_or(before.len(), |slash| authority + slash);
    format!("{}/{name}{query}", &before[..path])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_the_rest_kept() {
        for (url, expected) in [
            ("postgres://postgres@127.0.0.1:5432/postgres", "postgres://postgres@127.0.0.1:5432/x"),
            ("postgres://u:p@host", "postgres://u:p@host/x"),
            ("postgresql://host/a?sslmode=require", "postgresql://host/x?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
