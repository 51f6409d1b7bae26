//! What can be said on the command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::fault::Fault;

#[derive(Debug, Parser)]
#[command(name = "chaos", about = "Faults on real servers under load, and an account of what was lost", version)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunSettings,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One server of the site, started by the command itself.
    #[command(hide = true)]
    Node(NodeSettings),
}

/// How long, how hard, and with what.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunSettings {
    /// Chooses the faults, their order and their lengths
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How long the storm lasts
    #[arg(long, default_value_t = 3.0)]
    pub(crate) minutes: f64,

    /// Events a second
    #[arg(long, default_value_t = 300)]
    pub(crate) rate: u32,

    /// Servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub(crate) servers: u8,

    /// Seconds that a lease lasts; attempts have two
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(4..=60))]
    pub(crate) lease: u64,

    /// Seconds after the last fault in which nothing may be open any more
    #[arg(long, default_value_t = 60)]
    pub(crate) calm: u64,

    /// Only faults of these kinds
    #[arg(long = "fault", value_name = "KIND,KIND,…", value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,

    /// Redis is configured, and is not there for the whole run
    #[arg(long)]
    pub(crate) without_redis: bool,

    /// Builds a bug into the servers: the run must fail then
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<Plant>,
}

impl RunSettings {
    pub(crate) fn storm(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

/// A bug that the account must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// Events are acknowledged before they are committed.
    AckBeforeCommit,
    /// The time of the next attempt is in the queue only.
    HintOnlyRetry,
    /// A result counts whoever holds the lease.
    NoToken,
    /// The body of an answer may take for ever.
    NoBodyDeadline,
}

/// One server.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeSettings {
    #[arg(long)]
    pub(crate) database_url: String,

    #[arg(long)]
    pub(crate) redis_url: Option<String>,

    /// KEY=TENANT; repeatable
    #[arg(long = "api-key")]
    pub(crate) api_keys: Vec<String>,

    /// ID=BASE64
    #[arg(long)]
    pub(crate) encryption_key: Option<String>,

    #[arg(long, default_value_t = 64)]
    pub(crate) concurrency: usize,

    /// Seconds
    #[arg(long, default_value_t = 15)]
    pub(crate) lease: u64,

    /// How far its clock is ahead, or behind
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) clock_offset_ms: i64,

    /// Seconds that events are kept after the end of their last delivery; what is older is removed at once [default: 72 h]
    #[arg(long)]
    pub(crate) keep: Option<u64>,

    #[arg(long)]
    pub(crate) plant: Option<Plant>,

    /// The process aborts there: MOMENT:CALL:N, at the Nth call of a method of a seam, before it or after it
    #[arg(long)]
    pub(crate) abort: Option<Abort>,
}

/// Where a process aborts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    pub(crate) moment: Moment,
    pub(crate) call: String,
    pub(crate) number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

impl std::str::FromStr for Abort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "it is MOMENT:CALL:N, such as after:claim:1".to_owned();
        let mut parts = text.split(':');
        let (Some(moment), Some(call), Some(number), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            _ => return Err(form()),
        };
        Ok(Self { moment, call: call.to_owned(), number: number.parse().map_err(|_| form())? })
    }
}
