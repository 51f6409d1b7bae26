use http::HeaderMap;
use serde_json::{Value, json};

use super::scenes::{discord, named};
use crate::verify::*;
use crate::{Secret, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// `body`, signed as Slack and Zoom do.
fn signed(prefix: &'static str, secret: &str, body: &str) -> HeaderMap {
    let (signature, timestamp) = match prefix {
        "slack" => ("x-slack-signature", "x-slack-request-timestamp"),
        _ => ("x-zm-signature", "x-zm-request-timestamp"),
    };
    let code = hex::encode(Hash::Sha256.hmac(secret.as_bytes(), &[b"v0:1700000000:", body.as_bytes()]));
    let mut headers = HeaderMap::new();
    headers.insert(signature, format!("v0={code}").parse().unwrap());
    headers.insert(timestamp, "1700000000".parse().unwrap());
    headers
}

#[test]
fn slacks_challenge_is_answered() {
    let body = json!({ "token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P", "type": "url_verification" });
    let body = body.to_string();
    let headers = signed("slack", "s", &body);
    let verifier = Slack::new(LiveSecrets::one(Secret::new("s")).unwrap());
    let handshake = verifier.verify(&Inbound::new(&headers, body.as_bytes()), NOW).unwrap().handshake.unwrap();
    assert_eq!(handshake.status, 200);
    assert_eq!(handshake.body, b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    let forged = body.replace("3eZ", "4eZ");
    assert!(verifier.verify(&Inbound::new(&headers, forged.as_bytes()), NOW).is_err(), "only when it is signed");
}

#[test]
fn slacks_events_are_no_handshakes() {
    for (body, id) in [
        (r#"{"type":"event_callback","event_id":"Ev123","challenge":"x"}"#, Some("Ev123")),
        (r#"{"type":"url_verification"}"#, None),
        ("payload=%7B%7D", None),
        (r#"{"type":1}"#, None),
    ] {
        let headers = signed("slack", "s", body);
        let verifier = Slack::new(LiveSecrets::one(Secret::new("s")).unwrap());
        let verified = verifier.verify(&Inbound::new(&headers, body.as_bytes()), NOW).unwrap();
        assert_eq!(verified.handshake, None, "{body}");
        assert_eq!(verified.message_id.as_deref(), id, "{body}");
    }
}

#[test]
fn zooms_token_is_answered_by_the_secret_that_signed() {
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let headers = signed("zoom", "zoom_secret", body);
    let secrets = ["a newer one", "zoom_secret"].map(Secret::new);
    let verifier = Zoom::new(LiveSecrets::new(secrets).unwrap());
    let handshake = verifier.verify(&Inbound::new(&headers, body.as_bytes()), NOW).unwrap().handshake.unwrap();
    assert_eq!((handshake.status.as_u16(), handshake.content_type), (200, "application/json"));
    let answer: Value = serde_json::from_slice(&handshake.body).unwrap();
    assert_eq!(
        answer,
        json!({
            "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
            "encryptedToken": "46a324cfb7c2ec760e4cd561586a53aadb6fc7561eb8d626d6ee1b71d808b3c0",
        })
    );
}

#[test]
fn zooms_events_are_no_handshakes() {
    for body in [r#"{"event":"meeting.started"}"#, r#"{"event":"endpoint.url_validation"}"#, "not JSON"] {
        let headers = signed("zoom", "s", body);
        let verifier = Zoom::new(LiveSecrets::one(Secret::new("s")).unwrap());
        let verified = verifier.verify(&Inbound::new(&headers, body.as_bytes()), NOW).unwrap();
        assert_eq!(verified.handshake, None, "{body}");
    }
}

#[test]
fn discords_pings_are_answered() {
    for (body, expected) in [
        (r#"{"type":1,"id":"1"}"#, Some((200, &br#"{"type":1}"#[..]))),
        (r#"{"version":1,"type":0}"#, Some((204, b""))),
        (r#"{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}"#, None),
        (r#"{"type":2,"id":"1"}"#, None),
    ] {
        let scene = discord(body);
        let verified = scene.ask(&scene.header_map(), &scene.body, scene.now).unwrap();
        let answer = verified.handshake.as_ref().map(|shake| (shake.status.as_u16(), shake.body.as_slice()));
        assert_eq!(answer, expected, "{body}");
    }
    let scene = named("discord");
    let mut headers = scene.header_map();
    headers.insert("x-signature-ed25519", "0".repeat(128).parse().unwrap());
    let refused = scene.ask(&headers, br#"{"type":1}"#, scene.now);
    assert!(matches!(refused, Err(VerifyFailure::Mismatch { .. })), "Discord probes with wrong ones");
}
