//! A verified message service: receives signed messages, each once, and shows them; see the README.

mod config;
mod database;
mod filter;
mod logs;
mod message;
mod refusal;
mod request_log;
mod routes;
mod shutdown;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use config::{Config, ConfigError};
use database::Database;
use metrics_exporter_prometheus::PrometheusBuilder;
use routes::App;
use tokio::net::TcpListener;
use webhook_axum::ServeOptions;

/// A setting is wrong.
const MISUSE: u8 = 2;

/// Receives signed messages, each once, and shows them.
#[derive(Debug, Parser)]
#[command(name = "webhook-messages", version, after_help = VARIABLES)]
struct Arguments {}

const VARIABLES: &str = "Settings are environment variables:
  WEBHOOK_SECRET  The key that senders sign with; required
  LISTEN_ADDR     Where to listen [default: 127.0.0.1:8000]
  DATABASE_URL    sqlite://PATH or postgres://USER@HOST/DATABASE [default: sqlite://data/app.db]
  LOG_LEVEL       trace, debug, info, warning, error or critical [default: info]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", logs::chain(&*error));
            if error.is::<ConfigError>() { MISUSE.into() } else { ExitCode::FAILURE }
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    Arguments::parse();
    let config = Config::from_env(|name| std::env::var_os(name))?;
    logs::start(config.log_level)?;
    let shutdown = shutdown::on_signal()?;
    let figures = PrometheusBuilder::new().install_recorder()?;
    let database = Database::open(&config.database).await?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    tracing::info!(addr = %listener.local_addr()?, database = %config.database, "listening");
    let app = Arc::new(App { database, verifier: config.verifier, figures });
    webhook_axum::serve(listener, routes::router(Arc::clone(&app)), shutdown, ServeOptions::default()).await;
    app.database.close().await;
    tracing::info!("stopped");
    Ok(())
}
