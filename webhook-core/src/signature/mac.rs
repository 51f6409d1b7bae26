//! HMACs, in pieces.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of an HMAC-SHA256, in bytes.
pub(crate) const LENGTH: usize = 32;

/// The HMAC-SHA256 (RFC 2104) of all `parts` as if they were one text, which is never put together.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; LENGTH] {
    absorb::<Hmac<Sha256>>(key, parts).finalize().into_bytes().into()
}

/// The HMAC of any kind of all `parts`.
pub(crate) fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    absorb::<M>(key, parts).finalize().into_bytes().to_vec()
}

#[expect(clippy::expect_used, reason = "HMAC is defined for keys of any length")]
fn absorb<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length will do");
    for part in parts {
        mac.update(part);
    }
    mac
}
