//! Settings, all of them environment variables.

use std::ffi::OsString;

use http::HeaderName;
use tracing::Level;
use webhook_core::verify::{HmacVerifier, LiveSecrets};

use crate::database::Location;

/// The header that carries the signature: HMAC-SHA256 of the body, in hex.
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

const DEFAULT_LISTEN: &str = "127.0.0.1:8000";
const DEFAULT_DATABASE: &str = "sqlite://data/app.db";

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) verifier: HmacVerifier,
    pub(crate) listen: String,
    pub(crate) database: Location,
    pub(crate) log_level: Level,
}

/// A setting that cannot be used. No message shows a secret or a URL, which may have a password in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("WEBHOOK_SECRET is not set: it is the key that senders sign with, and nothing is accepted without it")]
    NoSecret,
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("DATABASE_URL must be sqlite://PATH or postgres://USER@HOST/DATABASE")]
    Database,
    #[error("LOG_LEVEL `{0}` is none of trace, debug, info, warning, error and critical")]
    LogLevel(String),
}

impl Config {
    /// An empty variable counts as unset.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let variable = |name| match variable(name).filter(|value| !value.is_empty()) {
            Some(value) => value.into_string().map(Some).map_err(|_| ConfigError::NotUtf8(name)),
            None => Ok(None),
        };
        let secret = variable("WEBHOOK_SECRET")?.ok_or(ConfigError::NoSecret)?;
        let secrets = LiveSecrets::one(secret).map_err(|_| ConfigError::NoSecret)?;
        let database = variable("DATABASE_URL")?.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        let log_level = variable("LOG_LEVEL")?.unwrap_or_else(|| "info".to_owned());
        Ok(Self {
            verifier: HmacVerifier::new(SIGNATURE, secrets),
            listen: variable("LISTEN_ADDR")?.unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            database: Location::parse(&database).ok_or(ConfigError::Database)?,
            log_level: level(&log_level).ok_or(ConfigError::LogLevel(log_level))?,
        })
    }
}

/// The names of other logging libraries, too, in any case.
fn level(text: &str) -> Option<Level> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "info" => Level::INFO,
        "warn" | "warning" => Level::WARN,
        "error" | "critical" | "fatal" => Level::ERROR,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_env(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn only_the_secret_is_required() {
        assert!(matches!(config(&[]), Err(ConfigError::NoSecret)));
        assert!(matches!(config(&[("WEBHOOK_SECRET", "")]), Err(ConfigError::NoSecret)));
        let config = config(&[("WEBHOOK_SECRET", "canary"), ("LOG_LEVEL", "")]).unwrap();
        assert_eq!((config.listen.as_str(), config.log_level), ("127.0.0.1:8000", Level::INFO));
        assert_eq!(config.database.to_string(), "sqlite://data/app.db");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_passwords() {
        for (name, value) in [("DATABASE_URL", "mysql://user:canary@host/db"), ("LOG_LEVEL", "loud")] {
            let error = config(&[("WEBHOOK_SECRET", "s"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn levels_come_in_many_spellings() {
        for (text, expected) in [("INFO", Level::INFO), ("Warning", Level::WARN), ("CRITICAL", Level::ERROR)] {
            assert_eq!(level(text), Some(expected));
        }
    }
}
