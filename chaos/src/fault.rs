//! What can happen.

use std::collections::BTreeMap;

use clap::ValueEnum;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of a server, and another one in its place.
    ServerKilled,
    /// A server stands still for longer than a lease lasts.
    ServerFrozen,
    /// SIGTERM to a server when another one has started.
    ServerReplaced,
    /// A server is replaced by one whose clock is off by as much as the contract of `Clock` allows.
    ClockOff,
    /// kill -9 of one session: PostgreSQL ends all of them and recovers.
    SessionKilled,
    /// kill -9 of the postmaster.
    PostmasterKilled,
    /// The immediate shutdown.
    PostgresStoppedAtOnce,
    /// The fast shutdown.
    PostgresRestarted,
    /// PostgreSQL and all its sessions stand still.
    PostgresFrozen,
    /// Commits are done, and their answers lost with their connections.
    CommitAnswersLost,
    /// All connections to PostgreSQL are reset.
    PostgresCut,
    /// The network to PostgreSQL holds everything back.
    PostgresStalled,
    /// The network to PostgreSQL refuses everything.
    PostgresPartitioned,
    /// The network forgets all connections to PostgreSQL without a word.
    PostgresStranded,
    /// Somebody locks the deliveries for ten seconds.
    TableLocked,
    /// Somebody takes almost all sessions that PostgreSQL allows.
    SessionsTaken,
    /// kill -9 of Redis, which comes back empty.
    RedisKilled,
    /// FLUSHALL.
    RedisFlushed,
    /// Redis stands still.
    RedisFrozen,
    /// The network to Redis refuses everything.
    RedisPartitioned,
}

impl Fault {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub(crate) fn needs_redis(self) -> bool {
        matches!(self, Self::RedisKilled | Self::RedisFlushed | Self::RedisFrozen | Self::RedisPartitioned)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How often each kind came.
pub(crate) fn tally(faults: &[Fault]) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for fault in faults {
        *counts.entry(fault).or_default() += 1;
    }
    counts.iter().map(|(fault, count)| format!("{} {count}", fault.name())).collect::<Vec<_>>().join(", ")
}
