//! The queue: hints in sorted sets, by due time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Script;
use uuid::Uuid;
use webhook_core::{DeliveryId, Hint, Queue, QueueError, TargetId, Timestamp};

use crate::Redis;
use crate::link::{LinkError, Wire, all};

static POP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/pop.lua")));

/// A delivery and its target, as the bytes of their UUIDs.
const MEMBER: usize = 32;
/// When hints of several shards are merged, each is asked for so many more than its share.
const LOOKAHEAD: usize = 16;

/// A [`Queue`] in Redis: for fleets of workers that share a store.
///
/// Each shard is one sorted set, whose members are pairs of delivery and target, and whose scores are due times in
/// milliseconds. Losing any or all of it loses no delivery.
#[derive(Clone, Debug)]
pub struct RedisQueue {
    redis: Redis,
}

/// What becomes of hints that are taken.
#[derive(Clone, Copy, Debug)]
enum Taken {
    HeldUntil(Timestamp),
    Removed,
}

/// How many of a shard's hints are among those due first, and the last one's due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    shard: u16,
    count: usize,
    until: i64,
}

impl RedisQueue {
    /// The queue in this Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// The hints by shard, as members with their due times.
    fn by_shard(&self, hints: &[Hint]) -> BTreeMap<u16, Vec<(i64, [u8; MEMBER])>> {
        let mut shards: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for hint in hints {
            let of_shard = shards.entry(self.redis.keys.of_delivery(hint.delivery)).or_default();
            of_shard.push((hint.due.as_millis(), member(hint)));
        }
        shards
    }

    async fn take(&self, wire: &Wire, now: Timestamp, taken: Taken, limit: u32) -> Result<Vec<Hint>, LinkError> {
        let limit = limit as usize;
        if self.redis.keys.shards() == 1 {
            let share = Share { shard: 0, count: limit, until: now.as_millis() };
            return self.take_share(wire.clone(), share, taken).await;
        }
        let mut hints = Vec::new();
        while hints.len() < limit {
            let shares = self.shares(wire, now, limit - hints.len()).await?;
            if shares.is_empty() {
                break;
            }
            let takes = shares.into_iter().map(|share| self.take_share(wire.clone(), share, taken));
            let mut failed = None;
            for result in futures_util::future::join_all(takes).await {
                // What other shards gave must not get lost.
                match result {
                    Ok(taken) => hints.extend(taken),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) if hints.is_empty() => return Err(error),
                Some(_) => break,
                // Where other workers took everything meanwhile, there may be more.
                None => {}
            }
        }
        hints.sort_by_key(|hint| hint.due);
        Ok(hints)
    }

    async fn take_share(&self, mut wire: Wire, share: Share, taken: Taken) -> Result<Vec<Hint>, LinkError> {
        let held = match taken {
            Taken::HeldUntil(until) => until.as_millis().to_string(),
            Taken::Removed => String::new(),
        };
        let key = self.redis.keys.due(share.shard);
        let mut call = POP.key(key);
        let pairs: Vec<(Vec<u8>, f64)> =
            call.arg(share.until).arg(held).arg(share.count).invoke_async(&mut wire).await?;
        pairs.iter().map(|(member, score)| hint(member, *score)).collect()
    }

    /// From which shards the hints due first come, without taking any.
    async fn shares(&self, wire: &Wire, now: Timestamp, limit: usize) -> Result<Vec<Share>, LinkError> {
        let shards = self.redis.keys.shards();
        let ask = (2 * limit / usize::from(shards) + LOOKAHEAD).min(limit);
        let looks = (0..shards).map(|shard| {
            let (mut wire, key) = (wire.clone(), self.redis.keys.due(shard));
            async move {
                let mut command = redis::cmd("ZRANGEBYSCORE");
                command.arg(key).arg("-inf").arg(now.as_millis()).arg("WITHSCORES").arg("LIMIT").arg(0).arg(ask);
                let pairs: Vec<(Vec<u8>, f64)> = command.query_async(&mut wire).await?;
                Ok(pairs.into_iter().map(|(_, score)| score as i64).collect::<Vec<_>>())
            }
        });
        let due = all(looks).await?;
        Ok(merge(&due, ask, limit))
    }
}

