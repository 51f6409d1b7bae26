//! The command `serve`.

use std::error::Error;

use crate::config::Config;
use crate::flags::Flags;
use crate::server::Server;
use crate::{figures, logs, port, shutdown};

pub(crate) async fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let config = Config::resolve(flags, port().as_deref())?;
    logs::start(flags.log_format, flags.log_level)?;
    config.log(flags);
    let shutdown = shutdown::on_signal()?;
    let figures = figures::record()?;
    let server = tokio::select! {
        server = Server::start(&config, figures) => server?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(addr = %server.addr(), public_url = server.public_url(), "listening");
    server.run(shutdown).await?;
    tracing::info!("stopped");
    Ok(())
}
