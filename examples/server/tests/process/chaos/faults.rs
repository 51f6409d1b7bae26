//! What can be done to a site of two servers, and that site.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::block_in_place;
use tokio::time::sleep;
use webhook_test_servers::{FaultProxy, PostgresServer, RedisServer, Traffic};

use crate::support::client::Client;
use crate::support::database::Database;
use crate::support::senders::Senders;
use crate::support::server::Server;
use crate::support::until;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    ServerKilled,
    ServerFrozen,
    ServerReplaced,
    SessionKilled,
    PostmasterKilled,
    PostgresStoppedAtOnce,
    PostgresFrozen,
    CommitAnswersLost,
    PostgresCut,
    PostgresStalled,
    PostgresStranded,
    RedisKilled,
    RedisFlushed,
    RedisFrozen,
    RedisPartitioned,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::ServerKilled,
        Self::ServerFrozen,
        Self::ServerReplaced,
        Self::SessionKilled,
        Self::PostmasterKilled,
        Self::PostgresStoppedAtOnce,
        Self::PostgresFrozen,
        Self::CommitAnswersLost,
        Self::PostgresCut,
        Self::PostgresStalled,
        Self::PostgresStranded,
        Self::RedisKilled,
        Self::RedisFlushed,
        Self::RedisFrozen,
        Self::RedisPartitioned,
    ];
}

/// How often each kind came.
pub(crate) fn tally(faults: &[Fault]) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for fault in faults {
        *counts.entry(fault).or_default() += 1;
    }
    counts.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect::<Vec<_>>().join(", ")
}

/// Two servers, and what they stand on.
pub(crate) struct Site {
    postgres: PostgresServer,
    redis: RedisServer,
    to_postgres: FaultProxy,
    to_redis: FaultProxy,
    servers: Vec<Server>,
    concurrency: usize,
    turn: usize,
}

impl Site {
    pub(crate) async fn start(concurrency: usize) -> Self {
        let (postgres, redis) = block_in_place(|| (PostgresServer::start(), RedisServer::start()));
        let (to_postgres, to_redis) = (FaultProxy::start(postgres.addr()), FaultProxy::start(redis.addr()));
        let mut site = Self { postgres, redis, to_postgres, to_redis, servers: Vec::new(), concurrency, turn: 0 };
        for _ in 0..2 {
            let server = site.launch().await;
            site.servers.push(server);
        }
        site
    }

    async fn launch(&self) -> Server {
        let redis = format!("--redis-url={}", self.to_redis.rewrite(&self.redis.url()));
        let concurrency = format!("--concurrency={}", self.concurrency);
        Server::on(&self.to_postgres.rewrite(&self.postgres.url()), &[&redis, &concurrency]).await
    }

    /// Where to send to: the servers in turn.
    pub(crate) fn addr(&mut self) -> SocketAddr {
        self.turn += 1;
        self.servers[self.turn % self.servers.len()].addr()
    }

    pub(crate) fn client(&self) -> Client {
        self.servers[0].client()
    }

    pub(crate) async fn database(&self) -> Database {
        Database::open(&self.postgres.url()).await
    }

    pub(crate) async fn figure(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for server in &self.servers {
            sum += server.figure(name).await;
        }
        sum
    }

    /// The most that one of the servers ever held, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.servers.iter().map(Server::peak_memory).max().unwrap_or(0)
    }

    /// Commits that were done, and whose answers never came.
    pub(crate) fn swallowed(&self) -> u64 {
        self.to_postgres.swallowed()
    }

    /// Stops the servers cleanly; what PostgreSQL has logged.
    pub(crate) async fn stop(self) -> String {
        for server in self.servers {
            server.stop().await;
        }
        self.postgres.log()
    }

    /// Lets it happen, and makes it good.
    pub(crate) async fn suffer(&mut self, fault: Fault, chance: &mut StdRng, senders: &Senders) {
        let span = Duration::from_millis(chance.random_range(500..4000));
        let which = chance.random_range(0..self.servers.len());
        match fault {
            Fault::ServerKilled => {
                self.servers.remove(which).kill().await;
                senders.turn_to(self.addr());
                let server = self.launch().await;
                self.servers.push(server);
            }
            Fault::ServerFrozen => {
                self.servers[which].signal("STOP").await;
                senders.turn_to(self.servers[1 - which].addr());
                sleep(span * 2).await;
                self.servers[which].signal("CONT").await;
            }
            Fault::ServerReplaced => {
                let server = self.launch().await;
                senders.turn_to(server.addr());
                self.servers.push(server);
                self.servers.remove(which).stop().await;
            }
            Fault::SessionKilled => {
                block_in_place(|| self.postgres.kill_one_backend());
                self.until_postgres_answers().await;
            }
            Fault::PostmasterKilled => {
                block_in_place(|| self.postgres.kill());
                sleep(span).await;
                block_in_place(|| self.postgres.restart());
            }
            Fault::PostgresStoppedAtOnce => {
                block_in_place(|| self.postgres.stop_immediate());
                sleep(span).await;
                block_in_place(|| self.postgres.restart());
            }
            Fault::PostgresFrozen => {
                block_in_place(|| self.postgres.pause());
                sleep(span).await;
                block_in_place(|| self.postgres.resume());
            }
            Fault::CommitAnswersLost => {
                for _ in 0..5 {
                    self.to_postgres.swallow_answer_to("COMMIT");
                    sleep(span / 10).await;
                }
            }
            Fault::PostgresCut => self.to_postgres.cut(),
            Fault::PostgresStalled => {
                self.to_postgres.set(Traffic::Stalls);
                sleep(span).await;
                self.to_postgres.set(Traffic::Flows);
            }
            Fault::PostgresStranded => self.to_postgres.strand(),
            Fault::RedisKilled => {
                block_in_place(|| self.redis.kill());
                sleep(span).await;
                block_in_place(|| self.redis.restart_empty());
            }
            Fault::RedisFlushed => drop(block_in_place(|| self.redis.command(&["FLUSHALL"]))),
            Fault::RedisFrozen => {
                block_in_place(|| self.redis.pause());
                sleep(span).await;
                block_in_place(|| self.redis.resume());
            }
            Fault::RedisPartitioned => {
                self.to_redis.set(Traffic::Refused);
                self.to_redis.cut();
                sleep(span).await;
                self.to_redis.set(Traffic::Flows);
            }
        }
    }

    /// After one session was killed all others end too, and the server recovers.
    async fn until_postgres_answers(&self) {
        use sqlx::Connection as _;
        let url = self.postgres.url();
        until("postgres answers", async || sqlx::PgConnection::connect(&url).await.ok()).await;
    }
}