/// The `limit` times due first of several ascending lists. A list of `ask` times may go on after them, so nothing later
/// than the end of any such list is known to be among the first.
fn merge(due: &[Vec<i64>], ask: usize, limit: usize) -> Vec<Share> {
    let known_until = due.iter().filter(|times| times.len() >= ask).filter_map(|times| times.last()).min();
    let mut first: Vec<(i64, u16)> = Vec::new();
    for (shard, times) in (0..).zip(due) {
        let known = times.iter().filter(|time| known_until.is_none_or(|until| *time <= until));
        first.extend(known.map(|time| (*time, shard)));
    }
    first.sort_unstable();
    let mut shares: BTreeMap<u16, Share> = BTreeMap::new();
    for (until, shard) in first.into_iter().take(limit) {
        let share = shares.entry(shard).or_insert(Share { shard, count: 0, until });
        share.count += 1;
        share.until = until;
    }
    shares.into_values().collect()
}

#[async_trait]
impl Queue for RedisQueue {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let shards = self.by_shard(hints);
        let pushed = self.redis.link.call(|wire| async move {
            let pushes = shards.into_iter().map(|(shard, members)| {
                let mut wire = wire.clone();
                let mut command = redis::cmd("ZADD");
                command.arg(self.redis.keys.due(shard));
                for (due, member) in &members {
                    command.arg(due).arg(&member[..]);
                }
                async move { command.exec_async(&mut wire).await }
            });
            all(pushes).await?;
            Ok(())
        });
        pushed.await.map_err(unavailable)
    }

    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError> {
        let taken = self.redis.link.call(|wire| async move {
            match self.take(&wire, now, Taken::HeldUntil(hold_until), limit).await {
                // Even what is there cannot be held; taking it away makes room, and the store knows of it.
                Err(error) if error.is_out_of_memory() => self.take(&wire, now, Taken::Removed, limit).await,
                result => result,
            }
        });
        taken.await.map_err(unavailable)
    }

    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let shards = self.by_shard(hints);
        let removed = self.redis.link.call(|wire| async move {
            let removals = shards.into_iter().map(|(shard, members)| {
                let mut wire = wire.clone();
                let mut command = redis::cmd("ZREM");
                command.arg(self.redis.keys.due(shard));
                for (_, member) in &members {
                    command.arg(&member[..]);
                }
                async move { command.exec_async(&mut wire).await }
            });
            all(removals).await?;
            Ok(())
        });
        removed.await.map_err(unavailable)
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        let counted = self.redis.link.call(|wire| async move {
            let counts = (0..self.redis.keys.shards()).map(|shard| {
                let (mut wire, key) = (wire.clone(), self.redis.keys.due(shard));
                async move { redis::cmd("ZCARD").arg(key).query_async::<u64>(&mut wire).await }
            });
            Ok(all(counts).await?.into_iter().sum())
        });
        counted.await.map_err(unavailable)
    }
}

fn unavailable(error: LinkError) -> QueueError {
    QueueError::Unavailable(error.into())
}

fn member(hint: &Hint) -> [u8; MEMBER] {
    let mut member = [0; MEMBER];
    member[..16].copy_from_slice(hint.delivery.as_uuid().as_bytes());
    member[16..].copy_from_slice(hint.target.as_uuid().as_bytes());
    member
}

fn hint(member: &[u8], score: f64) -> Result<Hint, LinkError> {
    let nonsense = || LinkError::Nonsense("a member that is no hint: is the key prefix used by something else?");
    let (delivery, target) = member.split_at_checked(16).ok_or_else(nonsense)?;
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|_| nonsense());
    let due = Timestamp::from_millis(score as i64);
    Ok(Hint::new(DeliveryId::from_uuid(uuid(delivery)?), TargetId::from_uuid(uuid(target)?), due))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(shard: u16, count: usize, until: i64) -> Share {
        Share { shard, count, until }
    }

    #[test]
    fn shards_are_merged_by_due_time() {
        let due = [vec![1, 4, 9], vec![], vec![2, 3]];
        assert_eq!(merge(&due, 10, 4), [share(0, 2, 4), share(2, 2, 3)]);
        assert_eq!(merge(&due, 10, 99), [share(0, 3, 9), share(2, 2, 3)]);
        assert_eq!(merge(&[vec![], vec![]], 10, 4), []);
    }

    #[test]
    fn nothing_is_taken_before_what_a_cut_list_may_still_have() {
        let due = [vec![1, 2], vec![3, 8]];
        // The first list was cut: it may have another 2, or a 3.
        assert_eq!(merge(&due, 2, 4), [share(0, 2, 2)]);
    }
}
