//! Nothing that a caller sends is a 5xx.

use axum::body::Body;
use serde_json::json;

use crate::host::{ACME, Host, request};

fn hostile_bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "[",
        "nul",
        "null",
        "true",
        "0",
        "\"",
        "\"x\"",
        "{\"a\"}",
        "{\"a\":}",
        "{,}",
        "[1,]",
        "{}{}",
        "{\"event_type\":\"a\",\"payload\":1,}",
        "{'a':1}",
        "NaN",
        "1e999999",
        "-",
        "01",
        "\u{feff}{}",
        "\"\\ud800\"",
        "{\"event_type\":\"\\ud800\",\"payload\":1}",
        "{\"event_type\":\"a\\u0000\",\"payload\":1}",
        "{\"event_type\":\"a\",\"event_type\":\"b\",\"payload\":1}",
        "{\"event_type\":\"a\",\"payload\":1,\"payload\":2}",
        "{\"event_type\":1,\"payload\":1}",
        "{\"event_type\":null,\"payload\":1}",
        "{\"event_type\":\"a\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"id\":1}",
        "{\"event_type\":\"a\",\"payload\":1,\"id\":\"\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"id\":\"a.b\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"id\":\"\\u0000\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"metadata\":[]}",
        "{\"event_type\":\"a\",\"payload\":1,\"metadata\":\"x\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"metadata\":{\"a\":1,\"a\":2}}",
        "{\"event_type\":\"a\",\"payload\":1,\"metadata\":{\"a\":1e999}}",
        "{\"event_type\":\"a\",\"payload\":1,\"metadata\":{\"a\":\"\\u0000\"}}",
        "{\"event_type\":\"a\",\"payload\":1,\"deliver_at\":\"2030-01-01T00:00:00Z\"}",
        "{\"event_type\":\"a\",\"payload\":1,\"ordering_key\":\"k\"}",
        "{\"target_url\":\"https://example.com/\",\"target_url\":\"https://example.com/\"}",
        "{\"target_url\":\"https://example.com/\",\"headers\":{\"A\":\"1\",\"A\":\"2\"}}",
        "{\"target_url\":\"https://example.com/\",\"timeout_seconds\":1e308}",
        "{\"target_url\":\"https://example.com/\",\"max_in_flight\":-1}",
        "{\"target_url\":\"https://example.com/\",\"max_in_flight\":99999999999999999999}",
        "{\"target_url\":\"https://example.com/\",\"rate_limit\":{\"per_second\":1e308}}",
        "{\"target_url\":\"https://example.com/\",\"retry\":{\"schedule\":[1e18]}}",
        "{\"target_url\":\"https://exa mple.com/\"}",
        "{\"target_url\":\"javascript:alert(1)\"}",
        "{\"target_url\":\"https://user:pass@example.com/\",\"nope\":1}",
        "{\"since\":1}",
        "{\"grace_seconds\":\"1\"}",
        "[\"a\",1,null,null]",
        "[null,null]",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(b"{\"event_type\":\"a\",\"payload\":\"\xff\"}".to_vec());
    bodies.push(b"\xff\xfe{\x00}\x00".to_vec());
    bodies.push(b"\x00".to_vec());
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        bodies.push(deep.clone().into_bytes());
        bodies.push(open.repeat(10_000).into_bytes());
        bodies.push(format!("{{\"event_type\":\"a\",\"payload\":{deep}}}").into_bytes());
        bodies.push(format!("{{\"event_type\":\"a\",\"payload\":1,\"metadata\":{{\"a\":{deep}}}}}").into_bytes());
        bodies.push(format!("{{\"target_url\":\"https://example.com/\",\"metadata\":{{\"a\":{deep}}}}}").into_bytes());
    }
    bodies.push(format!("{{\"event_type\":\"{}\",\"payload\":1}}", "a".repeat(300)).into_bytes());
    bodies.push(vec![b' '; 2 << 20]);
    bodies.push(format!("\"{}\"", "x".repeat(2 << 20)).into_bytes());
    bodies
}

