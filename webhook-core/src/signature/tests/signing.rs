use std::sync::Arc;

use super::*;
use crate::OsEntropy;

fn schemes() -> Vec<Arc<dyn Signer>> {
    let signers = Signers::default();
    signers.names().map(|name| signers.get(name).unwrap().clone()).collect()
}

fn message(body: &[u8]) -> Message<'_> {
    Message::new("msg_1", Timestamp::from_millis(1_614_265_330_999), body)
}

#[test]
fn standard_webhooks_vectors() {
    for vector in vectors("standard_webhooks") {
        let text = |name: &str| vector[name].as_str().unwrap().to_owned();
        let (key, id, body) = (text("key"), text("id"), text("body"));
        let signer: &dyn Signer = match key.split_once('_').unwrap().0 {
            "whsec" => &StandardSigner,
            #[cfg(feature = "ed25519")]
            "whsk" => {
                assert_eq!(Ed25519Signer.public_key(&Secret::new(key.as_str())), Some(text("public")));
                &Ed25519Signer
            }
            _ => continue,
        };
        let seconds = vector["timestamp"].as_i64().unwrap();
        let headers = signed(signer, &Message::new(&id, at_secs(seconds), body.as_bytes()), &[&key]).unwrap();
        assert_eq!(headers["webhook-id"], *id);
        assert_eq!(headers["webhook-timestamp"], *seconds.to_string());
        assert_eq!(headers["webhook-signature"], *text("signature"));
        assert_eq!(headers.len(), 3);
    }
}

#[test]
fn github_vectors() {
    for vector in vectors("github") {
        let (secret, digits) = (vector["secret"].as_str().unwrap(), vector["sha256_hex"].as_str().unwrap());
        for (signer, header, prefix) in [
            (PlainSigner::X_HUB_SIGNATURE_256, "x-hub-signature-256", "sha256="),
            (PlainSigner::X_WEBHOOK_SIGNATURE_256, "x-webhook-signature-256", "sha256="),
            (PlainSigner::X_SIGNATURE, "x-signature", ""),
        ] {
            let headers = signed(&signer, &message(&body(&vector)), &[secret]).unwrap();
            assert_eq!(headers[header], *format!("{prefix}{digits}"));
            assert_eq!(headers.len(), 1);
        }
    }
}

#[test]
fn i9_the_bytes_are_signed_as_they_are() {
    let headers = signed(&StandardSigner, &message(BODY), &[WHSEC]).unwrap();
    assert_eq!(headers["webhook-signature"], "v1,iNVE5VK9sxUlIXRR31frvWPbvCSSdvJQe71mYToBY2Y=");
    let headers = signed(&PlainSigner::X_SIGNATURE, &message(BODY), &["s3cr3t"]).unwrap();
    assert_eq!(headers["x-signature"], "ca2d781b972bd4ed3b49fbb1329191180e72195b73e96d2053c1bca0cceb0ca1");
}

#[test]
fn in_a_rotation_standard_signs_with_each_secret_and_plain_with_the_newest() {
    let one = |secret| signed(&StandardSigner, &message(BODY), &[secret]).unwrap()["webhook-signature"].clone();
    let both = signed(&StandardSigner, &message(BODY), &[WHSEC, OTHER_WHSEC]).unwrap();
    let expected = format!("{} {}", one(WHSEC).to_str().unwrap(), one(OTHER_WHSEC).to_str().unwrap());
    assert_eq!(both["webhook-signature"], *expected);

    let both = signed(&PlainSigner::X_SIGNATURE, &message(BODY), &["new", "old"]).unwrap();
    assert_eq!(both, signed(&PlainSigner::X_SIGNATURE, &message(BODY), &["new"]).unwrap());
}

#[test]
fn generated_secrets_are_accepted_and_differ() {
    for signer in schemes() {
        let secret = signer.generate_secret(&OsEntropy);
        assert_eq!(signer.check_secret(&secret), Ok(()), "{signer:?}");
        assert!(secret != signer.generate_secret(&OsEntropy), "{signer:?}");
        signed(signer.as_ref(), &message(BODY), &[secret.expose()]).unwrap();
    }
}

