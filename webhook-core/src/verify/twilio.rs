//! Twilio.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;
use http::header::CONTENT_TYPE;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::form_urlencoded;

use super::code::{Hash, matching};
use super::{Encoding, Inbound, LiveSecrets, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
const IDEMPOTENCY_TOKEN: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");
const FORM: &str = "application/x-www-form-urlencoded";
const BODY_DIGEST: &str = "bodySHA256";

/// Twilio: `X-Twilio-Signature: <base64>`, an HMAC-SHA1 of the URL and the form, keyed with the account's auth token.
///
/// A form is covered as the names and values of its fields, sorted and without repetitions, after the URL. Any other body
/// is covered by its SHA-256 in the query parameter `bodySHA256`, which must be there. Since it is not certain whether
/// Twilio signed a URL with its port or without, both are tried. No time is covered, and the message id
/// `I-Twilio-Idempotency-Token` is not either.
///
/// Source: Twilio, "Security", "Validating requests are coming from Twilio"
/// (<https://www.twilio.com/docs/usage/security#validating-requests>), and twilio-python `twilio/request_validator.py`.
#[derive(Clone, Debug)]
pub struct Twilio {
    secrets: LiveSecrets,
}

impl Twilio {
    /// With the account's auth tokens.
    pub const fn new(secrets: LiveSecrets) -> Self {
        Self { secrets }
    }
}

impl Verifier for Twilio {
    fn scheme(&self) -> &'static str {
        "twilio"
    }

    fn verify(&self, request: &Inbound<'_>, _now: Timestamp) -> Result<Verified, VerifyFailure> {
        let url = request.url.ok_or(VerifyFailure::NoUrl)?;
        let value = header::signature(request.headers, &SIGNATURE)?;
        let given = Encoding::Base64.decode(value, Hash::Sha1.length()).ok_or_else(|| header::malformed(&SIGNATURE))?;
        let fields = if is_form(request) { fields(request.body) } else { String::new() };
        let given = [given];
        let matches = |url: &str| {
            let content = [url.as_bytes(), fields.as_bytes()];
            matching(self.secrets.keys(), &given, |key| Hash::Sha1.hmac(key, &content)).is_some()
        };
        if !spellings(url).iter().any(|url| matches(url)) {
            return Err(header::mismatch(&SIGNATURE));
        }
        // A form without fields signs as no body at all does: what is not in the fields must not pass as nothing.
        let covered = is_form(request) || request.body.is_empty();
        if !covered || names_digest(url) {
            check_digest(url, request.body)?;
        }
        Ok(Verified::new().with_message_id(header::id(request.headers, &IDEMPOTENCY_TOKEN)?))
    }
}

fn is_form(request: &Inbound<'_>) -> bool {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// Names and values without anything between them, sorted and each once.
fn fields(body: &[u8]) -> String {
    let mut sorted: BTreeMap<Cow<'_, str>, BTreeSet<Cow<'_, str>>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        sorted.entry(name).or_default().insert(value);
    }
    let mut text = String::with_capacity(body.len());
    for (name, values) in &sorted {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

fn names_digest(url: &str) -> bool {
    digest_of(url).is_some()
}

/// What the URL says that the body's SHA-256 is.
fn digest_of(url: &str) -> Option<Cow<'_, str>> {
    let (_, query) = url.split_once('?')?;
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == BODY_DIGEST).map(|(_, value)| value)
}

/// The body's SHA-256 must be the one in the URL, whose signature held.
fn check_digest(url: &str, body: &[u8]) -> Result<(), VerifyFailure> {
    let digest =
        digest_of(url).and_then(|value| Encoding::Hex.decode(value.as_bytes(), 32)).ok_or(VerifyFailure::OtherBody)?;
    let actual = Sha256::digest(body);
    if actual.as_slice().ct_eq(&digest).into() { Ok(()) } else { Err(VerifyFailure::OtherBody) }
}

/// The URL as it is, with the default port where it has none, and without its port.
fn spellings(url: &str) -> Vec<String> {
    let mut all = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return all };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // Behind the brackets of an IPv6 address, and behind a password.
    let host = authority.rfind([']', '@']).map_or(0, |at| at + 1);
    match authority[host..].rfind(':') {
        Some(colon) => all.push(format!("{scheme}://{}{tail}", &authority[..host + colon])),
        None => {
            let port = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
            all.push(format!("{scheme}://{authority}:{port}{tail}"));
        }
    }
    all
}
