//! A server aborts at each step of its work, one after the other, starts again, and nothing is lost (I1, I3, I5, I13).
//!
//! The steps are calls of the seams between the engine and the store, the queue and the network, before and after each;
//! what is in the middle of a transaction is held there by the database and killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../src/client.rs"]
mod client;
mod endpoint;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../../src/process.rs"]
mod process;
mod scene;
mod seams;
mod transactions;
#[path = "../../src/wire.rs"]
mod wire;
