//! Checking the signature of an ingested request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::mac::{self, hmac_sha256};
use super::{PlainSigner, standard};
use crate::{Secret, Timestamp};

/// How far a timestamp may be from now, both ways.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// How many signatures one header may list.
const MAX_SIGNATURES: usize = 32;
/// Digits of a timestamp in seconds; the year 9999 has twelve.
const MAX_DIGITS: usize = 12;

/// Why the signature of a request does not hold.
///
/// Names headers and limits, never values: fit for a log, and for an answer where the host wants to help its senders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// None of the known signature headers is there.
    #[error("the request has no signature header")]
    Unsigned,
    /// A header that the signature needs is not there.
    #[error("the header `{header}` is missing")]
    Missing {
        /// The header's name.
        header: &'static str,
    },
    /// A header that may come once came more often.
    #[error("the header `{header}` is there more than once")]
    Repeated {
        /// The header's name.
        header: &'static str,
    },
    /// A header's value is not in its form.
    #[error("the header `{header}` is malformed")]
    Malformed {
        /// The header's name.
        header: &'static str,
    },
    /// The header lists more signatures than are looked at.
    #[error("the header `{header}` lists more than {MAX_SIGNATURES} signatures")]
    TooMany {
        /// The header's name.
        header: &'static str,
    },
    /// None of the listed signatures is a `v1`.
    #[error("the header `{header}` lists no `v1` signature")]
    NoKnownVersion {
        /// The header's name.
        header: &'static str,
    },
    /// Signed more than five minutes ago.
    #[error("the timestamp is more than five minutes old")]
    TooOld,
    /// Signed more than five minutes from now.
    #[error("the timestamp is more than five minutes in the future")]
    TooNew,
    /// The signature is not one of this body with this secret.
    #[error("the signature in `{header}` does not match")]
    Mismatch {
        /// The header's name.
        header: &'static str,
    },
    /// The secret is empty: anybody could sign with it.
    #[error("the secret is empty")]
    EmptySecret,
}

