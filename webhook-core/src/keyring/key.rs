//! Keys of a keyring.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KeyId, ParseKeyIdError};

/// The length of a key, in bytes.
const LENGTH: usize = 32;

/// A 256-bit key with its id; parses from `ID=BASE64` (padded standard base64 of 32 bytes).
#[derive(Clone)]
pub struct EncryptionKey {
    id: KeyId,
    bytes: Zeroizing<[u8; LENGTH]>,
}

impl EncryptionKey {
    /// The key `bytes`, which must be random, under the name `id`.
    pub fn new(id: KeyId, bytes: [u8; LENGTH]) -> Self {
        Self { id, bytes: Zeroizing::new(bytes) }
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({}, ..)", self.id)
    }
}

/// The text is not `ID=BASE64`; never shows the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEncryptionKeyError {
    /// There is no `=` between an id and a key.
    #[error("an encryption key has the form ID=BASE64")]
    Form,
    /// What stands before the first `=` is not an id.
    #[error(transparent)]
    Id(#[from] ParseKeyIdError),
    /// What stands behind the first `=` is not a key.
    #[error("an encryption key is 32 bytes in padded standard base64")]
    Key,
}

impl FromStr for EncryptionKey {
    type Err = ParseEncryptionKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, key) = text.split_once('=').ok_or(ParseEncryptionKeyError::Form)?;
        let id = id.parse()?;
        let key = STANDARD.decode(key).map(Zeroizing::new).map_err(|_| ParseEncryptionKeyError::Key)?;
        let bytes = <&[u8; LENGTH]>::try_from(key.as_slice()).map_err(|_| ParseEncryptionKeyError::Key)?;
        Ok(Self { id, bytes: Zeroizing::new(*bytes) })
    }
}

/// The keys do not make a keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringConfigError {
    /// There is none.
    #[error("a keyring needs at least one key")]
    NoKeys,
    /// Two keys have this id.
    #[error("two keys have the id `{0}`")]
    Duplicate(KeyId),
}
