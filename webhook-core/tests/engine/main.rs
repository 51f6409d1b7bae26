//! The engine end to end: memory store, real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod delivery;
mod receiver;
