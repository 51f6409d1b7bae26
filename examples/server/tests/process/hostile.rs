//! Hostile requests over raw sockets: each gets the refusal that it deserves, none a 5xx, and the server lives on.

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::client::{Answer, read_answer};
use crate::support::server::Server;

/// Who refuses.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The API, with a problem document.
    Api,
    /// The HTTP parser, which has no request to answer as the API would, or the connection just ends.
    Parser,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    statuses: Vec<u16>,
    by: By,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--log-level=info"]).await;
    let mut wrong = Vec::new();
    for case in cases() {
        let outcome = attack(&server, &case.bytes).await;
        let problem = outcome.as_ref().is_some_and(|answer| {
            answer.headers.get("content-type").is_some_and(|value| value == "application/problem+json")
                && answer.json()["status"] == answer.status
                && answer.json()["code"].is_string()
                && answer.headers.contains_key("x-request-id")
        });
        let right = match (&outcome, case.by) {
            (Some(answer), By::Api) => case.statuses.contains(&answer.status) && (problem || answer.status < 400),
            (Some(answer), By::Parser) => case.statuses.contains(&answer.status),
            (None, By::Parser) => true,
            (None, By::Api) => false,
        };
        if !right {
            let got = outcome.map(|answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned()));
            wrong.push(format!("{}: {:?} expected, not {got:?}", case.name, case.statuses));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.client().get("/health/ready").await.unwrap().status, 200);
    let lines = server.lines().clone();
    server.stop().await;
    for line in lines.json() {
        assert!(line["level"] != "ERROR" && line["status"].as_u64().is_none_or(|status| status < 500), "{line}");
    }
}

