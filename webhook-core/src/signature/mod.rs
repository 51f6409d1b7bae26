//! Signing of what is sent.

#[cfg(feature = "ed25519")]
pub(crate) mod ed25519;
mod error;
pub(crate) mod mac;
mod plain;
mod signers;
pub(crate) mod standard;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Debug;

use http::{HeaderMap, HeaderValue};

use crate::{Entropy, Secret, Timestamp};

#[cfg(feature = "ed25519")]
pub use ed25519::Ed25519Signer;
pub use error::{SecretError, SignError};
pub use plain::PlainSigner;
pub use signers::Signers;
pub use standard::StandardSigner;

/// What one attempt signs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The event's id, the same for all its attempts: visible ASCII without `.`.
    pub id: &'a str,
    /// When this attempt is made; signature schemes count whole seconds.
    pub timestamp: Timestamp,
    /// The payload, exactly as it is sent.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message `id` with `body`, attempted at `timestamp`.
    pub const fn new(id: &'a str, timestamp: Timestamp, body: &'a [u8]) -> Self {
        Self { id, timestamp, body }
    }
}

/// A signature scheme.
///
/// # Contract
///
/// - Every method is pure: it reads no clock and does no I/O; chance comes from the given [`Entropy`] alone, so that
///   the same message and secrets give the same headers.
/// - `check_secret` accepts every secret that `generate_secret` made; `sign` accepts every secret that
///   `check_secret` accepted.
/// - Errors and `Debug` never show a secret or a part of one.
pub trait Signer: Debug + Send + Sync + 'static {
    /// Its name in a subscription's `signature.scheme`.
    ///
    /// # Contract
    ///
    /// - It never changes.
    fn scheme(&self) -> &str;

    /// A new secret, unpredictable to at least 192 bits.
    fn generate_secret(&self, entropy: &dyn Entropy) -> Secret;

    /// Whether `secret` can be used with this scheme.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the secret, in words that may be shown to whoever sent it.
    fn check_secret(&self, secret: &Secret) -> Result<(), SecretError>;

    /// What receivers verify with, where that is not the secret itself.
    ///
    /// # Contract
    ///
    /// - `None` for symmetric schemes, and for a secret that `check_secret` refuses.
    fn public_key(&self, secret: &Secret) -> Option<String>;

    /// Whether a message can carry a signature by each live secret, so that the old one keeps working during a
    /// rotation's grace. Where it cannot, the new secret counts at once.
    fn signs_with_all(&self) -> bool;

    /// Names, in lower case, of the headers whose values attempt logs must not show.
    fn signature_headers(&self) -> &[&'static str];

    /// Adds the headers that sign `message` to `headers`.
    ///
    /// `secrets` are all live ones, the newest first; there are several while a rotation's grace lasts.
    ///
    /// # Contract
    ///
    /// - A header of the same name is replaced; all others stay as they are.
    /// - Where the scheme can carry several signatures there is one per secret, in the same order; elsewhere the
    ///   newest secret signs.
    /// - The values of `signature_headers` are marked sensitive.
    /// - On an error `headers` is as before.
    ///
    /// # Errors
    ///
    /// [`SignError`] when there is no secret, when one does not fit the scheme, or when the id cannot be sent.
    fn sign(&self, message: &Message<'_>, secrets: &[Secret], headers: &mut HeaderMap) -> Result<(), SignError>;
}

/// `text` as a header value that `Debug` does not show and HTTP/2 does not index.
#[expect(clippy::expect_used, reason = "hex, base64 and ASCII punctuation are legal in a header")]
fn sensitive(text: String) -> HeaderValue {
    let mut value = HeaderValue::try_from(text).expect("signatures are visible ASCII");
    value.set_sensitive(true);
    value
}
