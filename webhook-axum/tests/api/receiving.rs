//! What others send, verified and handled once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceExt as _};
use webhook_axum::{Inbox, Once, Verified, VerifyLayer};
use webhook_core::testing::ManualClock;
use webhook_core::verify::{GitHub, HmacVerifier, LiveSecrets, MessageIdRule, Slack, Square};
use webhook_core::{HandlerError, InboxHandler, InboxMessage, MemoryStore, Role, Source, Webhooks};

const SECRET: &str = "It's a Secret to Everybody";
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

fn secrets() -> LiveSecrets {
    LiveSecrets::one(SECRET.to_owned()).unwrap()
}

fn code(parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// A POST as GitHub sends it.
fn delivery(id: &str, body: &'static str) -> Request {
    Request::post("/github")
        .header("x-hub-signature-256", format!("sha256={}", hex::encode(code(&[body.as_bytes()]))))
        .header("x-github-delivery", id)
        .body(Body::from(body))
        .unwrap()
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn ask(app: &Router, request: Request) -> (u16, String) {
    text(app.clone().oneshot(request).await.unwrap()).await
}

fn webhooks() -> Webhooks {
    Webhooks::builder(Arc::new(MemoryStore::new())).build().unwrap()
}

fn once() -> Once {
    Once::new(webhooks().receipts(), "github".parse().unwrap())
}

/// A handler that is known to have run so often.
#[derive(Clone, Default)]
struct Handler {
    runs: Arc<AtomicUsize>,
    begun: Arc<Notify>,
    gate: Option<Arc<Semaphore>>,
}

impl Handler {
    fn gated() -> Self {
        Self { gate: Some(Arc::new(Semaphore::new(0))), ..Self::default() }
    }

    async fn run(&self) -> usize {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.begun.notify_one();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        run
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Answers with the number of its run.
    fn app(&self, once: Once) -> Router {
        let handler = self.clone();
        let handle = async move |message: Verified<Bytes>| {
            let run = handler.run().await;
            match &message.body[..] {
                b"panic" if run == 1 => panic!("as wanted"),
                b"fail" if run == 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                b"refuse" if run == 1 => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
                b"long" => "x".repeat(70_000).into_response(),
                _ => (StatusCode::CREATED, [("x-run", run.to_string())], format!("run {run}")).into_response(),
            }
        };
        Router::new().route("/github", post(handle)).layer(VerifyLayer::new(GitHub::new(secrets())).once(once))
    }
}

#[tokio::test]
async fn a_handler_gets_what_was_verified() {
    let handle = async |message: Verified<Json<Value>>| {
        let Verified { body: Json(body), scheme, message_id, .. } = message;
        format!("{scheme} {message_id:?} {body}")
    };
    let app = Router::new().route("/github", post(handle)).layer(VerifyLayer::new(GitHub::new(secrets())));
    let mut request = delivery("d1", r#"{"a": 1}"#);
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    assert_eq!(ask(&app, request).await, (200, r#"github Some("d1") {"a":1}"#.to_owned()));
}

#[tokio::test]
async fn the_sender_learns_nothing_but_401() {
    let app = Handler::default().app(once());
    let mut answers = Vec::new();
    for change in [
        |request: &mut Request| drop(request.headers_mut().remove("x-hub-signature-256")),
        |request: &mut Request| *request.body_mut() = Body::from("other"),
        |request: &mut Request| drop(request.headers_mut().insert("x-hub-signature-256", "sha256=zz".parse().unwrap())),
        |request: &mut Request| {
            let again = request.headers()["x-hub-signature-256"].clone();
            request.headers_mut().append("x-hub-signature-256", again);
        },
    ] {
        let mut request = delivery("d1", "a body");
        change(&mut request);
        answers.push(ask(&app, request).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 401);
    assert!(answers[0].1.contains(r#""code":"unverified""#), "{}", answers[0].1);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read() {
    let layer = VerifyLayer::new(GitHub::new(secrets())).max_body(5);
    let app = Router::new().route("/github", post(async |_: Verified<Bytes>| ())).layer(layer);
    assert_eq!(ask(&app, delivery("d1", "12345")).await.0, 200);
    assert_eq!(ask(&app, delivery("d1", "123456")).await.0, 413);
}

#[tokio::test]
async fn a_route_without_the_layer_refuses_everything() {
    let app = Router::new().route("/github", post(async |_: Verified<Bytes>| ()));
    assert_eq!(ask(&app, delivery("d1", "a body")).await.0, 500);
}

#[tokio::test]
async fn handshakes_are_answered_and_do_not_reach_the_handler() {
    let clock = Arc::new(ManualClock::new(webhook_core::Timestamp::from_millis(1_700_000_000_000)));
    let layer = VerifyLayer::new(Slack::new(secrets())).clock(Arc::<ManualClock>::clone(&clock));
    let app = Router::new().route("/slack", post(async |_: Verified<Bytes>| "handled")).layer(layer);
    let request = |body: &'static str| {
        let signature = hex::encode(code(&[b"v0:1700000000:", body.as_bytes()]));
        Request::post("/slack")
            .header("x-slack-signature", format!("v0={signature}"))
            .header("x-slack-request-timestamp", "1700000000")
            .body(Body::from(body))
            .unwrap()
    };
    let challenge = r#"{"type":"url_verification","challenge":"c1"}"#;
    assert_eq!(ask(&app, request(challenge)).await, (200, "c1".to_owned()));
    assert_eq!(ask(&app, request(r#"{"type":"event_callback"}"#)).await, (200, "handled".to_owned()));
    clock.advance(Duration::from_secs(301));
    assert_eq!(ask(&app, request(challenge)).await.0, 401, "it is old by now");
}

#[tokio::test]
async fn the_url_is_the_configured_one_wherever_the_route_is_mounted() {
    let layer = VerifyLayer::new(Square::new(secrets()));
    let route = |layer| {
        Router::new().nest("/hooks", Router::new().route("/square", post(async |_: Verified<Bytes>| ())).layer(layer))
    };
    let request = |url: &str| {
        use base64::Engine as _;
        let signature = base64::engine::general_purpose::STANDARD.encode(code(&[url.as_bytes(), b"{}"]));
        Request::post("/hooks/square?a=b%20c")
            .header("host", "evil.example")
            .header("x-square-hmacsha256-signature", signature)
            .body(Body::from("{}"))
            .unwrap()
    };
    let signed = "https://shop.example/base/hooks/square?a=b%20c";
    let app = route(layer.clone().public_url(&"https://shop.example/base/".parse().unwrap()));
    assert_eq!(ask(&app, request(signed)).await.0, 200);
    assert_eq!(ask(&app, request("https://evil.example/hooks/square?a=b%20c")).await.0, 401);
    assert_eq!(ask(&route(layer), request(signed)).await.0, 500, "nobody said which URL");
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_one_was() {
    let handler = Handler::default();
    let app = handler.app(once());
    for _ in 0..3 {
        let response = app.clone().oneshot(delivery("d1", "a body")).await.unwrap();
        assert_eq!(response.headers()["x-run"], "1");
        assert_eq!(text(response).await, (201, "run 1".to_owned()));
    }
    assert_eq!(ask(&app, delivery("d2", "a body")).await.1, "run 2");
    assert_eq!(ask(&app, delivery("d1", "another")).await.0, 409);
    assert_eq!(handler.runs(), 2);
    assert_eq!(ask(&app, delivery("d3", "long")).await.1.len(), 70_000);
    assert_eq!(ask(&app, delivery("d3", "long")).await, (200, String::new()), "too long to be remembered");
    assert_eq!(handler.runs(), 3);
}

#[tokio::test]
async fn a_failed_message_is_handled_again() {
    for body in ["fail", "refuse", "panic"] {
        let handler = Handler::default();
        let app = handler.app(once());
        assert!(ask(&app, delivery("d1", body)).await.0 >= 422);
        assert_eq!(ask(&app, delivery("d1", body)).await, (201, "run 2".to_owned()), "{body}");
        assert_eq!(ask(&app, delivery("d1", body)).await, (201, "run 2".to_owned()), "{body}");
    }
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_one_or_gets_409() {
    let handler = Handler::gated();
    let shared = once();
    let patient = handler.app(shared.clone().wait(Duration::from_secs(60)));
    let hasty = handler.app(shared.wait(Duration::ZERO));
    let first = tokio::spawn({
        let app = patient.clone();
        async move { ask(&app, delivery("d1", "a body")).await }
    });
    handler.begun.notified().await;
    let response = hasty.clone().oneshot(delivery("d1", "a body")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (409, &b"1"[..]));
    let second = tokio::spawn(async move { ask(&patient, delivery("d1", "a body")).await });
    handler.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(first.await.unwrap(), (201, "run 1".to_owned()));
    assert_eq!(second.await.unwrap(), (201, "run 1".to_owned()));
    assert_eq!(handler.runs(), 1);
}

#[tokio::test]
async fn a_handler_goes_on_when_its_caller_has_gone() {
    let handler = Handler::gated();
    let app = handler.app(once());
    let caller = tokio::spawn({
        let app = app.clone();
        async move { ask(&app, delivery("d1", "a body")).await }
    });
    handler.begun.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    handler.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(ask(&app, delivery("d1", "a body")).await, (201, "run 1".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_concurrent_repeats_one_is_handled() {
    let handler = Handler::default();
    let app = handler.app(once().wait(Duration::from_secs(60)));
    let mut repeats = JoinSet::new();
    for _ in 0..64 {
        let app = app.clone();
        repeats.spawn(async move { ask(&app, delivery("d1", "a body")).await });
    }
    for answer in repeats.join_all().await {
        assert_eq!(answer, (201, "run 1".to_owned()));
    }
    assert_eq!(handler.runs(), 1);
}

#[tokio::test]
async fn ids_are_found_by_a_rule() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let handle = async move |message: Verified<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        message.message_id.unwrap()
    };
    let layer = VerifyLayer::new(HmacVerifier::new(SIGNATURE, secrets()));
    let layer = layer.message_id(MessageIdRule::Pointer("/event/id".to_owned())).once(once());
    let app = Router::new().route("/", post(handle)).layer(layer);
    let request = |body: &'static str| {
        let signature = hex::encode(code(&[body.as_bytes()]));
        Request::post("/").header(SIGNATURE, signature).body(Body::from(body)).unwrap()
    };
    for _ in 0..2 {
        assert_eq!(ask(&app, request(r#"{"event":{"id":7}}"#)).await, (200, "7".to_owned()));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&app, request("{}")).await.0, 401, "without an id it cannot be handled once");
}

/// Shows what it is called with.
#[derive(Debug)]
struct Shown(tokio::sync::mpsc::UnboundedSender<InboxMessage>);

#[async_trait::async_trait]
impl InboxHandler for Shown {
    async fn handle(&self, message: InboxMessage) -> Result<(), HandlerError> {
        self.0.send(message).map_err(HandlerError::give_up)
    }
}

#[tokio::test]
async fn an_inbox_stores_first_and_handles_later() {
    let (sender, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let source: Source = "github".parse().unwrap();
    let builder = Webhooks::builder(Arc::new(MemoryStore::new())).inbox(source.clone(), Arc::new(Shown(sender)));
    let webhooks = builder.build().unwrap();
    let inbox = Inbox::new(webhooks.clone(), source).keep_header(HeaderName::from_static("x-github-event"));
    let app = Router::new().route_service("/github", VerifyLayer::new(GitHub::new(secrets())).layer(inbox.clone()));
    for id in ["d1", "d1", "d2"] {
        let mut request = delivery(id, "a body");
        request.headers_mut().insert("x-github-event", "push".parse().unwrap());
        request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        assert_eq!(ask(&app, request).await, (200, String::new()));
    }
    assert_eq!(ask(&app, delivery("d1", "other")).await.0, 409);
    let mut forged = delivery("d3", "a body");
    *forged.body_mut() = Body::from("forged");
    assert_eq!(ask(&app, forged).await.0, 401);
    assert!(shown.try_recv().is_err(), "nothing runs yet");

    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    for id in ["d1", "d2"] {
        let message = shown.recv().await.unwrap();
        assert_eq!((&message.payload[..], message.content_type.as_str()), (&b"a body"[..], "text/plain"));
        let metadata = json!({ "scheme": "github", "message_id": id, "headers": { "x-github-event": "push" } });
        assert_eq!(message.metadata, Some(metadata));
    }
    shutdown.cancel();
    running.await.unwrap();
    assert!(shown.try_recv().is_err(), "each once");

    let bare = Router::new().route_service("/github", inbox);
    assert_eq!(ask(&bare, delivery("d4", "a body")).await.0, 500, "nobody verified it");
}
