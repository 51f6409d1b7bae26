//! The secrets that verify at present.

use crate::Secret;
use crate::signature::SecretError;

/// How many secrets can be live at once.
const LIMIT: usize = 8;

/// The secrets, or public keys, that verify at present: one, or several while the sender's secret is being rotated.
///
/// All are tried for each request, whichever fits.
#[derive(Clone, Debug)]
pub struct LiveSecrets(Vec<Secret>);

impl LiveSecrets {
    /// These.
    ///
    /// # Errors
    ///
    /// [`SecretError::Empty`] where one is empty, because anybody could sign with it; [`SecretError::Count`] for none or
    /// more than eight.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Result<Self, SecretError> {
        let secrets: Vec<_> = secrets.into_iter().take(LIMIT + 1).collect();
        if secrets.is_empty() || secrets.len() > LIMIT {
            return Err(SecretError::Count { limit: LIMIT });
        }
        if secrets.iter().any(|secret| secret.expose().is_empty()) {
            return Err(SecretError::Empty);
        }
        Ok(Self(secrets))
    }

    /// That one alone.
    ///
    /// # Errors
    ///
    /// [`SecretError::Empty`].
    pub fn one(secret: impl Into<Secret>) -> Result<Self, SecretError> {
        Self::new([secret.into()])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }

    /// The UTF-8 bytes of each, which most schemes use as the key.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| secret.expose().as_bytes())
    }

    pub(super) fn key(&self, place: usize) -> &[u8] {
        self.0.get(place).map_or(&[], |secret| secret.expose().as_bytes())
    }
}
