//! Streams, and waiting.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use webhook_axum::Api;

use crate::host::{ACME, Host, request, text};

/// A stream of events, as a browser reads it.
struct Events {
    body: Body,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Events {
    async fn open(host: &Host, path: &str, last: Option<&str>) -> Self {
        let mut call = request("GET", &format!("/api/paths/{path}/stream"), ACME);
        if let Some(last) = last {
            call = call.header("last-event-id", last);
        }
        let response = host.router.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event; none at the stream's end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
                    assert!(lines.len() <= 1, "{event}");
                    lines.first().map(|line| (*line).to_owned())
                };
                let event = field("event").map(|name| Event {
                    id: field("id").unwrap_or_default(),
                    name,
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.unwrap();
            let data = frame?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    async fn body(&mut self) -> Value {
        let event = self.next().await.unwrap();
        assert_eq!((&*event.name, event.id), ("request", text(&event.data["id"])));
        event.data["body"].clone()
    }
}

async fn send(host: &Host, path: &str, body: &str) -> String {
    let receipt = host.call("POST", &format!("/webhook/{path}"), "", body.to_owned()).await.expect(200);
    text(&receipt["request_id"])
}

#[tokio::test]
async fn a_stream_shows_what_comes_and_goes_on_where_it_was_left() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let first = send(&host, &path, "before").await;
    let mut events = Events::open(&host, &path, None).await;
    send(&host, &path, "a\n\ndata: {}\r\nid: x").await;
    send(&host, &path, "two").await;
    assert_eq!(events.body().await, "a\n\ndata: {}\r\nid: x", "whatever is captured is one line of JSON");
    assert_eq!(events.body().await, "two");
    drop(events);
    send(&host, &path, "three").await;
    let mut again = Events::open(&host, &path, Some(&first)).await;
    for body in ["a\n\ndata: {}\r\nid: x", "two", "three"] {
        assert_eq!(again.body().await, body);
    }
    let logs = host.logs(&path).await;
    send(&host, &path, "four").await;
    let mut last = Events::open(&host, &path, Some(&text(&logs[0]["id"]))).await;
    assert_eq!(last.body().await, "four");
}

#[tokio::test]
async fn history_that_is_gone_is_told() {
    let host = Host::new();
    let path = host.path(json!({"max_requests": 2})).await;
    let first = send(&host, &path, "1").await;
    let mut events = Events::open(&host, &path, Some(&first)).await;
    for body in ["2", "3", "4", "5"] {
        send(&host, &path, body).await;
    }
    let gap = Event { id: String::new(), name: "gap".to_owned(), data: json!({}) };
    assert_eq!(events.next().await, Some(Event { ..gap }), "2 and 3 were never seen here");
    assert_eq!(events.body().await, "4");
    assert_eq!(events.body().await, "5");
    let mut again = Events::open(&host, &path, Some(&first)).await;
    assert_eq!(again.next().await.unwrap().name, "gap");
    assert_eq!(again.body().await, "4");
    let future = "ffffffff-ffff-7fff-bfff-ffffffffffff";
    let mut lost = Events::open(&host, &path, Some(future)).await;
    assert_eq!(lost.next().await.unwrap().name, "gap");
    send(&host, &path, "6").await;
    assert_eq!(lost.body().await, "6");
    let call = request("GET", &format!("/api/paths/{path}/stream"), ACME).header("last-event-id", "x");
    assert!(host.send(call.body(Body::empty()).unwrap()).await.problem(422)["errors"]["Last-Event-ID"].is_array());
}

#[tokio::test]
async fn streams_end_with_their_path_and_with_the_server() {
    let host = Host::new();
    let api = Api::new(host.webhooks.clone());
    let readiness = api.readiness();
    let host = Host { router: api.authenticator(std::sync::Arc::new(crate::host::keys())).router(), ..host };
    let (path, other) = (host.path(json!({})).await, host.path(json!({})).await);
    let mut events = Events::open(&host, &path, None).await;
    let mut others = Events::open(&host, &other, None).await;
    host.call("DELETE", &format!("/api/paths/{path}"), ACME, "").await;
    assert_eq!(events.next().await, None);
    let wait = format!("/api/paths/{other}/wait");
    let waiting = host.call("GET", &wait, ACME, "");
    let stop = async { readiness.stop() };
    let (waiting, ()) = tokio::join!(waiting, stop);
    waiting.problem(503);
    assert_eq!(others.next().await, None);
}

#[tokio::test]
async fn followers_have_a_limit() {
    let host = Host::new();
    let mut options = webhook_axum::ApiOptions::default();
    options.max_followers = 1;
    let api = Api::new(host.webhooks.clone()).options(options).authenticator(std::sync::Arc::new(crate::host::keys()));
    let host = Host { router: api.router(), ..host };
    let path = host.path(json!({})).await;
    let events = Events::open(&host, &path, None).await;
    host.get(&format!("/api/paths/{path}/wait?timeout_seconds=0")).await.problem(503);
    drop(events);
    assert_eq!(host.get(&format!("/api/paths/{path}/wait?timeout_seconds=0")).await.status, 204);
}

#[tokio::test]
async fn waiting_gives_the_next_request_that_matches() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    send(&host, &path, "wanted, but before").await;
    let wait = format!("/api/paths/{path}/wait?method=post&q=WANTED&timeout_seconds=10");
    let waiting = host.get(&wait);
    let sending = async {
        send(&host, &path, "something else").await;
        host.call("PUT", &format!("/webhook/{path}"), "", "wanted by another method").await.expect(200);
        send(&host, &path, "this is wanted").await
    };
    let (found, id) = tokio::join!(waiting, sending);
    let found = found.expect(200);
    assert_eq!((&found["id"], &found["body"]), (&json!(id), &json!("this is wanted")));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_after_its_time() {
    let host = Host::new();
    let path = host.path(json!({})).await;
    let began = tokio::time::Instant::now();
    let answer = host.get(&format!("/api/paths/{path}/wait?timeout_seconds=60")).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert!((60..62).contains(&began.elapsed().as_secs()));
    for bad in ["61", "-1", "x", "NaN"] {
        host.get(&format!("/api/paths/{path}/wait?timeout_seconds={bad}")).await.problem(422);
    }
}
