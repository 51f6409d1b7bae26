use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::signature::tests::{BODY, OTHER_WHSEC, WHSEC, at_secs, body, signed, vectors};
use crate::signature::{Message, PlainSigner, Signer, StandardSigner, mac, standard};
use crate::verify::{VerifyFailure, verify_ingest};
use crate::{Secret, Timestamp};

const SECONDS: i64 = 1_614_265_330;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn verify(secret: &str, headers: &HeaderMap) -> Result<(), VerifyFailure> {
    verify_ingest(&Secret::new(secret), headers, BODY, at_secs(SECONDS))
}

fn standard_headers(secrets: &[&str]) -> HeaderMap {
    signed(&StandardSigner, &Message::new("msg_1", at_secs(SECONDS), BODY), secrets).unwrap()
}

fn plain_headers(signer: PlainSigner, secret: &str) -> HeaderMap {
    signed(&signer, &Message::new("msg_1", at_secs(SECONDS), BODY), &[secret]).unwrap()
}

/// `headers` with the value of `name` replaced.
fn with(mut headers: HeaderMap, name: &'static str, value: &str) -> HeaderMap {
    headers.insert(name, value.parse().unwrap());
    headers
}

#[test]
fn standard_webhooks_vectors() {
    for vector in vectors("standard_webhooks").iter().filter(|vector| vector["public"].is_null()) {
        let text = |name: &str| vector[name].as_str().unwrap();
        let seconds = vector["timestamp"].as_i64().unwrap();
        for prefix in ["webhook", "svix"] {
            let headers: HeaderMap =
                [("id", text("id")), ("timestamp", &seconds.to_string()), ("signature", text("signature"))]
                    .iter()
                    .map(|(name, value)| (format!("{prefix}-{name}").parse().unwrap(), value.parse().unwrap()))
                    .collect();
            let verified =
                verify_ingest(&Secret::new(text("key")), &headers, text("body").as_bytes(), at_secs(seconds));
            assert_eq!(verified, Ok(()));
        }
    }
}

#[test]
fn github_vectors() {
    for vector in vectors("github") {
        let secret = Secret::new(vector["secret"].as_str().unwrap());
        let digits = vector["sha256_hex"].as_str().unwrap();
        for (name, value) in [
            ("x-webhook-signature-256", format!("sha256={digits}")),
            ("x-signature", digits.to_owned()),
            ("x-signature", digits.to_uppercase()),
        ] {
            let verified = verify_ingest(&secret, &headers(&[(name, &value)]), &body(&vector), Timestamp::EPOCH);
            assert_eq!(verified, Ok(()), "{name}: {value}");
        }
    }
}

#[test]
fn the_timestamp_may_be_five_minutes_off_either_way() {
    let signed = standard_headers(&[WHSEC]);
    let at = |now: Timestamp| verify_ingest(&Secret::new(WHSEC), &signed, BODY, now);
    assert_eq!(at(at_secs(SECONDS - 300)), Ok(()));
    assert_eq!(at(at_secs(SECONDS + 300)), Ok(()));
    assert_eq!(at(Timestamp::from_millis((SECONDS + 300) * 1000 + 999)), Ok(()), "whole seconds count");
    assert_eq!(at(at_secs(SECONDS + 301)), Err(VerifyFailure::TooOld));
    assert_eq!(at(at_secs(SECONDS - 301)), Err(VerifyFailure::TooNew));
}

#[test]
fn one_of_several_signatures_is_enough_wherever_it_stands() {
    for secrets in [[WHSEC, OTHER_WHSEC], [OTHER_WHSEC, WHSEC]] {
        assert_eq!(verify(WHSEC, &standard_headers(&secrets)), Ok(()));
    }
    let signature = standard_headers(&[WHSEC])["webhook-signature"].to_str().unwrap().to_owned();
    let mixed = with(standard_headers(&[WHSEC]), "webhook-signature", &format!("v1a,AAAA {signature} v9,?"));
    assert_eq!(verify(WHSEC, &mixed), Ok(()), "other versions are passed over");
    assert_eq!(
        verify(OTHER_WHSEC, &standard_headers(&[WHSEC, WHSEC])),
        Err(VerifyFailure::Mismatch { header: HeaderName::from_static("webhook-signature") })
    );
}

