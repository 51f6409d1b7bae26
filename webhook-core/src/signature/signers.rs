//! The schemes an installation knows, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PlainSigner, Signer, StandardSigner};

/// The signature schemes that subscriptions may choose from.
///
/// The default holds `standard`, `standard-ed25519` (with the feature `ed25519`), `x-signature`,
/// `x-webhook-signature-256` and `x-hub-signature-256`.
#[derive(Clone, Debug)]
pub struct Signers(BTreeMap<String, Arc<dyn Signer>>);

impl Signers {
    /// Adds `signer`, in the place of one with the same name.
    #[must_use]
    pub fn with(mut self, signer: Arc<dyn Signer>) -> Self {
        self.0.insert(signer.scheme().to_owned(), signer);
        self
    }

    /// The scheme with this name.
    pub fn get(&self, scheme: &str) -> Option<&Arc<dyn Signer>> {
        self.0.get(scheme)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Default for Signers {
    fn default() -> Self {
        let signers = Self(BTreeMap::new())
            .with(Arc::new(StandardSigner))
            .with(Arc::new(PlainSigner::X_SIGNATURE))
            .with(Arc::new(PlainSigner::X_WEBHOOK_SIGNATURE_256))
            .with(Arc::new(PlainSigner::X_HUB_SIGNATURE_256));
        #[cfg(feature = "ed25519")]
        let signers = signers.with(Arc::new(super::Ed25519Signer));
        signers
    }
}
