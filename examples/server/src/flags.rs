//! The command line and its variables.

use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::lists::{Delays, Networks, seconds};
use crate::logs::{LogFormat, LogLevel};

/// Sends webhooks reliably: accepts events over HTTP and delivers them signed, with retries.
#[derive(Parser)]
#[command(name = "webhook-server", version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

#[derive(Clone, Subcommand)]
pub(crate) enum Command {
    /// Runs the server (what happens without a command, too).
    Serve,
    /// Shows in ten seconds what this is: a server, a receiver that fails at first, and real deliveries between them.
    Demo {
        /// Goes on running until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Brings the database's schema up to date.
    Migrate {
        /// Changes nothing; says what has been applied, and exits with 1 when something has not.
        #[arg(long)]
        status: bool,
    },
    /// Asks the server on this machine whether it is ready; exits with 0 or 1.
    Healthcheck,
}

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleFlag {
    All,
    Api,
    Worker,
}

#[derive(Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Flags {
    /// Where to listen [default: 127.0.0.1:8080, or 0.0.0.0:$PORT where that variable is set]
    #[arg(long, env = "LISTEN_ADDR", global = true, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,

    /// The address that others know this server by [default: http:// and the listen address]
    #[arg(long, env = "PUBLIC_URL", global = true, value_name = "URL")]
    pub(crate) public_url: Option<Url>,

    /// The database: postgres://…, sqlite://PATH, sqlite+aiosqlite:///PATH or memory:
    // URLs and keys with secrets in them are text here: clap's errors would show what it could not parse.
    #[arg(long, env = "DATABASE_URL", global = true, value_name = "URL", default_value = "sqlite://webhook.db")]
    pub(crate) database_url: String,

    /// Connections to the database at most
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", global = true, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) database_max_connections: u32,

    /// A Redis for processes that share a database: redis://…, rediss://…, redis+cluster://HOST,HOST,… or
    /// rediss+cluster://… [default: none, the database is the queue]
    #[arg(long, env = "REDIS_URL", global = true, value_name = "URL")]
    pub(crate) redis_url: Option<String>,

    /// What all names in Redis start with: installations that share one need different prefixes
    #[arg(long, env = "REDIS_PREFIX", global = true, value_name = "TEXT", default_value = "wh")]
    pub(crate) redis_prefix: String,

    /// Processes that deliver at most: while Redis does not answer, each keeps to that fraction of every rate limit
    #[arg(long, env = "RATE_LIMIT_PROCESSES", global = true, value_name = "COUNT", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate_limit_processes: u32,

    /// What this process does
    #[arg(long, env = "ROLE", global = true, default_value = "all", ignore_case = true)]
    pub(crate) role: RoleFlag,

    /// A network that targets may be in although it is private, loopback or the like; repeatable
    #[arg(long = "allow-network", env = "ALLOW_NETWORKS", global = true, value_name = "CIDR")]
    pub(crate) allow_networks: Vec<Networks>,

    /// Lets targets be plain http, not only inside allowed networks
    #[arg(long, env = "ALLOW_HTTP", global = true, action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) allow_http: bool,

    /// A proxy whose Forwarded and X-Forwarded-For are believed, right to left; repeatable
    #[arg(long = "trusted-proxy", env = "TRUSTED_PROXIES", global = true, value_name = "CIDR")]
    pub(crate) trusted_proxies: Vec<Networks>,

    /// Retries after the first attempt; chooses exponential steps [default: 5 with --retry-initial or --retry-max]
    #[arg(long, env = "WEBHOOK_MAX_RETRIES", global = true, value_name = "N")]
    pub(crate) max_retries: Option<u32>,

    /// The first step between attempts; chooses exponential steps [default: 10]
    #[arg(long, env = "INITIAL_RETRY_DELAY_SECONDS", global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) retry_initial: Option<Duration>,

    /// The longest step between attempts; chooses exponential steps [default: 900]
    #[arg(long, env = "MAX_RETRY_BACKOFF_SECONDS", global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) retry_max: Option<Duration>,

    /// The steps between attempts, n of them for n + 1 attempts; wins over the exponential ones
    #[arg(long, env = "RETRY_SCHEDULE_SECONDS", global = true, value_name = "S,S,…")]
    pub(crate) retry_schedule: Option<Delays>,