#[test]
fn a_secret_of_another_form_keys_with_its_bytes() {
    for secret in ["s3cr3t", "whsec_", "whsec_not base64"] {
        let content = [&b"msg_1.1614265330."[..], BODY].concat();
        let signature = mac::hmac_sha256(secret.as_bytes(), &[&content]);
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
        let signed = with(standard_headers(&[WHSEC]), "webhook-signature", &format!("v1,{encoded}"));
        assert_eq!(verify(secret, &signed), Ok(()), "{secret}");
    }
}

#[test]
fn all_signatures_that_are_there_must_hold() {
    let mut both = standard_headers(&[WHSEC]);
    both.extend(plain_headers(PlainSigner::X_SIGNATURE, WHSEC));
    both.extend(plain_headers(PlainSigner::X_WEBHOOK_SIGNATURE_256, WHSEC));
    assert_eq!(verify(WHSEC, &both), Ok(()));
    let zeros = "0".repeat(64);
    for (header, value) in [
        ("x-signature", zeros.clone()),
        ("x-webhook-signature-256", format!("sha256={zeros}")),
        ("webhook-signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
    ] {
        assert_eq!(
            verify(WHSEC, &with(both.clone(), header, &value)),
            Err(VerifyFailure::Mismatch { header: HeaderName::from_static(header) })
        );
    }
}

#[test]
fn a_request_without_a_signature_is_refused() {
    assert_eq!(verify(WHSEC, &HeaderMap::new()), Err(VerifyFailure::Unsigned));
    let hub = plain_headers(PlainSigner::X_HUB_SIGNATURE_256, "s3cr3t");
    assert_eq!(verify("s3cr3t", &hub), Err(VerifyFailure::Unsigned), "not a header of ingest");
    let mut unsigned = standard_headers(&[WHSEC]);
    unsigned.remove("webhook-signature");
    assert_eq!(verify(WHSEC, &unsigned), Err(VerifyFailure::Unsigned));
    for header in ["webhook-id", "webhook-timestamp"] {
        let mut partial = standard_headers(&[WHSEC]);
        partial.remove(header);
        assert_eq!(verify(WHSEC, &partial), Err(VerifyFailure::Missing { header: HeaderName::from_static(header) }));
    }
}

#[test]
fn an_empty_secret_verifies_nothing() {
    let digits = hex::encode(mac::hmac_sha256(b"", &[BODY]));
    assert_eq!(verify("", &headers(&[("x-signature", &digits)])), Err(VerifyFailure::EmptySecret));
}

#[test]
fn a_repeated_header_is_refused() {
    let mut all = standard_headers(&[WHSEC]);
    all.extend(plain_headers(PlainSigner::X_SIGNATURE, WHSEC));
    all.extend(plain_headers(PlainSigner::X_WEBHOOK_SIGNATURE_256, WHSEC));
    for header in ["x-signature", "x-webhook-signature-256", "webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut repeated = all.clone();
        repeated.append(header, all[header].clone());
        assert_eq!(verify(WHSEC, &repeated), Err(VerifyFailure::Repeated { header: HeaderName::from_static(header) }));
    }
}

#[test]
fn at_most_32_signatures_are_looked_at() {
    let one = standard_headers(&[WHSEC])["webhook-signature"].to_str().unwrap().to_owned();
    let list =
        |length: usize| with(standard_headers(&[WHSEC]), "webhook-signature", &vec![one.as_str(); length].join(" "));
    assert_eq!(verify(WHSEC, &list(32)), Ok(()));
    assert_eq!(
        verify(WHSEC, &list(33)),
        Err(VerifyFailure::TooMany { header: HeaderName::from_static("webhook-signature") })
    );
}

#[test]
fn values_that_are_not_in_their_form_are_refused() {
    let digits = hex::encode(mac::hmac_sha256(WHSEC.as_bytes(), &[BODY]));
    let (sha1, spaced, long) = (format!("sha1={digits}"), format!("sha256= {digits}"), format!("{digits}00"));
    let good = standard_headers(&[WHSEC])["webhook-signature"].to_str().unwrap().to_owned();
    let (unpadded, trailing, leading) = (good.trim_end_matches('='), format!("{good} "), format!(" {good}"));
    let (commas, nonzero_bits) = (format!("{good},{good}"), good.replace("2Y=", "2Z="));
    for (header, value) in [
        ("x-webhook-signature-256", digits.as_str()),
        ("x-webhook-signature-256", &sha1),
        ("x-webhook-signature-256", &spaced),
        ("x-signature", ""),
        ("x-signature", &digits[1..]),
        ("x-signature", &digits[2..]),
        ("x-signature", &long),
        ("x-signature", "zz"),
        ("webhook-id", ""),
        ("webhook-id", "a.b"),
        ("webhook-timestamp", ""),
        ("webhook-timestamp", "+1614265330"),
        ("webhook-timestamp", "-1614265330"),
        ("webhook-timestamp", "1614265330.0"),
        ("webhook-timestamp", "99999999999999999999"),
        ("webhook-signature", ""),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", unpadded),
        ("webhook-signature", &trailing),
        ("webhook-signature", &leading),
        ("webhook-signature", &commas),
        ("webhook-signature", &nonzero_bits),
    ] {
        let changed = with(standard_headers(&[WHSEC]), header, value);
        assert_eq!(
            verify(WHSEC, &changed),
            Err(VerifyFailure::Malformed { header: HeaderName::from_static(header) }),
            "{header}: {value}"
        );
    }
    let foreign = with(standard_headers(&[WHSEC]), "webhook-signature", "v1a,AAAA v2,AAAA");
    assert_eq!(
        verify(WHSEC, &foreign),
        Err(VerifyFailure::NoKnownVersion { header: HeaderName::from_static("webhook-signature") })
    );
}

#[test]
fn id_and_timestamp_are_signed_too() {
    for (name, value) in
        [("webhook-id", "msg_2"), ("webhook-timestamp", "1614265331"), ("webhook-timestamp", "01614265330")]
    {
        let changed = with(standard_headers(&[WHSEC]), name, value);
        assert_eq!(
            verify(WHSEC, &changed),
            Err(VerifyFailure::Mismatch { header: HeaderName::from_static("webhook-signature") }),
            "{value}"
        );
    }
}

fn signer() -> impl Strategy<Value = &'static dyn Signer> {
    prop::sample::select(vec![
        &StandardSigner as &'static dyn Signer,
        &PlainSigner::X_SIGNATURE,
        &PlainSigner::X_WEBHOOK_SIGNATURE_256,
    ])
}

