//! The connection to Redis: every call has a deadline, and a connection that misses too many is given up.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};

use crate::RedisOptions;
use crate::address::Address;
use crate::keys::Keys;

/// So many deadlines missed in a row, and the connection is replaced: behind a broken network it would wait for
/// minutes until the operating system gives it up.
const MISSES: u32 = 4;

/// A call to Redis that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("redis answered with an error, or cannot be reached")]
    Redis(#[from] RedisError),
    #[error("redis answered what it should not: {0}")]
    Nonsense(&'static str),
}

impl LinkError {
    /// Redis has no more memory to give.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        // Before Redis 7 a script's error has a code of its own, with the other one in its text.
        matches!(self, Self::Redis(error) if error.code() == Some("OOM") || error.to_string().contains("-OOM "))
    }

    /// The server is a copy, and whoever was its primary is elsewhere.
    fn is_read_only(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("READONLY"))
    }
}

/// A Redis. Cheap to clone; every clone shares one connection, which is made when it is first used, and again whenever
/// it breaks: a process starts, and goes on, without a Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    pub(crate) link: Arc<Link>,
    pub(crate) keys: Arc<Keys>,
}

impl Redis {
    /// Connects to nothing yet.
    pub fn new(options: &RedisOptions) -> Self {
        Self { link: Arc::new(Link::new(options)), keys: Arc::new(Keys::new(options)) }
    }
}

/// One connection that all calls share, made when it is first used.
pub(crate) struct Link {
    address: Address,
    deadline: Duration,
    state: Mutex<State>,
    inspected: AtomicBool,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    misses: u32,
}

impl Link {
    pub(crate) fn new(options: &RedisOptions) -> Self {
        let (address, deadline) = (options.address.clone(), options.deadline);
        Self { address, deadline, state: Mutex::default(), inspected: AtomicBool::new(false) }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Does something with the connection, within the deadline.
    pub(crate) async fn call<T, F>(&self, work: impl FnOnce(Wire) -> F) -> Result<T, LinkError>
    where
        F: Future<Output = Result<T, LinkError>>,
    {
        let wire = self.wire()?;
        let Ok(result) = tokio::time::timeout(self.deadline, work(wire.clone())).await else {
            self.missed();
            return Err(LinkError::Late(self.deadline));
        };
        let mut state = self.state();
        state.misses = 0;
        // After a failover the name may lead to another server, but what is connected stays connected.
        if result.as_ref().is_err_and(LinkError::is_read_only) {
            state.wire = None;
        }
        drop(state);
        if result.is_ok() && !self.inspected.swap(true, Ordering::Relaxed) {
            tokio::spawn(inspect(wire, self.deadline));
        }
        result
    }

    fn wire(&self) -> Result<Wire, RedisError> {
        let mut state = self.state();
        if let Some(wire) = &state.wire {
            return Ok(wire.clone());
        }
        let wire = self.address.wire()?;
        state.wire = Some(wire.clone());
        Ok(wire)
    }

    fn missed(&self) {
        let mut state = self.state();
        state.misses += 1;
        if state.misses >= MISSES {
            *state = State::default();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("hosts", &self.address.hosts()).field("deadline", &self.deadline).finish()
    }
}

/// Warns of a server that throws hints and buckets away when its memory is full.
async fn inspect(mut wire: Wire, deadline: Duration) {
    let mut question = redis::cmd("INFO");
    question.arg("memory");
    // Servers that do not tell are not worth a line: losing hints is harmless, only slower.
    let Ok(Ok(answer)) = tokio::time::timeout(deadline, question.query_async::<Value>(&mut wire)).await else { return };
    let infos = match answer {
        // Of a cluster, each primary's.
        Value::Map(of_server) => of_server.into_iter().map(|(_, info)| info).collect(),
        info => vec![info],
    };
    let infos = infos.into_iter().filter_map(|info| redis::from_redis_value::<String>(info).ok());
    let evicting = infos.filter_map(|info| {
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim().to_owned();
        (policy != "noeviction").then_some(policy)
    });
    for policy in evicting.collect::<std::collections::BTreeSet<_>>() {
        tracing::warn!(policy, "redis evicts keys when its memory is full: set maxmemory-policy to noeviction");
    }
}

/// A connection to one server, or to a cluster.
#[derive(Clone)]
pub(crate) enum Wire {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// All of these, at once; the first error, if any.
pub(crate) async fn all<T>(
    calls: impl IntoIterator<Item = impl Future<Output = RedisResult<T>>>,
) -> RedisResult<Vec<T>> {
    futures_util::future::try_join_all(calls).await
}
