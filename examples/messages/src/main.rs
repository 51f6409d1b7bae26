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

use config::{Config, ConfigError};
use database::Database;
use metrics_exporter_prometheus::PrometheusBuilder;
use routes::App;
use tokio::net::TcpListener;
use webhook_axum::ServeOptions;

/// A setting is wrong.
const MISUSE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            if error.is::<ConfigError>() { MISUSE.into() } else { ExitCode::FAILURE }
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let config = Config::from_env(|name| std::env::var(name).ok())?;
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

/// An error with everything below it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let message = error.to_string();
        // Transparent errors repeat what they carry.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        below = error.source();
    }
    text
}
