//! The seam to a cache that processes share, so that a new one need not ask the store for everything.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

/// A shared cache could not give or take anything; the store is asked instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It cannot be reached, or is too slow.
    #[error("the shared cache is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps values for a while, for all processes. It only accelerates: what it loses is read from the store, and what it
/// has is opened with the engine's keys and counts only at the version that the store named.
#[async_trait]
pub trait SharedCache: Debug + Send + Sync + 'static {
    /// The values under these keys, in order; none where there is none any more. Keys are letters, digits, `-` and `:`.
    ///
    /// # Contract
    ///
    /// - A value comes back as it was put, and not after its time.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, CacheError>;

    /// Keeps values for at most `ttl`, replacing what was there.
    async fn put(&self, entries: &[(String, Vec<u8>)], ttl: Duration) -> Result<(), CacheError>;
}
