//! Capture paths.

use serde_json::{Value, json};
use webhook_axum::{Api, ApiOptions};

use crate::host::{ACME, Host, OTHER, request, text};

#[tokio::test]
async fn a_path_needs_nothing_but_to_be_asked_for() {
    let host = Host::new();
    let bare = http::Request::post("/api/paths").header("authorization", format!("Bearer {ACME}"));
    let path = host.send(bare.body("".into()).unwrap()).await.expect(201);
    let name = text(&path["path_id"]);
    assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    assert_eq!(path["url"], format!("/webhook/{name}"));
    assert_eq!(
        (&path["request_count"], &path["forward_to"], &path["last_request_at"]),
        (&json!(0), &json!([]), &Value::Null)
    );
    for absent in ["description", "response", "max_requests", "max_bytes", "ttl_seconds", "expires_at"] {
        assert!(path.get(absent).is_none(), "{path}");
    }
    assert_eq!(host.get(&format!("/api/paths/{name}")).await.expect(200), path);
    let api = Api::new(host.webhooks.clone()).options(ApiOptions::default().with_public_url("https://hooks.example/"));
    let host = Host { router: api.danger_no_auth().router(), ..host };
    let path = host.call("POST", "/api/paths", "", r#"{"path_id":"a"}"#).await.expect(201);
    assert_eq!(path["url"], "https://hooks.example/webhook/a");
}

#[tokio::test]
async fn what_is_given_is_what_is_read() {
    let host = Host::new();
    let subscription = text(&host.subscription().await["id"]);
    let given = json!({
        "path_id": "Orders.v1_x-2", "description": "for \u{1f980}", "max_requests": 5, "max_bytes": 1000,
        "ttl_seconds": 3600, "forward_to": [subscription],
        "response": {
            "status": 418, "headers": {"Access-Control-Allow-Origin": "*", "X-A": "b"}, "body": "AP8=",
            "body_encoding": "base64", "delay_ms": 0,
        },
    });
    let path = host.post("/api/paths", given.clone()).await.expect(201);
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(&path[field], value);
    }
    assert!(path["expires_at"].is_string());
    let read = host.get("/api/paths/Orders.v1_x-2/").await.expect(200);
    assert_eq!(read, path);
    assert_eq!(host.get("/api/paths").await.expect(200)["data"], json!([path]));
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let host = Host::new();
    let path = host.path(json!({
        "description": "old", "max_requests": 5, "ttl_seconds": 60,
        "response": {"status": 201, "headers": {"X-A": "1", "X-B": "2"}, "body": "old"},
    }));
    let url = format!("/api/paths/{}", path.await);
    let patch = async |body: Value| host.call("PATCH", &url, ACME, body.to_string()).await;
    let changed = patch(json!({
        "description": "new", "max_requests": null, "response": {"headers": {"X-A": null, "X-C": "3"}, "delay_ms": 1},
    }));
    let changed = changed.await.expect(200);
    assert_eq!((&changed["description"], changed.get("max_requests")), (&json!("new"), None));
    assert_eq!(
        changed["response"],
        json!({"status": 201, "headers": {"X-B": "2", "X-C": "3"}, "body": "old", "body_encoding": "utf8", "delay_ms": 1})
    );
    assert_eq!(host.get(&url).await.expect(200), changed);
    let plain = patch(json!({"response": null, "ttl_seconds": null})).await.expect(200);
    assert!(plain.get("response").is_none() && plain.get("expires_at").is_none(), "{plain}");
    let renamed = patch(json!({"path_id": "other"})).await.problem(422);
    assert!(renamed["errors"]["path_id"].is_array());
    assert!(patch(json!({"colour": 1})).await.problem(422)["errors"]["colour"].is_array());
    assert_eq!(host.get(&url).await.expect(200), plain);
}

