//! The server as a process: killed, stopped, misused and attacked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod capture_browser;
mod capture_hostile;
mod capture_kill;
mod demo;
mod fleet;
mod hostile;
mod kill;
mod pooler;
mod postgres;
mod redis;
mod secrets;
mod settings;
mod stop;
mod support;
