#![doc = include_str!("../README.md")]

mod address;
mod cache;
mod keys;
mod link;
mod notifier;
mod options;
mod queue;
mod rate_limiter;

pub use address::RedisUrlError;
pub use cache::RedisCache;
pub use link::Redis;
pub use notifier::RedisNotifier;
pub use options::{PrefixError, RedisOptions};
pub use queue::RedisQueue;
pub use rate_limiter::RedisRateLimiter;
