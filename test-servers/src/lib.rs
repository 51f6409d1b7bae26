//! Private PostgreSQL, PgBouncer and Redis servers for tests and benchmarks.
//!
//! Each server listens on a loopback port of its own, keeps its data in a directory of its own, and ends with the process
//! that started it, however that ends: both are gone then. A test can kill, stop, pause and restart it, or put a
//! [`FaultProxy`] before it.
//!
//! [`TestDatabase::fresh`] and [`TestRedis::fresh`] are for tests that only need a place of their own: they share one
//! server per process, or use the one that `TEST_DATABASE_URL` or `TEST_REDIS_URL` names.
//!
//! The binaries are looked for in `PATH` and in `/usr/lib/postgresql`; where `apt-get` and the rights are there, missing
//! ones are installed. What cannot be done is a panic that says so: a missing server is a failed test, never a skipped
//! one. All calls but those of the proxy's connections block.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails a test")]

mod binaries;
mod database;
mod home;
mod pgbouncer;
mod port;
mod postgres;
mod proxy;
mod redis;
mod redis_cluster;
mod resp;
mod test_redis;

pub use binaries::chromium;
pub use database::TestDatabase;
pub use pgbouncer::PgBouncer;
pub use postgres::PostgresServer;
pub use proxy::{FaultProxy, Traffic};
pub use redis::RedisServer;
pub use redis_cluster::RedisCluster;
pub use test_redis::TestRedis;
