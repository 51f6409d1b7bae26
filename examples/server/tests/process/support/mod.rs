//! What the tests share: a server process, a receiver, a client, a look into the database.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod fleet;
pub(crate) mod place;
pub(crate) mod receiver;
pub(crate) mod senders;
pub(crate) mod server;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything takes, so that only what would never happen fails by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask).await
}

/// Asks until there is an answer, which must come in time.
pub(crate) async fn within<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(PAUSE).await;
    }
}
