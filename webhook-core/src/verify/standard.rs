//! Standard Webhooks.

use std::fmt;

use http::HeaderName;
use zeroize::Zeroizing;

use super::code::matching;
use super::freshness::{FIVE_MINUTES, SECONDS_DIGITS};
use super::{Encoding, Inbound, LiveSecrets, MAX_SIGNATURES, Tolerance, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;
use crate::signature::{SecretError, mac, standard};

/// The headers, which some senders prefix with their own name.
pub(super) struct Names {
    pub(super) id: HeaderName,
    pub(super) timestamp: HeaderName,
    pub(super) signature: HeaderName,
}

pub(super) const WEBHOOK: Names = Names {
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};
pub(super) const SVIX: Names = Names {
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

/// Standard Webhooks: `webhook-signature: v1,<base64> v1a,<base64>` over `id.time.body`, with the headers `webhook-id`
/// and `webhook-timestamp`; where there are none, those with the prefix `svix-`.
///
/// A secret `whsec_…` verifies `v1` (HMAC-SHA256), a public key `whpk_…` verifies `v1a` (ed25519, with the feature of
/// that name); signatures of versions without a key are passed over. The time must be within five minutes of now, both
/// ways and in whole seconds, ends included, as in the official libraries. What is signed is the time as it stands in the
/// header. The message id is `webhook-id`, which is signed.
///
/// Source: Standard Webhooks, "Signature scheme" and "Verifying webhook authenticity"
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
#[derive(Clone, Debug)]
pub struct StandardWebhooks {
    keys: Vec<Key>,
    tolerance: Tolerance,
}

#[derive(Clone)]
enum Key {
    Symmetric(Zeroizing<Vec<u8>>),
    #[cfg(feature = "ed25519")]
    Ed25519(super::discord::PublicKey),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl StandardWebhooks {
    /// With secrets `whsec_…`, public keys `whpk_…`, or both.
    ///
    /// # Errors
    ///
    /// [`SecretError`] where one is neither.
    pub fn new(secrets: LiveSecrets) -> Result<Self, SecretError> {
        let keys = secrets.iter().map(Key::parse).collect::<Result<_, _>>()?;
        Ok(Self { keys, tolerance: Tolerance::within(FIVE_MINUTES) })
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Whether one of the keys made one of the listed signatures.
    fn check(&self, list: &[u8], name: &HeaderName, content: &[&[u8]]) -> Result<(), VerifyFailure> {
        let symmetric: Vec<_> = self.keys.iter().filter_map(Key::symmetric).collect();
        let (mut known, mut matched) = (false, false);
        if !symmetric.is_empty() {
            let given = listed(list, standard::VERSION, mac::LENGTH, name)?;
            known |= !given.is_empty();
            matched |= matching(symmetric.into_iter(), &given, |key| mac::hmac_sha256(key, content)).is_some();
        }
        #[cfg(feature = "ed25519")]
        {
            let public: Vec<_> = self.keys.iter().filter_map(Key::public).collect();
            if !public.is_empty() {
                let given = listed(list, crate::signature::ed25519::VERSION, 64, name)?;
                known |= !given.is_empty();
                matched |= public.iter().any(|key| given.iter().any(|given| key.verifies(content, given)));
            }
        }
        match (known, matched) {
            (_, true) => Ok(()),
            (true, false) => Err(header::mismatch(name)),
            (false, false) => Err(VerifyFailure::NoKnownVersion { header: name.clone() }),
        }
    }
}

impl Verifier for StandardWebhooks {
    fn scheme(&self) -> &'static str {
        "standard"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let names = if request.headers.contains_key(&WEBHOOK.signature) { &WEBHOOK } else { &SVIX };
        let list = header::signature(request.headers, &names.signature)?;
        let signed = Signed::read(request, names)?;
        self.check(list, &names.signature, &signed.content(request.body))?;
        let at = self.tolerance.check_seconds(signed.seconds, now)?;
        Ok(Verified::new().with_message_id(header::id(request.headers, &names.id)?).with_signed_at(at))
    }
}

impl Key {
    fn parse(secret: &crate::Secret) -> Result<Self, SecretError> {
        #[cfg(feature = "ed25519")]
        if let Some(text) = secret.expose().strip_prefix(crate::signature::ed25519::PUBLIC_PREFIX) {
            return super::discord::PublicKey::parse(Encoding::Base64, text).map(Self::Ed25519);
        }
        standard::key(secret).map(Self::Symmetric)
    }

    fn symmetric(&self) -> Option<&[u8]> {
        match self {
            Self::Symmetric(key) => Some(key),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(_) => None,
        }
    }

    #[cfg(feature = "ed25519")]
    fn public(&self) -> Option<&super::discord::PublicKey> {
        match self {
            Self::Symmetric(_) => None,
            Self::Ed25519(key) => Some(key),
        }
    }
}

/// The id and the time that are signed with the body.
pub(super) struct Signed<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    pub(super) seconds: i64,
}

impl<'a> Signed<'a> {
    pub(super) fn read(request: &Inbound<'a>, names: &Names) -> Result<Self, VerifyFailure> {
        let id = header::required(request.headers, &names.id)?;
        if !standard::is_message_id(id) {
            return Err(header::malformed(&names.id));
        }
        let timestamp = header::required(request.headers, &names.timestamp)?;
        let seconds = header::number(timestamp, SECONDS_DIGITS).ok_or_else(|| header::malformed(&names.timestamp))?;
        Ok(Self { id, timestamp, seconds })
    }

    pub(super) fn content(&self, body: &'a [u8]) -> [&'a [u8]; 5] {
        [self.id, b".", self.timestamp, b".", body]
    }
}

/// The signatures of one version in a space-separated list, each of that length; the others are passed over.
pub(super) fn listed(
    list: &[u8],
    version: &str,
    length: usize,
    name: &HeaderName,
) -> Result<Vec<Vec<u8>>, VerifyFailure> {
    let malformed = || header::malformed(name);
    let list = std::str::from_utf8(list).map_err(|_| malformed())?;
    let mut given = Vec::new();
    for (index, signature) in list.split(' ').enumerate() {
        if index == MAX_SIGNATURES {
            return Err(VerifyFailure::TooMany { header: name.clone() });
        }
        let (known, encoded) = signature.split_once(',').ok_or_else(malformed)?;
        if known == version {
            given.push(Encoding::Base64.decode(encoded.as_bytes(), length).ok_or_else(malformed)?);
        }
    }
    Ok(given)
}
