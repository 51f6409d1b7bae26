//! The API as a caller meets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests: a broken promise panics")]
#![allow(clippy::field_reassign_with_default, reason = "the options are non-exhaustive")]

mod access;
mod bounded;
mod captured;
mod capturing;
mod conventions;
mod events;
mod failing;
mod following;
mod fuzz;
mod history;
mod host;
mod hostile;
mod ingest;
mod observing;
mod operating;
mod paths;
mod receiving;
mod serving;
mod subscriptions;
