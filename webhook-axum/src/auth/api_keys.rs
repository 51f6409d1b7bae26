//! Keys that are known from the start.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest, Sha256};
use webhook_core::TenantId;

use super::{AuthError, Authenticator, Caller, Scopes};

/// `Authorization: Bearer <key>` with keys that are known from the start, each with its tenant and scopes.
///
/// Only the SHA-256 of a key is kept, and keys are looked up by it: how long that takes says nothing about a key.
#[derive(Clone, Default)]
pub struct ApiKeys {
    callers: HashMap<[u8; 32], Caller>,
}

/// The text is not `KEY=TENANT[:scopes]`. It never shows the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseApiKeyError {
    /// There is no `=`.
    #[error("an API key is KEY=TENANT or KEY=TENANT:scopes")]
    Form,
    /// The key cannot be sent in a header.
    #[error("a key is 1 to 512 visible ASCII characters")]
    Key,
    /// What follows the `=` names no tenant.
    #[error("{0}")]
    Tenant(#[from] webhook_core::ParseTenantError),
    /// What follows the `:` names no scopes.
    #[error("{0}")]
    Scopes(#[from] super::ParseScopesError),
}

impl ApiKeys {
    /// No keys yet: nobody may do anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key`, in the place of an equal one.
    #[must_use]
    pub fn with(mut self, key: &str, caller: Caller) -> Self {
        self.callers.insert(Sha256::digest(key).into(), caller);
        self
    }

    /// Adds a key given as `KEY=TENANT` or `KEY=TENANT:scopes`. The last `=` separates, so that a key may end with
    /// one as base64 does. Scopes are `read`, `write` and `secrets` with `,` or `+` between them; all by default.
    ///
    /// # Errors
    ///
    /// [`ParseApiKeyError`] says which part is wrong, without showing the key.
    pub fn with_spec(self, spec: &str) -> Result<Self, ParseApiKeyError> {
        let (key, owner) = spec.rsplit_once('=').ok_or(ParseApiKeyError::Form)?;
        if !(1..=512).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ParseApiKeyError::Key);
        }
        let (tenant, scopes) = match owner.split_once(':') {
            Some((tenant, scopes)) => (tenant, scopes.parse()?),
            None => (owner, Scopes::ALL),
        };
        Ok(self.with(key, Caller::new(tenant.parse::<TenantId>()?, scopes)))
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// The caller with this key.
    pub fn caller(&self, key: &str) -> Option<&Caller> {
        self.callers.get(&<[u8; 32]>::from(Sha256::digest(key)))
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("keys", &self.callers.len()).finish()
    }
}

#[async_trait]
impl Authenticator for ApiKeys {
    async fn authenticate(&self, parts: &Parts) -> Result<Caller, AuthError> {
        let key = bearer(parts).ok_or(AuthError::Unauthorized)?;
        self.caller(key).cloned().ok_or(AuthError::Unauthorized)
    }
}

/// The token of the one `Authorization` header; the scheme's name in any case (RFC 9110 section 11.1).
fn bearer(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
