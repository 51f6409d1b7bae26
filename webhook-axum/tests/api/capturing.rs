//! Requests that reach a capture path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;
use webhook_axum::{Api, ApiOptions};
use webhook_core::Options;

use crate::host::{Host, text};

const SANDBOX: &str = "sandbox; default-src 'none'";

fn incoming(method: &str, uri: &str) -> http::request::Builder {
    Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(uri)
}

#[tokio::test]
async fn any_method_path_and_query_is_kept_as_it_was_sent() {
    let host = Host::new();
    let path = host.path(json!({"path_id": "p"})).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "M-SEARCH", "made.up!"] {
        for (below, query) in [
            ("", None),
            ("/", None),
            ("/a/b", Some("")),
            ("//x//", Some("a=1&a=2&b")),
            ("/%2e%2E/%00%zz;v=1", Some("q=%zz&%41=%42+c?d=/")),
        ] {
            let uri = format!("/webhook/p{below}{}", query.map(|query| format!("?{query}")).unwrap_or_default());
            let answer = host.send(incoming(method, &uri).body("x".into()).unwrap()).await;
            assert_eq!(answer.headers["content-security-policy"], SANDBOX);
            assert_eq!(answer.headers["x-content-type-options"], "nosniff");
            let receipt = answer.expect(200);
            let log = &host.logs(&path).await[0];
            assert_eq!((&receipt["request_id"], &receipt["timestamp"]), (&log["id"], &log["timestamp"]));
            assert_eq!((&receipt["method"], &log["method"]), (&json!(method), &json!(method)));
            assert_eq!(log["path"], format!("/webhook/p{below}"));
            assert_eq!(log["query_string"], json!(query));
            assert_eq!(
                (&log["body"], &log["path_id"], &log["response_status"]),
                (&json!("x"), &json!("p"), &json!(200))
            );
        }
    }
    let logs = host.logs(&path).await;
    assert_eq!(logs[1]["query_params"], json!({"a": ["1", "2"], "b": [""]}));
    let head = host.send(incoming("HEAD", "/webhook/p").body(Body::empty()).unwrap()).await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(host.logs(&path).await[0]["method"], "HEAD");
}

#[tokio::test]
async fn a_method_of_any_name_but_not_of_any_length_is_kept() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let uri = format!("/webhook/{path}");
    let send = |length| host.send(incoming(&"M".repeat(length), &uri).body(Body::empty()).unwrap());
    send(255).await.expect(200);
    assert!(send(256).await.problem(422)["errors"]["method"].is_array());
    let stats = host.get(&format!("/api/paths/{path}/stats")).await.expect(200);
    assert_eq!(stats["method_counts"], json!({"M".repeat(255): 1}));
}

#[tokio::test]
async fn headers_and_bodies_are_kept_to_the_byte() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let uri = format!("/webhook/{path}");
    let call = incoming("POST", &uri)
        .header("x-dup", "one")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("x-dup", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap())
        .header("user-agent", "agent/1")
        .header("content-encoding", "gzip")
        .header("x-dup", "");
    let body: Vec<u8> = (0..=255).collect();
    host.send(call.body(body.clone().into()).unwrap()).await.expect(200);
    let log = &host.logs(&path).await[0];
    let dups: Vec<_> = log["headers"].as_array().unwrap().iter().filter(|field| field[0] == "x-dup").collect();
    assert_eq!(json!(dups), json!([["x-dup", "one"], ["x-dup", {"base64": "//4="}], ["x-dup", ""]]));
    assert_eq!((&log["body_encoding"], &log["body_size"]), (&json!("base64"), &json!(256)));
    assert_eq!(log["body_sha256"], "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880");
    assert_eq!((&log["user_agent"], &log["http_version"]), (&json!("agent/1"), &json!("HTTP/1.1")));
    assert_eq!((&log["body_truncated"], log.get("body_cut"), log.get("trailers")), (&json!(false), None, None));
    let download = host.get(&format!("/api/paths/{path}/logs/{}/body", text(&log["id"]))).await;
    assert_eq!(download.body, body);
}

