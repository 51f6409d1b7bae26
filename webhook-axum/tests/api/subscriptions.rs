//! Subscriptions and their secrets.

use serde_json::{Value, json};

use crate::host::{ACME, Host, WRITE, request, text};

#[tokio::test]
async fn what_is_created_is_read_back() {
    let host = Host::new();
    let given = json!({
        "target_url": "https://example.com/hook", "description": "orders", "events": ["order.*", "user.created"],
        "signature": {"scheme": "x-signature"}, "secret": "plain old secret", "ingest_secret": "012345678901234567890123",
        "headers": {"X-Team": "core"}, "timeout_seconds": 5, "retry": {"schedule": [1, 2.5]},
        "rate_limit": {"per_second": 10, "burst": 20}, "max_in_flight": 7, "enabled": false, "metadata": {"a": [1, null]},
    });
    let created = host.post("/subscriptions", given.clone()).await.expect(201);
    assert_eq!(created["secret"], "plain old secret");
    let read = host.get(&format!("/subscriptions/{}", text(&created["id"]))).await.expect(200);
    for (field, value) in given.as_object().unwrap() {
        match field.as_str() {
            "secret" | "ingest_secret" => assert_eq!(read[field], Value::Null, "{field} must not be shown"),
            _ => assert_eq!(&read[field], value, "{field}"),
        }
    }
    assert_eq!(read["disabled_reason"], "requested");
    assert_eq!(created.as_object().unwrap().len(), read.as_object().unwrap().len() + 1);
}