#[tokio::test]
async fn what_is_not_acceptable_is_refused_by_its_field() {
    let host = Host::new();
    host.path(json!({"path_id": "taken"})).await;
    let taken = host.post("/api/paths", json!({"path_id": "taken"})).await.problem(409);
    assert_eq!((&taken["code"], taken["errors"]["path_id"].is_array()), (&json!("path_taken"), true));
    let unknown = "01900000-0000-7000-8000-000000000000";
    for (given, field) in [
        (json!({"path_id": ""}), "path_id"),
        (json!({"path_id": ".."}), "path_id"),
        (json!({"path_id": "a/b"}), "path_id"),
        (json!({"path_id": "x".repeat(256)}), "path_id"),
        (json!({"description": "x".repeat(1025)}), "description"),
        (json!({"description": "\u{0}"}), "description"),
        (json!({"max_requests": 0}), "max_requests"),
        (json!({"max_bytes": 0}), "max_bytes"),
        (json!({"ttl_seconds": 0}), "ttl_seconds"),
        (json!({"forward_to": [unknown]}), "forward_to[0]"),
        (json!({"forward_to": ["x"]}), "forward_to[0]"),
        (json!({"response": {"status": 199}}), "response.status"),
        (json!({"response": {"status": 600}}), "response.status"),
        (json!({"response": {"status": 204, "body": "x"}}), "response.body"),
        (json!({"response": {"body": "!", "body_encoding": "base64"}}), "response.body"),
        (json!({"response": {"delay_ms": 30_001}}), "response.delay_ms"),
        (json!({"response": {"headers": {"Set-Cookie": "a=b"}}}), "response.headers.Set-Cookie"),
        (json!({"response": {"headers": {"clear-site-data": "*"}}}), "response.headers.clear-site-data"),
        (json!({"response": {"headers": {"Service-Worker-Allowed": "/"}}}), "response.headers.Service-Worker-Allowed"),
        (
            json!({"response": {"headers": {"strict-transport-security": "max-age=1"}}}),
            "response.headers.strict-transport-security",
        ),
        (json!({"response": {"headers": {"content-security-policy": ""}}}), "response.headers.content-security-policy"),
        (json!({"response": {"headers": {"x-a": "b\r\nset-cookie: c"}}}), "response.headers.x-a"),
        (json!({"response": {"colour": 1}}), "response.colour"),
    ] {
        let problem = host.post("/api/paths", given.clone()).await.problem(422);
        assert!(problem["errors"][field].is_array(), "{given}: {problem}");
    }
    assert_eq!(host.get("/api/paths").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_creates_once() {
    let host = Host::new();
    let create = async |body: &'static str| {
        let call = request("POST", "/api/paths", ACME).header("idempotency-key", "k1");
        host.send(call.body(body.into()).unwrap()).await
    };
    let first = create("{}").await.expect(201);
    assert_eq!(create("{}").await.expect(201), first);
    assert_eq!(create(r#"{"description":"other"}"#).await.problem(409)["code"], "idempotency_key_reused");
    assert_eq!(host.get("/api/paths").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_was_when_the_subscription_is_gone() {
    let host = Host::new();
    let subscription = text(&host.subscription().await["id"]);
    let create = async |key: &str, more: Value| {
        let mut body = json!({"forward_to": [subscription]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = request("POST", "/api/paths", ACME).header("idempotency-key", key);
        host.send(call.body(body.to_string().into()).unwrap()).await
    };
    let first = create("k1", json!({})).await.expect(201);
    host.call("DELETE", &format!("/subscriptions/{subscription}"), ACME, "").await;
    assert_eq!(create("k1", json!({})).await.expect(201), first);
    assert_eq!(create("k1", json!({"description": "x"})).await.problem(409)["code"], "idempotency_key_reused");
    assert!(create("k2", json!({})).await.problem(422)["errors"]["forward_to[0]"].is_array());
    create("k2", json!({"forward_to": []})).await.expect(201);
}

#[tokio::test]
async fn a_deleted_path_is_gone_with_all_it_held() {
    let host = Host::new();
    let (path, id) = host.captured().await;
    let delete = async || host.call("DELETE", &format!("/api/paths/{path}"), ACME, "").await;
    assert_eq!(delete().await.status, 204);
    delete().await.problem(404);
    host.call("POST", &format!("/webhook/{path}"), "", "late").await.problem(404);
    host.get(&format!("/api/paths/{path}/logs")).await.problem(404);
    host.get(&format!("/api/paths/{path}/logs/{id}")).await.problem(404);
    let again = json!({"path_id": path});
    host.call("POST", "/api/paths", OTHER, again.to_string()).await.expect(201);
    let theirs = host.call("GET", &format!("/api/paths/{path}/logs"), OTHER, "").await.expect(200);
    assert_eq!(theirs["data"], json!([]), "the next owner of the name sees nothing of it");
}

#[tokio::test]
async fn figures_are_of_what_is_held() {
    let host = Host::new();
    let path = host.path(json!({"path_id": "p", "max_requests": 3})).await;
    host.path(json!({"path_id": "idle"})).await;
    for (method, body) in [("POST", "gone"), ("POST", "12345"), ("PURGE", "123"), ("POST", "")] {
        host.call(method, "/webhook/p/x", "", body).await.expect(200);
    }
    let stats = host.get("/api/paths/p/stats").await.expect(200);
    assert_eq!((&stats["path_id"], &stats["total_requests"], &stats["bytes"]), (&json!("p"), &json!(3), &json!(8)));
    assert_eq!(stats["method_counts"], json!({"POST": 2, "PURGE": 1}));
    let logs = host.logs(&path).await;
    assert_eq!(stats["last_request_at"], logs[0]["timestamp"]);
    let shown = host.get("/api/paths/p").await.expect(200);
    assert_eq!((&shown["request_count"], &shown["bytes"]), (&json!(3), &json!(8)));
    let dashboard = host.get("/api/dashboard/stats").await.expect(200);
    assert_eq!(
        (&dashboard["total_webhooks"], &dashboard["total_requests"], &dashboard["active_webhooks"]),
        (&json!(2), &json!(3), &json!(1))
    );
    let recent = dashboard["recent_requests"].as_array().unwrap();
    assert_eq!(recent.len(), 3);
    assert_eq!(
        (&recent[0]["id"], &recent[0]["path_id"], &recent[1]["method"]),
        (&logs[0]["id"], &json!("p"), &json!("PURGE"))
    );
    let lower = host.call("PATCH", "/api/paths/p", ACME, r#"{"max_requests":1}"#).await.expect(200);
    assert_eq!((&lower["request_count"], &lower["bytes"]), (&json!(1), &json!(0)), "a lowered quota counts at once");
    assert_eq!(host.logs(&path).await.len(), 1);
}
