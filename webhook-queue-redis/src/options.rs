//! Where Redis is, and how it is used.

use std::fmt;
use std::time::Duration;

use crate::RedisUrlError;
use crate::address::Address;

/// Shards of the queue in a cluster; one server gains nothing from more than one.
const CLUSTER_SHARDS: u16 = 16;
const MAX_SHARDS: u16 = 1024;
const MAX_PREFIX: usize = 64;

/// The text cannot start the names of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key prefix is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'")]
pub struct PrefixError;

/// Where Redis is, and how it is used.
#[derive(Clone)]
pub struct RedisOptions {
    pub(crate) address: Address,
    pub(crate) prefix: String,
    pub(crate) shards: u16,
    pub(crate) deadline: Duration,
}

impl RedisOptions {
    /// The Redis at that URL: key prefix `wh`, a deadline of 250 ms, one shard, or 16 in a cluster.
    ///
    /// - `redis://[user][:password@]host[:port][/database]`: one server
    /// - `redis+cluster://[user][:password@]host[:port],host[:port],…`: a cluster, found by any of these nodes
    /// - `rediss://` and `rediss+cluster://`: the same by TLS (feature `tls`)
    ///
    /// # Errors
    ///
    /// [`RedisUrlError`] for any other text. Nothing is connected to yet.
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        let address = Address::parse(url)?;
        let shards = if address.is_cluster() { CLUSTER_SHARDS } else { 1 };
        Ok(Self { address, prefix: "wh".to_owned(), shards, deadline: Duration::from_millis(250) })
    }

    /// What the names of all keys and channels start with, in braces: installations that share a Redis need different
    /// ones. 1 to 64 characters of `A-Z`, `a-z`, `0-9`, `.`, `_`, `:` and `-`.
    ///
    /// # Errors
    ///
    /// [`PrefixError`] for any other text.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, PrefixError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(legal) {
            return Err(PrefixError);
        }
        prefix.clone_into(&mut self.prefix);
        Ok(self)
    }

    /// How many keys hold the hints, each in a slot of its own: 1 to 1024. All processes need the same number. Hints
    /// that were pushed under another one are not found; the store finds their deliveries.
    #[must_use]
    pub fn with_shards(mut self, shards: u16) -> Self {
        self.shards = shards.clamp(1, MAX_SHARDS);
        self
    }

    /// Where Redis is, without who uses it: `redis://host:port`, or `redis+cluster://` with all the nodes given.
    pub fn address(&self) -> String {
        format!("{}://{}", self.address.scheme(), self.address.hosts().join(","))
    }

    /// How long any call may take before Redis counts as not answering.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Without passwords.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("hosts", &self.address.hosts())
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("deadline", &self.deadline)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_short_plain_text() {
        let options = || RedisOptions::new("redis://a").unwrap();
        assert_eq!(options().with_prefix("acme:hooks-1").unwrap().prefix, "acme:hooks-1");
        for prefix in ["", "{a}", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(options().with_prefix(prefix).unwrap_err(), PrefixError, "{prefix}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let options = RedisOptions::new("redis://user:canary@a").unwrap();
        let text = format!("{options:?} {:?}", crate::keys::Keys::new(&options));
        assert!(text.contains("a:6379") && !text.contains("canary") && !text.contains("user"), "{text}");
        assert_eq!(options.address(), "redis://a:6379");
        assert_eq!(RedisOptions::new("redis+cluster://:canary@a:1,b").unwrap().address(), "redis+cluster://a:1,b:6379");
    }
}
