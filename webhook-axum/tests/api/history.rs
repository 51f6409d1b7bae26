//! Deliveries, attempts and figures.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use webhook_core::Role;
use webhook_core::transport::{OutboundResponse, RecordingTransport};

use crate::host::{ACME, Host, text};

/// Runs a worker until the delivery has ended; its JSON.
async fn delivered(host: &Host, delivery: &str) -> Value {
    let shutdown = CancellationToken::new();
    let (webhooks, stop) = (host.webhooks.clone(), shutdown.clone());
    let worker = tokio::spawn(async move { webhooks.run(Role::Worker, stop).await });
    host.transport.wait_for(1).await;
    loop {
        let seen = host.get(&format!("/deliveries/{delivery}")).await.expect(200);
        if seen["state"] != "pending" {
            shutdown.cancel();
            worker.await.unwrap();
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_tells_its_attempts() {
    let host = Host::new();
    let (subscription, event, delivery) = host.delivery().await;
    let pending = host.get(&format!("/deliveries/{delivery}")).await.expect(200);
    assert_eq!(
        (&pending["state"], &pending["in_flight"], &pending["held"]),
        (&json!("pending"), &json!(false), &json!(false))
    );
    assert!(pending["next_attempt_at"].is_string());
    assert_eq!(
        (&pending["attempts"], &pending["max_attempts"], &pending["attempt_log"]),
        (&json!(0), &json!(12), &json!([]))
    );

    let done = delivered(&host, &delivery).await;
    assert_eq!(
        (&done["state"], &done["attempts"], &done["last_status_code"]),
        (&json!("delivered"), &json!(1), &json!(200))
    );
    assert!(done["next_attempt_at"].is_null() && done["completed_at"].is_string());
    let attempt = &done["attempt_log"][0];
    assert_eq!((&attempt["outcome"], &attempt["number"]), (&json!("success"), &json!(1)));
    assert_eq!((&attempt["event_id"], &attempt["subscription_id"]), (&json!(event), &json!(subscription)));
    assert_eq!((&attempt["response_body"], &attempt["response_body_encoding"]), (&json!(""), &json!("utf8")));
    assert_eq!(attempt["request_headers"]["webhook-id"], json!(event));
    assert!(!text(&attempt["request_headers"]["webhook-signature"]).contains("v1,"));

    let list = host.get(&format!("/subscriptions/{subscription}/attempts?limit=20")).await.expect(200);
    assert_eq!(&list["data"][0], attempt);
    let status = host.get(&format!("/events/{event}/status")).await.expect(200);
    assert_eq!(status["status"], "delivered");
    assert!(status["deliveries"][0]["attempt_log"].is_null());
    for path in ["/stats".to_owned(), format!("/subscriptions/{subscription}/stats?since=2020-01-01T00:00:00Z")] {
        let stats = host.get(&path).await.expect(200);
        assert_eq!(
            (&stats["attempts"]["success"], &stats["deliveries"]["delivered"]),
            (&json!(1), &json!(1)),
            "{stats}"
        );
        assert_eq!((&stats["events"], &stats["deliveries"]["pending"]), (&json!(1), &json!(0)), "{stats}");
    }
    let activity = host.get("/activity").await.expect(200);
    assert_eq!(activity["data"][0]["type"], "attempt.succeeded");
    assert_eq!(activity["data"].as_array().unwrap().len(), 3, "{activity}");
    let cancelled = host.post(&format!("/deliveries/{delivery}/cancel"), json!({})).await.problem(409);
    assert_eq!(cancelled["code"], "delivery_ended");
    let again = host.call("POST", &format!("/deliveries/{delivery}/retry"), ACME, "whatever").await.expect(202);
    assert_eq!(again["delivery_id"], json!(delivery));
}

#[tokio::test]
async fn deliveries_are_filtered_cancelled_and_recovered() {
    let host = Host::new();
    let (subscription, event, delivery) = host.delivery().await;
    host.event().await;
    let count = async |query: &str| {
        host.get(&format!("/deliveries?{query}")).await.expect(200)["data"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count(&format!("event_id={event}")).await, 1);
    assert_eq!(count(&format!("subscription_id={subscription}&state=pending")).await, 2);
    assert_eq!(count("state=delivered").await, 0);
    host.call("POST", &format!("/deliveries/{delivery}/cancel"), ACME, "").await.expect(202);
    assert_eq!(count("state=cancelled").await, 1);
    let of_subscription = format!("/subscriptions/{subscription}/deliveries?state=cancelled");
    assert_eq!(host.get(&of_subscription).await.expect(200)["data"][0]["reason"], "requested");

    host.call("PATCH", &format!("/subscriptions/{subscription}"), ACME, r#"{"enabled":false}"#).await.expect(200);
    assert_eq!(host.get("/deliveries?state=pending").await.expect(200)["data"][0]["held"], true);
    host.event().await;
    host.call("PATCH", &format!("/subscriptions/{subscription}"), ACME, r#"{"enabled":true}"#).await.expect(200);
    let path = format!("/subscriptions/{subscription}/recover");
    assert_eq!(host.post(&path, json!({"since": "2020-01-01T00:00:00Z"})).await.expect(202)["count"], 1);
    host.post(&path, json!({})).await.problem(422);
    host.post(&path, json!({"since": "yesterday"})).await.problem(422);
    host.post(&path, json!({"since": "2026-01-02", "until": "2026-01-01"})).await.problem(422);
}

#[tokio::test]
async fn a_test_is_a_real_delivery() {
    let host = Host::new();
    let subscription = text(&host.subscription().await["id"]);
    let path = format!("/subscriptions/{subscription}/test");
    for (body, event_type) in [
        ("", "webhook.test"),
        ("{}", "webhook.test"),
        (r#"{"event_type":"a.b","payload":[1.0]}"#, "a.b"),
        (r#"{"event_type":"of.null","payload":null}"#, "of.null"),
    ] {
        let accepted = host.call("POST", &path, ACME, body).await.expect(202);
        let delivery = host.get(&format!("/deliveries/{}", text(&accepted["delivery_id"]))).await.expect(200);
        assert_eq!((&delivery["event_type"], &delivery["subscription_id"]), (&json!(event_type), &json!(subscription)));
        let event = host.get(&format!("/events/{}", text(&delivery["event_id"]))).await.expect(200);
        match event_type {
            "a.b" => assert_eq!(event["payload"], json!([1.0])),
            "of.null" => assert_eq!(event.get("payload"), Some(&json!(null))),
            _ => assert_eq!(event["payload"]["type"], "webhook.test"),
        }
    }
    host.post(&path, json!({"event_type": "a b"})).await.problem(422);
    host.post(&path, json!({"typ": "a"})).await.problem(422);
}

#[tokio::test(start_paused = true)]
async fn a_pause_shows_in_when_the_next_attempt_is() {
    let host = Host::answered(RecordingTransport::new().answering(|_| {
        let mut answer = OutboundResponse::new(http::StatusCode::TOO_MANY_REQUESTS);
        answer.headers.insert("retry-after", http::HeaderValue::from_static("600"));
        Ok(answer)
    }));
    let (_, _, first) = host.delivery().await;
    let shutdown = CancellationToken::new();
    let (webhooks, stop) = (host.webhooks.clone(), shutdown.clone());
    let worker = tokio::spawn(async move { webhooks.run(Role::Worker, stop).await });
    let paused = loop {
        let seen = host.get(&format!("/deliveries/{first}")).await.expect(200);
        if seen["attempts"] == 1 {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    shutdown.cancel();
    worker.await.unwrap();
    let event = host.event().await;
    let list = host.get(&format!("/deliveries?event_id={event}")).await.expect(200);
    let second = &list["data"][0];
    assert_eq!((&second["attempts"], &second["in_flight"]), (&json!(0), &json!(false)));
    assert_eq!(second["next_attempt_at"], paused["next_attempt_at"]);
    assert!(text(&second["next_attempt_at"]) > text(&second["created_at"]));
}
