use http::{HeaderMap, HeaderName};

use super::scenes::{self, MAILGUN_TOKEN, Scene, named, standard, twilio_json};
use crate::signature::SecretError;
use crate::verify::*;
use crate::{Secret, Timestamp};

/// What the signature needs, without what only says how to read the body.
fn signed_headers(scene: &Scene) -> impl Iterator<Item = HeaderName> {
    scene.headers.iter().map(|(name, _)| HeaderName::from_static(name)).filter(|name| *name != "content-type")
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    for scene in scenes::all().iter().filter(|scene| scene.covers_body) {
        for at in 0..scene.body.len() {
            let mut body = scene.body.clone();
            body[at] ^= 1;
            assert!(scene.ask(&scene.header_map(), &body, scene.now).is_err(), "{}: byte {at}", scene.name);
        }
        let longer = [&scene.body[..], b"&"].concat();
        let outcome = scene.ask(&scene.header_map(), &longer, scene.now);
        // An empty field of a form is no field.
        assert!(outcome.is_err() || scene.name == "twilio", "{}: one byte more", scene.name);
    }
}

#[test]
fn a_changed_url_is_noticed() {
    for mut scene in scenes::all().into_iter().filter(|scene| scene.name != "standard") {
        let Some(url) = scene.url.clone() else { continue };
        if scene.name == "hubspot" && scene.headers[0].0 == "x-hubspot-signature" && scene.body.starts_with(b"[") {
            continue;
        }
        scene.url = Some(format!("{url}/"));
        assert!(scene.ask(&scene.header_map(), &scene.body, scene.now).is_err(), "{}", scene.name);
        scene.url = None;
        let failure = scene.ask(&scene.header_map(), &scene.body, scene.now).unwrap_err();
        assert_eq!(failure, VerifyFailure::NoUrl, "{}", scene.name);
        assert!(failure.is_misconfiguration());
    }
}

#[test]
fn a_wrong_key_verifies_nothing_and_a_right_one_among_wrong_ones_does() {
    for scene in scenes::all() {
        let ask = |keys: &[&str]| scene.ask_with(keys, &scene.header_map(), &scene.body, scene.now);
        let (key, other) = (scene.key.as_str(), scene.other_key.as_str());
        assert!(
            matches!(ask(&[other]), Err(VerifyFailure::Mismatch { .. } | VerifyFailure::BodyMismatch)),
            "{}: {:?}",
            scene.name,
            ask(&[other])
        );
        for keys in [&[key, other][..], &[other, key], &[other, other, key]] {
            assert!(ask(keys).is_ok(), "{}: {keys:?}", scene.name);
        }
    }
}

#[test]
fn an_empty_secret_is_refused_when_the_verifier_is_made() {
    for scene in scenes::all() {
        assert_eq!(scene.verifier(&[""]).map(drop), Err(SecretError::Empty), "{}", scene.name);
        assert_eq!(scene.verifier(&[&scene.key, ""]).map(drop), Err(SecretError::Empty), "{}", scene.name);
        assert_eq!(scene.verifier(&[]).map(drop), Err(SecretError::Count { limit: 8 }), "{}", scene.name);
        let many = vec![scene.key.as_str(); 9];
        assert_eq!(scene.verifier(&many).map(drop), Err(SecretError::Count { limit: 8 }), "{}", scene.name);
        assert!(scene.verifier(&many[1..]).is_ok(), "{}", scene.name);
    }
}

