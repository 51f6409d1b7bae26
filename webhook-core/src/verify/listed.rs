//! Headers that list a time and signatures under names: `t=…,v1=…,v1=…`.

use http::HeaderName;

use super::freshness::SECONDS_DIGITS;
use super::{Encoding, MAX_SIGNATURES, VerifyFailure, header};

/// What separates the parts, and what they are called.
pub(super) struct Names {
    pub(super) separator: char,
    pub(super) timestamp: &'static str,
    pub(super) signature: &'static str,
}

/// A time and the signatures of the known version; those of other versions are passed over.
pub(super) struct Listed<'a> {
    /// As it stands in the header, because this is what was signed.
    pub(super) timestamp: &'a [u8],
    pub(super) seconds: i64,
    pub(super) signatures: Vec<Vec<u8>>,
}

impl<'a> Listed<'a> {
    /// Parts that have no `=`, a time that is missing, there twice or no number, and a known signature that is not 32
    /// bytes in hex are all malformed.
    pub(super) fn parse(value: &'a [u8], names: &Names, name: &HeaderName) -> Result<Self, VerifyFailure> {
        let malformed = || header::malformed(name);
        let text = std::str::from_utf8(value).map_err(|_| malformed())?;
        let mut timestamp = None;
        let mut signatures = Vec::new();
        for (index, part) in text.split(names.separator).enumerate() {
            // One part more than signatures: the time.
            if index > MAX_SIGNATURES {
                return Err(VerifyFailure::TooMany { header: name.clone() });
            }
            let (label, value) = part.split_once('=').ok_or_else(malformed)?;
            if label == names.timestamp {
                if timestamp.replace(value.as_bytes()).is_some() {
                    return Err(malformed());
                }
            } else if label == names.signature {
                signatures.push(Encoding::Hex.decode(value.as_bytes(), 32).ok_or_else(malformed)?);
            }
        }
        let timestamp = timestamp.ok_or_else(malformed)?;
        let seconds = header::number(timestamp, SECONDS_DIGITS).ok_or_else(malformed)?;
        if signatures.is_empty() {
            return Err(VerifyFailure::NoKnownVersion { header: name.clone() });
        }
        Ok(Self { timestamp, seconds, signatures })
    }
}
