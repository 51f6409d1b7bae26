use http::{HeaderMap, Method};

use super::scenes::{self, HUBSPOT_SECRET, HUBSPOT_URL, MAILGUN_TOKEN, Scene, named};
use crate::signature::tests::{body, vectors};
use crate::verify::*;
use crate::{Secret, Timestamp};

#[test]
fn every_scheme_verifies_its_vector() {
    for scene in scenes::all() {
        let verified = scene.ask(&scene.header_map(), &scene.body, scene.now);
        assert!(verified.is_ok(), "{}: {verified:?}", scene.name);
        assert_eq!(scene.verifier(&[&scene.key]).unwrap().scheme(), scene.name);
    }
}

#[test]
fn standard_webhooks_come_under_two_names() {
    for index in 0..3 {
        let scene = scenes::standard(index);
        let headers: HeaderMap = scene
            .headers
            .iter()
            .map(|(name, value)| (name.replace("webhook-", "svix-").parse().unwrap(), value.parse().unwrap()))
            .collect();
        let verified = scene.ask(&headers, &scene.body, scene.now).unwrap();
        assert_eq!(verified.message_id.as_deref(), Some(scene.headers[1].1.as_str()));
        assert_eq!(verified.signed_at, Some(scene.now));
    }
}

#[test]
fn all_github_vectors_verify() {
    for vector in vectors("github") {
        let verifier = GitHub::new(LiveSecrets::one(vector["secret"].as_str().unwrap().to_owned()).unwrap());
        let mut headers = HeaderMap::new();
        let signature = format!("sha256={}", vector["sha256_hex"].as_str().unwrap());
        headers.insert("x-hub-signature-256", signature.parse().unwrap());
        let body = body(&vector);
        assert_eq!(verifier.verify(&Inbound::new(&headers, &body), Timestamp::EPOCH), Ok(Verified::new()));
    }
}

#[test]
fn a_trailing_line_break_is_part_of_the_body() {
    let scene = named("github");
    assert!(scene.ask(&scene.header_map(), b"Hello, World!\n", scene.now).is_err());
    let signature = "sha256=8fde2e970f9163923fb1cb61bb945626ff2b4091d87e622ee3ad600160592325";
    assert!(scene.ask_signed(signature).is_err());
    let mut headers = scene.header_map();
    headers.insert("x-hub-signature-256", signature.parse().unwrap());
    assert!(scene.ask(&headers, b"Hello, World!\n", scene.now).is_ok());
}

#[test]
fn stripes_own_example_verifies() {
    let body = include_bytes!("../../../tests/vectors/stripe_event.json");
    assert_eq!(body.len(), 807);
    let mut headers = HeaderMap::new();
    let signature = "t=1533204620,v1=f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613";
    headers.insert("stripe-signature", signature.parse().unwrap());
    let verifier = Stripe::new(LiveSecrets::one("webhook_secret".to_owned()).unwrap());
    let verified = verifier.verify(&Inbound::new(&headers, body), Timestamp::from_millis(1_533_204_620_000)).unwrap();
    assert_eq!(verified.message_id.as_deref(), Some("evt_123"));
}