#[test]
fn keys_of_another_form_are_refused_when_the_verifier_is_made() {
    for (name, keys) in [
        ("standard", &["whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whpk_AAAA", "whsk_AAAA"][..]),
        ("discord", &["zz", "d75a", "0000000000000000000000000000000000000000000000000000000000000000"]),
        ("sendgrid", &["zz", "AAAA", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"]),
    ] {
        let scene = named(name);
        for key in keys {
            assert!(scene.verifier(&[key]).is_err(), "{name}: {key}");
        }
    }
    assert!(GitLab::signing(LiveSecrets::one(Secret::new("a token")).unwrap()).is_err());
}

#[test]
fn a_stripped_header_is_noticed() {
    for scene in scenes::all() {
        for name in signed_headers(&scene) {
            let mut headers = scene.header_map();
            headers.remove(&name);
            let expected = match name == scene.signature_header() {
                true => VerifyFailure::Unsigned,
                false => VerifyFailure::Missing { header: name.clone() },
            };
            assert_eq!(scene.ask(&headers, &scene.body, scene.now), Err(expected), "{}: {name}", scene.name);
        }
    }
}

#[test]
fn a_doubled_header_is_refused_even_when_both_are_right() {
    for scene in scenes::all() {
        for name in signed_headers(&scene) {
            let right = scene.header_map()[&name].clone();
            for (first, second) in [(right.clone(), right.clone()), ("x".parse().unwrap(), right.clone())] {
                let mut headers = scene.header_map();
                headers.insert(&name, first);
                headers.append(&name, second);
                let expected = VerifyFailure::Repeated { header: name.clone() };
                assert_eq!(scene.ask(&headers, &scene.body, scene.now), Err(expected), "{}: {name}", scene.name);
            }
        }
    }
}

#[test]
fn the_order_of_headers_does_not_matter() {
    for mut scene in scenes::all() {
        scene.headers.reverse();
        scene.headers.insert(0, ("accept", "*/*".to_owned()));
        assert!(scene.ask(&scene.header_map(), &scene.body, scene.now).is_ok(), "{}", scene.name);
    }
}

#[test]
fn other_versions_alone_are_not_enough() {
    for (index, foreign) in [(0, "v1a,AAAA v2,AAAA"), (2, "v1,AAAA v2,AAAA")] {
        let scene = standard(index);
        let expected = VerifyFailure::NoKnownVersion { header: scene.signature_header() };
        assert_eq!(scene.ask_signed(foreign), Err(expected));
    }
    for (name, from, to) in [("stripe", "v1=", "v0="), ("paddle", "h1=", "h2=")] {
        let scene = named(name);
        let expected = VerifyFailure::NoKnownVersion { header: scene.signature_header() };
        assert_eq!(scene.ask_signed(&scene.headers[0].1.replace(from, to)), Err(expected), "{name}");
    }
    for (name, from, to) in
        [("slack", "v0=", "v1="), ("zoom", "v0=", "v1="), ("github", "sha256=", "sha1="), ("zoom", "v0=", "")]
    {
        let scene = named(name);
        let expected = VerifyFailure::Malformed { header: scene.signature_header() };
        assert_eq!(scene.ask_signed(&scene.headers[0].1.replace(from, to)), Err(expected), "{name}");
    }
}

#[test]
fn the_right_signature_among_wrong_ones_is_found() {
    let zeros = "0".repeat(64);
    let wrong = format!("v1,{}=", "A".repeat(43));
    let right = standard(0).headers[0].1.clone();
    for list in [format!("{wrong} {right}"), format!("{right} {wrong}"), format!("v1a,AAAA {wrong} {right} v9,?")] {
        assert!(standard(0).ask_signed(&list).is_ok(), "{list}");
    }
    for (name, label, separator) in [("stripe", "v1", ","), ("paddle", "h1", ";")] {
        let scene = named(name);
        let (time, signature) = scene.headers[0].1.split_once(separator).unwrap();
        for parts in [
            [time, &format!("{label}={zeros}"), signature],
            [time, signature, &format!("{label}={zeros}")],
            [signature, &format!("{label}={zeros}"), time],
            [time, "other=x", signature],
        ] {
            assert!(scene.ask_signed(&parts.join(separator)).is_ok(), "{name}: {parts:?}");
        }
        let wrong = [time, &format!("{label}={zeros}")].join(separator);
        assert_eq!(scene.ask_signed(&wrong), Err(VerifyFailure::Mismatch { header: scene.signature_header() }));
    }
}

#[test]
fn at_most_32_signatures_are_looked_at() {
    let scene = standard(0);
    let many = |count| vec![scene.headers[0].1.as_str(); count].join(" ");
    assert!(scene.ask_signed(&many(32)).is_ok());
    assert_eq!(scene.ask_signed(&many(33)), Err(VerifyFailure::TooMany { header: scene.signature_header() }));
    for (name, separator) in [("stripe", ","), ("paddle", ";")] {
        let scene = named(name);
        let (time, signature) = scene.headers[0].1.split_once(separator).unwrap();
        let many = |count| [vec![time], vec![signature; count]].concat().join(separator);
        assert!(scene.ask_signed(&many(32)).is_ok(), "{name}");
        let expected = VerifyFailure::TooMany { header: scene.signature_header() };
        assert_eq!(scene.ask_signed(&many(33)), Err(expected), "{name}");
    }
}

#[test]
fn signatures_that_are_not_in_their_form_are_refused() {
    for scene in scenes::all().iter().filter(|scene| !scene.headers.is_empty() && scene.name != "gitlab") {
        let right = &scene.headers[0].1;
        let cut = &right[..right.len() - 1];
        for wrong in [cut.to_owned(), format!("{right}0"), format!("{right} "), format!(" {right}"), String::new()] {
            let failure = scene.ask_signed(&wrong).unwrap_err();
            assert!(matches!(failure, VerifyFailure::Malformed { .. }), "{}: {wrong:?}: {failure:?}", scene.name);
        }
    }
}

#[test]
fn a_time_that_is_listed_twice_is_refused() {
    for (name, time) in [("stripe", "t=1700000000,"), ("paddle", "ts=1698796800;")] {
        let scene = named(name);
        let expected = VerifyFailure::Malformed { header: scene.signature_header() };
        assert_eq!(scene.ask_signed(&format!("{time}{}", scene.headers[0].1)), Err(expected.clone()), "{name}");
        assert_eq!(
            scene.ask_signed(
                scene.headers[0]
                    .1
                    .strip_prefix(time.trim_end_matches([',', ';']))
                    .unwrap()
                    .trim_start_matches([',', ';'])
            ),
            Err(expected),
            "{name}: no time"
        );
    }
}

#[test]
fn mailguns_signature_covers_time_and_token_alone() {
    let scene = named("mailgun");
    let text = String::from_utf8(scene.body.clone()).unwrap();
    let ask = |body: &str| scene.ask(&HeaderMap::new(), body.as_bytes(), scene.now);
    assert!(ask(&text.replace(r#""event-data":{}"#, r#""event-data":{"forged":true}"#)).is_ok(), "as documented");
    let token = MAILGUN_TOKEN.replace('f', "e");
    assert_eq!(ask(&text.replace(MAILGUN_TOKEN, &token)), Err(VerifyFailure::BodyMismatch));
    assert_eq!(ask(&text.replace("1700000000", "1700000001")), Err(VerifyFailure::BodyMismatch));
    assert!(ask(&text.replace(r#""1700000000""#, "1700000000")).is_ok(), "a number is read too");
    for body in ["", "{}", "[]", r#"{"signature":1}"#, &text.replace("66fb", "66f"), &text.replace("17000", "+17000")] {
        assert!(matches!(ask(body), Err(VerifyFailure::Body { .. })), "{body}");
    }
}

#[test]
fn twilios_body_must_be_covered() {
    let scene = twilio_json();
    let failure = scene.ask(&scene.header_map(), br#"{"property": "other"}"#, scene.now);
    assert_eq!(failure, Err(VerifyFailure::OtherBody));
    // Without a body, or with a form that has no fields, the signature would hold.
    assert_eq!(scene.ask(&scene.header_map(), b"", scene.now), Err(VerifyFailure::OtherBody));
    let mut form = scene.header_map();
    form.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    for body in [&b""[..], b"&", b"="] {
        assert_eq!(scene.ask(&form, body, scene.now), Err(VerifyFailure::OtherBody), "{body:?}");
    }
    // Twilio signs such a URL for a GET without a body.
    let mut bare = scenes::twilio("https://mycompany.com/myapp.php", "");
    let code = Hash::Sha1.hmac(b"12345", &[b"https://mycompany.com/myapp.php"]);
    bare.headers[0].1 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, code);
    assert!(bare.ask(&bare.header_map(), b"", bare.now).is_ok());
    assert_eq!(bare.ask(&bare.header_map(), b"{}", bare.now), Err(VerifyFailure::OtherBody));
}

#[test]
fn nothing_of_a_secret_is_shown() {
    for scene in scenes::all() {
        let verifier = scene.verifier(&[&scene.key]).unwrap();
        let shown = format!("{verifier:?}");
        if !["discord", "sendgrid"].contains(&scene.name) {
            assert!(!shown.contains(&scene.key), "{shown}");
            assert!(!shown.contains(scene.key.trim_start_matches("whsec_")), "{shown}");
        }
        let failure = scene.ask_with(&[&scene.other_key], &scene.header_map(), &scene.body, Timestamp::EPOCH);
        let failure = failure.unwrap_err();
        for (_, value) in &scene.headers {
            assert!(!format!("{failure} {failure:?}").contains(value.as_str()), "{failure:?}");
        }
    }
}
