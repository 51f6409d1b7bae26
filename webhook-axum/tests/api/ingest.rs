//! Ingest.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::host::{ACME, Answer, Host, OTHER, READ, request, text};

const SECRET: &str = "a secret of some twenty bytes";

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

async fn ingest(host: &Host, id: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut call = http::Request::builder().method("POST").uri(format!("/ingest/{id}"));
    if !key.is_empty() {
        call = call.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    host.send(call.body(body.to_vec().into()).unwrap()).await
}

async fn signed_subscription(host: &Host) -> String {
    let body = json!({"target_url": "https://example.com/", "ingest_secret": SECRET, "events": ["never"]});
    text(&host.post("/subscriptions", body).await.expect(201)["id"])
}

#[tokio::test]
async fn a_signature_is_the_credential() {
    let host = Host::new();
    let id = signed_subscription(&host).await;
    let body = b"\x00\xff any bytes";
    let signature = signature(body);
    for headers in [
        [("X-Signature", signature.clone()), ("Content-Type", "application/x-thing; a=b".to_owned())],
        [("X-Webhook-Signature-256", format!("sha256={signature}")), ("X-Event-Type", "push.it".to_owned())],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let accepted = ingest(&host, &id, "", &headers, body).await.expect(202);
        let delivery = host.get(&format!("/deliveries/{}", text(&accepted["webhook_id"]))).await.expect(200);
        assert_eq!(delivery["event_id"], accepted["event_id"]);
        let event = host.get(&format!("/events/{}", text(&accepted["event_id"]))).await.expect(200);
        assert_eq!(event["payload_base64"], "AP8gYW55IGJ5dGVz");
        match headers[1].0 {
            "Content-Type" => assert_eq!(event["content_type"], "application/x-thing; a=b"),
            _ => assert_eq!(
                (&event["event_type"], &event["content_type"]),
                (&json!("push.it"), &json!("application/octet-stream"))
            ),
        }
    }
    for (key, headers) in [
        ("", vec![]),
        (ACME, vec![]),
        ("", vec![("X-Signature", "00")]),
        ("", vec![("X-Signature", signature.as_str())]),
    ] {
        let refused = ingest(&host, &id, key, &headers, b"other").await.problem(401);
        assert_eq!(refused["code"], "invalid_signature");
        assert_eq!(refused["detail"], "the signature does not hold", "the same for every reason");
    }
}

#[tokio::test]
async fn without_a_secret_the_owner_must_ask() {
    let host = Host::new();
    let id = text(&host.subscription().await["id"]);
    ingest(&host, &id, ACME, &[], b"x").await.expect(202);
    ingest(&host, &id, "", &[], b"x").await.problem(401);
    ingest(&host, &id, READ, &[], b"x").await.problem(403);
    ingest(&host, &id, OTHER, &[], b"x").await.problem(404);
    let unknown = "01900000-0000-7000-8000-000000000000";
    ingest(&host, unknown, "", &[], b"x").await.problem(401);
    ingest(&host, unknown, ACME, &[], b"x").await.problem(404);
    ingest(&host, "nonsense", "", &[], b"x").await.problem(401);
    ingest(&host, "nonsense", ACME, &[], b"x").await.problem(400);
    ingest(&host, &id, ACME, &[("X-Event-Type", "a b")], b"x").await.problem(422);
    ingest(&host, &id, ACME, &[], &vec![b'x'; (1 << 20) + 1]).await.problem(413);
    ingest(&host, &id, ACME, &[], &vec![b'x'; 1 << 20]).await.expect(202);
}

#[tokio::test]
async fn an_idempotency_key_is_honoured() {
    let host = Host::new();
    let id = text(&host.subscription().await["id"]);
    let once = async |body: &str| {
        let call = request("POST", &format!("/ingest/{id}"), ACME).header("idempotency-key", "k");
        host.send(call.body(body.to_owned().into()).unwrap()).await
    };
    let first: Value = once("1").await.expect(202);
    assert_eq!(once("1").await.expect(202), first);
    once("2").await.problem(409);
}

#[tokio::test]
async fn an_idempotency_key_counts_for_each_subscription_on_its_own() {
    let host = Host::new();
    let ids = [text(&host.subscription().await["id"]), text(&host.subscription().await["id"])];
    let send = async |id: &str| {
        let call = request("POST", &format!("/ingest/{id}"), ACME).header("idempotency-key", "k");
        host.send(call.body("1".into()).unwrap()).await.expect(202)
    };
    let accepted = [send(&ids[0]).await, send(&ids[1]).await];
    assert_ne!(accepted[0]["webhook_id"], accepted[1]["webhook_id"]);
    for (id, accepted) in ids.iter().zip(&accepted) {
        let delivery = host.get(&format!("/deliveries/{}", text(&accepted["webhook_id"]))).await.expect(200);
        assert_eq!(delivery["subscription_id"], **id);
        assert_eq!(send(id).await, *accepted, "a repeat has the first answer");
    }
}
