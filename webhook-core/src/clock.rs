//! Where time comes from. The only file that reads the wall clock.

use std::fmt::Debug;
use std::time::SystemTime;

use crate::Timestamp;

/// Tells the time to the engine; stores get `now` as a parameter and never read a clock.
///
/// # Contract
///
/// - `now` does not block and does not fail.
/// - Nodes that share a store have clocks that agree to well under a second.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH + since_epoch
    }
}
