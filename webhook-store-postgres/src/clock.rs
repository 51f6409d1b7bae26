//! The time of the database, told without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;
use webhook_core::{Clock, Timestamp};

use crate::error::Fault;

/// A round trip that takes longer than this says too little about the time.
const LONGEST_TRIP: Duration = Duration::from_millis(250);

/// The database's clock: local monotonic time, and what the last round trip told. All who share a database agree, to
/// within half a round trip.
#[derive(Clone, Debug)]
pub struct PostgresClock {
    start: Instant,
    /// The database's time at `start`, in microseconds since the Unix epoch.
    base: Arc<AtomicI64>,
}

impl PostgresClock {
    /// Asks the database.
    pub(crate) async fn new(conn: &mut PgConnection) -> Result<Self, Fault> {
        let clock = Self { start: Instant::now(), base: Arc::new(AtomicI64::new(0)) };
        let (asked, micros) = read(conn).await?;
        clock.set(asked, Instant::now(), micros);
        Ok(clock)
    }

    /// Takes over what a round trip told that began at `asked` and has just ended.
    pub(crate) fn learn(&self, asked: Instant, micros: i64) {
        let answered = Instant::now();
        if answered.duration_since(asked) <= LONGEST_TRIP {
            self.set(asked, answered, micros);
        }
    }

    fn set(&self, asked: Instant, answered: Instant, micros: i64) {
        let middle = asked + answered.duration_since(asked) / 2;
        let since = i64::try_from(middle.duration_since(self.start).as_micros()).unwrap_or(0);
        self.base.store(micros - since, Ordering::Relaxed);
    }
}

async fn read(conn: &mut PgConnection) -> Result<(Instant, i64), Fault> {
    let asked = Instant::now();
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    Ok((asked, sqlx::query_scalar(sql).persistent(false).fetch_one(conn).await?))
}

impl Clock for PostgresClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.base.load(Ordering::Relaxed).saturating_add(elapsed) / 1000)
    }
}
