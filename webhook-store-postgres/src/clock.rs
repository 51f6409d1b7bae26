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
/// Whoever does nothing but claim asks this often.
const INTERVAL: Duration = Duration::from_secs(2);

/// The database's clock: local monotonic time, and what the last round trip told. All who share a database agree, to
/// within half a round trip.
#[derive(Clone, Debug)]
pub struct PostgresClock {
    start: Instant,
    /// The database's time at `start`, in microseconds since the Unix epoch.
    base: Arc<AtomicI64>,
    /// When it was asked last, in microseconds since `start`.
    asked: Arc<AtomicI64>,
}

impl PostgresClock {
    /// Asks the database.
    pub(crate) async fn new(conn: &mut PgConnection) -> Result<Self, Fault> {
        let clock = Self { start: Instant::now(), base: Arc::default(), asked: Arc::default() };
        let (asked, micros) = read(conn).await?;
        clock.set(asked, Instant::now(), micros);
        Ok(clock)
    }

    /// Takes over what a round trip told that began at `asked` and has just ended.
    pub(crate) fn learn(&self, asked: Instant, micros: i64) {
        self.asked.store(self.elapsed(), Ordering::Relaxed);
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

    /// Asks again where nobody has for a while, on a connection that is there for something else.
    pub(crate) async fn keep_up(&self, conn: &mut PgConnection) -> Result<(), Fault> {
        let age = self.elapsed().saturating_sub(self.asked.load(Ordering::Relaxed));
        if u128::try_from(age).is_ok_and(|age| age >= INTERVAL.as_micros()) {
            let (asked, micros) = read(conn).await?;
            self.learn(asked, micros);
        }
        Ok(())
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

async fn read(conn: &mut PgConnection) -> Result<(Instant, i64), Fault> {
    let asked = Instant::now();
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    Ok((asked, sqlx::query_scalar(sql).persistent(false).fetch_one(conn).await?))
}

impl Clock for PostgresClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.base.load(Ordering::Relaxed).saturating_add(self.elapsed()) / 1000)
    }
}
