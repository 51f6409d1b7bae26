//! HMACs of the body alone, in a header of one's choice.

use http::HeaderName;

use super::code::{Encoding, Hash, matching};
use super::{Inbound, LiveSecrets, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;

/// An HMAC over the body, in one header; the key is the UTF-8 bytes of the secret.
///
/// Made for senders without a verifier of their own. By default the header holds nothing but the hex digits of an
/// HMAC-SHA256. Neither a time nor a message id is covered.
#[derive(Clone, Debug)]
pub struct HmacVerifier {
    header: HeaderName,
    secrets: LiveSecrets,
    prefix: String,
    hash: Hash,
    encoding: Encoding,
}

impl HmacVerifier {
    /// The code in that header.
    pub const fn new(header: HeaderName, secrets: LiveSecrets) -> Self {
        Self { header, secrets, prefix: String::new(), hash: Hash::Sha256, encoding: Encoding::Hex }
    }

    /// What stands before the code in the header, exactly: `sha256=`, for instance.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The hash below the HMAC.
    #[must_use]
    pub const fn with_hash(mut self, hash: Hash) -> Self {
        self.hash = hash;
        self
    }

    /// How the code is written.
    #[must_use]
    pub const fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Checks the code of everything in `parts`.
    pub(super) fn check(&self, request: &Inbound<'_>, parts: &[&[u8]]) -> Result<(), VerifyFailure> {
        let value = header::signature(request.headers, &self.header)?;
        let given = value
            .strip_prefix(self.prefix.as_bytes())
            .and_then(|text| self.encoding.decode(text, self.hash.length()))
            .ok_or_else(|| header::malformed(&self.header))?;
        let matched = matching(self.secrets.keys(), &[given], |key| self.hash.hmac(key, parts));
        matched.map(drop).ok_or_else(|| header::mismatch(&self.header))
    }
}

impl Verifier for HmacVerifier {
    fn scheme(&self) -> &'static str {
        "hmac"
    }

    fn verify(&self, request: &Inbound<'_>, _now: Timestamp) -> Result<Verified, VerifyFailure> {
        self.check(request, &[request.body])?;
        Ok(Verified::new())
    }
}
