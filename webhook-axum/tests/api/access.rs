//! Who may do what.

use http::StatusCode;
use serde_json::Value;
use webhook_axum::{ApiKeys, Scopes};

use crate::host::{ACME, Host, OTHER, READ, WRITE, request};

const ID: &str = "01900000-0000-7000-8000-000000000000";

/// Every operation of the description: method, path with an unknown id.
fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(webhook_axum::openapi("0")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.replace("{id}", ID).replace("{request_id}", ID).replace("{path_id}", "unknown");
        let methods = item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()));
        methods.collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test]
async fn every_route_but_the_public_ones_needs_credentials() {
    let host = Host::new();
    let operations = operations();
    assert!(operations.len() >= 46, "{operations:?}");
    for (method, path) in operations {
        for key in ["", "wrong-key"] {
            let answer = host.call(&method, &path, key, "{}").await;
            if path.starts_with("/health") {
                assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
            } else if path.starts_with("/webhook/") {
                answer.problem(404);
            } else {
                assert_eq!(answer.headers["www-authenticate"], "Bearer", "{method} {path}");
                answer.problem(401);
            }
        }
    }
    for path in ["/docs", "/openapi.json", "/openapi.yaml"] {
        assert_eq!(host.call("GET", path, "", "").await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn the_router_serves_what_the_description_says() {
    let host = Host::new();
    let mut described: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for (method, path) in operations() {
        described.entry(path).or_default().push(method);
    }
    // A capture path takes any method.
    for (path, methods) in described.into_iter().filter(|(path, _)| !path.starts_with("/webhook/")) {
        let answer = host.call("PROPFIND", &path, ACME, "").await;
        let allowed = answer.headers["allow"].to_str().unwrap().to_owned();
        let mut allowed: Vec<_> = allowed.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        allowed.sort();
        let mut methods = methods;
        methods.sort();
        assert_eq!(allowed, methods, "{path}");
        assert_eq!(answer.problem(405)["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn another_tenants_things_are_not_found() {
    let host = Host::new();
    let (subscription, event, delivery) = host.delivery().await;
    let (path_id, request) = host.captured().await;
    for (method, path, body) in [
        ("GET", format!("/subscriptions/{subscription}"), ""),
        ("PUT", format!("/subscriptions/{subscription}"), r#"{"target_url":"https://example.com/"}"#),
        ("PATCH", format!("/subscriptions/{subscription}"), r#"{"enabled":false}"#),
        ("GET", format!("/subscriptions/{subscription}/secret"), ""),
        ("POST", format!("/subscriptions/{subscription}/secret/rotate"), ""),
        ("POST", format!("/subscriptions/{subscription}/test"), ""),
        ("POST", format!("/subscriptions/{subscription}/recover"), r#"{"since":"2026-01-01T00:00:00Z"}"#),
        ("GET", format!("/subscriptions/{subscription}/attempts"), ""),
        ("GET", format!("/subscriptions/{subscription}/deliveries"), ""),
        ("GET", format!("/subscriptions/{subscription}/stats"), ""),
        ("POST", format!("/ingest/{subscription}"), "x"),
        ("GET", format!("/events/{event}"), ""),
        ("GET", format!("/events/{event}/status"), ""),
        ("GET", format!("/deliveries/{delivery}"), ""),
        ("POST", format!("/deliveries/{delivery}/retry"), ""),
        ("POST", format!("/deliveries/{delivery}/cancel"), ""),
        ("DELETE", format!("/subscriptions/{subscription}"), ""),
        ("GET", format!("/api/paths/{path_id}"), ""),
        ("PATCH", format!("/api/paths/{path_id}"), "{}"),
        ("GET", format!("/api/paths/{path_id}/stats"), ""),
        ("GET", format!("/api/paths/{path_id}/logs"), ""),
        ("DELETE", format!("/api/paths/{path_id}/logs"), ""),
        ("GET", format!("/api/paths/{path_id}/logs/{request}"), ""),
        ("DELETE", format!("/api/paths/{path_id}/logs/{request}"), ""),
        ("GET", format!("/api/paths/{path_id}/logs/{request}/body"), ""),
        ("POST", format!("/api/paths/{path_id}/logs/{request}/replay"), r#"{"target_url":"https://example.com/"}"#),
        ("GET", format!("/api/paths/{path_id}/stream"), ""),
        ("GET", format!("/api/paths/{path_id}/wait"), ""),
        ("GET", format!("/api/paths/{path_id}/export"), ""),
        ("DELETE", format!("/api/paths/{path_id}"), ""),
    ] {
        let answer = host.call(method, &path, OTHER, body).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        let theirs = answer.problem(404);
        let unknown = path
            .replace(&path_id, "unknown")
            .replace(&request, ID)
            .replace(&subscription, ID)
            .replace(&event, ID)
            .replace(&delivery, ID);
        let nobodys = host.call(method, &unknown, OTHER, body).await.problem(404);
        assert_eq!(theirs["detail"], nobodys["detail"], "{method} {path}");
    }
    for path in ["/subscriptions", "/events", "/deliveries", "/activity", "/api/paths"] {
        let list = host.call("GET", path, OTHER, "").await.expect(200);
        assert_eq!(list["data"], Value::Array(vec![]), "{path}");
    }
    let stats = host.call("GET", "/stats", OTHER, "").await.expect(200);
    assert_eq!((&stats["events"], &stats["subscriptions"]["total"]), (&0.into(), &0.into()));
    let dashboard = host.call("GET", "/api/dashboard/stats", OTHER, "").await.expect(200);
    assert_eq!((&dashboard["total_webhooks"], &dashboard["recent_requests"]), (&0.into(), &Value::Array(vec![])));
    host.get(&format!("/subscriptions/{subscription}")).await.expect(200);
    host.get(&format!("/api/paths/{path_id}/logs/{request}")).await.expect(200);
    let taken = host.call("POST", "/api/paths", OTHER, format!(r#"{{"path_id":"{path_id}"}}"#)).await.problem(409);
    assert!(taken["errors"]["path_id"].is_array(), "names are unique over all tenants: {taken}");
}

#[tokio::test]
async fn scopes_bound_what_a_key_may_do() {
    let host = Host::new();
    let (subscription, ..) = host.delivery().await;
    for (method, path) in operations().into_iter().filter(|(_, path)| !path.starts_with("/webhook/")) {
        let answer = host.call(&method, &path.replace(ID, &subscription), READ, "{}").await;
        let needs_more = method != "GET" || path.ends_with("/secret");
        assert_eq!(answer.status == StatusCode::FORBIDDEN, needs_more, "{method} {path}: {}", answer.status);
        if needs_more {
            assert_eq!(answer.problem(403)["code"], "forbidden");
        }
    }
    let path = format!("/subscriptions/{subscription}");
    host.call("PATCH", &path, WRITE, r#"{"headers":{"X-Token":"abc"}}"#).await.expect(200);
    host.call("GET", &format!("{path}/secret"), WRITE, "").await.problem(403);
    host.call("POST", &format!("{path}/secret/rotate"), WRITE, "").await.problem(403);
    for body in
        [r#"{"secret":"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"}"#, r#"{"ingest_secret":"a secret of some length"}"#]
    {
        host.call("PATCH", &path, WRITE, body).await.problem(403);
        let whole = body.replace('{', r#"{"target_url":"https://example.com/","#);
        host.call("PUT", &path, WRITE, whole).await.problem(403);
        host.call("PATCH", &path, ACME, body).await.expect(200);
    }
    let seen = |key| host.call("GET", &path, key, "");
    assert_eq!(seen(ACME).await.expect(200)["headers"]["X-Token"], "abc");
    assert_eq!(seen(READ).await.expect(200)["headers"]["X-Token"], "[redacted]");
    let put = r#"{"target_url":"https://example.com/","headers":{"X-Token":"[redacted]"}}"#;
    assert!(host.call("PUT", &path, WRITE, put).await.problem(422)["errors"]["headers.X-Token"].is_array());
}

#[tokio::test]
async fn credentials_come_once_and_as_bearer() {
    let host = Host::new();
    for value in ["Basic acme-key", "acme-key", "Bearer", "Bearer ", "Bearer acme-key x", "Bearer ACME-KEY"] {
        let call = request("GET", "/stats", "").header("authorization", value).body("".into()).unwrap();
        host.send(call).await.problem(401);
    }
    let call = request("GET", "/stats", "").header("authorization", "bEARER acme-key").body("".into()).unwrap();
    host.send(call).await.expect(200);
    let twice = request("GET", "/stats", ACME).header("authorization", "Bearer acme-key").body("".into()).unwrap();
    host.send(twice).await.problem(401);
}

#[test]
fn keys_are_read_from_specs() {
    let keys = ApiKeys::new().with_spec("a2V5==acme:read+write").unwrap().with_spec("k=t").unwrap();
    let caller = keys.caller("a2V5=").unwrap();
    assert_eq!((caller.tenant.as_str(), caller.scopes), ("acme", Scopes::READ | Scopes::WRITE));
    assert_eq!(keys.caller("k").unwrap().scopes, Scopes::ALL);
    assert!(keys.caller("a2V5").is_none());
    assert!(!format!("{keys:?}").contains("a2V5"));
    for spec in ["", "key", "=tenant", "key=", "key=a b", "key=t:", "key=t:admin", "key=t:read,,write", "k y=t"] {
        let error = ApiKeys::new().with_spec(spec).unwrap_err();
        assert!(!error.to_string().contains("k y"), "{error}");
    }
}
