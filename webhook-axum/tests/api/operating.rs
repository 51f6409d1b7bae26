//! Health, metrics and the description.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use webhook_axum::{Api, ApiOptions, Duty};
use webhook_core::queue::MemoryQueue;
use webhook_core::testing::PausedClock;
use webhook_core::{MemoryStore, Role, StoreError, Timestamp, Webhooks};

use crate::host::{Host, keys, request};

#[tokio::test]
async fn health_tells_how_the_process_is() {
    let host = Host::new();
    let api = Api::new(host.webhooks.clone())
        .options(ApiOptions::default().with_service("shop", "1.2.3"))
        .authenticator(Arc::new(keys()));
    let host = Host { router: api.router(), ..host };
    let health = host.get("/health").await.expect(200);
    assert_eq!(health, json!({"status": "ok", "service": "shop", "version": "1.2.3"}));
    assert_eq!(host.get("/health/live").await.expect(200), json!({"status": "alive"}));
    let ready = host.get("/health/ready").await.expect(200);
    assert_eq!((&ready["status"], &ready["checks"][0]["name"]), (&json!("ready"), &json!("store")));
    assert!(!host.get("/health/ready").await.headers.contains_key("retry-after"));
    assert!(ready["checks"][0]["latency_ms"].is_u64());
    assert_eq!(ready["checks"].as_array().unwrap().len(), 1, "without a queue and a worker");
    api.readiness().stop();
    let unready = host.get("/health/ready").await;
    assert_eq!(unready.headers["retry-after"], "1");
    assert_eq!(unready.expect(503)["status"], "not_ready");
}

#[tokio::test]
async fn a_queue_is_checked_where_there_is_one() {
    let host = Host::new();
    let builder = Webhooks::builder(Arc::new(MemoryStore::new())).transport(Arc::new(host.transport.clone()));
    let webhooks = builder.queue(Arc::new(MemoryQueue::new())).build().unwrap();
    let host = Host { router: Api::new(webhooks).danger_no_auth().operating_router(), ..host };
    let ready = host.get("/health/ready").await.expect(200);
    assert_eq!((&ready["checks"][1]["name"], &ready["checks"][1]["status"]), (&json!("queue"), &json!("ok")));
}

const ANSWERS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// A store in memory whose claims do as they are told.
#[derive(Debug, Default)]
struct Claiming {
    inner: MemoryStore,
    how: AtomicU8,
}

impl Claiming {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.how.load(Ordering::SeqCst) {
            FAILS if method == "claim" => Err(StoreError::Other("the index is broken".into())),
            HANGS if method == "claim" => std::future::pending().await,
            _ => call.await,
        }
    }
}

webhook_core::wrap_store!(Claiming);

#[tokio::test(start_paused = true)]
async fn a_worker_whose_claims_get_no_answer_for_thirty_seconds_is_said_though_the_store_answers() {
    let (store, host) = (Arc::<Claiming>::default(), Host::new());
    let clock = PausedClock::new(Timestamp::from_millis(1_700_000_000_000));
    let builder = Webhooks::builder(store.clone()).transport(Arc::new(host.transport.clone()));
    let webhooks = builder.clock(Arc::new(clock)).build().unwrap();
    let on_duty = |duty| {
        let router = Api::new(webhooks.clone()).danger_no_auth().duty(duty).operating_router();
        Host { webhooks: webhooks.clone(), transport: host.transport.clone(), router }
    };
    let (api, worker) = (on_duty(Duty::Requests), on_duty(Duty::Deliveries));
    let ready = async |host: &Host, status: u16| {
        let ready = host.get("/health/ready").await.expect(status);
        assert_eq!(ready["checks"][0], json!({"name": "store", "status": "ok", "latency_ms": 0}));
        (ready["status"].clone(), ready["checks"].get(1).map(|check| check["status"].clone()))
    };
    let (good, bad) = (Some(json!("ok")), Some(json!("failed")));
    assert_eq!(ready(&api, 200).await, (json!("ready"), None));
    assert_eq!(ready(&worker, 503).await, (json!("not_ready"), bad.clone()), "it has not asked yet");
    let shutdown = CancellationToken::new();
    let (running, stop) = (webhooks.clone(), shutdown.clone());
    tokio::spawn(async move { running.run(Role::Worker, stop).await });

    for how in [FAILS, HANGS] {
        store.how.store(ANSWERS, Ordering::SeqCst);
        sleep(Duration::from_secs(30)).await;
        store.how.store(how, Ordering::SeqCst);
        sleep(Duration::from_secs(28)).await;
        assert_eq!(ready(&worker, 200).await, (json!("ready"), good.clone()));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(ready(&worker, 503).await, (json!("not_ready"), bad.clone()), "{how}");
        assert_eq!(ready(&api, 200).await, (json!("degraded"), bad.clone()), "{how}");
    }
    store.how.store(ANSWERS, Ordering::SeqCst);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(ready(&worker, 200).await, (json!("ready"), good));
    shutdown.cancel();
}

#[tokio::test]
async fn metrics_come_from_the_host() {
    let host = Host::new();
    host.get("/metrics").await.problem(404);
    let api = Api::new(host.webhooks.clone()).metrics(|| "up 1\n".to_owned()).authenticator(Arc::new(keys()));
    let host = Host { router: api.router(), ..host };
    let answer = host.get("/metrics").await;
    assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::OK, b"up 1\n".as_slice()));
    host.call("GET", "/metrics", "", "").await.problem(401);
}

/// `UPDATE_OPENAPI=1 cargo test -p webhook-axum --test api description` writes the file anew.
#[test]
fn the_description_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let now = webhook_axum::openapi(env!("CARGO_PKG_VERSION")).to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == now, "openapi.json is stale: see the comment of this test");
}

#[tokio::test]
async fn the_description_is_complete() {
    let host = Host::new();
    let document = host.call("GET", "/openapi.json", "", "").await.expect(200);
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let body = matches!(id, "create_subscription" | "create_event" | "create_events" | "ingest");
            assert!(!body || operation["requestBody"].is_object(), "{id}");
            assert!(operation["responses"]["500"].is_object() || path.starts_with("/health"), "{id}");
        }
    }
    assert_references(&document, &document);
    let yaml = host.call("GET", "/openapi.yaml", "", "").await;
    assert!(String::from_utf8(yaml.body).unwrap().contains("operationId: create_event"));
}

/// Every `$ref` leads somewhere.
fn assert_references(document: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            fields.values().for_each(|field| assert_references(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_references(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let host = Host::new();
    for (path, base) in [("/docs", "docs/"), ("/docs/", "")] {
        let page = host.call("GET", path, "", "").await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"));
        assert!(policy.contains("frame-ancestors 'none'"));
        let html = String::from_utf8(page.body).unwrap();
        assert!(html.contains(&format!(r#"src="{base}swagger-ui-bundle.js""#)) && !html.contains("//"));
        assert!(!html.contains("<script>"));
    }
    for (file, media) in [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("initializer.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = host.call("GET", &format!("/docs/{file}"), "", "").await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].to_str().unwrap()),
            (StatusCode::OK, media),
            "{file}"
        );
        assert!(!answer.body.is_empty());
    }
    host.get("/docs/index.html").await.problem(404);
    host.get("/docs/..%2f..%2fetc%2fpasswd").await.problem(404);
    for (path, to) in [("/redoc", "docs"), ("/api-docs/", "../docs")] {
        let answer = host.send(request("GET", path, "").body("".into()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.headers["location"].to_str().unwrap()), (308, to));
    }
}
