//! The notifier: what processes tell each other, by published messages.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use redis::aio::PubSub;
use redis::{Client, RedisError};
use webhook_core::{Notifier, NotifierError, Signal};

use crate::Redis;
use crate::link::LinkError;

const DUE: &str = "due";
const SUBSCRIPTIONS: &str = "subscriptions ";

/// A connection on which nothing comes is asked this often whether it still is one.
const QUIET: Duration = Duration::from_secs(5);
/// How long connecting, or an answer to that question, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A [`Notifier`] by messages that Redis publishes. In a cluster, any node carries them to all others.
#[derive(Clone, Debug)]
pub struct RedisNotifier {
    redis: Redis,
}

impl RedisNotifier {
    /// Speaks and hears through this Redis. Listening has a connection of its own.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// A connection to the first node that gives one.
    async fn subscribe(&self) -> Result<PubSub, LinkError> {
        let mut last = LinkError::Late(PATIENCE);
        for node in self.redis.link.address().nodes() {
            match tokio::time::timeout(PATIENCE, subscribe(node, self.redis.keys.channel())).await {
                Ok(Ok(subscribed)) => return Ok(subscribed),
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = LinkError::Late(PATIENCE),
            }
        }
        Err(last)
    }

    async fn hear(&self, heard: &(dyn Fn(Signal) + Send + Sync)) -> LinkError {
        let (mut sink, mut messages) = match self.subscribe().await {
            Ok(subscribed) => subscribed.split(),
            Err(error) => return error,
        };
        heard(Signal::Missed);
        loop {
            match tokio::time::timeout(QUIET, messages.next()).await {
                Ok(Some(message)) => {
                    // What a newer version says may mean anything.
                    heard(message.get_payload::<String>().ok().and_then(|text| read(&text)).unwrap_or(Signal::Missed));
                }
                Ok(None) => return LinkError::Nonsense("the end of the connection"),
                Err(_) => match tokio::time::timeout(PATIENCE, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return LinkError::Late(PATIENCE),
                },
            }
        }
    }
}

async fn subscribe(node: &Client, channel: String) -> Result<PubSub, RedisError> {
    let mut connection = node.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

#[async_trait]
impl Notifier for RedisNotifier {
    async fn publish(&self, signals: &[Signal]) -> Result<(), NotifierError> {
        let said: Vec<_> = signals.iter().filter_map(write).collect();
        let published = self.redis.link.call(|wire| async move {
            let channel = self.redis.keys.channel();
            for text in said {
                redis::cmd("PUBLISH").arg(&channel).arg(text).exec_async(&mut wire.clone()).await?;
            }
            Ok(())
        });
        published.await.map_err(|error| NotifierError::Unavailable(error.into()))
    }

    async fn listen(&self, heard: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
        NotifierError::Unavailable(self.hear(heard).await.into())
    }
}

/// None for what nobody else needs to hear.
fn write(signal: &Signal) -> Option<String> {
    match signal {
        Signal::Due => Some(DUE.to_owned()),
        Signal::SubscriptionsChanged(tenant) => Some(format!("{SUBSCRIPTIONS}{tenant}")),
        _ => None,
    }
}

fn read(text: &str) -> Option<Signal> {
    match text.strip_prefix(SUBSCRIPTIONS) {
        Some(tenant) => tenant.parse().ok().map(Signal::SubscriptionsChanged),
        None => (text == DUE).then_some(Signal::Due),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_they_were_written() {
        for signal in [Signal::Due, Signal::SubscriptionsChanged("acme-1".parse().unwrap())] {
            assert_eq!(read(&write(&signal).unwrap()), Some(signal));
        }
        assert_eq!((write(&Signal::Missed), read("?"), read("subscriptions a b")), (None, None, None));
    }
}
