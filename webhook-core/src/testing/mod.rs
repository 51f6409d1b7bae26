//! What tests need: clocks that stand still, chance that repeats, and the conformance suites for backends.
//!
//! A backend proves itself with one line for each seam, given an async factory of fresh, empty instances:
//!
//! ```
//! mod conformance {
//!     use std::sync::Arc;
//!     use webhook_core::{MemoryStore, Store};
//!
//!     // The second part is a guard: it is kept until the case ends, for a directory, a container or a schema.
//!     async fn fresh() -> (Arc<dyn Store>, ()) {
//!         (Arc::new(MemoryStore::new()), ())
//!     }
//!
//!     webhook_core::store_conformance!(fresh);
//! }
//! ```

#![expect(clippy::expect_used, clippy::panic, reason = "this module serves tests: a broken promise panics")]

mod clock;
mod entropy;
mod fuzz;
pub mod queue;
pub mod rate_limiter;
pub mod store;

use std::future::Future;

#[doc(hidden)]
pub use async_trait;

pub use clock::{ManualClock, PausedClock};
pub use entropy::SeededEntropy;
pub use fuzz::{fuzz, fuzz_time};

/// Runs a case on a runtime of its own, with several threads so that what is concurrent really is.
#[doc(hidden)]
pub fn run_case(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("the operating system gives threads").block_on(case);
}
