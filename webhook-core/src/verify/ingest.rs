//! Checking the signature of an ingested request, whichever of a few schemes it came by.

use http::HeaderMap;
use zeroize::Zeroizing;

use super::code::matching;
use super::freshness::FIVE_MINUTES;
use super::standard::{self, Names, SVIX, Signed, WEBHOOK};
use super::{HmacVerifier, Inbound, LiveSecrets, Tolerance, VerifyFailure, header};
use crate::signature::{PlainSigner, mac, standard as signing};
use crate::{Secret, Timestamp};

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
/// [`VerifyFailure`]; all variants but `EmptySecret` are the sender's fault. A header that is there twice and a list of
/// more than 32 signatures are refused.
pub fn verify_ingest(secret: &Secret, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyFailure> {
    let secrets = LiveSecrets::one(secret.clone()).map_err(|_| VerifyFailure::EmptySecret)?;
    let request = Inbound::new(headers, body);
    let mut signed = false;
    for scheme in [PlainSigner::X_WEBHOOK_SIGNATURE_256, PlainSigner::X_SIGNATURE] {
        let name = http::HeaderName::from_static(scheme.header());
        if headers.contains_key(&name) {
            HmacVerifier::new(name, secrets.clone()).with_prefix(scheme.prefix()).check(&request, &[body])?;
            signed = true;
        }
    }
    for names in [WEBHOOK, SVIX] {
        if headers.contains_key(&names.signature) {
            verify_standard(&names, secret, &request, now)?;
            signed = true;
        }
    }
    if signed { Ok(()) } else { Err(VerifyFailure::Unsigned) }
}

fn verify_standard(names: &Names, secret: &Secret, request: &Inbound<'_>, now: Timestamp) -> Result<(), VerifyFailure> {
    let list = header::signature(request.headers, &names.signature)?;
    let signed = Signed::read(request, names)?;
    let given = standard::listed(list, signing::VERSION, mac::LENGTH, &names.signature)?;
    if given.is_empty() {
        return Err(VerifyFailure::NoKnownVersion { header: names.signature.clone() });
    }
    let key = key(secret);
    matching(std::iter::once(key.as_slice()), &given, |key| mac::hmac_sha256(key, &signed.content(request.body)))
        .ok_or_else(|| header::mismatch(&names.signature))?;
    Tolerance::within(FIVE_MINUTES).check_seconds(signed.seconds, now).map(drop)
}

fn key(secret: &Secret) -> Zeroizing<Vec<u8>> {
    match signing::decode_secret(secret, signing::SECRET_PREFIX) {
        Ok(key) if !key.is_empty() => key,
        _ => Zeroizing::new(secret.expose().as_bytes().to_vec()),
    }
}
