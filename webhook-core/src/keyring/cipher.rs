//! XChaCha20-Poly1305 and the format of what it seals.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use zeroize::Zeroizing;

use super::{EncryptionKey, Envelope, KeyId, KeyringError, NONCE, Sealed, TAG, XCHACHA20_POLY1305};
use crate::Entropy;

#[expect(clippy::expect_used, reason = "the cipher's limit of 256 GiB is beyond what a slice of secrets can be")]
pub(super) fn seal(key: &EncryptionKey, entropy: &dyn Entropy, aad: &[u8], plaintext: &[u8]) -> Sealed {
    let mut nonce = [0; NONCE];
    entropy.fill(&mut nonce);
    let mut bytes = header(key.id());
    let bound = bind(&bytes, aad);
    let ciphertext = cipher(key)
        .encrypt(&nonce.into(), Payload { msg: plaintext, aad: &bound })
        .expect("secrets are far shorter than the cipher's limit");
    bytes.reserve_exact(NONCE + plaintext.len() + TAG);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&ciphertext);
    Sealed(bytes)
}

pub(super) fn open(
    key: &EncryptionKey,
    aad: &[u8],
    envelope: &Envelope<'_>,
) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let bound = bind(&header(key.id()), aad);
    cipher(key)
        .decrypt(&(*envelope.nonce).into(), Payload { msg: envelope.ciphertext, aad: &bound })
        .map(Zeroizing::new)
        .map_err(|_| KeyringError::Unauthentic(key.id().clone()))
}

fn cipher(key: &EncryptionKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

/// What stands before the nonce.
fn header(id: &KeyId) -> Vec<u8> {
    let id = id.as_str().as_bytes();
    let mut header = vec![XCHACHA20_POLY1305, id.len() as u8];
    header.extend_from_slice(id);
    header
}

/// The header is authenticated too. It says its own length, so that no two pairs give the same bytes.
fn bind(header: &[u8], aad: &[u8]) -> Vec<u8> {
    [header, aad].concat()
}
