//! Authentication codes: how they are computed, written and compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

use crate::signature::mac;

/// The hash below an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hash {
    /// SHA-1: for senders that know nothing better. As the hash of an HMAC it is not broken.
    #[cfg(feature = "sha1")]
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How bytes are written in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Hexadecimal digits in either case.
    Hex,
    /// The standard alphabet with padding (RFC 4648 section 4), in its only canonical form.
    Base64,
}

impl Hash {
    /// The length of its HMAC, in bytes.
    pub(super) const fn length(self) -> usize {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            #[cfg(feature = "sha1")]
            Self::Sha1 => mac::hmac::<Hmac<sha1::Sha1>>(key, parts),
            Self::Sha256 => mac::hmac::<Hmac<Sha256>>(key, parts),
            Self::Sha512 => mac::hmac::<Hmac<Sha512>>(key, parts),
        }
    }
}

impl Encoding {
    /// Exactly `length` bytes, and nothing around them.
    pub(super) fn decode(self, text: &[u8], length: usize) -> Option<Vec<u8>> {
        let bytes = match self {
            Self::Hex if text.len() == length * 2 => hex::decode(text).ok()?,
            Self::Base64 if text.len() == length.div_ceil(3) * 4 => STANDARD.decode(text).ok()?,
            Self::Hex | Self::Base64 => return None,
        };
        (bytes.len() == length).then_some(bytes)
    }
}

/// The place of the first key whose code is among `candidates`.
///
/// Every key is tried with every candidate, whatever matched before, in constant time.
pub(super) fn matching<'k, C: AsRef<[u8]>>(
    keys: impl Iterator<Item = &'k [u8]>,
    candidates: &[Vec<u8>],
    code: impl Fn(&'k [u8]) -> C,
) -> Option<usize> {
    let mut found = None;
    for (place, key) in keys.enumerate() {
        let expected = code(key);
        let hit = candidates.iter().fold(Choice::from(0), |hit, given| hit | expected.as_ref().ct_eq(given));
        if hit.into() && found.is_none() {
            found = Some(place);
        }
    }
    found
}
