//! GitLab.

use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::code::matching;
use super::{Inbound, LiveSecrets, StandardWebhooks, Tolerance, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;
use crate::signature::SecretError;

const TOKEN: HeaderName = HeaderName::from_static("x-gitlab-token");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// GitLab, by its secret token or by its signing token.
///
/// The *secret token* is a password: `X-Gitlab-Token` carries it in clear, and it covers nothing of the request. The
/// *signing token*, `whsec_…`, signs as Standard Webhooks does, with the same window; prefer it where the GitLab at hand
/// knows it. A webhook may have both; the verifier looks at the one that it was made for.
///
/// The message id is `Idempotency-Key`, which stays the same over retries; it is signed (as `webhook-id`) with a signing
/// token only.
///
/// Source: GitLab Docs, "Webhooks", "Validate payloads"
/// (<https://docs.gitlab.com/user/project/integrations/webhooks/>), and GitLab's merge request 230944.
#[derive(Clone, Debug)]
pub struct GitLab(Way);

#[derive(Clone, Debug)]
enum Way {
    Token(LiveSecrets),
    Signing(StandardWebhooks),
}

impl GitLab {
    /// By the secret token.
    pub const fn token(secrets: LiveSecrets) -> Self {
        Self(Way::Token(secrets))
    }

    /// By the signing token.
    ///
    /// # Errors
    ///
    /// [`SecretError`] where one is not `whsec_…`.
    pub fn signing(secrets: LiveSecrets) -> Result<Self, SecretError> {
        StandardWebhooks::new(secrets).map(|verifier| Self(Way::Signing(verifier)))
    }

    /// With another window; a secret token has none.
    #[must_use]
    pub fn with_tolerance(self, tolerance: Tolerance) -> Self {
        Self(match self.0 {
            Way::Signing(verifier) => Way::Signing(verifier.with_tolerance(tolerance)),
            way @ Way::Token(_) => way,
        })
    }
}

impl Verifier for GitLab {
    fn scheme(&self) -> &'static str {
        "gitlab"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        match &self.0 {
            Way::Signing(verifier) => verifier.verify(request, now),
            Way::Token(secrets) => {
                let given = header::signature(request.headers, &TOKEN)?;
                // Digests have one length, so that comparing them does not tell that of the token.
                let given = Sha256::digest(given).to_vec();
                matching(secrets.keys(), &[given], Sha256::digest).ok_or_else(|| header::mismatch(&TOKEN))?;
                Ok(Verified::new().with_message_id(header::id(request.headers, &IDEMPOTENCY_KEY)?))
            }
        }
    }
}
