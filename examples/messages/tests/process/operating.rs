use serde_json::{Value, json};

use crate::client::{SECRET, message};
use crate::service::{Service, output, program};

#[tokio::test]
async fn without_a_secret_it_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    for secret in [None, Some("")] {
        let mut command = program(&directory);
        if let Some(secret) = secret {
            command.env("WEBHOOK_SECRET", secret);
        }
        let output = output(&mut command).await;
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: WEBHOOK_SECRET is not set"), "{error}");
    }
    assert!(!directory.path().join("data").exists());
}

#[tokio::test]
async fn settings_that_cannot_work_are_said() {
    let directory = tempfile::tempdir().unwrap();
    for (name, value, code) in [
        ("DATABASE_URL", "mysql://user:canary@host/db", 2),
        ("DATABASE_URL", "postgres://user:canary@127.0.0.1:1/db", 1),
        ("LOG_LEVEL", "loud", 2),
        ("LISTEN_ADDR", "nowhere", 1),
    ] {
        let output = output(program(&directory).env("WEBHOOK_SECRET", SECRET).env(name, value)).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {error}");
        assert!(error.starts_with("error: ") && !error.contains("canary"), "{error}");
        assert!(!value.contains("127.0.0.1:1") || error.contains("refused"), "the cause is not said: {error}");
    }
}

#[tokio::test]
async fn arguments_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let help = output(program(&directory).arg("--help")).await;
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("WEBHOOK_SECRET"));
    let mistyped = output(program(&directory).arg("--listen=127.0.0.1:0").env("WEBHOOK_SECRET", SECRET)).await;
    assert_eq!(mistyped.status.code(), Some(2));
    assert!(!directory.path().join("data").exists());
}

#[tokio::test]
async fn it_says_how_it_is() {
    let service = Service::on_sqlite().await;
    assert_eq!(service.client.get("/health").await.expect(200)["status"], "ok");
    assert_eq!(service.client.get("/health/live").await.expect(200), json!({ "status": "alive" }));
    assert_eq!(service.client.get("/health/ready").await.expect(200), json!({ "status": "ready" }));
    let metrics = service.client.get("/metrics").await;
    assert!(metrics.head.contains("text/plain"), "{}", metrics.head);
    for line in [
        r#"webhook_requests_total{result="created"} 0"#,
        r#"http_requests_total{path="/health/ready",status="200"} 1"#,
        "# TYPE http_requests_total counter",
    ] {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
    service.client.get("/nowhere").await.expect(404);
    service.client.get("/webhook").await.expect(405);
    let metrics = service.client.get("/metrics").await.body;
    assert!(metrics.contains(r#"http_requests_total{path="unmatched",status="404"} 1"#), "{metrics}");
}

#[tokio::test]
async fn each_request_is_one_json_line() {
    let service = Service::on_sqlite().await;
    let body = message("m1", "+919876543210", "2025-01-15T10:00:00Z", "Hello");
    service.client.post(&body).await.expect(200);
    service.client.post(&body).await.expect(200);
    service.client.send("POST", "/webhook", &[("x-request-id", "mine-1")], b"{}").await.expect(401);
    let answer = service.client.get("/messages?q=secret").await;
    assert!(answer.head.contains("x-request-id: "), "{}", answer.head);
    let lines: Vec<Value> = service.stop().await.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line["request_id"].is_string()).collect();
    assert_eq!(requests.len(), 4, "{lines:?}");
    for line in &requests {
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(line["level"], "INFO");
        assert!(line["method"].is_string() && line["status"].is_u64() && line["latency_ms"].is_f64(), "{line}");
        assert!(line["dup"].is_boolean(), "{line}");
    }
    let about = |index: usize, name: &str| requests[index][name].clone();
    assert_eq!(
        (about(0, "dup"), about(0, "result"), about(0, "message_id")),
        (json!(false), json!("created"), json!("m1"))
    );
    assert_eq!((about(1, "dup"), about(1, "result")), (json!(true), json!("duplicate")));
    assert_eq!((about(2, "status"), about(2, "result")), (json!(401), json!("invalid_signature")));
    assert_eq!(about(2, "request_id"), "mine-1");
    assert_eq!(about(3, "path"), "/messages", "without the query");
    assert!(!format!("{lines:?}").contains(SECRET));
}
