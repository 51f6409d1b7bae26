//! Schemes of older systems: one header with the HMAC-SHA256 of the body in hex.

use std::slice;

use http::HeaderMap;

use super::mac::hmac_sha256;
use super::{Message, SecretError, SignError, Signer, sensitive, standard};
use crate::{Entropy, Secret};

/// The longest secret, in bytes.
const MAX_SECRET: usize = 512;

/// A scheme for receivers that know neither ids nor timestamps: HMAC-SHA256 over the body alone, keyed with the
/// UTF-8 bytes of the whole secret.
///
/// Secrets are any text of 1 to 512 bytes without control characters; generated ones look like `whsec_…`, and their
/// prefix is part of the key.
///
/// The header carries one signature, so the newest secret alone signs: a receiver must learn the new secret before
/// the rotation, or accept both for a while. Nothing in the signature is fresh, so a receiver cannot tell a
/// repetition from the first sending.
#[derive(Clone, Copy, Debug)]
pub struct PlainSigner {
    /// The header's name, which is also the scheme's.
    header: &'static str,
    /// What stands before the hex digits.
    prefix: &'static str,
}

impl PlainSigner {
    /// The scheme `x-signature`: `X-Signature: <hex>`.
    pub const X_SIGNATURE: Self = Self { header: "x-signature", prefix: "" };
    /// The scheme `x-webhook-signature-256`: `X-Webhook-Signature-256: sha256=<hex>`.
    pub const X_WEBHOOK_SIGNATURE_256: Self = Self { header: "x-webhook-signature-256", prefix: "sha256=" };
    /// The scheme `x-hub-signature-256`, as GitHub sends it: `X-Hub-Signature-256: sha256=<hex>`.
    pub const X_HUB_SIGNATURE_256: Self = Self { header: "x-hub-signature-256", prefix: "sha256=" };

    pub(crate) const fn header(&self) -> &'static str {
        self.header
    }

    pub(crate) const fn prefix(&self) -> &'static str {
        self.prefix
    }
}

impl Signer for PlainSigner {
    fn scheme(&self) -> &str {
        self.header
    }

    fn generate_secret(&self, entropy: &dyn Entropy) -> Secret {
        standard::generate_secret(entropy)
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), SecretError> {
        let text = secret.expose();
        if text.is_empty() || text.len() > MAX_SECRET {
            return Err(SecretError::Length { expected: "1 to 512 bytes long" });
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::ControlCharacter);
        }
        Ok(())
    }

    fn public_key(&self, _secret: &Secret) -> Option<String> {
        None
    }

    fn signs_with_all(&self) -> bool {
        false
    }

    fn signature_headers(&self) -> &[&'static str] {
        slice::from_ref(&self.header)
    }

    fn sign(&self, message: &Message<'_>, secrets: &[Secret], headers: &mut HeaderMap) -> Result<(), SignError> {
        let secret = secrets.first().ok_or(SignError::NoSecret)?;
        self.check_secret(secret)?;
        let signature = hmac_sha256(secret.expose().as_bytes(), &[message.body]);
        headers.insert(self.header, sensitive(format!("{}{}", self.prefix, hex::encode(signature))));
        Ok(())
    }
}
