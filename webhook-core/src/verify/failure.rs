//! Why a request is not believed.

use http::HeaderName;

use super::MAX_SIGNATURES;

/// Why a request does not verify.
///
/// Names headers and limits, never values: fit for a log. Whoever sent the request should learn no more than that it
/// was refused (401), except where the host wants to help its senders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyFailure {
    /// None of the known signature headers is there.
    #[error("the request has no signature header")]
    Unsigned,
    /// A header that the signature needs is not there.
    #[error("the header `{header}` is missing")]
    Missing {
        /// The header's name.
        header: HeaderName,
    },
    /// A header that may come once came more often.
    #[error("the header `{header}` is there more than once")]
    Repeated {
        /// The header's name.
        header: HeaderName,
    },
    /// A header's value is not in its form.
    #[error("the header `{header}` is malformed")]
    Malformed {
        /// The header's name.
        header: HeaderName,
    },
    /// The header lists more signatures than are looked at.
    #[error("the header `{header}` lists more than {MAX_SIGNATURES} signatures")]
    TooMany {
        /// The header's name.
        header: HeaderName,
    },
    /// None of the listed signatures has a version for which there is a key.
    #[error("the header `{header}` lists no signature of a known version")]
    NoKnownVersion {
        /// The header's name.
        header: HeaderName,
    },
    /// Signed longer ago than is tolerated.
    #[error("the timestamp is too old")]
    TooOld,
    /// Signed further in the future than is tolerated.
    #[error("the timestamp is too far in the future")]
    TooNew,
    /// The signature is not one of this request by a live secret.
    #[error("the signature in `{header}` does not match")]
    Mismatch {
        /// The header's name.
        header: HeaderName,
    },
    /// The scheme signs inside of the body, and this body has nothing of that form.
    #[error("the body has no {needed}")]
    Body {
        /// What it must hold, in words.
        needed: &'static str,
    },
    /// The signature in the body is not one by a live secret.
    #[error("the signature in the body does not match")]
    BodyMismatch,
    /// The signature covers a digest of the body, and this is another body.
    #[error("the body is not the one that was signed")]
    OtherBody,
    /// The scheme signs the URL that the sender called, and the host did not say which that is.
    #[error("the scheme signs the public URL, and none is configured")]
    NoUrl,
    /// The secret is empty: anybody could sign with it.
    #[error("the secret is empty")]
    EmptySecret,
    /// A reason of a scheme from outside this crate; the text must show neither secrets nor values of the request.
    #[error("{0}")]
    Other(String),
}

impl VerifyFailure {
    /// The host is set up wrongly; no sender could do better.
    pub const fn is_misconfiguration(&self) -> bool {
        matches!(self, Self::NoUrl | Self::EmptySecret)
    }
}
