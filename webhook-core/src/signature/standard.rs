//! Standard Webhooks, symmetric: `v1`, HMAC-SHA256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::mac::hmac_sha256;
use super::{Message, SecretError, SignError, Signer, sensitive};
use crate::{Entropy, Secret};

/// What symmetric secrets start with.
pub(crate) const SECRET_PREFIX: &str = "whsec_";
/// What a symmetric signature starts with, before the comma.
pub(crate) const VERSION: &str = "v1";
/// The headers that carry signatures, for [`Signer::signature_headers`].
pub(crate) const SIGNATURE_HEADERS: &[&str] = &["webhook-signature"];

/// The length of a generated key, in bytes.
const GENERATED: usize = 32;

/// The scheme `standard`: Standard Webhooks with HMAC-SHA256.
///
/// Sets `webhook-id`, `webhook-timestamp` (seconds since the Unix epoch) and `webhook-signature` with one
/// `v1,<base64>` per secret, over `id.timestamp.body`. Secrets are `whsec_` and 24 to 64 bytes in padded standard
/// base64 (Standard Webhooks, "Signature scheme" and "Webhook headers").
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardSigner;

impl StandardSigner {
    /// Its name.
    pub const SCHEME: &'static str = "standard";
}

impl Signer for StandardSigner {
    fn scheme(&self) -> &str {
        Self::SCHEME
    }

    fn generate_secret(&self, entropy: &dyn Entropy) -> Secret {
        generate_secret(entropy)
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), SecretError> {
        key(secret).map(drop)
    }

    fn public_key(&self, _secret: &Secret) -> Option<String> {
        None
    }

    fn signs_with_all(&self) -> bool {
        true
    }

    fn signature_headers(&self) -> &[&'static str] {
        SIGNATURE_HEADERS
    }

    fn sign(&self, message: &Message<'_>, secrets: &[Secret], headers: &mut HeaderMap) -> Result<(), SignError> {
        set_headers(message, secrets, headers, |secret, content| {
            let signature = hmac_sha256(&key(secret)?, content);
            Ok(format!("{VERSION},{}", STANDARD.encode(signature)))
        })
    }
}

/// `whsec_` and 32 random bytes in base64.
pub(crate) fn generate_secret(entropy: &dyn Entropy) -> Secret {
    let mut key = Zeroizing::new([0; GENERATED]);
    entropy.fill(key.as_mut_slice());
    encode_secret(SECRET_PREFIX, key.as_slice())
}

/// `prefix` and `key` in base64.
pub(crate) fn encode_secret(prefix: &str, key: &[u8]) -> Secret {
    // Room for all of it, so that growing leaves no copy behind.
    let mut text = String::with_capacity(prefix.len() + key.len().div_ceil(3) * 4);
    text.push_str(prefix);
    STANDARD.encode_string(key, &mut text);
    Secret::new(text)
}

/// The bytes that follow `prefix` in `secret`.
pub(crate) fn decode_secret(secret: &Secret, prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let encoded = secret.expose().strip_prefix(prefix).ok_or(SecretError::Prefix { expected: prefix })?;
    STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| SecretError::Encoding { prefix })
}

/// The key that a symmetric secret stands for.
pub(crate) fn key(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let key = decode_secret(secret, SECRET_PREFIX)?;
    if !(24..=64).contains(&key.len()) {
        return Err(SecretError::Length { expected: "24 to 64 bytes in base64" });
    }
    Ok(key)
}

/// Whether `id` can stand in `id.timestamp.body` without doubt about where it ends.
pub(crate) fn is_message_id(id: &[u8]) -> bool {
    !id.is_empty() && id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.')
}

/// Sets the three headers; `signature` gives the text for one secret over the parts of the signed content.
pub(crate) fn set_headers(
    message: &Message<'_>,
    secrets: &[Secret],
    headers: &mut HeaderMap,
    signature: impl Fn(&Secret, &[&[u8]]) -> Result<String, SecretError>,
) -> Result<(), SignError> {
    if secrets.is_empty() {
        return Err(SignError::NoSecret);
    }
    if !is_message_id(message.id.as_bytes()) {
        return Err(SignError::MessageId);
    }
    let id = HeaderValue::from_str(message.id).map_err(|_| SignError::MessageId)?;
    let timestamp = message.timestamp.as_secs();
    let digits = timestamp.to_string();
    let content: [&[u8]; 5] = [message.id.as_bytes(), b".", digits.as_bytes(), b".", message.body];
    let signatures = secrets.iter().map(|secret| signature(secret, &content)).collect::<Result<Vec<_>, _>>()?.join(" ");
    headers.insert("webhook-id", id);
    headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
    headers.insert("webhook-signature", sensitive(signatures));
    Ok(())
}
