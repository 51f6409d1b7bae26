//! The engine end to end: memory store, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod backlog;
mod cached;
mod capture;
mod capture_calls;
mod clock;
mod delivery;
mod inbox;
mod lease;
mod queue;
mod receiver;
mod shared_cache;
