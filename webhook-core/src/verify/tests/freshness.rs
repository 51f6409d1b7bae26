//! At exactly the boundary as the senders' own libraries do; what these do is said in each scheme's documentation.

use std::time::Duration;

use http::HeaderName;

use super::scenes::{Scene, named, standard};
use crate::verify::*;
use crate::{Secret, Timestamp};

fn ask(scene: &Scene, millis: i64) -> Result<(), VerifyFailure> {
    let now = Timestamp::from_millis(scene.now.as_millis() + millis);
    scene.ask(&scene.header_map(), &scene.body, now).map(drop)
}

#[test]
fn whole_seconds_count_and_both_ends_are_good() {
    for scene in [standard(0), standard(2), named("mailgun")] {
        for good in [-300_000, -299_001, 0, 300_000, 300_999] {
            assert_eq!(ask(&scene, good), Ok(()), "{}: {good}", scene.name);
        }
        assert_eq!(ask(&scene, 301_000), Err(VerifyFailure::TooOld), "{}", scene.name);
        assert_eq!(ask(&scene, -300_001), Err(VerifyFailure::TooNew), "{}", scene.name);
    }
}

#[test]
fn milliseconds_count_and_both_ends_are_good() {
    for (name, limit) in [("slack", 300_000), ("zoom", 300_000), ("linear", 60_000)] {
        let scene = named(name);
        for good in [-limit, 0, limit] {
            assert_eq!(ask(&scene, good), Ok(()), "{name}: {good}");
        }
        assert_eq!(ask(&scene, limit + 1), Err(VerifyFailure::TooOld), "{name}");
        assert_eq!(ask(&scene, -limit - 1), Err(VerifyFailure::TooNew), "{name}");
    }
}

#[test]
fn only_the_past_is_bounded_where_the_senders_library_bounds_no_more() {
    let mut hubspot = named("hubspot");
    for scene in super::scenes::all() {
        if scene.headers.first().is_some_and(|(name, _)| *name == "x-hubspot-signature-v3") {
            hubspot = scene;
        }
    }
    for (scene, last_good, first_bad) in
        [(named("stripe"), 300_999, 301_000), (named("paddle"), 5_000, 5_001), (hubspot, 300_000, 300_001)]
    {
        for good in [-86_400_000, -1, 0, last_good] {
            assert_eq!(ask(&scene, good), Ok(()), "{}: {good}", scene.name);
        }
        assert_eq!(ask(&scene, first_bad), Err(VerifyFailure::TooOld), "{}", scene.name);
    }
}

#[test]
fn no_window_is_no_window() {
    for scene in [named("discord"), named("sendgrid"), named("github")] {
        for any in [-86_400_000 * 365, 86_400_000 * 365] {
            assert_eq!(ask(&scene, any), Ok(()), "{}: {any}", scene.name);
        }
    }
}

#[test]
fn a_host_can_choose_the_window() {
    let stripe = named("stripe");
    let headers = stripe.header_map();
    let request = Inbound::new(&headers, &stripe.body);
    let secrets = LiveSecrets::one(Secret::new(stripe.key.clone())).unwrap();
    let strict = Stripe::new(secrets.clone()).with_tolerance(Tolerance::within(Duration::from_secs(10)));
    let at = |seconds: i64| Timestamp::from_millis(stripe.now.as_millis() + seconds * 1000);
    for (seconds, expected) in
        [(-11, Err(VerifyFailure::TooNew)), (-10, Ok(())), (10, Ok(())), (11, Err(VerifyFailure::TooOld))]
    {
        assert_eq!(strict.verify(&request, at(seconds)).map(drop), expected, "{seconds}");
    }
    let lax = Stripe::new(secrets).with_tolerance(Tolerance::ANY);
    assert!(lax.verify(&request, at(1_000_000)).is_ok());
}

#[test]
fn a_time_must_be_a_number_without_a_sign() {
    for (name, header) in [
        ("standard", "webhook-timestamp"),
        ("slack", "x-slack-request-timestamp"),
        ("zoom", "x-zm-request-timestamp"),
        ("discord", "x-signature-timestamp"),
        ("sendgrid", "x-twilio-email-event-webhook-timestamp"),
    ] {
        let scene = named(name);
        for time in ["", "+1700000000", "-1", "1700000000.0", "1e9", "0x1", " ", "99999999999999999999"] {
            let mut headers = scene.header_map();
            headers.insert(header, time.parse().unwrap());
            let expected = VerifyFailure::Malformed { header: HeaderName::from_static(header) };
            assert_eq!(scene.ask(&headers, &scene.body, scene.now), Err(expected), "{name}: {time:?}");
        }
        let mut headers = scene.header_map();
        let padded = format!("0{}", headers[header].to_str().unwrap());
        headers.insert(header, padded.parse().unwrap());
        let outcome = scene.ask(&headers, &scene.body, scene.now);
        assert!(matches!(outcome, Err(VerifyFailure::Mismatch { .. })), "{name}: the text is signed, not the number");
    }
}

#[test]
fn linear_believes_its_header_only_without_a_time_in_the_body() {
    let scene = named("linear");
    let mut headers = scene.header_map();
    headers.insert("linear-timestamp", "1".parse().unwrap());
    assert!(scene.ask(&headers, &scene.body, scene.now).is_ok(), "the body's counts");
    let body = br#"{"action":"create"}"#;
    let signature = hex::encode(Hash::Sha256.hmac(scene.key.as_bytes(), &[body]));
    headers.insert("linear-signature", signature.parse().unwrap());
    assert_eq!(scene.ask(&headers, body, scene.now), Err(VerifyFailure::TooOld));
    headers.insert("linear-timestamp", "1700000000000".parse().unwrap());
    assert!(scene.ask(&headers, body, scene.now).is_ok());
    headers.remove("linear-timestamp");
    assert!(matches!(scene.ask(&headers, body, scene.now), Err(VerifyFailure::Missing { .. })));
}