/// The answer to these bytes, if there is one.
async fn attack(server: &Server, bytes: &[u8]) -> Option<Answer> {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).await.unwrap());
    // The server may have answered and closed before it has read all.
    let _ = stream.write_all(bytes).await;
    let answer = timeout(PATIENCE, read_answer(&mut stream)).await.expect("the server keeps silent");
    if answer.is_err() {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    }
    answer.ok()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, by, statuses: &[u16], bytes: Vec<u8>| {
        cases.push(Case { name: name.to_owned(), bytes, statuses: statuses.to_vec(), by });
    };
    for (name, status, body) in bodies() {
        add(&format!("event: {name}"), By::Api, &[status], post("/events", "", &body));
    }
    for (name, status, body) in [
        ("no array", 422, "{}".to_owned()),
        ("no items", 422, "[]".to_owned()),
        ("too many items", 422, format!("[{}]", vec!["1"; 1001].join(","))),
        ("not JSON", 400, "[{]".to_owned()),
    ] {
        add(&format!("batch: {name}"), By::Api, &[status], post("/events/batch", "", body.as_bytes()));
    }
    for url in target_urls() {
        let body = serde_json::json!({"target_url": url}).to_string();
        let name = url.chars().take(60).collect::<String>();
        add(&format!("target {name:?}"), By::Api, &[422], post("/subscriptions", "", body.as_bytes()));
    }
    for (name, fields) in [
        ("header with a line break", r#""headers": {"x-a": "b\r\nc: d"}"#),
        ("header of the framing", r#""headers": {"content-length": "1"}"#),
        ("header of the signature", r#""headers": {"webhook-signature": "v1,x"}"#),
        ("header without a name", r#""headers": {"": "b"}"#),
        ("timeout of an hour", r#""timeout_seconds": 3600"#),
        ("negative timeout", r#""timeout_seconds": -1"#),
        ("empty pattern", r#""events": [""]"#),
        ("unknown scheme", r#""signature": {"scheme": "none"}"#),
        ("short secret", r#""secret": "whsec_AAAA""#),
        ("endless schedule", r#""retry": {"schedule": [1e300]}"#),
        ("field of a later version", r#""transform": "x""#),
        ("rate of nothing", r#""rate_limit": {"per_second": 0}"#),
    ] {
        let body = format!(r#"{{"target_url": "https://example.com/", {fields}}}"#);
        add(&format!("subscription: {name}"), By::Api, &[422], post("/subscriptions", "", body.as_bytes()));
    }
    for (status, target) in targets() {
        add(&format!("GET {target}"), By::Api, &[status], get(target, ""));
    }
    let good = br#"{"event_type": "a.b", "payload": 1}"#;
    for (name, statuses, header) in [
        ("an idempotency key that is too long", &[400, 422][..], format!("idempotency-key: {}\r\n", "k".repeat(256))),
        ("an idempotency key that is empty", &[400, 422], "idempotency-key:\r\n".to_owned()),
        ("an idempotency key beyond ASCII", &[400, 422], "idempotency-key: \u{e9}\r\n".to_owned()),
        ("two idempotency keys", &[400, 422], "idempotency-key: a\r\nidempotency-key: b\r\n".to_owned()),
        ("a request id that is no id", &[202], "x-request-id: \"<script>\u{e9}\"\r\n".to_owned()),
    ] {
        add(name, By::Api, statuses, post("/events", &header, good));
    }
    add("text", By::Api, &[415], request("POST", "/events", "content-type: text/plain\r\n", good));
    add("no content type", By::Api, &[415], request("POST", "/events", "", good));
    add(
        "no length",
        By::Api,
        &[400],
        b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\r\n".to_vec(),
    );
    for (method, target) in [("DELETE", "/events"), ("PUT", "/events/batch"), ("HACK", "/events"), ("TRACE", "/stats")]
    {
        add(&format!("{method} {target}"), By::Api, &[405], request(method, target, "", b""));
    }
    let endless = format!("content-type: application/json\r\ncontent-length: {}\r\n", 1_u64 << 40);
    add("a body of a terabyte", By::Api, &[413], head("POST", "/events", &endless));
    let big = format!(r#"{{"event_type": "a.b", "payload": "{}"}}"#, "x".repeat(2 << 20));
    add("a payload of 2 MiB", By::Api, &[413], post("/events", "", big.as_bytes()));
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    add(
        "a broken chunk",
        By::Api,
        &[400],
        [head("POST", "/events", chunked), b"zz\r\n{}\r\n0\r\n\r\n".to_vec()].concat(),
    );

    add("a long target", By::Parser, &[400, 414], get(&format!("/{}", "a".repeat(100_000)), ""));
    add("a long header", By::Parser, &[400, 431], get("/health", &format!("x-a: {}\r\n", "a".repeat(600_000))));
    add("many headers", By::Parser, &[400, 431], get("/health", &"x-a: b\r\n".repeat(500)));
    add("a NUL in a header", By::Parser, &[400], get("/health", "x-a: \0\r\n"));
    add("two lengths", By::Parser, &[400], post("/events", "content-length: 1\r\n", good));
    add("a length that is none", By::Parser, &[400], head("POST", "/events", "content-length: -1\r\n"));
    add("a space before the colon", By::Parser, &[400], get("/health", "x-a : b\r\n"));
    add("HTTP/9.9", By::Parser, &[400], b"GET / HTTP/9.9\r\n\r\n".to_vec());
    add("TLS", By::Parser, &[400], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec());
    add("noise", By::Parser, &[400], (0..=255).rev().cycle().take(4096).collect());
    cases
}

/// Bodies of events, each with the status it deserves.
fn bodies() -> Vec<(&'static str, u16, Vec<u8>)> {
    let event = |event_type: &str, payload: &str| {
        format!(r#"{{"event_type": "{event_type}", "payload": {payload}}}"#).into_bytes()
    };
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        ("empty", 400, vec![]),
        ("cut", 400, br#"{"event_type": "a.b", "payl"#.to_vec()),
        ("two documents", 400, br#"{"event_type": "a.b", "payload": 1} {}"#.to_vec()),
        ("not UTF-8", 400, b"{\"event_type\": \"a.b\", \"payload\": \"\xff\xfe\"}".to_vec()),
        ("nothing but brackets", 422, "[".repeat(100_000).into_bytes()),
        ("a deep payload", 400, event("a.b", &nested(200))),
        ("a very deep payload", 400, event("a.b", &nested(100_000))),
        ("half a surrogate as type", 400, event(r"\ud800", "1")),
        ("a NUL as it is", 400, event("a\0b", "1")),
        ("null", 422, b"null".to_vec()),
        ("an array", 422, b"[]".to_vec()),
        ("an array in the place of an object", 422, br#"["a.b", 1, null, null]"#.to_vec()),
        ("no type", 422, br#"{"payload": 1}"#.to_vec()),
        ("no payload", 422, br#"{"event_type": "a.b"}"#.to_vec()),
        ("a type that is a number", 422, br#"{"event_type": 7, "payload": 1}"#.to_vec()),
        ("a type with an escaped NUL", 422, event(r"a\u0000b", "1")),
        ("a type with a line break", 422, event(r"a\r\nb: c", "1")),
        ("an empty type", 422, event("", "1")),
        ("a long type", 422, event(&"a".repeat(10_000), "1")),
        ("a field too many", 422, br#"{"event_type": "a.b", "payload": 1, "admin": true}"#.to_vec()),
        ("a field twice", 422, br#"{"event_type": "a.b", "event_type": "c.d", "payload": 1}"#.to_vec()),
        ("an id with a dot", 422, br#"{"event_type": "a.b", "payload": 1, "id": "a.b"}"#.to_vec()),
        ("an id with a NUL", 422, br#"{"event_type": "a.b", "payload": 1, "id": "a\u0000"}"#.to_vec()),
        ("an empty id", 422, br#"{"event_type": "a.b", "payload": 1, "id": ""}"#.to_vec()),
        ("metadata with a NUL", 422, br#"{"event_type": "a.b", "payload": 1, "metadata": {"a": "\u0000"}}"#.to_vec()),
        ("metadata that is no object", 422, br#"{"event_type": "a.b", "payload": 1, "metadata": []}"#.to_vec()),
        ("a number beyond all bounds, which is JSON", 202, event("a.b", "1e999999")),
        ("half a surrogate in a payload, which is JSON", 202, event("a.b", r#""\ud800""#)),
    ]
}

fn target_urls() -> Vec<String> {
    let long = format!("https://example.com/{}", "a".repeat(20_000));
    [
        "",
        "/",
        "hooks",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https://exa mple.com/",
        "https://example.com:99999/",
        "http://1.1.1.1/",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://2852039166/",
        "https://0xa9.0xfe.0xa9.0xfe/",
        "https://0/",
        "https://10.0.0.1/",
        "https://[fc00::1]/",
        "https://[::]/",
        "https://user:password@example.com/",
        "https://example.com/\u{0}",
        &long,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What is asked for, each with the status it deserves.
fn targets() -> Vec<(u16, &'static str)> {
    vec![
        (400, "/events/7"),
        (400, "/events/%00"),
        (400, "/deliveries/..%2f..%2fetc"),
        (400, "/subscriptions/%ff%fe"),
        (404, "/events/0198c0de-0000-7000-8000-000000000000"),
        (404, "/events/00000000-0000-0000-0000-000000000000/status"),
        (404, "/deliveries/ffffffff-ffff-ffff-ffff-ffffffffffff"),
        (404, "/nowhere"),
        (404, "//events"),
        (404, "/events/../../etc/passwd"),
        (404, "/docs/..%2f..%2fetc%2fpasswd"),
        (422, "/events?limit=0"),
        (422, "/events?limit=1001"),
        (422, "/events?limit=99999999999999999999"),
        (422, "/events?limit=ten"),
        (422, "/events?limit=1&limit=2"),
        (422, "/events?cursor=%00"),
        (422, "/events?cursor=AAAA"),
        (422, "/events?cursor=..%2f"),
        (422, "/events?since=yesterday"),
        (422, "/events?since=99999-01-01T00:00:00Z"),
        (422, "/deliveries?state=gone"),
        (422, "/deliveries?subscription_id=7"),
        (422, "/activity?limit=101"),
    ]
}

fn post(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    request("POST", target, &format!("content-type: application/json\r\n{headers}"), body)
}

fn get(target: &str, headers: &str) -> Vec<u8> {
    head("GET", target, headers)
}

fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [head(method, target, &format!("content-length: {}\r\n{headers}", body.len())), body.to_vec()].concat()
}

fn head(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n").into_bytes()
}
