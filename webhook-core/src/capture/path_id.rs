//! The name of a capture path in its URL.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Entropy;

/// The name of a capture path in its URL: 1 to 255 characters of `A-Za-z0-9._-`, but not `.` or `..`. Unique in the
/// installation, whatever the tenant.
///
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathId(Arc<str>);

/// The text cannot name a capture path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1 to 255 characters of A-Z, a-z, 0-9, '.', '_' and '-', but not '.' or '..'")]
pub struct ParsePathIdError;

impl PathId {
    /// The longest one, in characters.
    pub const MAX: usize = 255;

    /// A new one of 128 random bits: whoever is not told it cannot find it.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        Self(hex::encode(bytes).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathId {
    type Err = ParsePathIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        // URL parsers take these two for directions.
        let dots = matches!(text, "." | "..");
        if dots || !(1..=Self::MAX).contains(&text.len()) || !text.bytes().all(legal) {
            return Err(ParsePathIdError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for PathId {
    type Error = ParsePathIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PathId> for String {
    fn from(id: PathId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsEntropy;

    #[test]
    fn takes_what_no_url_parser_changes() {
        for text in ["a", "A-b_c.9", "...", "-", &"x".repeat(255)] {
            assert_eq!(text.parse::<PathId>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "a/b", "a b", "ä", "%61", "a\0", "~x", &"x".repeat(256)] {
            assert_eq!(text.parse::<PathId>(), Err(ParsePathIdError), "{text}");
        }
    }

    #[test]
    fn generated_ones_have_128_bits_and_differ() {
        let (one, two) = (PathId::generate(&OsEntropy), PathId::generate(&OsEntropy));
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 32);
        assert_eq!(one.as_str().parse(), Ok(one));
    }
}
