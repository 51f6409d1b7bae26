//! The signatures of Slack and Zoom: `v0=<hex>` over `v0:time:body`.

use http::HeaderName;

use super::code::{Hash, matching};
use super::freshness::SECONDS_DIGITS;
use super::{Encoding, Inbound, LiveSecrets, Tolerance, VerifyFailure, header};
use crate::Timestamp;

pub(super) struct Versioned {
    pub(super) signature: HeaderName,
    pub(super) timestamp: HeaderName,
}

/// Who signed, as the place among the secrets, and when.
pub(super) struct Signed {
    pub(super) place: usize,
    pub(super) at: Timestamp,
}

impl Versioned {
    pub(super) fn check(
        &self,
        secrets: &LiveSecrets,
        tolerance: Tolerance,
        request: &Inbound<'_>,
        now: Timestamp,
    ) -> Result<Signed, VerifyFailure> {
        let value = header::signature(request.headers, &self.signature)?;
        let timestamp = header::required(request.headers, &self.timestamp)?;
        let seconds = header::number(timestamp, SECONDS_DIGITS).ok_or_else(|| header::malformed(&self.timestamp))?;
        let given = value
            .strip_prefix(b"v0=")
            .and_then(|digits| Encoding::Hex.decode(digits, 32))
            .ok_or_else(|| header::malformed(&self.signature))?;
        let content: [&[u8]; 4] = [b"v0:", timestamp, b":", request.body];
        let place = matching(secrets.keys(), &[given], |key| Hash::Sha256.hmac(key, &content))
            .ok_or_else(|| header::mismatch(&self.signature))?;
        let at = tolerance.check_millis(seconds.saturating_mul(1000), now)?;
        Ok(Signed { place, at })
    }
}
