//! Linear.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::freshness::MILLIS_DIGITS;
use super::{HmacVerifier, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("linear-signature");
const DELIVERY: HeaderName = HeaderName::from_static("linear-delivery");
const TIMESTAMP: HeaderName = HeaderName::from_static("linear-timestamp");

/// Linear: `Linear-Signature: <hex>`, an HMAC-SHA256 of the body, which holds the time as `webhookTimestamp`.
///
/// The time, in milliseconds, must be within one minute of now, both ways and ends included, as Linear's SDK has it. The
/// header `Linear-Timestamp`, which is not signed, is believed only where the body has no time. The message id
/// `Linear-Delivery` is not signed.
///
/// Linear tries again after a minute, an hour and six hours. The time is in the body: where it is still the first
/// attempt's, those come outside of the window of 60 s and are refused. Who wants them takes a
/// [tolerance](Self::with_tolerance) of seven hours, and drops repeats by their id.
///
/// Source: Linear Developers, "Webhooks", "Securing webhooks" (<https://linear.app/developers/webhooks>).
#[derive(Clone, Debug)]
pub struct Linear {
    code: HmacVerifier,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "webhookTimestamp")]
    timestamp: Option<i64>,
}

impl Linear {
    /// With the webhook's signing secrets.
    pub const fn new(secrets: LiveSecrets) -> Self {
        let tolerance = Tolerance::within(Duration::from_secs(60));
        Self { code: HmacVerifier::new(SIGNATURE, secrets), tolerance }
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for Linear {
    fn scheme(&self) -> &'static str {
        "linear"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        self.code.check(request, &[request.body])?;
        let millis = match field::read::<Event>(request.body).and_then(|event| event.timestamp) {
            Some(millis) => millis,
            None => {
                let value = header::required(request.headers, &TIMESTAMP)?;
                header::number(value, MILLIS_DIGITS).ok_or_else(|| header::malformed(&TIMESTAMP))?
            }
        };
        let signed_at = self.tolerance.check_millis(millis, now)?;
        let id = header::id(request.headers, &DELIVERY)?;
        Ok(Verified::new().with_message_id(id).with_signed_at(signed_at))
    }
}