#[test]
fn signing_replaces_headers_of_the_same_name_and_leaves_the_others() {
    for signer in schemes() {
        let secrets = [signer.generate_secret(&OsEntropy)];
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("acme"));
        for name in signer.signature_headers() {
            headers.append(*name, HeaderValue::from_static("forged"));
            headers.append(*name, HeaderValue::from_static("twice"));
        }
        signer.sign(&message(BODY), &secrets, &mut headers).unwrap();
        assert_eq!(headers["x-tenant"], "acme");
        for name in signer.signature_headers() {
            assert_eq!(headers.get_all(*name).iter().count(), 1, "{name}");
            assert!(headers[*name] != "forged" && headers[*name].is_sensitive(), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_signed_changes_no_header() {
    let secret = |text: &str| vec![Secret::new(text)];
    for signer in schemes() {
        let good = signer.generate_secret(&OsEntropy);
        let mut cases = vec![(vec![], "msg_1", SignError::NoSecret)];
        if signer.scheme().starts_with("standard") {
            for id in ["", "a.b", "a b", "a\nb", "ä"] {
                cases.push((vec![good.clone()], id, SignError::MessageId));
            }
            let bad = signer.check_secret(&Secret::new("nope")).unwrap_err();
            cases.push((vec![good.clone(), Secret::new("nope")], "msg_1", SignError::Secret(bad)));
        } else {
            cases.push((secret("a\nb"), "msg_1", SignError::Secret(SecretError::ControlCharacter)));
        }
        for (secrets, id, expected) in cases {
            let mut headers = HeaderMap::new();
            let result = signer.sign(&Message::new(id, Timestamp::EPOCH, BODY), &secrets, &mut headers);
            assert_eq!(result, Err(expected), "{signer:?} {id:?}");
            assert!(headers.is_empty(), "{signer:?} {id:?}");
        }
    }
}

#[test]
fn standard_secrets_are_24_to_64_bytes_in_padded_base64() {
    let check = |text: String| StandardSigner.check_secret(&Secret::new(text));
    let of = |length: usize| standard::encode_secret("whsec_", &vec![7; length]).expose().to_owned();
    for length in [24, 25, 32, 64] {
        assert_eq!(check(of(length)), Ok(()), "{length}");
    }
    for length in [0, 1, 23, 65] {
        assert!(matches!(check(of(length)), Err(SecretError::Length { .. })), "{length}");
    }
    for text in [String::new(), WHSEC[6..].to_owned(), WHSEC.replace("whsec", "WHSEC"), format!(" {WHSEC}")] {
        assert_eq!(check(text.clone()), Err(SecretError::Prefix { expected: "whsec_" }), "{text:?}");
    }
    let unpadded = of(25).trim_end_matches('=').to_owned();
    let url_safe = format!("whsec_{}", "-_".repeat(16));
    for text in [unpadded, url_safe, format!("{WHSEC}\n"), format!("{WHSEC}="), format!("{}x", of(25))] {
        assert_eq!(check(text.clone()), Err(SecretError::Encoding { prefix: "whsec_" }), "{text:?}");
    }
}

#[test]
fn plain_secrets_are_1_to_512_bytes_of_text() {
    let check = |text: &str| PlainSigner::X_SIGNATURE.check_secret(&Secret::new(text));
    for text in ["x", "It's a Secret to Everybody", "пароль", &"x".repeat(512)] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    for text in ["", &"x".repeat(513), &"ä".repeat(257)] {
        assert!(matches!(check(text), Err(SecretError::Length { .. })), "{text}");
    }
    for text in ["a\nb", "\0", "a\u{7f}", "a\u{85}"] {
        assert_eq!(check(text), Err(SecretError::ControlCharacter), "{text:?}");
    }
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519_secrets_are_a_seed_or_a_pair_that_fits() {
    let check = |key: &[u8]| Ed25519Signer.check_secret(&standard::encode_secret("whsk_", key));
    let pair = standard::decode_secret(&Ed25519Signer.generate_secret(&OsEntropy), "whsk_").unwrap();
    assert_eq!(check(&pair), Ok(()));
    assert_eq!(check(&pair[..32]), Ok(()));
    let seed = standard::encode_secret("whsk_", &pair[..32]);
    let whole = standard::encode_secret("whsk_", &pair);
    assert_eq!(Ed25519Signer.public_key(&seed), Ed25519Signer.public_key(&whole));

    for length in [0, 31, 33, 63] {
        assert!(matches!(check(&pair[..length]), Err(SecretError::Length { .. })), "{length}");
    }
    let mut other = pair.clone();
    other[63] ^= 1;
    assert_eq!(check(&other), Err(SecretError::KeyPair));
    assert_eq!(Ed25519Signer.public_key(&standard::encode_secret("whsk_", &other)), None);
    assert_eq!(Ed25519Signer.check_secret(&Secret::new(WHSEC)), Err(SecretError::Prefix { expected: "whsk_" }));
}

#[test]
fn i12_errors_do_not_show_the_secret() {
    for signer in schemes() {
        for text in ["hush\n", "whsec_hush!", "whsk_hush!", "whsec_hush", &format!("hush{}", "x".repeat(600))] {
            if let Err(error) = signer.check_secret(&Secret::new(text)) {
                assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
            }
        }
    }
}

#[test]
fn the_registry_knows_the_built_in_schemes_and_takes_more() {
    #[derive(Debug)]
    struct Renamed(PlainSigner);

    impl Signer for Renamed {
        fn scheme(&self) -> &str {
            "acme"
        }
        fn generate_secret(&self, entropy: &dyn Entropy) -> Secret {
            self.0.generate_secret(entropy)
        }
        fn check_secret(&self, secret: &Secret) -> Result<(), SecretError> {
            self.0.check_secret(secret)
        }
        fn public_key(&self, secret: &Secret) -> Option<String> {
            self.0.public_key(secret)
        }
        fn signs_with_all(&self) -> bool {
            true
        }

        fn signature_headers(&self) -> &[&'static str] {
            self.0.signature_headers()
        }
        fn sign(&self, message: &Message<'_>, secrets: &[Secret], headers: &mut HeaderMap) -> Result<(), SignError> {
            self.0.sign(message, secrets, headers)
        }
    }

    let signers = Signers::default().with(Arc::new(Renamed(PlainSigner::X_SIGNATURE)));
    let mut expected = vec!["acme", "standard", "x-hub-signature-256", "x-signature", "x-webhook-signature-256"];
    if cfg!(feature = "ed25519") {
        expected.insert(2, "standard-ed25519");
    }
    assert_eq!(signers.names().collect::<Vec<_>>(), expected);
    for name in signers.names() {
        assert_eq!(signers.get(name).unwrap().scheme(), name);
    }
    assert!(signers.get("none").is_none());
}
