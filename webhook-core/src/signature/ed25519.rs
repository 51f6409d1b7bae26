//! Standard Webhooks, asymmetric: `v1a`, ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::ed25519::signature::MultipartSigner as _;
use http::HeaderMap;
use zeroize::Zeroizing;

use super::standard::{SIGNATURE_HEADERS, decode_secret, encode_secret, set_headers};
use super::{Message, SecretError, SignError, Signer};
use crate::{Entropy, Secret};

const SECRET_PREFIX: &str = "whsk_";
/// What public keys start with.
pub(crate) const PUBLIC_PREFIX: &str = "whpk_";
/// What an asymmetric signature starts with, before the comma.
pub(crate) const VERSION: &str = "v1a";

/// The scheme `standard-ed25519`: Standard Webhooks with ed25519 (RFC 8032).
///
/// The headers and the signed content are those of [`StandardSigner`](super::StandardSigner), with one
/// `v1a,<base64>` per secret. Secrets are `whsk_` and padded standard base64 of the 32-byte seed followed by the
/// 32-byte public key, or of the seed alone; receivers verify with the `whpk_` key (Standard Webhooks, "Signature
/// scheme").
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519Signer;

impl Ed25519Signer {
    /// Its name.
    pub const SCHEME: &'static str = "standard-ed25519";
}

impl Signer for Ed25519Signer {
    fn scheme(&self) -> &str {
        Self::SCHEME
    }

    fn generate_secret(&self, entropy: &dyn Entropy) -> Secret {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut_slice());
        let pair = Zeroizing::new(SigningKey::from_bytes(&seed).to_keypair_bytes());
        encode_secret(SECRET_PREFIX, pair.as_slice())
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), SecretError> {
        signing_key(secret).map(drop)
    }

    fn public_key(&self, secret: &Secret) -> Option<String> {
        let key = signing_key(secret).ok()?.verifying_key();
        Some(format!("{PUBLIC_PREFIX}{}", STANDARD.encode(key.as_bytes())))
    }

    fn signs_with_all(&self) -> bool {
        true
    }

    fn signature_headers(&self) -> &[&'static str] {
        SIGNATURE_HEADERS
    }

    fn sign(&self, message: &Message<'_>, secrets: &[Secret], headers: &mut HeaderMap) -> Result<(), SignError> {
        set_headers(message, secrets, headers, |secret, content| {
            let signature = signing_key(secret)?.multipart_sign(content);
            Ok(format!("{VERSION},{}", STANDARD.encode(signature.to_bytes())))
        })
    }
}

fn signing_key(secret: &Secret) -> Result<SigningKey, SecretError> {
    let bytes = decode_secret(secret, SECRET_PREFIX)?;
    if let Ok(pair) = bytes.as_slice().try_into() {
        return SigningKey::from_keypair_bytes(pair).map_err(|_| SecretError::KeyPair);
    }
    match bytes.as_slice().try_into() {
        Ok(seed) => Ok(SigningKey::from_bytes(seed)),
        Err(_) => Err(SecretError::Length { expected: "32 or 64 bytes in base64" }),
    }
}