#[tokio::test]
async fn http_2_has_a_host_too() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let call =
        incoming("POST", &format!("http://hooks.example:8080/webhook/{path}/x?y")).version(http::Version::HTTP_2);
    host.send(call.body(Body::empty()).unwrap()).await.expect(200);
    let log = &host.logs(&path).await[0];
    assert_eq!((&log["http_version"], &log["headers"]), (&json!("HTTP/2.0"), &json!([["host", "hooks.example:8080"]])));
    assert_eq!((&log["path"], &log["query_string"]), (&json!(format!("/webhook/{path}/x")), &json!("y")));
}

fn frames(parts: Vec<Result<Frame<Bytes>, std::io::Error>>) -> Body {
    Body::new(StreamBody::new(futures_util::stream::iter(parts)))
}

#[tokio::test]
async fn trailers_are_kept() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let mut trailers = HeaderMap::new();
    trailers.append("x-sum", "1".parse().unwrap());
    trailers.append("x-sum", "2".parse().unwrap());
    let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    let body = frames(vec![data("a"), data(""), data("bc"), Ok(Frame::trailers(trailers))]);
    host.send(incoming("POST", &format!("/webhook/{path}")).body(body).unwrap()).await.expect(200);
    let log = &host.logs(&path).await[0];
    assert_eq!((&log["body"], &log["trailers"]), (&json!("abc"), &json!([["x-sum", "1"], ["x-sum", "2"]])));
}

#[tokio::test]
async fn of_a_large_body_the_beginning_is_kept_and_the_rest_counted() {
    let mut options = Options::default();
    (options.capture_prefix, options.capture_max_body) = (8, 32);
    let host = Host::with_options(options);
    let path = host.path(json!({})).await;
    let send = async |body: &str| host.call("POST", &format!("/webhook/{path}"), "", body.to_owned()).await;
    for (length, kept, size, status, truncated) in
        [(8, 8, 8, 200, false), (9, 8, 9, 200, true), (32, 8, 32, 200, true), (33, 8, 33, 413, true)]
    {
        let body = "0123456789".repeat(4)[..length].to_owned();
        let answer = send(&body).await;
        assert_eq!(answer.headers["content-security-policy"], SANDBOX);
        assert_eq!(answer.status.as_u16(), status, "{length}");
        let log = &host.logs(&path).await[0];
        assert_eq!((&log["body"], &log["body_size"]), (&json!(body[..kept]), &json!(size)));
        assert_eq!((&log["body_truncated"], &log["response_status"]), (&json!(truncated), &json!(status)));
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&body);
        assert_eq!(log["body_sha256"], hex::encode(hash));
    }
    assert_eq!(send(&"x".repeat(40)).await.problem(413)["code"], "too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_kept_as_far_as_it_came_and_refused() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let broken = Err(std::io::ErrorKind::ConnectionReset.into());
    let body = frames(vec![Ok(Frame::data(Bytes::from_static(b"half"))), broken]);
    let answer = host.send(incoming("POST", &format!("/webhook/{path}")).body(body).unwrap()).await;
    assert_eq!(answer.problem(400)["code"], "incomplete_body");
    let log = &host.logs(&path).await[0];
    assert_eq!((&log["body"], &log["body_truncated"]), (&json!("half"), &json!(true)));
    assert_eq!(log["response_status"], 400);
}

