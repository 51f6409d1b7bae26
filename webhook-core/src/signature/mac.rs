//! HMAC-SHA256, in pieces.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The length of an HMAC-SHA256, in bytes.
pub(super) const LENGTH: usize = 32;

/// The HMAC-SHA256 (RFC 2104) of all `parts` as if they were one text, which is never put together.
#[expect(clippy::expect_used, reason = "HMAC is defined for keys of any length")]
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; LENGTH] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}
