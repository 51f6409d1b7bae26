//! Checking who sent a webhook: one [`Verifier`] for each scheme.
//!
//! A verifier sees the request's bytes before anything parses them. All compare in constant time, take several live
//! secrets, refuse a signature header that is there twice and a list of more than 32 signatures, decode hex and base64
//! strictly, and fix the algorithm when they are made: no header chooses it.
//!
//! | scheme | signs | fresh within | message id |
//! |---|---|---|---|
//! | [`StandardWebhooks`] | id, time, body | 5 min both ways | `webhook-id`, signed |
//! | [`GitHub`] | body | – | `X-GitHub-Delivery`, not signed |
//! | [`GitLab`] | nothing, or as Standard Webhooks | –, or 5 min both ways | `Idempotency-Key` not signed, or `webhook-id` signed |
//! | [`Stripe`] | time, body | 5 min in the past | `id` in the body |
//! | [`Slack`] | time, body | 5 min both ways | `event_id` in the body |
//! | [`Shopify`] | body | – | `X-Shopify-Webhook-Id`, not signed |
//! | `Twilio` (feature `sha1`) | URL and form, or URL and the body's digest | – | `I-Twilio-Idempotency-Token`, not signed |
//! | `Discord` (feature `ed25519`) | time, body | – | `id` in the body |
//! | `SendGrid` (feature `p256`) | time, body | – | – |
//! | [`Square`] | URL, body | – | `event_id` in the body |
//! | [`Paddle`] | time, body | 5 s in the past | `event_id` in the body |
//! | [`Linear`] | body, which has the time | 1 min both ways | `Linear-Delivery`, not signed |
//! | [`Zoom`] | time, body | 5 min both ways | – |
//! | [`Mailgun`] | a time and a token in the body, **nothing else of it** | 5 min both ways | the token |
//! | [`HubSpot`] | v1 body; v2 method, URL, body; v3 these and the time | v3: 5 min in the past | – |
//! | [`HmacVerifier`] | body | – | – |
//!
//! The window bounds how long a recorded request can be sent again; it is the scheme's own unless `with_tolerance` says
//! otherwise. Handling each message once is a matter of remembering message ids, which is kept apart from it.

mod code;
#[cfg(feature = "ed25519")]
mod discord;
mod failure;
mod field;
mod freshness;
mod github;
mod gitlab;
mod header;
mod hubspot;
mod ingest;
mod linear;
mod listed;
mod mailgun;
mod message_id;
mod paddle;
mod plain;
mod request;
mod secrets;
#[cfg(feature = "p256")]
mod sendgrid;
mod shopify;
mod slack;
mod square;
mod standard;
mod stripe;
#[cfg(feature = "sha1")]
mod twilio;
mod verified;
mod versioned;
mod zoom;

#[cfg(test)]
mod tests;

use std::fmt::Debug;

pub use code::{Encoding, Hash};
#[cfg(feature = "ed25519")]
pub use discord::Discord;
pub use failure::VerifyFailure;
pub use freshness::Tolerance;
pub use github::GitHub;
pub use gitlab::GitLab;
pub use hubspot::HubSpot;
pub use ingest::verify_ingest;
pub use linear::Linear;
pub use mailgun::Mailgun;
pub use message_id::MessageIdRule;
pub use paddle::Paddle;
pub use plain::HmacVerifier;
pub use request::Inbound;
pub use secrets::LiveSecrets;
#[cfg(feature = "p256")]
pub use sendgrid::SendGrid;
pub use shopify::Shopify;
pub use slack::Slack;
pub use square::Square;
pub use standard::StandardWebhooks;
pub use stripe::Stripe;
#[cfg(feature = "sha1")]
pub use twilio::Twilio;
pub use verified::{Handshake, Verified};
pub use zoom::Zoom;

use crate::Timestamp;

/// How many signatures one header may list.
const MAX_SIGNATURES: usize = 32;

/// Tells whether a request comes from the sender that it claims to come from.
///
/// # Contract
///
/// - Pure: it reads no clock and does no I/O, and the same request, secrets and time give the same answer.
/// - Nothing of the request is parsed before its signature held, but what the signature itself needs.
/// - How long it takes does not depend on how much of a signature is right, nor on which of the secrets fits.
/// - Failures and `Debug` never show a secret, a signature or a part of one.
pub trait Verifier: Debug + Send + Sync + 'static {
    /// The scheme's name, in lower case: for logs, and as the source of what it verified.
    fn scheme(&self) -> &'static str;

    /// What the request says of itself, once it is certain who says it.
    ///
    /// # Errors
    ///
    /// [`VerifyFailure`]; the sender is told no more than that.
    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure>;
}
