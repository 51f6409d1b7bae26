//! What is done with captured requests.

use axum::body::{Body, Bytes};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use webhook_core::Role;

use crate::host::{ACME, Host, request, text};

/// A path with a few requests, and their ids, oldest first.
async fn scene(host: &Host) -> (String, Vec<String>) {
    let path = host.path(json!({"path_id": "p"})).await;
    for (method, below, header, body) in [
        ("POST", "/a?find=Query", ("x-a", "plain"), "one"),
        ("PURGE", "/Needle", ("authorization", "Bearer secret"), "two"),
        ("GET", "/b", ("x-b", "some NEEDLE"), ""),
        ("POST", "/c", ("cookie", "a=b"), "a\u{0}needle\u{0}b"),
    ] {
        let call = request(method, &format!("/webhook/p{below}"), "").header(header.0, header.1);
        host.send(call.body(body.into()).unwrap()).await.expect(200);
    }
    let ids = host.logs(&path).await.iter().rev().map(|log| text(&log["id"])).collect();
    (path, ids)
}

async fn list(host: &Host, query: &str) -> Value {
    host.get(&format!("/api/paths/p/logs?{query}")).await.expect(200)
}

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|log| text(&log["id"])).collect()
}

#[tokio::test]
async fn lists_filter_and_page() {
    let host = Host::new();
    let (_, all) = scene(&host).await;
    let found = async |query: &str| {
        let found = ids(&list(&host, query).await);
        found.iter().map(|id| all.iter().position(|other| other == id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found("q=needle").await, [3, 2, 1]);
    assert_eq!(found("q=NEEDLE&method=purge").await, [1]);
    assert_eq!(found("q=find%3Dquery").await, [0]);
    assert_eq!(found("q=a%00needle").await, [3]);
    assert_eq!(found("q=elsewhere").await, [0_usize; 0]);
    assert_eq!(found("method=Post").await, [3, 0]);
    let second = list(&host, "limit=2&offset=1").await;
    assert_eq!(ids(&second), [all[2].clone(), all[1].clone()]);
    assert_eq!((&second["pagination"]["total"], &second["pagination"]["offset"]), (&json!(4), &json!(1)));
    let first = list(&host, "limit=3&include_body=false").await;
    assert!(first["data"].as_array().unwrap().iter().all(|log| log.get("body").is_none()));
    assert_eq!(first["data"][0]["body_size"], 10);
    let next = list(&host, &format!("cursor={}", text(&first["pagination"]["next_cursor"]))).await;
    assert_eq!((ids(&next), &next["pagination"]["has_more"]), (vec![all[0].clone()], &json!(false)));
    let since = text(&first["data"][2]["timestamp"]);
    assert!(found(&format!("since={since}")).await.contains(&1));
    assert_eq!(found("until=2020-01-01T00:00:00").await, [0_usize; 0]);
    for bad in ["limit=0", "since=x", "include_body=maybe", "mask=2", "cursor=!"] {
        host.get(&format!("/api/paths/p/logs?{bad}")).await.problem(422);
    }
}

#[tokio::test]
async fn credentials_are_masked_where_that_is_asked() {
    let host = Host::new();
    let (_, all) = scene(&host).await;
    for path in ["logs?", &format!("logs/{}?", all[1]), "export?format=har&", "export?format=csv&", "export?"] {
        let shown = host.get(&format!("/api/paths/p/{path}mask=false")).await.body;
        let masked = host.get(&format!("/api/paths/p/{path}mask=true")).await.body;
        let has = |body: &[u8], text: &str| String::from_utf8_lossy(body).contains(text);
        assert!(has(&shown, "Bearer secret") && !has(&shown, "[redacted]"), "{path}");
        assert!(!has(&masked, "Bearer secret") && has(&masked, "[redacted]"), "{path}");
    }
}

#[tokio::test]
async fn long_bodies_are_cut_in_lists_and_whole_alone() {
    let host = Host::new();
    host.path(json!({"path_id": "p"})).await;
    let long = "\u{20ac}".repeat(30_000);
    host.call("POST", "/webhook/p", "", long.clone()).await.expect(200);
    let log = &list(&host, "").await["data"][0];
    let cut = text(&log["body"]);
    assert_eq!(
        (&log["body_cut"], &log["body_encoding"], &log["body_truncated"]),
        (&json!(true), &json!("utf8"), &json!(false))
    );
    assert!(long.starts_with(&cut) && cut.len() == 65_535, "cut between characters: {}", cut.len());
    let alone = host.get(&format!("/api/paths/p/logs/{}", text(&log["id"]))).await.expect(200);
    assert_eq!((text(&alone["body"]), alone.get("body_cut")), (long, None));
}

#[tokio::test]
async fn a_body_is_downloaded_as_nothing_that_runs() {
    let host = Host::new();
    host.path(json!({"path_id": "p"})).await;
    let html = "<html><script>alert(1)</script>";
    let call = request("POST", "/webhook/p", "").header("content-type", "text/html");
    let receipt = host.send(call.body(html.into()).unwrap()).await.expect(200);
    let id = text(&receipt["request_id"]);
    let answer = host.get(&format!("/api/paths/p/logs/{id}/body")).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, html.as_bytes()));
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.headers["content-disposition"], format!("attachment; filename=\"{id}.bin\""));
    assert_eq!(answer.headers["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn requests_are_deleted_one_by_one_or_all() {
    let host = Host::new();
    let (_, all) = scene(&host).await;
    let one = format!("/api/paths/p/logs/{}", all[1]);
    assert_eq!(host.call("DELETE", &one, ACME, "").await.status, 204);
    host.call("DELETE", &one, ACME, "").await.problem(404);
    host.get(&one).await.problem(404);
    assert_eq!(ids(&list(&host, "").await).len(), 3);
    assert_eq!(host.call("DELETE", "/api/paths/p/logs", ACME, "").await.status, 204);
    assert_eq!(list(&host, "").await["data"], json!([]));
    assert_eq!(host.get("/api/paths/p/stats").await.expect(200)["total_requests"], 0);
    host.get("/api/paths/p/logs/not-a-uuid").await.problem(400);
}

#[tokio::test]
async fn exports_hold_everything_in_every_format() {
    let host = Host::new();
    let (_, all) = scene(&host).await;
    for number in 0..40 {
        host.call("POST", "/webhook/p/=cmd", "", format!("=1+{number},\"x\"\n")).await.expect(200);
    }
    let export = async |query: &str| {
        let answer = host.get(&format!("/api/paths/p/export?{query}")).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let kind = answer.headers["content-type"].to_str().unwrap().to_owned();
        let name = answer.headers["content-disposition"].to_str().unwrap().to_owned();
        (kind, name, String::from_utf8(answer.body).unwrap())
    };
    let (kind, name, body) = export("").await;
    assert_eq!((&*kind, &*name), ("application/json", "attachment; filename=\"p.json\""));
    let logs: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!(logs.len(), 44);
    assert_eq!(logs[..4].iter().map(|log| text(&log["id"])).collect::<Vec<_>>(), all, "oldest first");
    assert_eq!(logs[3]["body"], "a\u{0}needle\u{0}b");

    let (kind, _, body) = export("format=ndjson&method=post").await;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["id"]), (42, &logs[0]["id"]));

    let (kind, name, body) = export("format=csv&q=cmd").await;
    assert_eq!((&*kind, &*name), ("text/csv; charset=utf-8", "attachment; filename=\"p.csv\""));
    assert!(body.starts_with("id,timestamp,method,path,"));
    assert_eq!(body.matches(",\"utf8\",\"'=1+").count(), 40, "formulas are defused: {body}");
    assert!(body.ends_with("=1+39,\"\"x\"\"\n\"\r\n"));

    let (kind, _, body) = export("format=har").await;
    assert_eq!(kind, "application/json");
    let har: Value = serde_json::from_str(&body).unwrap();
    let entries = har["log"]["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &har["log"]["version"]), (44, &json!("1.2")));
    assert_eq!(entries[1]["request"]["method"], "PURGE");
    assert_eq!(entries[0]["request"]["queryString"], json!([{"name": "find", "value": "Query"}]));
    assert_eq!(entries[3]["request"]["postData"]["text"], "a\u{0}needle\u{0}b");

    host.path(json!({"path_id": "empty"})).await;
    assert_eq!(host.get("/api/paths/empty/export").await.expect(200), json!([]));
    host.get("/api/paths/p/export?format=xml").await.problem(422);
}

