//! The command `demo`: the real server, a receiver that fails at first, and what happens between them.

mod receiver;
mod tables;
mod tour;

use std::error::Error;
use std::path::Path;

use tracing::Level;

use crate::config::Config;
use crate::flags::Flags;
use crate::logs::{self, LogFormat, LogLevel};
use crate::server::Server;
use crate::{figures, shutdown};

use receiver::Receiver;
use tour::Tour;

/// Ends with the tour; with `keep`, at a signal.
pub(crate) async fn run(keep: bool) -> Result<(), Box<dyn Error>> {
    // What the demo has to say is not in the log.
    logs::start(LogFormat::Text, LogLevel(Level::ERROR))?;
    let shutdown = shutdown::on_signal()?;
    let directory = tempfile::tempdir()?;
    let server = Server::start(&config(&directory.path().join("demo.db"))?, figures::record()?).await?;
    let receiver = Receiver::start(shutdown.clone()).await?;
    let tour = Tour::new(server.addr(), receiver);
    let serving = tokio::spawn(server.run(shutdown.clone()));

    let outcome = tokio::select! {
        outcome = tour.run() => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() && !shutdown.is_cancelled() {
        tour.say_what_is_next(keep);
        if keep {
            shutdown.cancelled().await;
        }
    }
    shutdown.cancel();
    serving.await??;
    directory.close()?;
    Ok(outcome?)
}

/// Every setting is the demo's own, whatever the variables say: it must neither touch a real database nor need keys.
fn config(database: &Path) -> Result<Config, Box<dyn Error>> {
    let database_url = format!("--database-url=sqlite://{}", database.display());
    let flags = Flags::of(&["--listen=127.0.0.1:0", "--allow-network=127.0.0.0/8", &database_url])?;
    Ok(Config::resolve(&flags, None)?)
}
