//! One HTTP try of a delivery, and how it ended.

use serde::{Deserialize, Serialize};

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection: refused, reset or unreachable before the request was written.
    Connect,
    /// The name has no address.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// A deadline passed: connecting, the whole attempt, or reading the body.
    Timeout,
    /// An answer other than 2xx.
    Status,
    /// A 3xx answer: redirects are never followed.
    Redirect,
    /// The address guard refused the target.
    Blocked,
    /// The answer was not HTTP, or broke off.
    Protocol,
}

impl ErrorKind {
    /// Its name in the API and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::Blocked => "blocked",
            Self::Protocol => "protocol",
        }
    }
}