#[tokio::test]
async fn trailers_are_in_every_export() {
    let host = Host::new();
    host.path(json!({"path_id": "p"})).await;
    let mut trailers = http::HeaderMap::new();
    trailers.append("x-sum", "1;=2".parse().unwrap());
    trailers.append("x-sum", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let frames = [Frame::data(Bytes::from("x")), Frame::trailers(trailers)].map(Ok::<_, std::convert::Infallible>);
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    host.send(request("POST", "/webhook/p", "").body(body).unwrap()).await.expect(200);
    let export = async |format: &str| host.get(&format!("/api/paths/p/export?format={format}")).await.body;
    let logs: Value = serde_json::from_slice(&export("json").await).unwrap();
    assert_eq!(logs[0]["trailers"], json!([["x-sum", "1;=2"], ["x-sum", {"base64": "/w=="}]]));
    let har: Value = serde_json::from_slice(&export("har").await).unwrap();
    let expected = json!([{"name": "x-sum", "value": "1;=2"}, {"name": "x-sum", "value": "", "_base64": "/w=="}]);
    assert_eq!(har["log"]["entries"][0]["request"]["_trailers"], expected);
    let csv = String::from_utf8(export("csv").await).unwrap();
    let (head, row) = csv.split_once("\r\n").unwrap();
    assert!(head.contains(",headers,trailers,body_encoding,"), "{head}");
    let field = r#""[[""x-sum"",""1;'=2""],[""x-sum"",{""base64"":""/w==""}]]","utf8","x""#;
    assert!(row.contains(field), "{row}");
}

#[tokio::test]
async fn a_replay_goes_through_the_delivery_engine() {
    let host = Host::new();
    host.path(json!({"path_id": "p"})).await;
    let call = request("PURGE", "/webhook/p", "")
        .header("host", "hooks.example")
        .header("x-keep", "1")
        .header("x-keep", "2")
        .header("authorization", "Bearer captured")
        .header("cookie", "a=b")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers");
    let receipt = host.send(call.body("body \u{0}".into()).unwrap()).await.expect(200);
    let url = format!("/api/paths/p/logs/{}/replay", text(&receipt["request_id"]));
    let replayed = host.post(&url, json!({"target_url": "https://example.com/x"})).await.expect(202);
    let mut stripped: Vec<_> = replayed["stripped_headers"].as_array().unwrap().iter().map(text).collect();
    stripped.sort();
    assert_eq!(stripped, ["authorization", "connection", "cookie", "te", "x-hop"]);
    let signed = json!({
        "target_url": "https://hooks.example/x", "headers": {"X-Keep": "3"}, "body": "other",
        "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
    });
    let second = host.post(&url, signed).await.expect(202);

    let shutdown = CancellationToken::new();
    let engine = tokio::spawn({
        let (webhooks, shutdown) = (host.webhooks.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    let sent = host.transport.wait_for(2).await;
    let of = |host: &str| sent.iter().find(|sent| sent.url.host_str() == Some(host)).unwrap();
    let plain = of("example.com");
    assert_eq!((plain.method.as_str(), &*plain.body), ("PURGE", "body \u{0}".as_bytes()));
    assert_eq!(plain.headers.get_all("x-keep").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(plain.headers["content-type"], "application/json", "as it was captured");
    for gone in ["authorization", "cookie", "x-hop", "webhook-signature", "host"] {
        assert!(plain.headers.get(gone).is_none(), "{gone}");
    }
    let signed = of("hooks.example");
    assert_eq!(&*signed.body, b"other");
    assert_eq!(signed.headers.get_all("x-keep").iter().collect::<Vec<_>>(), ["3"]);
    assert_eq!(signed.headers["authorization"], "Bearer captured", "the host is the same");
    assert!(signed.headers.contains_key("webhook-signature"));
    shutdown.cancel();
    engine.await.unwrap();
    for delivery in [&replayed, &second] {
        let delivery = host.get(&format!("/deliveries/{}", text(&delivery["delivery_id"]))).await.expect(200);
        assert_eq!(
            (&delivery["state"], &delivery["attempt_log"][0]["outcome"]),
            (&json!("delivered"), &json!("success"))
        );
        let log = delivery["attempt_log"][0]["request_headers"].to_string();
        assert!(!log.contains("Bearer captured"), "captured values stay out of the attempt log: {log}");
    }
}

#[tokio::test]
async fn a_replay_that_cannot_be_is_refused() {
    let host = Host::new();
    let (_, all) = scene(&host).await;
    let url = format!("/api/paths/p/logs/{}/replay", all[0]);
    for (given, field) in [
        (json!({"target_url": "http://127.0.0.1/"}), "target_url"),
        (json!({"target_url": "https://169.254.169.254/"}), "target_url"),
        (json!({"target_url": "https://example.com/", "headers": {"Host": "x"}}), "headers.Host"),
        (json!({"target_url": "https://example.com/", "headers": {"x": "a\r\nb"}}), "headers.x"),
        (json!({"target_url": "https://example.com/", "secret": "short"}), "secret"),
        (json!({"target_url": "https://example.com/", "colour": 1}), "colour"),
        (json!({}), "target_url"),
    ] {
        let problem = host.post(&url, given.clone()).await.problem(422);
        assert!(problem["errors"][field].is_array(), "{given}: {problem}");
    }
    host.call("POST", "/webhook/p", "", "x".repeat((1 << 20) + 1)).await.expect(200);
    let cut = text(&host.logs("p").await[0]["id"]);
    let url = format!("/api/paths/p/logs/{cut}/replay");
    let whole = json!({"target_url": "https://example.com/"});
    assert!(host.post(&url, whole).await.problem(422)["errors"]["body"].is_array());
    host.post(&url, json!({"target_url": "https://example.com/", "body": "x"})).await.expect(202);
}
