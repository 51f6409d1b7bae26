//! A private Redis Cluster.

use std::time::Duration;

use crate::RedisServer;
use crate::home::wait_for;

/// The slots of each master, as the cluster's own tool would share them out.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

/// A Redis Cluster of three masters on loopback, without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// A new, empty cluster that serves every slot.
    pub fn start() -> Self {
        let nodes: Vec<_> = SLOTS
            .iter()
            .map(|_| RedisServer::start_node(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]))
            .collect();
        for (number, (node, (first, last))) in nodes.iter().zip(SLOTS).enumerate() {
            expect_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            expect_ok(node, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        let (first, others) = nodes.split_first().expect("there are three");
        for other in others {
            let bus = other.bus_port().expect("it is a node of a cluster").to_string();
            let port = other.addr().port().to_string();
            expect_ok(first, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self { nodes };
        cluster.wait_until_ok();
        cluster
    }

    /// `redis+cluster://` with all nodes.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Its masters.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Waits until every node knows the others and serves every slot.
    pub fn wait_until_ok(&self) {
        let healthy = |node: &RedisServer| {
            let info = node.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        let ok = wait_for(Duration::from_secs(30), || self.nodes.iter().all(healthy));
        assert!(ok, "the cluster did not come up:\n{}", self.nodes[0].log());
    }
}

fn expect_ok(node: &RedisServer, command: &[&str]) {
    assert_eq!(node.command(command), "OK", "{command:?}");
}