#[tokio::test]
async fn everything_but_the_target_has_a_default() {
    let host = Host::new();
    let mut created = host.subscription().await;
    assert!(text(&created["secret"]).starts_with("whsec_"));
    let fields = created.as_object_mut().unwrap();
    for field in ["id", "created_at", "updated_at", "secret"] {
        assert!(fields.remove(field).is_some());
    }
    let expected = json!({
        "target_url": "https://example.com/hook", "events": ["**"], "signature": {"scheme": "standard"}, "headers": {},
        "timeout_seconds": 15, "enabled": true, "metadata": {},
    });
    assert_eq!(created, expected);
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let host = Host::new();
    let created = host
        .post(
            "/subscriptions",
            json!({"target_url": "https://a.example/", "description": "d", "headers": {"A": "1", "B": "2"}}),
        )
        .await
        .expect(201);
    let path = format!("/subscriptions/{}", text(&created["id"]));
    let patch =
        json!({"description": null, "headers": {"A": null, "C": "3"}, "enabled": false, "retry": {"max_attempts": 3}});
    let call = request("PATCH", &path, ACME).header("content-type", "application/merge-patch+json");
    let patched = host.send(call.body(patch.to_string().into()).unwrap()).await.expect(200);
    assert_eq!(patched["description"], Value::Null);
    assert_eq!(patched["headers"], json!({"B": "2", "C": "3"}));
    assert_eq!((&patched["enabled"], &patched["target_url"]), (&json!(false), &json!("https://a.example/")));
    assert_eq!(patched["retry"], json!({"max_attempts": 3}));
    let again = host.call("PATCH", &path, ACME, r#"{"retry":null,"enabled":null}"#).await.expect(200);
    assert_eq!((&again["retry"], &again["enabled"]), (&Value::Null, &json!(true)));
    let secret = host.get(&format!("{path}/secret")).await.expect(200);
    assert_eq!(secret["secret"], created["secret"]);
    for (patch, field) in [
        ("{\"target_url\":null}", "target_url"),
        (r#"{"nope":null}"#, "nope"),
        (r#"{"filter":1}"#, "filter"),
        (r#"{"id":"x"}"#, "id"),
        (r#"{"retry":{"jitter":1}}"#, "retry.jitter"),
        (r#"{"events":["ok","ord*"]}"#, "events[1]"),
        (r#"{"enabled":true,"enabled":false}"#, "enabled"),
        ("[]", "body"),
    ] {
        let problem = host.call("PATCH", &path, ACME, patch).await.problem(422);
        assert!(problem["errors"][field].is_array(), "{patch}: {problem}");
    }
}

#[tokio::test]
async fn a_put_replaces_all_but_the_secrets() {
    let host = Host::new();
    let created = host
        .post("/subscriptions", json!({"target_url": "https://a.example/", "description": "d", "ingest_secret": "s"}))
        .await
        .expect(201);
    let path = format!("/subscriptions/{}", text(&created["id"]));
    let put = host.call("PUT", &path, ACME, r#"{"target_url":"https://b.example/"}"#).await.expect(200);
    assert_eq!((&put["target_url"], &put["description"]), (&json!("https://b.example/"), &Value::Null));
    assert_eq!(host.get(&format!("{path}/secret")).await.expect(200)["secret"], created["secret"]);
    let ingest = path.replace("subscriptions", "ingest");
    assert_eq!(host.call("POST", &ingest, ACME, "x").await.problem(401)["code"], "invalid_signature");
    host.call("PATCH", &path, ACME, r#"{"ingest_secret":null}"#).await.expect(200);
    host.call("POST", &ingest, ACME, "x").await.expect(202);
}

#[tokio::test]
async fn secrets_rotate_with_a_grace() {
    let host = Host::new();
    let created = host.subscription().await;
    let path = format!("/subscriptions/{}/secret", text(&created["id"]));
    let rotated = host.call("POST", &format!("{path}/rotate"), ACME, "").await;
    assert_eq!(rotated.headers["cache-control"], "no-store");
    let rotated = rotated.expect(200);
    assert_ne!(rotated["secret"], created["secret"]);
    let secrets = host.get(&path).await.expect(200);
    assert_eq!(secrets["secret"], rotated["secret"]);
    assert_eq!(secrets["previous"], json!({"secret": created["secret"], "expires_at": rotated["previous_expires_at"]}));
    let at_once = host.post(&format!("{path}/rotate"), json!({"grace_seconds": 0})).await.expect(200);
    assert_eq!(at_once["previous_expires_at"], Value::Null);
    for body in [r#"{"grace_seconds":-1}"#, r#"{"grace_seconds":1e9}"#, r#"{"secret":"short"}"#, r#"{"grace":1}"#] {
        host.call("POST", &format!("{path}/rotate"), ACME, body).await.problem(422);
    }
}

#[tokio::test]
async fn a_repeat_with_the_same_key_gives_the_first_answer() {
    let host = Host::new();
    let create = |key: &str, body: &str| {
        let call = request("POST", "/subscriptions", ACME).header("idempotency-key", key);
        host.send(call.body(body.to_owned().into()).unwrap())
    };
    let body = r#"{"target_url":"https://example.com/"}"#;
    let first = create("k", body).await.expect(201);
    assert_eq!(create("k", body).await.expect(201), first);
    let reused = create("k", r#"{"target_url":"https://example.com/2"}"#).await.problem(409);
    assert_eq!(reused["code"], "idempotency_key_reused");
    let list = host.get("/subscriptions?page=1").await.expect(200);
    assert_eq!(list["pagination"]["total"], 1);
    for key in ["", "a b", &"x".repeat(256)] {
        assert!(create(key, body).await.problem(422)["errors"]["Idempotency-Key"].is_array());
    }
}

#[tokio::test]
async fn a_repeat_shows_secrets_only_to_those_who_may_see_them() {
    let host = Host::new();
    let create = |who: &str| {
        let call = request("POST", "/subscriptions", who).header("idempotency-key", "k");
        let body = r#"{"target_url":"https://example.com/","headers":{"X-Token":"abc"}}"#;
        host.send(call.body(body.into()).unwrap())
    };
    let first = create(ACME).await.expect(201);
    let mut expected = first.clone();
    expected.as_object_mut().unwrap().remove("secret").unwrap();
    expected["headers"]["X-Token"] = json!("[redacted]");
    assert_eq!(create(WRITE).await.expect(201), expected);
    assert_eq!(create(ACME).await.expect(201), first);
}

#[tokio::test]
async fn a_deleted_one_is_gone_and_its_deliveries_are_cancelled() {
    let host = Host::new();
    let (subscription, _, delivery) = host.delivery().await;
    let path = format!("/subscriptions/{subscription}");
    let deleted = host.call("DELETE", &path, ACME, "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
    host.get(&path).await.problem(404);
    host.call("DELETE", &path, ACME, "").await.problem(404);
    let delivery = host.get(&format!("/deliveries/{delivery}")).await.expect(200);
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("cancelled"), &json!("subscription_deleted")));
    let retried = host.post(&format!("/deliveries/{}/retry", text(&delivery["id"])), json!({})).await.problem(409);
    assert_eq!(retried["code"], "subscription_deleted");
}

#[tokio::test]
async fn what_is_not_acceptable_is_named() {
    let host = Host::new();
    for (fields, field) in [
        (json!({"target_url": null}), "target_url"),
        (json!({"target_url": "http://example.com/"}), "target_url"),
        (json!({"target_url": "https://127.0.0.1/"}), "target_url"),
        (json!({"target_url": "nonsense"}), "target_url"),
        (json!({"timeout_seconds": 0}), "timeout_seconds"),
        (json!({"timeout_seconds": 31}), "timeout_seconds"),
        (json!({"timeout_seconds": "5"}), "timeout_seconds"),
        (json!({"events": []}), "events"),
        (json!({"events": ["a", 1]}), "events[1]"),
        (json!({"signature": {"scheme": "rot13"}}), "signature.scheme"),
        (json!({"signature": {"scheme": "standard", "x": 1}}), "signature.x"),
        (json!({"signature": {}}), "signature.scheme"),
        (json!({"secret": "too plain"}), "secret"),
        (json!({"ingest_secret": ""}), "ingest_secret"),
        (json!({"headers": {"A": 1}}), "headers.A"),
        (json!({"headers": {"a b": "1"}}), "headers.a b"),
        (json!({"headers": {"Host": "x"}}), "headers.Host"),
        (json!({"headers": {"X": "a\nb"}}), "headers.X"),
        (json!({"headers": {"X": "1", "x": "2"}}), "headers.x"),
        (json!({"retry": {"schedule": [1], "max_attempts": 2}}), "retry"),
        (json!({"retry": {"schedule": [-1]}}), "retry.schedule[0]"),
        (json!({"retry": {"jitter": true}}), "retry.jitter"),
        (json!({"rate_limit": {"per_second": 0}}), "rate_limit"),
        (json!({"rate_limit": {"per_second": 1, "per_minute": 1}}), "rate_limit.per_minute"),
        (json!({"max_in_flight": 0}), "max_in_flight"),
        (json!({"max_in_flight": 1.5}), "max_in_flight"),
        (json!({"enabled": "yes"}), "enabled"),
        (json!({"metadata": []}), "metadata"),
        (json!({"metadata": {"a": "\u{0}"}}), "metadata"),
        (json!({"description": "\u{0}"}), "description"),
        (json!({"filter": {}}), "filter"),
        (json!({"ordered": true}), "ordered"),
        (json!({"transform": "x"}), "transform"),
    ] {
        let mut body = json!({"target_url": "https://example.com/"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let problem = host.post("/subscriptions", body).await.problem(422);
        assert!(problem["errors"][field].is_array(), "{fields}: {problem}");
    }
    let problem = host.post("/subscriptions", json!({})).await.problem(422);
    assert!(problem["errors"]["target_url"].is_array(), "{problem}");
}
