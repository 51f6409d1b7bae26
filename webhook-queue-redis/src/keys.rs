//! The names of keys and channels. No text of a tenant is ever in them.

use webhook_core::{DeliveryId, TargetId};

use crate::RedisOptions;

/// Names of one installation. What has the same number in the braces is in the same slot of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    shards: u16,
}

impl Keys {
    pub(crate) fn new(options: &RedisOptions) -> Self {
        Self { prefix: options.prefix.clone(), shards: options.shards }
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    /// The hints of a shard.
    pub(crate) fn due(&self, shard: u16) -> String {
        format!("{{{}:{shard}}}:due", self.prefix)
    }

    /// The bucket of a target.
    pub(crate) fn bucket(&self, target: TargetId) -> String {
        format!("{{{}:{}}}:rate:{target}", self.prefix, self.of_target(target))
    }

    /// Something cached. Nothing reads two of them together, so each may be in any slot.
    pub(crate) fn cached(&self, key: &str) -> String {
        format!("{}:cache:{key}", self.prefix)
    }

    /// What processes tell each other.
    pub(crate) fn channel(&self) -> String {
        format!("{{{}}}:signals", self.prefix)
    }

    pub(crate) fn of_delivery(&self, delivery: DeliveryId) -> u16 {
        self.of(delivery.as_uuid().as_u128())
    }

    pub(crate) fn of_target(&self, target: TargetId) -> u16 {
        self.of(target.as_uuid().as_u128())
    }

    /// The low bits of the ids that this project makes are random.
    fn of(&self, id: u128) -> u16 {
        u16::try_from(id % u128::from(self.shards)).unwrap_or(0)
    }
}
