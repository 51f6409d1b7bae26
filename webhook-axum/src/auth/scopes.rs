//! What a caller may do.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// What a caller may do: a set of `read`, `write` and `secrets`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

/// The text names no scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scopes are one or more of read, write and secrets, with ',' or '+' between them")]
pub struct ParseScopesError;

impl Scopes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reading everything but secrets.
    pub const READ: Self = Self(1);
    /// Changing and sending.
    pub const WRITE: Self = Self(2);
    /// Seeing and rotating the secrets of subscriptions, and the values of their headers.
    pub const SECRETS: Self = Self(4);
    /// All of them.
    pub const ALL: Self = Self(7);

    const NAMES: [(Self, &'static str); 3] = [(Self::READ, "read"), (Self::WRITE, "write"), (Self::SECRETS, "secrets")];

    /// Whether all of `wanted` are in it.
    pub const fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl BitOr for Scopes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for Scopes {
    type Err = ParseScopesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split([',', '+']).try_fold(Self::NONE, |scopes, name| {
            let named = Self::NAMES.iter().find(|(_, known)| *known == name.trim());
            named.map(|(scope, _)| scopes | *scope).ok_or(ParseScopesError)
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, name) in Self::NAMES.iter().filter(|(scope, _)| self.contains(*scope)) {
            write!(f, "{separator}{name}")?;
            separator = "+";
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}
