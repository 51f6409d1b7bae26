//! A host application with the API on a store in memory.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use webhook_axum::{Api, ApiKeys};
use webhook_core::transport::RecordingTransport;
use webhook_core::{MemoryStore, Options, Store, Webhooks};

/// May do everything as the tenant `acme`.
pub(crate) const ACME: &str = "acme-key";
/// May do everything as the tenant `other`.
pub(crate) const OTHER: &str = "other-key";
/// May only read as `acme`.
pub(crate) const READ: &str = "read-key";
/// May read and write as `acme`, but see no secrets.
pub(crate) const WRITE: &str = "write-key";

pub(crate) struct Host {
    pub(crate) webhooks: Webhooks,
    pub(crate) transport: RecordingTransport,
    pub(crate) router: Router,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// A problem in every respect, with that status; its JSON.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().unwrap());
        for field in ["title", "detail", "code"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}

pub(crate) fn keys() -> ApiKeys {
    ["acme-key=acme", "other-key=other", "read-key=acme:read", "write-key=acme:read,write"]
        .into_iter()
        .fold(ApiKeys::new(), |keys, spec| keys.with_spec(spec).unwrap())
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_options(Options::default())
    }

    pub(crate) fn with_options(options: Options) -> Self {
        Self::build(Arc::new(MemoryStore::new()), options)
    }

    /// With a store of its own.
    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self::build(store, Options::default())
    }

    /// With endpoints that answer so.
    pub(crate) fn answered(transport: RecordingTransport) -> Self {
        Self::assemble(Arc::new(MemoryStore::new()), Options::default(), transport)
    }

    fn build(store: Arc<dyn Store>, options: Options) -> Self {
        Self::assemble(store, options, RecordingTransport::new())
    }

    fn assemble(store: Arc<dyn Store>, options: Options, transport: RecordingTransport) -> Self {
        let webhooks =
            Webhooks::builder(store).transport(Arc::new(transport.clone())).options(options).build().unwrap();
        let router = Api::new(webhooks.clone()).authenticator(Arc::new(keys())).router();
        Self { webhooks, transport, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: impl Into<Body>) -> Answer {
        self.send(request(method, path, key).body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, ACME, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, ACME, body.to_string()).await
    }

    /// A subscription of `acme` to everything; its JSON.
    pub(crate) async fn subscription(&self) -> Value {
        self.post("/subscriptions", json!({"target_url": "https://example.com/hook"})).await.expect(201)
    }

    /// An event of `acme`; its id.
    pub(crate) async fn event(&self) -> String {
        let event = json!({"event_type": "order.created", "payload": {"n": 1}});
        text(&self.post("/events", event).await.expect(202)["id"])
    }

    /// A capture path of `acme` by that description; its name.
    pub(crate) async fn path(&self, description: Value) -> String {
        text(&self.post("/api/paths", description).await.expect(201)["path_id"])
    }

    /// A capture path and a request that reached it; its name and the request's id.
    pub(crate) async fn captured(&self) -> (String, String) {
        let path = self.path(json!({})).await;
        let receipt = self.call("POST", &format!("/webhook/{path}"), "", "captured").await.expect(200);
        (path, text(&receipt["request_id"]))
    }

    /// What the path holds, newest first.
    pub(crate) async fn logs(&self, path: &str) -> Vec<Value> {
        let list = self.get(&format!("/api/paths/{path}/logs")).await.expect(200);
        list["data"].as_array().unwrap().clone()
    }

    /// A subscription, an event and its delivery; their ids.
    pub(crate) async fn delivery(&self) -> (String, String, String) {
        let subscription = text(&self.subscription().await["id"]);
        let event = self.event().await;
        let list = self.get(&format!("/deliveries?event_id={event}")).await.expect(200);
        (subscription, event, text(&list["data"][0]["id"]))
    }
}

pub(crate) fn request(method: &str, path: &str, key: &str) -> http::request::Builder {
    let builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    let builder = if key.is_empty() { builder } else { builder.header("authorization", format!("Bearer {key}")) };
    builder.header("content-type", "application/json")
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