/// The names of the Standard Webhooks headers, which some senders prefix with their own name.
struct StandardNames {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

const WEBHOOK: StandardNames =
    StandardNames { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" };
const SVIX: StandardNames = StandardNames { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" };

/// Checks that whoever sent `headers` and `body` knows `secret`.
///
/// Looks for `X-Webhook-Signature-256: sha256=<hex>`, `X-Signature: <hex>` and the Standard Webhooks headers, also
/// with the prefix `svix-`. At least one must be there, and **all** that are there must hold. Hex may be in either
/// case.
///
/// The first two are HMAC-SHA256 over the body, keyed with the UTF-8 bytes of `secret`. For Standard Webhooks
/// ("Verifying signatures") the signed content is `id.timestamp.body`, one of the `v1` signatures must match, signatures
/// of other versions are passed over, the timestamp must be within five minutes of `now` in whole seconds, both ends
/// included, and the key is what the base64 after `whsec_` says where `secret` has this form, its UTF-8 bytes elsewhere.
///
/// Comparing takes the same time whether and which signature matches.
///
/// # Errors
///
/// [`VerifyError`]; all variants but `EmptySecret` are the sender's fault. A header that is there twice and a list of
/// more than 32 signatures are refused.
pub fn verify_ingest(secret: &Secret, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
    if secret.expose().is_empty() {
        return Err(VerifyError::EmptySecret);
    }
    let mut signed = false;
    for scheme in [PlainSigner::X_WEBHOOK_SIGNATURE_256, PlainSigner::X_SIGNATURE] {
        if let Some(value) = single(headers, scheme.header())? {
            verify_plain(scheme, secret, value, body)?;
            signed = true;
        }
    }
    for names in [WEBHOOK, SVIX] {
        if let Some(signatures) = single(headers, names.signature)? {
            verify_standard(&names, secret, headers, signatures, body, now)?;
            signed = true;
        }
    }
    if signed { Ok(()) } else { Err(VerifyError::Unsigned) }
}

fn verify_plain(scheme: PlainSigner, secret: &Secret, value: &[u8], body: &[u8]) -> Result<(), VerifyError> {
    let header = scheme.header();
    let digits = value.strip_prefix(scheme.prefix().as_bytes()).ok_or(VerifyError::Malformed { header })?;
    let mut candidate = [0; mac::LENGTH];
    hex::decode_to_slice(digits, &mut candidate).map_err(|_| VerifyError::Malformed { header })?;
    let expected = hmac_sha256(secret.expose().as_bytes(), &[body]);
    matches_any(&expected, &[candidate], header)
}

fn verify_standard(
    names: &StandardNames,
    secret: &Secret,
    headers: &HeaderMap,
    signatures: &[u8],
    body: &[u8],
    now: Timestamp,
) -> Result<(), VerifyError> {
    let required = |header| single(headers, header)?.ok_or(VerifyError::Missing { header });
    let id = required(names.id)?;
    if !standard::is_message_id(id) {
        return Err(VerifyError::Malformed { header: names.id });
    }
    let timestamp = required(names.timestamp)?;
    let seconds = parse_seconds(timestamp).ok_or(VerifyError::Malformed { header: names.timestamp })?;
    check_age(seconds, now)?;
    let candidates = parse_signatures(signatures, names.signature)?;
    let expected = hmac_sha256(&standard_key(secret), &[id, b".", timestamp, b".", body]);
    matches_any(&expected, &candidates, names.signature)
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, header: &'static str) -> Result<Option<&'a [u8]>, VerifyError> {
    let mut values = headers.get_all(header).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(VerifyError::Repeated { header });
    }
    Ok(first.map(|value| value.as_bytes()))
}

/// Digits alone: number parsers also take a sign.
fn parse_seconds(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn check_age(seconds: i64, now: Timestamp) -> Result<(), VerifyError> {
    let age = now.as_secs() - seconds;
    if age.unsigned_abs() <= TOLERANCE.as_secs() {
        Ok(())
    } else if age > 0 {
        Err(VerifyError::TooOld)
    } else {
        Err(VerifyError::TooNew)
    }
}

/// The `v1` signatures of a space-separated list; those of other versions are passed over.
fn parse_signatures(list: &[u8], header: &'static str) -> Result<Vec<[u8; mac::LENGTH]>, VerifyError> {
    let malformed = VerifyError::Malformed { header };
    let list = std::str::from_utf8(list).map_err(|_| malformed.clone())?;
    let mut candidates = Vec::new();
    for (index, signature) in list.split(' ').enumerate() {
        if index == MAX_SIGNATURES {
            return Err(VerifyError::TooMany { header });
        }
        let (version, encoded) = signature.split_once(',').ok_or_else(|| malformed.clone())?;
        if version == standard::VERSION {
            let decoded = STANDARD.decode(encoded).map_err(|_| malformed.clone())?;
            candidates.push(decoded.try_into().map_err(|_| malformed.clone())?);
        }
    }
    if candidates.is_empty() { Err(VerifyError::NoKnownVersion { header }) } else { Ok(candidates) }
}

fn standard_key(secret: &Secret) -> Zeroizing<Vec<u8>> {
    match standard::decode_secret(secret, standard::SECRET_PREFIX) {
        Ok(key) if !key.is_empty() => key,
        _ => Zeroizing::new(secret.expose().as_bytes().to_vec()),
    }
}

fn matches_any(
    expected: &[u8; mac::LENGTH],
    candidates: &[[u8; mac::LENGTH]],
    header: &'static str,
) -> Result<(), VerifyError> {
    let matched = candidates.iter().fold(Choice::from(0), |matched, candidate| matched | expected.ct_eq(candidate));
    if matched.into() { Ok(()) } else { Err(VerifyError::Mismatch { header }) }
}