    /// How long an attempt may take, unless its subscription says otherwise
    #[arg(long, env = "WEBHOOK_DELIVERY_TIMEOUT_SECONDS", global = true, value_name = "SECONDS",
          value_parser = seconds, default_value = "15")]
    pub(crate) delivery_timeout: Duration,

    /// How long events are kept after the end of their last delivery
    #[arg(long, env = "LOG_RETENTION_HOURS", global = true, value_name = "HOURS", default_value_t = 72)]
    pub(crate) retention_hours: u32,

    /// How long captured requests are kept
    #[arg(long, env = "CAPTURE_RETENTION_HOURS", global = true, value_name = "HOURS", default_value_t = 720)]
    pub(crate) capture_retention_hours: u32,

    /// How often what is too old is removed
    #[arg(long, env = "CLEANUP_INTERVAL_SECONDS", global = true, value_name = "SECONDS",
          value_parser = seconds, default_value = "3600")]
    pub(crate) cleanup_interval: Duration,

    /// How long a subscription may be cached, whatever an invalidation missed
    #[arg(long, env = "CACHE_TTL_SECONDS", global = true, value_name = "SECONDS",
          value_parser = seconds, default_value = "600")]
    pub(crate) cache_ttl: Duration,

    /// Attempts at once
    #[arg(long, env = "WORKER_CONCURRENCY", global = true, value_name = "N", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,

    /// Bytes of one event's payload at most
    #[arg(long, env = "MAX_PAYLOAD_BYTES", global = true, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) max_payload: u32,

    /// Bytes of a captured request's body that are read at most; the first MiB of them is kept
    #[arg(long, env = "MAX_CONTENT_LENGTH", global = true, value_name = "BYTES", default_value_t = 16 << 20)]
    pub(crate) capture_max_body: u32,

    /// Seals secrets at rest; repeatable, the first key writes [default: none, secrets are stored in clear]
    #[arg(long = "encryption-key", env = "ENCRYPTION_KEYS", global = true, value_name = "ID=BASE64")]
    pub(crate) encryption_keys: Vec<String>,

    /// A key for the API with its tenant; repeatable [default: none, open to everybody on this machine]
    #[arg(long = "api-key", env = "API_KEYS", global = true, value_name = "KEY=TENANT[:SCOPES]")]
    pub(crate) api_keys: Vec<String>,

    /// How logs are written
    #[arg(long, env = "LOG_FORMAT", global = true, default_value = "text", ignore_case = true)]
    pub(crate) log_format: LogFormat,

    /// What is logged: trace, debug, info, warning, error or critical
    #[arg(long, env = "LOG_LEVEL", global = true, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,

    /// How long to wait for the database at start
    #[arg(long, env = "STARTUP_TIMEOUT_SECONDS", global = true, value_name = "SECONDS",
          value_parser = seconds, default_value = "60")]
    pub(crate) startup_timeout: Duration,

    /// Leaves the schema to `migrate`, and refuses an older one
    #[arg(long, env = "NO_MIGRATE", global = true, action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) no_migrate: bool,
}

impl CommandLine {
    /// Of this process; help, version and mistakes end it.
    pub(crate) fn read() -> Self {
        let matches = Self::definition().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// An empty variable counts as unset, and help never shows what is in one.
    fn definition() -> clap::Command {
        Self::command().mut_args(|arg| {
            let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if empty { arg.env(Resettable::Reset) } else { arg.hide_env_values(true) }
        })
    }
}

impl Flags {
    /// With the arguments given, and the defaults for the rest whatever the variables say.
    pub(crate) fn of<T: AsRef<str>>(arguments: &[T]) -> Result<Self, clap::Error> {
        let arguments = std::iter::once("webhook-server").chain(arguments.iter().map(AsRef::as_ref));
        let definition = CommandLine::command().mut_args(|arg| arg.env(Resettable::Reset));
        Ok(CommandLine::from_arg_matches(&definition.try_get_matches_from(arguments)?)?.flags)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::definition().debug_assert();
    }

    /// `PORT` is no flag's; the password is compose.yaml's alone, which asks for it.
    #[test]
    fn the_example_of_settings_has_every_variable_and_no_other() {
        let example: BTreeSet<_> =
            include_str!("../../../.env.example").lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let example = example.into_iter().filter(|name| !name.starts_with('#')).map(ToOwned::to_owned);
        let definition = CommandLine::command();
        let known = definition.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
        let known: BTreeSet<_> = known.chain(["PORT", "POSTGRES_PASSWORD"]).map(ToOwned::to_owned).collect();
        assert_eq!(example.collect::<BTreeSet<_>>(), known);
        assert!(include_str!("../../../compose.yaml").contains("${POSTGRES_PASSWORD:?"));
    }

    #[test]
    fn flags_stand_on_both_sides_of_the_command() {
        for arguments in [["--concurrency=7", "serve"], ["serve", "--concurrency=7"]] {
            assert_eq!(Flags::of(&arguments).unwrap().concurrency, 7, "{arguments:?}");
        }
    }
}
