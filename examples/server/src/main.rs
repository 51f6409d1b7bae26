//! A complete webhook service, assembled from the public parts of the webhook crates; see the README.

mod client;
mod config;
mod database;
mod demo;
mod figures;
mod flags;
mod health;
mod keys;
mod listen;
mod lists;
mod logs;
mod migrate;
mod retries;
mod serve;
mod server;
mod shutdown;

use std::error::Error;
use std::process::ExitCode;

use config::ConfigError;
use flags::{Command, CommandLine, Flags};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A setting is wrong: the code that clap ends with, too.
const MISUSE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine { command, flags } = CommandLine::read();
    match run(command.unwrap_or(Command::Serve), &flags).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", logs::chain(&*error));
            if error.is::<ConfigError>() { MISUSE.into() } else { ExitCode::FAILURE }
        }
    }
}

async fn run(command: Command, flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Serve => serve::run(flags).await?,
        Command::Demo { keep } => demo::run(keep).await?,
        Command::Migrate { status: false } => migrate::apply(flags).await?,
        Command::Migrate { status: true } => return migrate::status(flags).await,
        Command::Healthcheck => return Ok(health::check(flags).await?),
    }
    Ok(ExitCode::SUCCESS)
}

/// What `PORT` says; an empty variable counts as unset.
fn port() -> Option<String> {
    std::env::var("PORT").ok().filter(|port| !port.is_empty())
}