#[test]
fn square_signs_another_url_with_another_key() {
    let verifier = Square::new(LiveSecrets::one("signature-key".to_owned()).unwrap());
    let mut headers = HeaderMap::new();
    headers.insert("x-square-hmacsha256-signature", "W3FlCNk5IA3ZQ2LHTWoajvzfaDu/OwY2tNHIHC3IUOA=".parse().unwrap());
    let request = Inbound::new(&headers, br#"{"data":{"type":"webhooks","id":"fake_id"}}"#);
    assert!(verifier.verify(&request.with_url("https://webhook.site/webhooks"), Timestamp::EPOCH).is_ok());
    assert_eq!(verifier.verify(&request, Timestamp::EPOCH), Err(VerifyFailure::NoUrl));
    let other = request.with_url("https://webhook.site/webhooks/");
    assert!(verifier.verify(&other, Timestamp::EPOCH).is_err());
}

#[test]
fn hubspots_second_version_signs_the_method() {
    let verifier = HubSpot::v2(LiveSecrets::one(HUBSPOT_SECRET.to_owned()).unwrap());
    let mut headers = HeaderMap::new();
    let signature = "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e";
    headers.insert("x-hubspot-signature", signature.parse().unwrap());
    let request = Inbound::new(&headers, b"").with_url(HUBSPOT_URL);
    assert!(verifier.verify(&request.with_method(&Method::GET), Timestamp::EPOCH).is_ok());
    assert!(verifier.verify(&request.with_method(&Method::POST), Timestamp::EPOCH).is_err());
    headers.insert("x-hubspot-signature-version", "v2".parse().unwrap());
    let request = Inbound::new(&headers, b"").with_url(HUBSPOT_URL).with_method(&Method::GET);
    assert!(verifier.verify(&request, Timestamp::EPOCH).is_ok());
    let first = HubSpot::v1(LiveSecrets::one(HUBSPOT_SECRET.to_owned()).unwrap());
    assert!(matches!(first.verify(&request, Timestamp::EPOCH), Err(VerifyFailure::NoKnownVersion { .. })));
}

#[test]
fn twilio_counts_repeated_values_once() {
    let mut scene = scenes::twilio("https://mycompany.com/myapp.php?foo=1&bar=2", "IK+Dwps556ElfBT0I3Rgjkr1wJU=");
    scene.body = b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234".to_vec();
    scene.headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
    assert!(scene.ask(&scene.header_map(), &scene.body, scene.now).is_ok());
}

#[test]
fn messages_are_known_by_the_senders_id() {
    for (name, header, id) in [
        ("github", "x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("gitlab", "idempotency-key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        ("shopify", "x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("linear", "linear-delivery", "234d1a4e-b617-4388-90fe-adc3633d6b72"),
        ("twilio", "i-twilio-idempotency-token", "77e2f3b1-0b5c-4b1f-9e3c-0c7f3e1d2a55"),
    ] {
        let scene = named(name);
        let mut headers = scene.header_map();
        headers.insert(header, id.parse().unwrap());
        let verified = scene.ask(&headers, &scene.body, scene.now).unwrap();
        assert_eq!(verified.message_id.as_deref(), Some(id), "{name}");
        headers.append(header, id.parse().unwrap());
        assert!(scene.ask(&headers, &scene.body, scene.now).is_err(), "{name}: two ids");
    }
    for (name, id) in [
        ("stripe", "evt_1"),
        ("square", "ac3ac95b-f97d-458c-a6e6-18981597e05f"),
        ("discord", "846462639134605312"),
        ("mailgun", MAILGUN_TOKEN),
    ] {
        let scene = named(name);
        let verified = scene.ask(&scene.header_map(), &scene.body, scene.now).unwrap();
        assert_eq!(verified.message_id.as_deref(), Some(id), "{name}");
    }
}

#[test]
fn plain_hmacs_are_written_in_many_ways() {
    let (key, body) = (b"s3cr3t", b"a body");
    let name = http::HeaderName::from_static("x-code");
    for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
        let code = hash.hmac(key, &[body]);
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let text = match encoding {
                Encoding::Hex => hex::encode(&code),
                Encoding::Base64 => base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &code),
            };
            let verifier = HmacVerifier::new(name.clone(), LiveSecrets::one(Secret::new("s3cr3t")).unwrap())
                .with_hash(hash)
                .with_encoding(encoding)
                .with_prefix("code: ");
            let mut headers = HeaderMap::new();
            headers.insert(&name, format!("code: {text}").parse().unwrap());
            assert!(verifier.verify(&Inbound::new(&headers, body), Timestamp::EPOCH).is_ok(), "{hash:?} {encoding:?}");
            headers.insert(&name, text.parse().unwrap());
            assert_eq!(
                verifier.verify(&Inbound::new(&headers, body), Timestamp::EPOCH),
                Err(VerifyFailure::Malformed { header: name.clone() })
            );
        }
    }
}

/// RFC 4231, test case 2.
#[test]
fn hmac_sha512_is_the_one_of_the_rfc() {
    let code = Hash::Sha512.hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
    let expected = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737";
    assert_eq!(hex::encode(code), expected);
}

#[test]
fn the_table_of_scenes_is_complete() {
    let names: Vec<_> = scenes::all().iter().map(|scene: &Scene| scene.name).collect();
    for name in [
        "standard", "github", "gitlab", "stripe", "slack", "shopify", "twilio", "discord", "sendgrid", "square",
        "paddle", "linear", "zoom", "mailgun", "hubspot", "hmac",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}