#[tokio::test]
async fn a_path_answers_as_it_was_told() {
    let host = Host::new();
    let html = "<script>alert(1)</script>";
    host.path(json!({"path_id": "p", "response": {
        "status": 503, "body": html,
        "headers": {"Content-Type": "text/html", "Retry-After": "7", "Access-Control-Allow-Origin": "*"},
    }}))
    .await;
    for method in ["POST", "OPTIONS"] {
        let answer = host.call(method, "/webhook/p", "", "").await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (503, html.as_bytes()));
        assert_eq!(answer.headers["content-type"], "text/html");
        assert_eq!(answer.headers["retry-after"], "7");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["content-security-policy"], SANDBOX);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(host.logs("p").await[0]["response_status"], 503);
    let plain = json!({"response": {"body": "<b>", "headers": {}, "status": 299}});
    host.call("PATCH", "/api/paths/p", crate::host::ACME, plain.to_string()).await.expect(200);
    let answer = host.call("GET", "/webhook/p", "", "").await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (299, &b"<b>"[..]), "a change counts at once");
    host.call("PATCH", "/api/paths/p", crate::host::ACME, r#"{"response":{"headers":null}}"#).await.expect(200);
    assert_eq!(host.call("GET", "/webhook/p", "", "").await.headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_answer_is_stored_before() {
    let host = Host::new();
    let path = host.path(json!({"response": {"delay_ms": 30_000}})).await;
    let began = tokio::time::Instant::now();
    let uri = format!("/webhook/{path}");
    let call = host.call("POST", &uri, "", "x");
    let stored = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        host.logs(&path).await.len()
    };
    let (answer, stored) = tokio::join!(call, stored);
    assert_eq!((answer.status.as_u16(), stored), (200, 1));
    assert!(began.elapsed() >= Duration::from_secs(30));
}

#[tokio::test]
async fn another_spelling_of_a_name_is_another_path() {
    let host = Host::new();
    host.path(json!({"path_id": "abc"})).await;
    for uri in
        ["/webhook/%61bc", "/webhook/ABC", "/webhook/abc.", "/webhook/a%2Fbc", "/webhook/..%2fabc", "/webhook/abc%00"]
    {
        let answer = host.call("POST", uri, "", "x").await;
        assert_eq!(answer.headers["content-security-policy"], SANDBOX, "{uri}");
        answer.problem(404);
    }
    assert_eq!(host.logs("abc").await.len(), 0);
}

#[tokio::test]
async fn under_a_hosts_prefix_the_whole_path_is_kept() {
    let host = Host::new();
    let path = host.path(json!({"path_id": "p"})).await;
    let nested = Router::new().nest("/hooks/webhook", host.router.clone());
    let host = Host { router: nested, ..host };
    host.call("POST", "/hooks/webhook/webhook/p/x/?y", "", "").await.expect(200);
    let logs = host.call("GET", "/hooks/webhook/api/paths/p/logs", crate::host::ACME, "").await.expect(200);
    assert_eq!(logs["data"][0]["path"], "/hooks/webhook/webhook/p/x/", "{path}");
}

#[tokio::test]
async fn addresses_are_believed_from_trusted_proxies_alone() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let api = Api::new(host.webhooks.clone()).options(ApiOptions::default().with_trusted_proxies(trusted));
    let host = Host { router: api.authenticator(std::sync::Arc::new(crate::host::keys())).router(), ..host };
    let send = async |peer: &str| {
        let mut call =
            incoming("POST", &format!("/webhook/{path}")).header("x-forwarded-for", "203.0.113.9, 192.0.2.1");
        let peer: SocketAddr = peer.parse().unwrap();
        call.extensions_mut().unwrap().insert(ConnectInfo(peer));
        host.send(call.body(Body::empty()).unwrap()).await.expect(200);
        let log = host.logs(&path).await.swap_remove(0);
        (log["ip_address"].clone(), log.get("peer_address").cloned())
    };
    assert_eq!(send("198.51.100.1:9").await, (json!("198.51.100.1"), None));
    assert_eq!(send("10.0.0.1:9").await, (json!("192.0.2.1"), Some(json!("10.0.0.1"))));
}

