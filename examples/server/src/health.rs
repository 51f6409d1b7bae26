//! The command `healthcheck`.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use crate::config::ConfigError;
use crate::flags::Flags;
use crate::{client, listen, port};

const PATIENCE: Duration = Duration::from_secs(5);

/// Success when the server on this machine says that it is ready.
pub(crate) async fn check(flags: &Flags) -> Result<ExitCode, ConfigError> {
    let addr = listen::from_here(listen::resolve(flags.listen.as_deref(), port().as_deref())?);
    match timeout(PATIENCE, client::get(addr, "/health/ready")).await {
        Ok(Ok(answer)) => {
            println!("{}", String::from_utf8_lossy(&answer.body).trim_end());
            Ok(if answer.status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ok(Err(error)) => {
            eprintln!("error: no server answers on {addr}: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(_) => {
            eprintln!("error: the server on {addr} does not answer within {} s", PATIENCE.as_secs());
            Ok(ExitCode::FAILURE)
        }
    }
}
