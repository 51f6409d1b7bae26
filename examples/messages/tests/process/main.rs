//! The service as a process, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client;
mod failing;
mod looking;
mod operating;
mod receiving;
mod service;
