//! The shared cache: values that go by themselves.

use std::time::Duration;

use async_trait::async_trait;
use webhook_core::{CacheError, SharedCache};

use crate::Redis;
use crate::link::all;

/// A [`SharedCache`] in Redis, whose keys expire.
#[derive(Clone, Debug)]
pub struct RedisCache {
    redis: Redis,
}

impl RedisCache {
    /// The cache in this Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, CacheError> {
        let got = self.redis.link.call(|wire| async move {
            let gets = keys.iter().map(|key| {
                let (mut wire, key) = (wire.clone(), self.redis.keys.cached(key));
                async move { redis::cmd("GET").arg(key).query_async(&mut wire).await }
            });
            Ok(all(gets).await?)
        });
        got.await.map_err(|error| CacheError::Unavailable(error.into()))
    }

    async fn put(&self, entries: &[(String, Vec<u8>)], ttl: Duration) -> Result<(), CacheError> {
        // Redis takes no time of zero; what would be kept for less than a millisecond need not be kept.
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1);
        if ttl == 0 {
            return Ok(());
        }
        let put = self.redis.link.call(|wire| async move {
            let puts = entries.iter().map(|(key, value)| {
                let (mut wire, key) = (wire.clone(), self.redis.keys.cached(key));
                async move { redis::cmd("SET").arg(key).arg(&value[..]).arg("PX").arg(ttl).exec_async(&mut wire).await }
            });
            all(puts).await?;
            Ok(())
        });
        put.await.map_err(|error| CacheError::Unavailable(error.into()))
    }
}
