//! One process that accepts and several that deliver, on one database.

use serde_json::Value;

use super::receiver::Receiver;
use super::server::Server;
use super::until;

pub(crate) struct Fleet {
    api: Server,
    workers: Vec<Server>,
}

impl Fleet {
    /// All with these arguments, once they are ready.
    pub(crate) async fn start(database_url: &str, workers: usize, arguments: &[&str]) -> Self {
        let start = async |role| Server::on(database_url, &[&[role], arguments].concat()).await;
        let api = start("--role=api").await;
        let mut fleet = Self { api, workers: Vec::new() };
        for _ in 0..workers {
            fleet.workers.push(start("--role=worker").await);
        }
        for worker in &fleet.workers {
            until("the worker is ready", async || {
                (worker.client().get("/health/ready").await.unwrap().status == 200).then_some(())
            })
            .await;
        }
        fleet
    }

    pub(crate) fn api(&self) -> &Server {
        &self.api
    }

    pub(crate) fn workers(&self) -> &[Server] {
        &self.workers
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.api).chain(&self.workers)
    }

    /// Subscribes the receiver, with these settings besides; the subscription's id.
    pub(crate) async fn subscribe(&self, receiver: &Receiver, mut settings: Value) -> String {
        settings["target_url"] = receiver.url("/hooks").into();
        let made = self.api.client().post("/subscriptions", &settings).await.unwrap().expect(201);
        for path in ["/hooks", "/hooks/0", "/hooks/1"] {
            receiver.trust(path, made["secret"].as_str().unwrap());
        }
        made["id"].as_str().unwrap().to_owned()
    }

    /// The process that accepts, and those that deliver.
    pub(crate) fn apart(self) -> (Server, Vec<Server>) {
        (self.api, self.workers)
    }

    /// Stops all of them cleanly.
    pub(crate) async fn stop(self) {
        for server in std::iter::once(self.api).chain(self.workers) {
            server.stop().await;
        }
    }
}
