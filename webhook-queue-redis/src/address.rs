//! Where Redis is.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use crate::link::Wire;

const CLUSTER: &str = "redis+cluster://";
const CLUSTER_TLS: &str = "rediss+cluster://";

/// How long one try to connect may take, TLS and authentication included.
const CONNECT: Duration = Duration::from_secs(2);

/// The text is not the URL of a Redis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisUrlError {
    /// It is none of `redis://`, `rediss://`, `redis+cluster://` and `rediss+cluster://`, or what follows is not
    /// `[user][:password@]host[:port]`, with several hosts separated by commas for a cluster.
    #[error("not the URL of a redis server or cluster")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It asks for TLS, and this build has none (feature `tls`).
    #[error("this build has no TLS for redis (feature `tls`)")]
    NoTls,
}

/// One server, or the nodes by which a cluster is found.
#[derive(Clone)]
pub(crate) enum Address {
    Single(Box<Client>),
    Cluster { client: Box<ClusterClient>, nodes: Vec<Client> },
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, RedisUrlError> {
        if url.starts_with("rediss") && cfg!(not(feature = "tls")) {
            return Err(RedisUrlError::NoTls);
        }
        for (scheme, of_node) in [(CLUSTER, "redis"), (CLUSTER_TLS, "rediss")] {
            if let Some(rest) = url.strip_prefix(scheme) {
                return Self::cluster(rest, of_node).map_err(malformed);
            }
        }
        // The library knows more of them, sockets of the file system for one, which have no host.
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(RedisUrlError::Malformed("it does not begin with redis:// or rediss://".into()));
        }
        let info = info(url).map_err(malformed)?;
        Ok(Self::Single(Box::new(Client::open(info).map_err(malformed)?)))
    }

    fn cluster(rest: &str, scheme: &str) -> Result<Self, RedisError> {
        let (credentials, hosts) = rest.rsplit_once('@').map_or(("", rest), |(user, hosts)| (user, hosts));
        let at = if credentials.is_empty() { "" } else { "@" };
        let nodes =
            hosts.trim_end_matches('/').split(',').map(|host| info(&format!("{scheme}://{credentials}{at}{host}")));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let client = ClusterClient::builder(nodes.clone())
            .tcp_settings(tcp_settings())
            .connection_timeout(CONNECT)
            // A call has a deadline of its own; within it, a slot that moved or a lost node is worth another try.
            .retries(3)
            .build()?;
        let nodes = nodes.into_iter().map(Client::open).collect::<Result<_, _>>()?;
        Ok(Self::Cluster { client: Box::new(client), nodes })
    }

    /// How its URL begins.
    pub(crate) fn scheme(&self) -> &'static str {
        let tls = self.nodes().iter().any(|node| !matches!(node.get_connection_info().addr(), ConnectionAddr::Tcp(..)));
        match (self, tls) {
            (Self::Single(_), false) => "redis",
            (Self::Single(_), true) => "rediss",
            (Self::Cluster { .. }, false) => "redis+cluster",
            (Self::Cluster { .. }, true) => "rediss+cluster",
        }
    }

    /// A connection that is made when it is first used, and again whenever it breaks.
    pub(crate) fn wire(&self) -> Result<Wire, RedisError> {
        match self {
            Self::Single(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    // The deadline of each call is watched over by the link.
                    .set_response_timeout(None)
                    // A call finds out at once that there is no connection; the next one tries again.
                    .set_number_of_retries(0);
                Ok(Wire::Single(ConnectionManager::new_lazy_with_config((**client).clone(), config)?))
            }
            Self::Cluster { client, .. } => {
                Ok(Wire::Cluster(client.get_pending_async_connection_with_config(ClusterConfig::new())))
            }
        }
    }

    /// Servers that carry published messages to each other: one of them is enough to hear all.
    pub(crate) fn nodes(&self) -> &[Client] {
        match self {
            Self::Single(client) => std::slice::from_ref(&**client),
            Self::Cluster { nodes, .. } => nodes,
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// Where, without any password.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.get_connection_info().addr().to_string()).collect()
    }
}

fn info(url: &str) -> Result<ConnectionInfo, RedisError> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp_settings()))
}

/// Calls are small, and wait for their answers.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn malformed(error: RedisError) -> RedisUrlError {
    RedisUrlError::Malformed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_server_or_the_nodes_of_a_cluster() {
        for (url, hosts) in [
            ("redis://127.0.0.1", &["127.0.0.1:6379"] as &[_]),
            ("redis://user:p%40ss@redis.internal:7000/2", &["redis.internal:7000"]),
            ("redis+cluster://a:1,b:2,c", &["a:1", "b:2", "c:6379"]),
            ("redis+cluster://:secret@a:1,b:2/", &["a:1", "b:2"]),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.hosts(), hosts, "{url}");
            assert_eq!(address.is_cluster(), url.contains("cluster"));
        }
    }

    #[test]
    fn refuses_what_is_no_redis() {
        for url in [
            "",
            "localhost:6379",
            "http://a",
            "unix:///a",
            "redis+unix:///a",
            "valkey://a",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis://a:x",
        ] {
            assert!(matches!(Address::parse(url), Err(RedisUrlError::Malformed(_))), "{url}");
        }
    }

    #[test]
    fn tls_needs_its_feature() {
        for url in ["rediss://a", "rediss+cluster://a,b"] {
            assert_eq!(Address::parse(url).is_ok(), cfg!(feature = "tls"), "{url}");
        }
    }
}
