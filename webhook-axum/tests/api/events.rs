//! Events, alone and in batches.

use axum::body::Body;
use serde_json::{Value, json};
use webhook_core::Options;

use crate::host::{ACME, Host, request, text};

#[tokio::test]
async fn payload_bytes_are_what_was_sent() {
    let host = Host::new();
    host.subscription().await;
    let large = format!("[{}]", "1 , ".repeat(5000) + "2");
    for payload in [
        "null",
        "1.0",
        "1e400",
        r#"  {"b" : 1,"a":1.50, "b":"\u00e9\/é" }"#.trim(),
        r#""\ud800""#,
        "{\n\t\"x\": [ ]\n}",
        &large,
    ] {
        let body = format!(r#"{{ "payload" : {payload} , "event_type":"a.b" }}"#);
        let accepted = host.call("POST", "/events", ACME, body).await.expect(202);
        assert_eq!((&accepted["deliveries"], &accepted["duplicate"]), (&json!(1), &json!(false)));
        let tenant = "acme".parse().unwrap();
        let (event, _) = host.webhooks.event(&tenant, text(&accepted["id"]).parse().unwrap()).await.unwrap();
        assert_eq!(event.payload, payload.as_bytes());
        assert_eq!(event.content_type, "application/json");
        let read = host.get(&format!("/events/{}", text(&accepted["id"]))).await;
        assert!(String::from_utf8_lossy(&read.body).contains(&format!("\"payload\":{payload}")), "{payload}");
    }
}

#[tokio::test]
async fn a_key_of_the_caller_makes_an_event_once() {
    let host = Host::new();
    host.subscription().await;
    let event = |n: u32| json!({"event_type": "a", "payload": n, "id": "order 1/ü"});
    let first = host.post("/events", event(1)).await.expect(202);
    let again = host.post("/events", event(1)).await.expect(202);
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    assert_eq!(host.post("/events", event(2)).await.problem(409)["code"], "idempotency_key_reused");
    let keyed = |n: u32| {
        let call = request("POST", "/events", ACME).header("idempotency-key", "k");
        host.send(call.body(json!({"event_type": "a", "payload": n}).to_string().into()).unwrap())
    };
    let first = keyed(1).await.expect(202);
    assert_eq!(keyed(1).await.expect(202)["id"], first["id"]);
    keyed(2).await.problem(409);
    assert_eq!(host.get("/events?offset=0").await.expect(200)["pagination"]["total"], 2);
}

#[tokio::test]
async fn a_batch_answers_for_each_of_its_events() {
    let host = Host::with_options({
        let mut options = Options::default();
        options.max_payload = 100;
        options
    });
    let batch = json!([
        {"event_type": "a", "payload": 1},
        {"event_type": "a b", "payload": 1},
        {"event_type": "a", "payload": "x".repeat(101)},
        {"event_type": "a"},
        7,
        {"event_type": "a", "payload": 2, "metadata": {"k": "v"}, "id": "mine"},
    ]);
    for key in ["", "key"] {
        let call = request("POST", "/events/batch", ACME);
        let call = if key.is_empty() { call } else { call.header("idempotency-key", key) };
        let answer = host.send(call.body(batch.to_string().into()).unwrap()).await.expect(202);
        let statuses: Vec<_> = answer["data"].as_array().unwrap().iter().map(|item| item["status"].clone()).collect();
        assert_eq!(statuses, [202, 422, 413, 422, 422, 202], "{answer}");
        assert_eq!(answer["data"][0]["event_type"], "a");
        assert!(answer["data"][1]["problem"]["errors"]["event_type"].is_array());
        assert!(answer["data"][3]["problem"]["errors"]["payload"].is_array());
        assert_eq!(answer["data"][5]["duplicate"], key == "key", "{answer}");
    }
    let event = json!({"event_type": "a", "payload": 1});
    for (count, status) in [(0, 422), (1, 202), (1000, 202), (1001, 422)] {
        let answer = host.post("/events/batch", Value::Array(vec![event.clone(); count])).await;
        assert_eq!(answer.status.as_u16(), status, "{count}");
    }
    host.post("/events/batch", event).await.problem(422);
}

#[tokio::test]
async fn limits_of_size_hold() {
    let host = Host::new();
    let event = |size: usize| format!(r#"{{"event_type":"a","payload":"{}"}}"#, "x".repeat(size - 2));
    host.call("POST", "/events", ACME, event(1 << 20)).await.expect(202);
    assert_eq!(host.call("POST", "/events", ACME, event((1 << 20) + 1)).await.problem(413)["code"], "too_large");
    host.call("POST", "/events", ACME, event(2 << 20)).await.problem(413);
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b'x'; 65_536])));
    host.call("POST", "/events", ACME, Body::from_stream(endless)).await.problem(413);
    host.call("POST", "/events/batch", ACME, " ".repeat((8 << 20) + 1)).await.problem(413);
    let deep = |depth: usize| format!(r#"{{"event_type":"a","payload":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    host.call("POST", "/events", ACME, deep(128)).await.expect(202);
    assert_eq!(host.call("POST", "/events", ACME, deep(129)).await.problem(400)["code"], "malformed_json");
}

#[tokio::test]
async fn events_are_listed_by_type_and_time() {
    let host = Host::new();
    for event_type in ["a", "b", "a"] {
        host.post("/events", json!({"event_type": event_type, "payload": 1, "metadata": {"n": 1}})).await.expect(202);
    }
    let list = host.get("/events?event_type=a&limit=1").await.expect(200);
    assert_eq!((&list["pagination"]["has_more"], &list["data"][0]["metadata"]), (&json!(true), &json!({"n": 1})));
    let count =
        async |query: &str| host.get(&format!("/events?{query}")).await.expect(200)["data"].as_array().unwrap().len();
    assert_eq!(count("event_type=a").await, 2);
    assert_eq!(count("since=2020-01-01").await, 3);
    assert_eq!(count("until=2020-01-01T00:00:00").await, 0);
    for typed in ["2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00%2B00:00", "2020-01-01T05:30:00.250+05:30"] {
        assert_eq!((count(&format!("since={typed}")).await, count(&format!("until={typed}")).await), (3, 0), "{typed}");
    }
    host.get("/events?since=2020-01-01T00:00:00+x").await.problem(422);
    assert_eq!(count("event_type=&unknown=1").await, 3);
}

#[tokio::test]
async fn an_event_without_subscribers_says_so() {
    let host = Host::new();
    let event = host.event().await;
    let status = host.get(&format!("/events/{event}/status")).await.expect(200);
    assert_eq!((&status["status"], &status["deliveries"]), (&json!("no_subscribers"), &json!([])));
    host.subscription().await;
    let event = host.event().await;
    let status = host.get(&format!("/events/{event}/status")).await.expect(200);
    assert_eq!((&status["status"], &status["event"]["id"]), (&json!("pending"), &json!(event)));
    assert_eq!(status["deliveries"][0]["state"], "pending");
}
