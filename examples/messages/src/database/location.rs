//! Where the database is.

use std::fmt;
use std::path::PathBuf;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

#[derive(Clone, Debug)]
pub(crate) enum Location {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl Location {
    /// `sqlite://data/app.db` is relative, `sqlite:///data/app.db` absolute; `sqlite+aiosqlite:///` and `postgresql+…` are
    /// read as SQLAlchemy writes them. None for anything else, and for a database in memory, which would forget.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        match scheme {
            "postgres" | "postgresql" => {
                let options: PgConnectOptions = url.parse().ok()?;
                Some(Self::Postgres(Box::new(options.disable_statement_logging())))
            }
            _ if scheme.starts_with("postgresql+") || scheme.starts_with("postgres+") => {
                Self::parse(&format!("postgresql:{rest}"))
            }
            "sqlite" | "sqlite+aiosqlite" => {
                let start = if scheme == "sqlite" { "//" } else { "///" };
                let path = rest.strip_prefix(start).unwrap_or(rest);
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                (!path.is_empty() && path != ":memory:" && path != "/:memory:").then(|| Self::Sqlite(path.into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            // Without user and password.
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                write!(f, "postgres://{}:{}/{database}", options.get_host(), options.get_port())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_urls_that_it_knows() {
        for (url, shown) in [
            ("sqlite://data/app.db", "sqlite://data/app.db"),
            ("sqlite:///data/app.db?mode=rwc", "sqlite:///data/app.db"),
            ("sqlite:app.db", "sqlite://app.db"),
            ("sqlite+aiosqlite:///data/app.db", "sqlite://data/app.db"),
            ("sqlite+aiosqlite:////data/app.db", "sqlite:///data/app.db"),
            ("postgres://user:canary@host/db", "postgres://host:5432/db"),
            ("postgresql+asyncpg://user:canary@host:1/db", "postgres://host:1/db"),
        ] {
            assert_eq!(Location::parse(url).expect(url).to_string(), shown);
        }
        for url in
            ["", "app.db", "sqlite://", "sqlite::memory:", "sqlite:///:memory:", "mysql://host/db", "postgres://["]
        {
            assert!(Location::parse(url).is_none(), "{url}");
        }
    }
}
