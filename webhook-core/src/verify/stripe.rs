//! Stripe.

use http::HeaderName;
use serde::Deserialize;

use super::code::{Hash, matching};
use super::freshness::FIVE_MINUTES;
use super::listed::{Listed, Names};
use super::{Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");
const NAMES: Names = Names { separator: ',', timestamp: "t", signature: "v1" };

/// Stripe: `Stripe-Signature: t=<seconds>,v1=<hex>`, an HMAC-SHA256 of `t.body`.
///
/// The key is the **whole** secret with its `whsec_`, unlike Standard Webhooks. While a secret is rotated there are several
/// `v1`; `v0`, of test events, is passed over. The time must not be older than five minutes, in whole seconds, and exactly
/// five minutes are still good; a time in the future is accepted, however far. Both are as in Stripe's own libraries;
/// [`with_tolerance`](Self::with_tolerance) can be stricter. The message id is `id` in the body.
///
/// Source: Stripe, "Receive Stripe events in your webhook endpoint", "Verify webhook signatures manually"
/// (<https://docs.stripe.com/webhooks#verify-manually>), and stripe-node `src/Webhooks.ts`.
#[derive(Clone, Debug)]
pub struct Stripe {
    secrets: LiveSecrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    id: Option<String>,
}

impl Stripe {
    /// With the endpoint's secrets, `whsec_…`.
    pub const fn new(secrets: LiveSecrets) -> Self {
        Self { secrets, tolerance: Tolerance::past(FIVE_MINUTES) }
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for Stripe {
    fn scheme(&self) -> &'static str {
        "stripe"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let listed = Listed::parse(header::signature(request.headers, &SIGNATURE)?, &NAMES, &SIGNATURE)?;
        let content: [&[u8]; 3] = [listed.timestamp, b".", request.body];
        matching(self.secrets.keys(), &listed.signatures, |key| Hash::Sha256.hmac(key, &content))
            .ok_or_else(|| header::mismatch(&SIGNATURE))?;
        let signed_at = self.tolerance.check_seconds(listed.seconds, now)?;
        let id = field::id(field::read::<Event>(request.body).and_then(|event| event.id));
        Ok(Verified::new().with_message_id(id).with_signed_at(signed_at))
    }
}
