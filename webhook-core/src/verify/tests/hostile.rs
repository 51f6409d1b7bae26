//! Whatever bytes a sender puts into headers, body and URL: a failure, and no panic.
//!
//! Two kinds of input for each header: any bytes, and the right value with pieces cut, doubled and changed, which gets
//! deeper into the parsers. All headers together run for `FUZZ_SECONDS`, a minute by default; bodies and URLs for a third
//! of that.

use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;

use super::scenes::{self, Scene};
use crate::testing::{fuzz, fuzz_time};
use crate::verify::{Encoding, Hash, HmacVerifier};

/// An equal part of a time.
fn share(time: Duration, targets: usize) -> Duration {
    time / u32::try_from(targets).unwrap()
}

/// Headers that are read where they are there, but that the signature does not need, or that have other names.
fn also_read() -> Vec<(Scene, &'static str)> {
    let optional = [
        ("github", "x-github-delivery"),
        ("gitlab", "idempotency-key"),
        ("gitlab", "webhook-id"),
        ("shopify", "x-shopify-webhook-id"),
        ("linear", "linear-delivery"),
        ("linear", "linear-timestamp"),
        ("twilio", "i-twilio-idempotency-token"),
        ("hubspot", "x-hubspot-signature-version"),
    ];
    let mut read: Vec<_> = optional.map(|(scheme, header)| (scenes::named(scheme), header)).to_vec();
    for name in ["svix-id", "svix-timestamp", "svix-signature"] {
        let mut scene = scenes::standard(0);
        for (header, _) in &mut scene.headers {
            *header = match *header {
                "webhook-id" => "svix-id",
                "webhook-timestamp" => "svix-timestamp",
                _ => "svix-signature",
            };
        }
        assert!(scene.ask(&scene.header_map(), &scene.body, scene.now).is_ok());
        read.push((scene, name));
    }
    let plain: [scenes::Make; 2] = [
        |secrets| {
            let verifier = HmacVerifier::new(http::HeaderName::from_static("x-signature"), secrets);
            Ok(Box::new(verifier.with_prefix("sha1=").with_hash(Hash::Sha1).with_encoding(Encoding::Base64)))
        },
        |secrets| {
            let verifier = HmacVerifier::new(http::HeaderName::from_static("x-signature"), secrets);
            Ok(Box::new(verifier.with_prefix("v1,").with_hash(Hash::Sha512)))
        },
    ];
    read.extend(plain.map(|make| (Scene { make, ..scenes::named("hmac") }, "x-signature")));
    read
}

/// What a header may be made of (RFC 9110 section 5.5), with the characters that mean something more often.
fn arbitrary() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(b"=,;: .%+/v0t1hsA".to_vec()),
        1 => prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..],
    ];
    prop::collection::vec(byte, 0..300)
}

/// Where to begin, how much to take away, and what to put there.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
    let piece = prop_oneof![Just(Vec::new()), arbitrary(), Just(b"v1,".to_vec()), Just(b",v1=".to_vec())];
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, piece), 1..4)
}

fn changed(value: &[u8], changes: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    let mut value = value.to_vec();
    for (at, remove, insert) in changes {
        let at = at.index(value.len() + 1);
        let end = (at + remove).min(value.len());
        value.splice(at..end, insert.iter().copied());
    }
    value
}

#[test]
fn no_value_of_a_header_is_a_panic_or_a_pass() {
    let scenes = scenes::all();
    let also = also_read();
    let needed: usize = scenes.iter().map(|scene| scene.headers.len() * 2).sum();
    let share = share(fuzz_time(60), needed + also.len() * 2);
    for (scene, name) in &also {
        let right = scene.headers.iter().find(|(known, _)| known == name).map_or("msg_1", |(_, value)| value);
        let ask = |value: &[u8]| {
            let Ok(value) = HeaderValue::from_bytes(value) else { return Ok(()) };
            let mut headers = scene.header_map();
            headers.insert(*name, value);
            drop(scene.ask(&headers, &scene.body, scene.now));
            Ok(())
        };
        fuzz(share, &arbitrary(), |value| ask(&value));
        fuzz(share, &changes(), |changes| ask(&changed(right.as_bytes(), &changes)));
    }
    for scene in &scenes {
        for (name, right) in &scene.headers {
            let ask = |value: &[u8]| {
                // What the HTTP parser would not let through.
                let Ok(value) = HeaderValue::from_bytes(value) else { return Ok(()) };
                let mut headers = scene.header_map();
                headers.insert(*name, value.clone());
                let outcome = scene.ask(&headers, &scene.body, scene.now);
                let passes = same(right, value.as_bytes()) || *name == "content-type";
                prop_assert!(outcome.is_err() || passes, "{value:?}");
                Ok(())
            };
            fuzz(share, &arbitrary(), |value| ask(&value));
            fuzz(share, &changes(), |changes| ask(&changed(right.as_bytes(), &changes)));
        }
    }
}

/// Whether that means the same, or is a list that still has the right signature, whose most are its last 40 characters.
fn same(right: &str, value: &[u8]) -> bool {
    let tail = &right.as_bytes()[right.len().saturating_sub(40)..];
    let within = right.len() > 40 && value.windows(tail.len()).any(|window| window.eq_ignore_ascii_case(tail));
    within || value.eq_ignore_ascii_case(right.as_bytes())
}

#[test]
fn no_body_and_no_url_is_a_panic_or_a_pass() {
    let scenes = scenes::all();
    let share = share(fuzz_time(60) / 3, scenes.len() * 3);
    for scene in &scenes {
        let ask = |body: &[u8]| {
            let outcome = scene.ask(&scene.header_map(), body, scene.now);
            // Not every byte of a form means something.
            let passes = body == scene.body || scene.name == "twilio" || !scene.covers_body;
            prop_assert!(outcome.is_err() || passes);
            Ok(())
        };
        fuzz(share, &prop::collection::vec(any::<u8>(), 0..300), |body| ask(&body));
        fuzz(share, &changes(), |changes| ask(&changed(&scene.body, &changes)));
        let Some(url) = &scene.url else { continue };
        fuzz(share, &changes(), |changes| {
            let url = changed(url.as_bytes(), &changes);
            let elsewhere = Scene { url: Some(String::from_utf8_lossy(&url).into_owned()), ..scene.clone() };
            drop(elsewhere.ask(&scene.header_map(), &scene.body, scene.now));
            Ok(())
        });
    }
}

#[test]
fn headers_of_one_scheme_mean_nothing_to_another() {
    for scene in scenes::all() {
        for foreign in scenes::all().iter().filter(|foreign| foreign.name != scene.name) {
            if scene.headers.is_empty() || (scene.headers[0].0 == foreign.headers.first().map_or("", |first| first.0)) {
                continue;
            }
            let outcome = scene.ask(&foreign.header_map(), &foreign.body, scene.now);
            assert!(outcome.is_err(), "{} took what {} signed", scene.name, foreign.name);
        }
    }
}
