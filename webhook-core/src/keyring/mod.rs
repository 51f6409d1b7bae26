//! Sealing of secrets at rest: a store only ever sees opaque bytes.

#[cfg(feature = "encryption")]
mod cipher;
#[cfg(feature = "encryption")]
mod key;
mod key_id;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

use crate::Entropy;

#[cfg(feature = "encryption")]
pub use key::{EncryptionKey, KeyringConfigError, ParseEncryptionKeyError};
pub use key_id::{KeyId, ParseKeyIdError};

/// The first byte of a value in clear; the value follows.
const CLEAR: u8 = 0;
/// The first byte of a value sealed with XChaCha20-Poly1305. The length of the key's id (one byte), the id, the nonce
/// and the ciphertext with its tag follow.
const XCHACHA20_POLY1305: u8 = 1;

const NONCE: usize = 24;
const TAG: usize = 16;

/// A value as it is stored: encrypted, or in clear where no key is configured.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// What a store kept. Whether it is whole shows when it is opened.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is encrypted, and not in clear.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.first() == Some(&XCHACHA20_POLY1305)
    }

    /// The bytes to store.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// A stored value could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// Sealed with a key that is not in the keyring: configure it again, behind the one that writes.
    #[error("the value was sealed with the key `{0}`, which is not configured")]
    UnknownKey(KeyId),
    /// The key with this id is another one, the associated data is not that of the sealing, or the bytes changed.
    #[error("the value does not open with the key `{0}`: wrong key, wrong place or changed bytes")]
    Unauthentic(KeyId),
    /// Not a sealed value at all.
    #[error("the value is not in the format of sealed values")]
    Malformed,
}

/// The keys that seal secrets at rest, with XChaCha20-Poly1305 and a random nonce for each value.
///
/// The first key writes, all keys read: to rotate, put a new one in front and leave the old one behind it for as long
/// as values sealed with it exist. Without keys values are stored in clear, in a format that a keyring with keys still
/// reads. Because of that, a keyring cannot tell a value that was never sealed from one that somebody with write access to
/// the store put there in clear.
///
/// `aad`, the associated data, says what a value is for and is not stored (a good choice names tenant, row and
/// column): a sealed value moved to another place does not open there.
#[derive(Clone, Debug)]
pub struct Keyring {
    #[cfg(feature = "encryption")]
    keys: Vec<EncryptionKey>,
}

impl Keyring {
    /// No keys: values are stored in clear.
    pub const fn plain() -> Self {
        Self {
            #[cfg(feature = "encryption")]
            keys: Vec::new(),
        }
    }

    /// The first key writes, all read.
    ///
    /// # Errors
    ///
    /// When there is no key (storing in clear must be asked for, with [`plain`](Self::plain)) and when two keys have
    /// the same id.
    #[cfg(feature = "encryption")]
    pub fn new(keys: impl IntoIterator<Item = EncryptionKey>) -> Result<Self, KeyringConfigError> {
        let keys: Vec<_> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(KeyringConfigError::NoKeys);
        }
        for (index, key) in keys.iter().enumerate() {
            if keys[..index].iter().any(|earlier| earlier.id() == key.id()) {
                return Err(KeyringConfigError::Duplicate(key.id().clone()));
            }
        }
        Ok(Self { keys })
    }

    /// Seals `plaintext` for the place that `aad` names.
    #[cfg_attr(not(feature = "encryption"), expect(unused_variables, reason = "storing in clear needs neither"))]
    pub fn seal(&self, entropy: &dyn Entropy, aad: &[u8], plaintext: &[u8]) -> Sealed {
        #[cfg(feature = "encryption")]
        if let Some(key) = self.keys.first() {
            return cipher::seal(key, entropy, aad, plaintext);
        }
        let mut bytes = Vec::with_capacity(1 + plaintext.len());
        bytes.push(CLEAR);
        bytes.extend_from_slice(plaintext);
        Sealed(bytes)
    }

    /// Opens what [`seal`](Self::seal) made with the same `aad`. A value in clear opens whatever `aad` is.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; trying again does not help.
    pub fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        match sealed.as_bytes().split_first() {
            Some((&CLEAR, value)) => Ok(Zeroizing::new(value.to_vec())),
            Some((&XCHACHA20_POLY1305, rest)) => self.decrypt(aad, &Envelope::parse(rest)?),
            _ => Err(KeyringError::Malformed),
        }
    }

    #[cfg(feature = "encryption")]
    fn decrypt(&self, aad: &[u8], envelope: &Envelope<'_>) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        match self.keys.iter().find(|key| *key.id() == envelope.key_id) {
            Some(key) => cipher::open(key, aad, envelope),
            None => Err(KeyringError::UnknownKey(envelope.key_id.clone())),
        }
    }

    #[cfg(not(feature = "encryption"))]
    fn decrypt(&self, _aad: &[u8], envelope: &Envelope<'_>) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        Err(KeyringError::UnknownKey(envelope.key_id.clone()))
    }
}

/// The parts of an encrypted value.
#[cfg_attr(not(feature = "encryption"), expect(dead_code, reason = "without keys the id alone is of use"))]
struct Envelope<'a> {
    key_id: KeyId,
    nonce: &'a [u8; NONCE],
    /// With the tag at its end.
    ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes apart what follows the first byte.
    fn parse(bytes: &'a [u8]) -> Result<Self, KeyringError> {
        Self::split(bytes).ok_or(KeyringError::Malformed)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let (key_id, rest) = rest.split_at_checked(usize::from(length))?;
        let key_id = std::str::from_utf8(key_id).ok()?.parse().ok()?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        (ciphertext.len() >= TAG).then_some(Self { key_id, nonce, ciphertext })
    }
}