#[tokio::test]
async fn hostile_bodies_are_problems_of_the_caller() {
    let host = Host::new();
    let (subscription, ..) = host.delivery().await;
    let path = format!("/subscriptions/{subscription}");
    let routes = [
        ("POST", "/events".to_owned()),
        ("POST", "/subscriptions".to_owned()),
        ("PUT", path.clone()),
        ("PATCH", path.clone()),
        ("POST", format!("{path}/recover")),
        ("POST", format!("{path}/test")),
        ("POST", format!("{path}/secret/rotate")),
    ];
    for body in hostile_bodies() {
        for (method, path) in &routes {
            // These two take a request without a body.
            if body.is_empty() && (path.ends_with("/test") || path.ends_with("/rotate")) {
                continue;
            }
            let answer = host.call(method, path, ACME, body.clone()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
            let status = answer.status.as_u16();
            // Some of them are good events, if of no type.
            if path.ends_with("/test") && status == 202 {
                continue;
            }
            assert!(matches!(status, 400 | 413 | 422), "{method} {path} {shown}: {status}");
            answer.problem(status);
        }
        let in_array = [b"[", body.as_slice(), b"]"].concat();
        for body in [body, in_array] {
            let answer = host.call("POST", "/events/batch", ACME, body).await;
            if answer.status == 202 {
                let answer = answer.json();
                assert!(answer["data"].as_array().unwrap().iter().all(|item| item["status"] != 202), "{answer}");
            } else {
                let status = answer.status.as_u16();
                assert!(matches!(status, 400 | 413 | 422), "{status}");
                answer.problem(status);
            }
        }
    }
}

#[tokio::test]
async fn every_field_of_a_wrong_type_is_named() {
    let host = Host::new();
    let fields = [
        "target_url",
        "description",
        "events",
        "secret",
        "ingest_secret",
        "signature",
        "headers",
        "timeout_seconds",
        "retry",
        "rate_limit",
        "max_in_flight",
        "enabled",
        "metadata",
    ];
    for field in fields {
        for wrong in [json!(-1.5), json!([[]]), json!({"\u{0}": {}}), json!("\u{0}"), json!(true)] {
            if (field == "enabled" && wrong == json!(true)) || (field == "metadata" && wrong.is_object()) {
                continue;
            }
            let mut body = json!({"target_url": "https://example.com/"});
            body[field] = wrong.clone();
            let problem = host.post("/subscriptions", body).await.problem(422);
            let errors = problem["errors"].as_object().unwrap();
            assert!(errors.keys().any(|name| name.starts_with(field)), "{field} {wrong}: {problem}");
        }
    }
}

#[tokio::test]
async fn json_must_say_that_it_is() {
    let host = Host::new();
    let body = json!({"event_type": "a", "payload": 1}).to_string();
    for (content_type, status) in [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("APPLICATION/JSON", 202),
        ("application/cloudevents+json", 202),
        ("text/json", 415),
        ("text/plain", 415),
        ("application/jsonx", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/+json", 415),
        ("json", 415),
        ("", 415),
    ] {
        let mut call = request("POST", "/events", ACME);
        call.headers_mut().unwrap().insert("content-type", content_type.parse().unwrap());
        let answer = host.send(call.body(body.clone().into()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{content_type}");
    }
    let mut call = request("POST", "/events", ACME);
    call.headers_mut().unwrap().remove("content-type");
    host.send(call.body(body.into()).unwrap()).await.problem(415);
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let host = Host::new();
    for list in ["/subscriptions", "/events", "/deliveries"] {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("limit=abc", "limit"),
            ("limit=%2B1", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=1&limit=2", "limit"),
            ("cursor=!", "cursor"),
            ("cursor=abc", "cursor"),
            ("cursor=%00", "cursor"),
            ("offset=-1", "offset"),
            ("offset=18446744073709551615", "offset"),
            ("page=0", "page"),
            ("page=18446744073709551615", "page"),
            ("offset=1&page=1", "cursor"),
        ] {
            let problem = host.get(&format!("{list}?{query}")).await.problem(422);
            assert!(problem["errors"][field].is_array(), "{list}?{query}: {problem}");
        }
    }
    for (path, field) in [
        ("/deliveries?state=lost", "state"),
        ("/deliveries?subscription_id=1", "subscription_id"),
        ("/deliveries?event_id=%ff", "event_id"),
        ("/deliveries?since=now", "since"),
        ("/events?event_type=a%20b", "event_type"),
        ("/events?until=1", "until"),
        ("/stats?since=1969-01-01T00:00:00Z", "since"),
        ("/activity?limit=101", "limit"),
    ] {
        assert!(host.get(path).await.problem(422)["errors"][field].is_array(), "{path}");
    }
    let problem = host.get("/deliveries?state=x&since=y&limit=z").await.problem(422);
    assert_eq!(problem["errors"].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn bad_ids_are_malformed() {
    let host = Host::new();
    for id in ["1", "nonsense", "%00", "%ff", "..%2f", "0190000000007000800000000000000z", &"0".repeat(5000)] {
        for path in
            ["/subscriptions/{}", "/events/{}", "/events/{}/status", "/deliveries/{}", "/subscriptions/{}/secret"]
        {
            let problem = host.get(&path.replace("{}", id)).await.problem(400);
            assert_eq!(problem["code"], "malformed_id");
        }
    }
    for id in ["00000000-0000-0000-0000-000000000000", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"] {
        host.get(&format!("/events/{id}")).await.problem(404);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_callers() {
    let host = Host::new();
    let chunks = futures_util::stream::iter([Ok("{\"event"), Err(std::io::Error::other("gone"))]);
    let answer = host.call("POST", "/events", ACME, Body::from_stream(chunks)).await;
    assert_eq!(answer.problem(400)["code"], "incomplete_body");
}