#[tokio::test]
async fn a_path_that_forwards_makes_events_and_refuses_what_it_cannot_forward() {
    let host = Host::new();
    let subscription = text(&host.subscription().await["id"]);
    let path = host.path(json!({"forward_to": [subscription]})).await;
    let uri = format!("/webhook/{path}");
    let call = incoming("PUT", &uri).header("content-type", "text/x").header("x-event-type", "order.paid");
    host.send(call.body("\u{0}bytes".into()).unwrap()).await.expect(200);
    let deliveries = host.get(&format!("/deliveries?subscription_id={subscription}")).await.expect(200);
    let delivery = &deliveries["data"][0];
    assert_eq!((&delivery["event_type"], &delivery["state"]), (&json!("order.paid"), &json!("pending")));
    let event = host.get(&format!("/events/{}", text(&delivery["event_id"]))).await.expect(200);
    assert_eq!((&event["content_type"], &event["payload_base64"]), (&json!("text/x"), &json!("AGJ5dGVz")));
    let log = &host.logs(&path).await[0];
    assert_eq!((&event["metadata"]["captured_request"], &event["metadata"]["path_id"]), (&log["id"], &json!(path)));

    host.call("POST", &uri, "", "x".repeat((1 << 20) + 1)).await.problem(413);
    let log = &host.logs(&path).await[0];
    assert_eq!((&log["response_status"], &log["body_truncated"]), (&json!(413), &json!(true)));
    let deliveries = host.get("/deliveries").await.expect(200);
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 1, "what was refused is not forwarded");

    host.call("DELETE", &format!("/subscriptions/{subscription}"), crate::host::ACME, "").await;
    host.call("POST", &uri, "", "after").await.expect(200);
    assert_eq!(host.get("/events").await.expect(200)["data"].as_array().unwrap().len(), 1);
    let same = json!({"description": "still names it"});
    host.call("PATCH", &format!("/api/paths/{path}"), crate::host::ACME, same.to_string()).await.expect(200);
}

/// A host that keeps `prefix` bytes of a body, and holds `budget` bytes of bodies at once.
fn host_with_budget(prefix: usize, budget: usize) -> Host {
    let mut options = Options::default();
    options.capture_prefix = prefix;
    let host = Host::with_options(options);
    let mut options = ApiOptions::default();
    options.capture_budget = budget;
    let api = Api::new(host.webhooks.clone()).options(options);
    Host { router: api.authenticator(std::sync::Arc::new(crate::host::keys())).router(), ..host }
}

/// A body of these parts, each that much later than the one before.
fn timed(parts: impl IntoIterator<Item = (Duration, usize), IntoIter: Send + 'static>) -> Body {
    let parts = futures_util::stream::iter(parts);
    let parts = futures_util::StreamExt::then(parts, async |(pause, bytes)| {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; bytes])))
    });
    Body::new(StreamBody::new(Box::pin(parts)))
}

/// A body that begins with so many bytes and never ends.
fn stalled(bytes: usize) -> Body {
    timed([(Duration::ZERO, bytes), (Duration::from_secs(3600), 1)])
}

