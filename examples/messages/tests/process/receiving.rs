use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{SECRET, message, sign};
use crate::service::Service;

const TS: &str = "2025-01-15T10:00:00Z";

#[tokio::test]
async fn a_signed_message_is_kept_and_a_repeat_answered_alike() {
    let service = Service::on_sqlite().await;
    let body = message("m1", "+919876543210", TS, "Hello");
    for _ in 0..3 {
        assert_eq!(service.client.post(&body).await.expect(200), json!({ "status": "ok" }));
    }
    let changed = message("m1", "+919876543210", TS, "Other");
    assert_eq!(service.client.post(&changed).await.expect(200), json!({ "status": "ok" }));
    let page = service.client.get("/messages").await.expect(200);
    assert_eq!(page, json!({ "data": [body], "total": 1 }), "the first one stays");
    assert!(service.directory.path().join("data/app.db").exists());
    let metrics = service.client.get("/metrics").await.body;
    for line in [
        r#"webhook_requests_total{result="created"} 1"#,
        r#"webhook_requests_total{result="duplicate"} 3"#,
        r#"webhook_requests_total{result="invalid"} 0"#,
        r#"http_requests_total{path="/webhook",status="200"} 4"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn only_the_signature_of_these_bytes_by_this_secret_counts() {
    let service = Service::on_sqlite().await;
    let body = message("m1", "+919876543210", TS, "Hello").to_string();
    let right = sign(SECRET, body.as_bytes());
    let other_bytes = sign(SECRET, body.replace(':', ": ").as_bytes());
    let (other_secret, short, prefixed) = (sign("other", body.as_bytes()), &right[..63], format!("sha256={right}"));
    for headers in [
        &[][..],
        &[("X-Signature", "")],
        &[("X-Signature", "zz")],
        &[("X-Signature", &other_bytes)],
        &[("X-Signature", &other_secret)],
        &[("X-Signature", short)],
        &[("X-Signature", &prefixed)],
        &[("X-Signature", &right), ("X-Signature", &right)],
        &[("X-Signature-256", &right)],
    ] {
        let answer = service.client.send("POST", "/webhook", headers, body.as_bytes()).await;
        assert_eq!(answer.expect(401), json!({ "detail": "invalid signature" }), "{headers:?}");
    }
    // Whatever is wrong with the content is not said before the signature held.
    let answer = service.client.send("POST", "/webhook", &[("X-Signature", &right)], b"not JSON").await;
    answer.expect(401);
    assert_eq!(service.client.get("/messages").await.expect(200)["total"], 0);
    let metrics = service.client.get("/metrics").await.body;
    assert!(metrics.contains(r#"webhook_requests_total{result="invalid_signature"} 10"#), "{metrics}");
    let upper = [("x-signature", &*right.to_uppercase())];
    service.client.send("POST", "/webhook", &upper, body.as_bytes()).await.expect(200);
}

#[tokio::test]
async fn signed_content_that_is_no_message_is_refused_and_named() {
    let service = Service::on_sqlite().await;
    for (name, value) in [
        ("message_id", json!("")),
        ("from", json!("919876543210")),
        ("to", json!("+1-415")),
        ("ts", json!("yesterday")),
        ("text", json!("x".repeat(4097))),
    ] {
        let mut body = message("m1", "+919876543210", TS, "Hello");
        body[name] = value;
        let problem = service.client.post(&body).await.expect(422);
        assert_eq!(problem["detail"][0]["loc"], json!(["body", name]), "{problem}");
    }
    for body in ["", "{}", "[]", "{", "\u{0}"] {
        let signature = sign(SECRET, body.as_bytes());
        let headers = [("X-Signature", &*signature)];
        service.client.send("POST", "/webhook", &headers, body.as_bytes()).await.expect(422);
    }
    let huge = vec![b' '; 1024 * 1024 + 1];
    let signature = sign(SECRET, &huge);
    service.client.send("POST", "/webhook", &[("X-Signature", &signature)], &huge).await.expect(413);
    let longest = message("m1", "+919876543210", TS, &"\u{1F600}".repeat(4096));
    service.client.post(&longest).await.expect(200);
    let metrics = service.client.get("/metrics").await.body;
    assert!(metrics.contains(r#"webhook_requests_total{result="invalid"} 10"#), "{metrics}");
}

async fn of_64_repeats_one_is_new(service: Service) {
    let mut repeats = JoinSet::new();
    for _ in 0..64 {
        let client = service.client;
        repeats.spawn(async move { client.post(&message("m1", "+919876543210", TS, "Hello")).await.expect(200) });
    }
    while let Some(answer) = repeats.join_next().await {
        assert_eq!(answer.unwrap(), json!({ "status": "ok" }));
    }
    assert_eq!(service.client.get("/messages").await.expect(200)["total"], 1);
    let lines: Vec<Value> = service.stop().await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let received: Vec<_> = lines.iter().filter(|line| line["path"] == "/webhook").collect();
    assert_eq!(received.len(), 64);
    assert_eq!(received.iter().filter(|line| line["dup"] == false).count(), 1);
    assert_eq!(received.iter().filter(|line| line["result"] == "created").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_concurrent_repeats_one_is_new_on_sqlite() {
    of_64_repeats_one_is_new(Service::on_sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_concurrent_repeats_one_is_new_on_postgres() {
    of_64_repeats_one_is_new(Service::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill() {
    let service = Service::on_sqlite().await;
    let mut posts = JoinSet::new();
    for sender in 0..8 {
        let client = service.client;
        posts.spawn(async move {
            let mut answered = Vec::new();
            for number in 0..20 {
                let id = format!("m{sender}-{number}");
                client.post(&message(&id, "+919876543210", TS, "Hello")).await.expect(200);
                answered.push(id);
            }
            answered
        });
    }
    let answered: BTreeSet<_> = posts.join_all().await.into_iter().flatten().collect();
    let directory = service.kill().await;
    let service = Service::start(directory, None).await;
    let mut kept = BTreeSet::new();
    for offset in [0, 100] {
        let page = service.client.get(&format!("/messages?limit=100&offset={offset}")).await.expect(200);
        kept.extend(page["data"].as_array().unwrap().iter().map(|it| it["message_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(kept, answered);
}
