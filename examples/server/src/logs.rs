//! How logs are written.

mod json;

use std::error::Error;
use std::io::IsTerminal;
use std::str::FromStr;

use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Reads the names of other logging libraries too, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(pub(crate) Level);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text.trim().to_ascii_lowercase().as_str() {
            "trace" => Level::TRACE,
            "debug" => Level::DEBUG,
            "info" => Level::INFO,
            "warn" | "warning" => Level::WARN,
            "error" | "critical" | "fatal" => Level::ERROR,
            _ => return Err("it is one of trace, debug, info, warning, error and critical".to_owned()),
        }))
    }
}

/// Writes logs to standard output from now on. The crates below ours, which know nothing of what must stay secret,
/// say no more than warnings.
pub(crate) fn start(format: LogFormat, level: LogLevel) -> Result<(), TryInitError> {
    let level = LevelFilter::from_level(level.0);
    let ours = [
        "webhook_server",
        "webhook_axum",
        "webhook_core",
        "webhook_queue_redis",
        "webhook_store_postgres",
        "webhook_store_sqlite",
    ];
    // A cluster's client warns of each try to connect, many times a second; that Redis is away is said by ours, once.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("redis", level.min(LevelFilter::ERROR))
        .with_targets(ours.map(|name| (name, level)));
    let writer = fmt::layer().with_writer(std::io::stdout).log_internal_errors(false);
    let writer = match format {
        LogFormat::Text => writer.with_ansi(std::io::stdout().is_terminal()).boxed(),
        LogFormat::Json => writer.with_ansi(false).event_format(json::Json).boxed(),
    };
    // One filter for all: a filter of the writer alone loses an event after each one that somebody asked about and then
    // did not write, as sqlx does.
    tracing_subscriber::registry().with(filter).with(writer).try_init()
}

/// An error with everything below it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_in_many_spellings() {
        for (text, level) in [
            ("INFO", Level::INFO),
            ("Warning", Level::WARN),
            ("warn", Level::WARN),
            ("CRITICAL", Level::ERROR),
            ("debug", Level::DEBUG),
        ] {
            assert_eq!(text.parse(), Ok(LogLevel(level)), "{text}");
        }
        assert!("loud".parse::<LogLevel>().is_err());
    }
}
