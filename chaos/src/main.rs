//! Servers on PostgreSQL and Redis, behind a bad network, under load, while everything is killed, frozen and cut in turn;
//! then a calm, and an account of what was accepted, delivered, doubled and lost (I1 to I5, I7, I9, I11 to I13).
//!
//! `cargo run --release -p webhook-chaos -- --seed 1 --minutes 20 --rate 300`. It ends with 1 when anything is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails the run")]

mod account;
mod audit;
mod client;
mod fault;
mod judgement;
mod ledger;
mod load;
mod node;
mod observer;
mod process;
mod receiver;
mod run;
mod seams;
mod settings;
mod site;
mod temper;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use settings::{Command, CommandLine};

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine { command, run } = CommandLine::parse();
    match command {
        Some(Command::Node(settings)) => node::run(&settings).await,
        None => run::run(&run).await,
    }
}
