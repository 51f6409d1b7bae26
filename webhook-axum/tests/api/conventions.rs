//! What holds on every route.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};
use tower::ServiceExt;
use webhook_axum::{Api, AuthError, Authenticator, Caller, not_found};

use crate::host::{ACME, Host, keys, request, text};

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let host = Host::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(host.event().await);
    }
    ids.reverse();
    let id_of =
        |list: &Value| list["data"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect::<Vec<_>>();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = host.get(&format!("/events?limit=2{cursor}")).await.expect(200);
        seen.extend(id_of(&page));
        assert_eq!(page["pagination"]["limit"], 2);
        assert!(page["pagination"]["total"].is_null());
        let next = &page["pagination"]["next_cursor"];
        assert_eq!(page["pagination"]["has_more"], next.is_string());
        let Some(next) = next.as_str() else { break };
        assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids);
    let page = host.get("/events?limit=2&page=3").await.expect(200);
    assert_eq!(id_of(&page), ids[4..]);
    let expected = json!({"limit": 2, "next_cursor": null, "has_more": false, "page": 3, "total": 5});
    assert_eq!(page["pagination"], expected);
    let page = host.get("/events?limit=2&offset=1").await.expect(200);
    assert_eq!(id_of(&page), ids[1..3]);
    assert_eq!((&page["pagination"]["offset"], &page["pagination"]["total"]), (&json!(1), &json!(5)));
    let beyond = host.get("/events?offset=1000000").await.expect(200);
    assert_eq!((&beyond["data"], &beyond["pagination"]["has_more"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn a_trailing_slash_and_a_prefix_change_nothing() {
    let host = Host::new();
    let api = Api::new(host.webhooks.clone()).authenticator(Arc::new(keys()));
    let nested: Router = Router::new()
        .route("/", get(async || "the host"))
        .nest("/t/{team}/webhooks", api.router::<Arc<str>>())
        .fallback(not_found)
        .with_state(Arc::from("state"));
    let host = Host { router: nested, ..host };
    let prefix = "/t/a-team/webhooks";
    let body = json!({"target_url": "https://example.com/"});
    let created = host.post(&format!("{prefix}/subscriptions/"), body).await.expect(201);
    let path = format!("{prefix}/subscriptions/{}", text(&created["id"]));
    host.get(&path).await.expect(200);
    host.get(&format!("{path}/")).await.expect(200);
    host.call("POST", &format!("{path}/secret/rotate/"), ACME, "").await.expect(200);
    host.get(&format!("{prefix}/health/")).await.expect(200);
    for page in ["docs", "docs/"] {
        assert_eq!(host.get(&format!("{prefix}/{page}")).await.status, StatusCode::OK);
    }
    host.get("/nowhere").await.problem(404);
    host.get(&format!("{prefix}/nowhere")).await.problem(404);
    host.call("DELETE", &format!("{prefix}/events"), ACME, "").await.problem(405);
}

#[tokio::test]
async fn request_ids_are_kept_when_they_are_sane() {
    let host = Host::new();
    for (given, kept) in
        [("abc-1._X", true), (&"x".repeat(128), true), (&"x".repeat(129), false), ("a b", false), ("", false)]
    {
        let call = request("GET", "/nothing-but/health", "").uri("/health").header("x-request-id", given);
        let answer = host.send(call.body("".into()).unwrap()).await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == given, kept, "{given}");
        assert!(kept || id.len() == 36, "{id}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn all_unknown_fields_are_named_at_every_level() {
    let host = Host::new();
    let id = text(&host.subscription().await["id"]);
    let subscription = json!({
        "target_url": "https://example.com/", "filter": 1, "a.b": 2, "z": {"deep": 3},
        "signature": {"scheme": "standard", "x": 1, "y": 2}, "retry": {"jitter": 1},
        "rate_limit": {"per_second": 1, "per_minute": 2},
    });
    let of_subscription =
        vec!["a.b", "filter", "rate_limit.per_minute", "retry.jitter", "signature.x", "signature.y", "z"];
    let event = json!({"event_type": "a", "payload": {"any": 1}, "deliver_at": 1, "ordering_key": 2});
    let of_event = vec!["deliver_at", "ordering_key"];
    let path = format!("/subscriptions/{id}");
    for (method, path, body, expected) in [
        ("POST", "/subscriptions".to_owned(), subscription.clone(), of_subscription.clone()),
        ("PUT", path.clone(), subscription.clone(), of_subscription.clone()),
        ("PATCH", path.clone(), subscription, of_subscription),
        ("POST", "/events".to_owned(), event.clone(), of_event.clone()),
        ("POST", format!("{path}/test"), json!({"type": 1, "data": 2}), vec!["data", "type"]),
        ("POST", format!("{path}/secret/rotate"), json!({"grace": 1, "b": 2}), vec!["b", "grace"]),
        ("POST", format!("{path}/recover"), json!({"since": "2026-01-01", "b": 1, "c": 2}), vec!["b", "c"]),
        // What is missing is told as well.
        ("POST", "/subscriptions".to_owned(), json!({"url": 1, "nope": 2}), vec!["nope", "target_url", "url"]),
    ] {
        let problem = host.call(method, &path, ACME, body.to_string()).await.problem(422);
        assert_eq!(problem["errors"].as_object().unwrap().keys().collect::<Vec<_>>(), expected, "{method} {path}");
    }
    let batch = host.post("/events/batch", json!([event])).await.expect(202);
    let errors = batch["data"][0]["problem"]["errors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), of_event);
    let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("f{n}"), json!(n))).collect();
    let problem = host.post("/events", Value::Object(many)).await.problem(422);
    assert!(problem["errors"].as_object().unwrap().len() <= 33, "a document does not make a large answer");
}

#[derive(Debug)]
struct Panics;

#[async_trait::async_trait]
impl Authenticator for Panics {
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<Caller, AuthError> {
        match parts.uri.path() {
            "/events" => panic!("a bug"),
            _ => Err(AuthError::Unavailable("the directory at 10.1.2.3 is down".into())),
        }
    }
}

#[tokio::test]
async fn failures_show_nothing_of_the_inside() {
    let host = Host::new();
    let router = Api::new(host.webhooks.clone()).authenticator(Arc::new(Panics)).router();
    let host = Host { router, ..host };
    assert_eq!(host.get("/events").await.problem(500)["code"], "internal");
    let answer = host.get("/stats").await;
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(!String::from_utf8_lossy(&answer.body).contains("10.1.2.3"));
    answer.problem(503);
}

#[tokio::test]
async fn without_an_authenticator_everybody_is_the_default_tenant() {
    let host = Host::new();
    let router: Router = Api::new(host.webhooks.clone()).danger_no_auth().sending_router();
    let answer = router.oneshot(request("GET", "/stats", "").body(axum::body::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}
