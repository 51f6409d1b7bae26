//! Who is calling, and what they may do.

mod api_keys;
mod scopes;

use std::fmt::Debug;

use async_trait::async_trait;
use http::request::Parts;
use webhook_core::TenantId;

pub use api_keys::{ApiKeys, ParseApiKeyError};
pub use scopes::{ParseScopesError, Scopes};

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Whose data the request is about.
    pub tenant: TenantId,
    /// What the caller may do with it.
    pub scopes: Scopes,
}

impl Caller {
    /// A caller of that tenant with these scopes.
    pub const fn new(tenant: TenantId, scopes: Scopes) -> Self {
        Self { tenant, scopes }
    }
}

/// Why a request has no caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There are no credentials, or they are not good: 401.
    #[error("the credentials are missing or not valid")]
    Unauthorized,
    /// The credentials are good, but not for this: 403.
    #[error("the credentials do not allow this")]
    Forbidden,
    /// Whoever knows cannot be asked at present: 503.
    #[error("the credentials cannot be checked at present")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Says who sent a request: the host's answer to it.
///
/// # Contract
///
/// - The tenant comes from the credentials alone, never from a part of the request that the caller chooses freely.
/// - Comparing credentials takes the same time whether and where they differ.
/// - An error never shows a credential or a part of one.
#[async_trait]
pub trait Authenticator: Debug + Send + Sync + 'static {
    /// The caller, judged by everything of the request but its body.
    ///
    /// # Errors
    ///
    /// [`AuthError`] says whether that is a 401, a 403 or a 503.
    async fn authenticate(&self, parts: &Parts) -> Result<Caller, AuthError>;
}

/// Everybody is the default tenant and may do everything.
#[derive(Debug)]
pub(crate) struct NoAuth;

#[async_trait]
impl Authenticator for NoAuth {
    async fn authenticate(&self, _: &Parts) -> Result<Caller, AuthError> {
        Ok(Caller::new(TenantId::default_tenant(), Scopes::ALL))
    }
}