/// A request from that address.
fn from_address(peer: &str, uri: &str, body: Body) -> Request<Body> {
    let mut call = incoming("POST", uri);
    call.extensions_mut().unwrap().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 9)));
    call.body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn bodies_beyond_the_budget_wait_and_are_then_turned_away() {
    let host = host_with_budget(64 << 10, 64 << 10);
    let path = host.path(json!({})).await;
    let uri = format!("/webhook/{path}");
    let slow = timed([(Duration::ZERO, 30 << 10), (Duration::from_secs(4), 30 << 10), (Duration::from_secs(4), 1)]);
    let slow = host.send(incoming("POST", &uri).body(slow).unwrap());
    let others = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let turned_away = host.call("POST", &uri, "", "y".repeat(60 << 10)).await;
        assert_eq!(turned_away.headers["retry-after"], "1");
        turned_away.problem(503);
        host.call("POST", &uri, "", "small").await.expect(200);
        host.logs(&path).await.len()
    };
    let (slow, stored) = tokio::join!(slow, others);
    assert_eq!(stored, 1, "a small one needs no budget, and what was answered 503 is not there");
    slow.expect(200);
    host.call("POST", &uri, "", "y".repeat(60 << 10)).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn one_sender_and_one_path_hold_no_more_than_their_share() {
    let host = host_with_budget(1 << 20, 64 << 20);
    for name in ["p", "q"] {
        host.path(json!({"path_id": name})).await;
    }
    let began = tokio::time::Instant::now();
    // Each holds the most that there is to hold, and nothing more comes.
    let hold = |number: usize, peer: String| {
        let call = from_address(&peer, "/webhook/p", stalled((1 << 20) - 1));
        let router = host.router.clone();
        (number, tokio::spawn(tower::ServiceExt::oneshot(router, call)))
    };
    let one_sender = (0..64).map(|number| hold(number, "198.51.100.1".to_owned()));
    let one_network = (64..128).map(|number| hold(number, format!("2001:db8::{number:x}")));
    let holding: Vec<_> = one_sender.chain(one_network).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let large = || Body::from("y".repeat(1 << 20));
    for peer in ["203.0.113.1", "198.51.100.1"] {
        host.send(from_address(peer, "/webhook/q", large())).await.expect(200);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "another path waits for nobody: {:?}", began.elapsed());
    host.send(from_address("203.0.113.1", "/webhook/p", Body::from("small"))).await.expect(200);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for (_, answer) in holding {
        *statuses.entry(answer.await.unwrap().unwrap().status().as_u16()).or_default() += 1;
    }
    // Eight of each sender at once, two of whom have the whole path; who waited got the place of who was given up.
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [408, 503], "{statuses:?}");
    assert!(statuses[&408] >= 16, "{statuses:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    host.send(from_address("198.51.100.1", "/webhook/p", large())).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_or_drips_is_given_up_and_kept_so_far() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let uri = format!("/webhook/{path}");
    let drip = |first: usize, pause: u64, bytes: usize| {
        timed(
            std::iter::once((Duration::ZERO, first)).chain((0..400).map(move |_| (Duration::from_secs(pause), bytes))),
        )
    };
    for (name, body, seconds) in [
        ("small and stalled", stalled(10), 5),
        ("large and stalled", stalled(1 << 20), 5),
        ("large and dripping", drip(1 << 20, 4, 1), 5),
        ("large and slower than the rate", drip(20 << 10, 1, 4 << 10), 12),
    ] {
        let began = tokio::time::Instant::now();
        let answer = host.send(incoming("POST", &uri).body(body).unwrap()).await;
        assert_eq!(answer.problem(408)["code"], "body_timeout", "{name}");
        assert!(began.elapsed() <= Duration::from_secs(seconds), "{name}: {:?}", began.elapsed());
        let log = &host.logs(&path).await[0];
        assert_eq!((&log["response_status"], &log["body_truncated"]), (&json!(408), &json!(true)), "{name}");
    }
    // At the rate it may take as long as it takes.
    host.send(incoming("POST", &uri).body(drip(20 << 10, 1, 8 << 10)).unwrap()).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_large_bodies_waits_for_its_share_and_is_stored() {
    let host = host_with_budget(1 << 20, 8 << 20);
    let path = host.path(json!({})).await;
    let part = (Duration::from_millis(1), 256 << 10);
    let calls = (0..64).map(|_| host.send(from_address("198.51.100.1", &format!("/webhook/{path}"), timed([part; 4]))));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect(200);
    }
    let stats = host.get(&format!("/api/paths/{path}/stats")).await.expect(200);
    assert_eq!((&stats["total_requests"], &stats["bytes"]), (&json!(64), &json!(64 << 20)));
}
