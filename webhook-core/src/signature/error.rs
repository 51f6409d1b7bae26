//! Why a secret is refused and why signing fails.

/// The secret does not fit the signature scheme.
///
/// The text is meant for whoever chose the secret, and never contains it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The scheme's prefix is missing.
    #[error("the secret must start with `{expected}`")]
    Prefix {
        /// What it must start with.
        expected: &'static str,
    },
    /// What follows the prefix is not base64.
    #[error("the secret must be padded standard base64 after `{prefix}`")]
    Encoding {
        /// The prefix, which is right.
        prefix: &'static str,
    },
    /// Too short or too long.
    #[error("the secret must be {expected}")]
    Length {
        /// The lengths that are right, in words.
        expected: &'static str,
    },
    /// A control character.
    #[error("the secret must not contain control characters")]
    ControlCharacter,
    /// The public half is not the one of the private half.
    #[error("the public half of the key does not belong to its private half")]
    KeyPair,
    /// Nothing at all: anybody could sign with it.
    #[error("the secret must not be empty")]
    Empty,
    /// No secret, or more than a verifier tries.
    #[error("there must be 1 to {limit} secrets")]
    Count {
        /// How many a verifier tries.
        limit: usize,
    },
    /// What should be a public key is none, or one that verifies what nobody signed.
    #[error("the public key must be {expected}")]
    PublicKey {
        /// What it must be, in words.
        expected: &'static str,
    },
    /// A reason of a scheme from outside this crate; the text must not contain the secret.
    #[error("{0}")]
    Other(String),
}

/// A message could not be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// A secret does not fit the scheme.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no secret.
    #[error("there is no secret to sign with")]
    NoSecret,
    /// The id is empty or has characters that cannot be signed without doubt.
    ///
    /// Standard Webhooks, "Signature scheme": an id must not contain `.`, which delimits the signed content.
    #[error("the message id must be visible ASCII without `.`")]
    MessageId,
    /// A reason of a scheme from outside this crate; the text must not contain the secret.
    #[error("{0}")]
    Other(String),
}
