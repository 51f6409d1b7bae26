//! No secret gets out: not into logs, not into attempt logs, and with a key not into what a store writes (I12).

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use webhook_test_servers::{PostgresServer, RedisServer};

use crate::support::receiver::Receiver;
use crate::support::server::{Server, sqlite_url};
use crate::support::until;

const API_KEY: &str = "canary-api-key-4711";
const WRONG_KEY: &str = "canary-wrong-key-4712";
const HEADER: &str = "canary-header-value-4713";
const INGEST: &str = "canary-ingest-secret-4714";
const URL_PASSWORD: &str = "canary-url-password-4715";
/// What a capture path answers.
const RESPONSE: &str = "canary-response-4717";
/// What is captured is stored in clear, to be searched; but no log has it.
const CAPTURED: [&str; 3] = ["canary-captured-header-4718", "canary-captured-body-4719", "canary-captured-query-4720"];

#[tokio::test]
async fn canaries_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let secrets = plant(&sqlite_url(directory.path()), &[]).await;
    assert_clean(directory.path(), "acme", &secrets);
}

#[tokio::test]
async fn canaries_stay_inside_of_postgres_and_redis() {
    let (postgres, redis) = (PostgresServer::start(), RedisServer::start_with(&["--rdbcompression", "no"]));
    let secrets = plant(&postgres.url(), &["--redis-url", &redis.url()]).await;
    assert_eq!(redis.command(&["SAVE"]), "OK");
    postgres.stop_fast();
    assert_clean(postgres.dir(), "acme", &secrets);
    assert_clean(redis.dir(), "wh:cache:", &secrets);
}

/// None of the secrets is in these files, which do hold a word of what was stored.
fn assert_clean(directory: &Path, word: &str, secrets: &[String]) {
    let search = |text: &str| {
        let found = Command::new("grep").args(["-rlaF", "-e", text]).arg(directory).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    assert_ne!(search(word), "", "{word} is in {directory:?}");
    for canary in secrets {
        assert_eq!(search(canary), "", "`{canary}`");
    }
}

/// Lets a server on that database handle secrets of all kinds; which these were.
async fn plant(database_url: &str, more: &[&str]) -> Vec<String> {
    let receiver = Receiver::willing().await;
    let encryption_key = STANDARD.encode(b"canary-encryption-key-of-32-byte");
    let secret_text = STANDARD.encode(b"canary-signing-secret-4716-ab");
    let secret = format!("whsec_{secret_text}");
    let (api_keys, encryption_keys) = (format!("{API_KEY}=acme"), format!("k1={encryption_key}"));
    let arguments = ["--log-level=trace", "--api-key", &api_keys, "--encryption-key", &encryption_keys];
    let server = Server::on(database_url, &[&arguments, more].concat()).await;

    let mut stranger = server.client().with_header("authorization", &format!("Bearer {WRONG_KEY}"));
    assert_eq!(stranger.get("/subscriptions").await.unwrap().status, 401);
    let mut client = server.client().with_header("authorization", &format!("Bearer {API_KEY}"));
    let wanted = json!({
        "target_url": receiver.url("/hooks"), "secret": secret, "ingest_secret": INGEST,
        "headers": {"authorization": HEADER},
    });
    let made = client.post("/subscriptions", &wanted).await.unwrap().expect(201);
    let id = made["id"].as_str().unwrap();
    receiver.trust("/hooks", &secret);
    let hostile = json!({"target_url": format!("http://user:{URL_PASSWORD}@127.0.0.1/hooks")});
    client.post("/subscriptions", &hostile).await.unwrap();
    client.post("/events", &json!({"event_type": "test.sent", "payload": {}})).await.unwrap().expect(202);
    until("the event arrives", async || (!receiver.arrivals().is_empty()).then_some(())).await;
    let ingested = server.client().with_header("x-signature", "00").post(&format!("/ingest/{id}"), &json!({})).await;
    assert_eq!(ingested.unwrap().status, 401);
    let path = json!({"path_id": "p", "response": {"body": RESPONSE, "headers": {"x-token": RESPONSE}}});
    client.post("/api/paths", &path).await.unwrap().expect(201);
    let mut sender = server.client().with_header("x-secret", CAPTURED[0]);
    let target = format!("/webhook/p?token={}", CAPTURED[2]);
    let answer = sender.send("POST", &target, CAPTURED[1].as_bytes()).await.unwrap();
    assert_eq!(answer.body, RESPONSE.as_bytes());
    let rotated = client.post(&format!("/subscriptions/{id}/secret/rotate"), &json!({"grace_seconds": 60})).await;
    let rotated = rotated.unwrap().expect(200)["secret"].as_str().unwrap().to_owned();
    let attempts = until("the attempt is recorded", async || {
        let attempts = client.get(&format!("/subscriptions/{id}/attempts")).await.unwrap().expect(200);
        (!attempts["data"].as_array().unwrap().is_empty()).then(|| attempts.to_string())
    })
    .await;
    let arrival = receiver.arrivals().remove(0);
    assert!(arrival.verified);
    let lines = server.lines().clone();
    server.stop().await;

    let rotated_text = rotated.strip_prefix("whsec_").unwrap();
    let secrets = [
        API_KEY,
        WRONG_KEY,
        HEADER,
        INGEST,
        URL_PASSWORD,
        RESPONSE,
        &STANDARD.encode(RESPONSE),
        &encryption_key,
        &secret_text,
        rotated_text,
        &arrival.signature,
        "canary-encryption",
        "canary-signing",
    ];
    let logs = lines.all().concat();
    assert!(logs.contains("configuration") && logs.contains("latency_ms"), "{logs}");
    for canary in secrets {
        assert!(!logs.contains(canary), "`{canary}` is in the logs");
        assert!(!attempts.contains(canary), "`{canary}` is in the attempt log");
    }
    for canary in CAPTURED {
        assert!(!logs.contains(canary), "`{canary}` is in the logs");
    }
    assert!(attempts.contains("[redacted]"), "{attempts}");
    secrets.map(ToOwned::to_owned).into()
}