proptest! {
    #[test]
    fn what_was_signed_verifies_and_a_changed_byte_does_not(
        signer in signer(),
        key in prop::collection::vec(any::<u8>(), 24..=64),
        id in "[!-\\-/-~]{1,40}",
        seconds in 0..=Timestamp::MAX.as_secs(),
        body: Vec<u8>,
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let now = at_secs(seconds);
        let secret = standard::encode_secret("whsec_", &key);
        let headers = signed(signer, &Message::new(&id, now, &body), &[secret.expose()]).unwrap();
        prop_assert_eq!(verify_ingest(&secret, &headers, &body, now), Ok(()));

        let mut changed = body.clone();
        changed.push(0);
        prop_assert!(verify_ingest(&secret, &headers, &changed, now).is_err());
        changed.pop();
        if !changed.is_empty() {
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert!(verify_ingest(&secret, &headers, &changed, now).is_err());
        }
    }

    #[test]
    fn arbitrary_values_are_refused_without_a_panic(value in prop::collection::vec(0x20_u8..0x7f, 0..200)) {
        let value = HeaderValue::from_bytes(&value).unwrap();
        for header in ["x-signature", "x-webhook-signature-256", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut headers = standard_headers(&[WHSEC]);
            headers.insert(header, value.clone());
            if headers != standard_headers(&[WHSEC]) {
                prop_assert!(verify(WHSEC, &headers).is_err());
            }
        }
    }
}
