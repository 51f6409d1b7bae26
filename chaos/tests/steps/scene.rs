//! A server with its data, a subscriber, and a caller who asks again until each event is acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use webhook_test_servers::{RedisServer, TestDatabase};

use crate::client::Client;
use crate::endpoint::{Endpoint, First};
use crate::process::Process;

pub(crate) const EVENTS: usize = 8;
const KEY: &str = "secret";
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
    PostgresAndRedis,
}

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) url: String,
    pub(crate) endpoint: Endpoint,
    directory: TempDir,
    redis: Option<RedisServer>,
    _database: Option<TestDatabase>,
}

/// The ids of acknowledged events, by their keys.
pub(crate) type Acknowledged = BTreeMap<usize, String>;

impl Scene {
    /// With a subscription to an endpoint.
    pub(crate) async fn new(backend: Backend, first: First) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = format!("sqlite://{}", directory.path().join("webhook.db").display());
        let database = (backend != Backend::Sqlite).then(|| tokio::task::block_in_place(TestDatabase::fresh));
        let redis = (backend == Backend::PostgresAndRedis).then(|| tokio::task::block_in_place(RedisServer::start));
        let url = database.as_ref().map_or(file, |database| database.url().to_owned());
        let endpoint = Endpoint::start(first).await;
        let scene = Self { url, endpoint, directory, redis, _database: database };
        let node = scene.start(&[]).await;
        let target = format!("http://{}/", scene.endpoint.addr);
        let wanted = json!({"target_url": target, "timeout_seconds": 2, "retry": {"schedule": [0.2, 0.5, 0.5, 1, 1]}});
        let body = wanted.to_string();
        let made = Client::new(node.addr).send("POST", "/subscriptions", KEY, body.as_bytes()).await;
        made.expect("an answer").expect(201);
        assert!(node.stop().await);
        scene
    }

    pub(crate) fn program() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_chaos"))
    }

    pub(crate) fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments =
            vec![format!("--database-url={}", self.url), format!("--api-key={KEY}=acme"), "--lease=4".to_owned()];
        arguments.extend(self.redis.as_ref().map(|redis| format!("--redis-url={}", redis.url())));
        arguments.extend(more.iter().map(ToString::to_string));
        arguments
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub(crate) async fn start(&self, more: &[&str]) -> Process {
        Process::start(Self::program(), &self.arguments(more), &self.log()).await
    }

    /// An answer's status and body; none when there is no answer.
    pub(crate) async fn ask(&self, node: &Process, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let answer = Client::new(node.addr).send(method, path, KEY, body.to_string().as_bytes()).await.ok()?;
        Some((answer.status, answer.json()))
    }

    /// Sends that event, once; its id when it was acknowledged.
    pub(crate) async fn emit(&self, node: &Process, key: usize) -> Option<String> {
        let event = json!({"id": format!("key-{key}"), "event_type": "step.taken", "payload": {"key": key}});
        let (status, answer) = self.ask(node, "POST", "/events", &event).await?;
        (status == 202).then(|| answer["id"].as_str().unwrap().to_owned())
    }

    /// Sends all events, once each.
    pub(crate) async fn emit_all(&self, node: &Process) -> Acknowledged {
        let mut acknowledged = BTreeMap::new();
        for key in 0..EVENTS {
            if let Some(id) = self.emit(node, key).await {
                acknowledged.insert(key, id);
            }
        }
        acknowledged
    }

    /// All events were sent to a server that has ended since; starts another one. Whatever was acknowledged is there,
    /// whatever was not can be sent again, everything is delivered, and there is nothing else.
    pub(crate) async fn nothing_is_lost(&self, before: &Acknowledged, arguments: &[&str]) {
        let node = self.start(arguments).await;
        let mut ids = BTreeMap::new();
        for key in 0..EVENTS {
            let id = until("the event is acknowledged", async || self.emit(&node, key).await).await;
            if let Some(known) = before.get(&key) {
                assert_eq!(&id, known, "event {key} was acknowledged before");
            }
            ids.insert(key, id);
        }
        let deliveries = until("everything is delivered", async || {
            let (status, answer) = self.ask(&node, "GET", "/deliveries?limit=1000", &Value::Null).await?;
            assert_eq!(status, 200, "{answer}");
            let deliveries = answer["data"].as_array()?.clone();
            deliveries.iter().all(|delivery| delivery["state"] == "delivered").then_some(deliveries)
        })
        .await;
        assert_eq!(deliveries.len(), EVENTS, "one delivery for each event");
        let arrivals = self.endpoint.arrivals();
        for id in ids.values() {
            assert!(arrivals.iter().any(|arrival| &arrival.event == id && arrival.status == 200), "{id} has arrived");
        }
        for arrival in &arrivals {
            assert!(ids.values().any(|id| id == &arrival.event), "nothing was invented: {arrival:?}");
        }
        for delivery in &deliveries {
            let path = format!("/deliveries/{}", delivery["id"].as_str().unwrap());
            let (_, one) = self.ask(&node, "GET", &path, &Value::Null).await.unwrap();
            let numbers: Vec<_> = one["attempt_log"]
                .as_array()
                .unwrap()
                .iter()
                .map(|attempt| attempt["number"].as_u64().unwrap())
                .collect();
            let expected: Vec<_> = (1..=one["attempts"].as_u64().unwrap()).collect();
            assert_eq!(numbers, expected, "attempts without a gap");
        }
        assert!(node.stop().await, "it stops cleanly");
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
