//! What handlers take from a request before its body.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use http::HeaderMap;
use http::request::Parts;
use webhook_core::TenantId;

use crate::api::ApiState;
use crate::auth::{Caller, Scopes};
use crate::problem::Problem;
use crate::wire;

macro_rules! callers {
    ($($(#[$doc:meta])* $name:ident needs $scopes:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) Caller);

        impl $name {
            pub(crate) fn tenant(&self) -> &TenantId {
                &self.0.tenant
            }
        }

        impl FromRequestParts<Arc<ApiState>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Problem> {
                authenticate(parts, state, $scopes).await.map(Self)
            }
        }
    )*};
}

callers! {
    /// A caller who may read.
    Reader needs Scopes::READ;
    /// A caller who may change things and send.
    Writer needs Scopes::WRITE;
    /// A caller who may see secrets.
    SecretReader needs Scopes::SECRETS;
    /// A caller who may rotate secrets.
    SecretWriter needs Scopes::WRITE | Scopes::SECRETS;
}

/// The caller, if it has these scopes.
pub(crate) async fn authenticate(parts: &Parts, state: &ApiState, needed: Scopes) -> Result<Caller, Problem> {
    let caller = state.authenticator.authenticate(parts).await?;
    if !caller.scopes.contains(needed) {
        return Err(Problem::forbidden(format!("this needs the scope {needed}")));
    }
    Ok(caller)
}

/// The `{id}` of the path.
#[derive(Debug)]
pub(crate) struct PathId(pub(crate) wire::Id);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = named(parts, state, "id").await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(malformed_id)
    }
}

/// The `{path_id}` of the path: the name of a capture path.
#[derive(Debug)]
pub(crate) struct CapturePathId(pub(crate) webhook_core::PathId);

impl<S: Send + Sync> FromRequestParts<S> for CapturePathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = named(parts, state, "path_id").await.and_then(|name| name.parse().ok());
        // What cannot be a name is one of no path.
        name.map(Self).ok_or_else(|| webhook_core::Error::NotFound(webhook_core::Noun::Path).into())
    }
}

/// The `{request_id}` of the path: the id of a captured request.
#[derive(Debug)]
pub(crate) struct CaptureRequestId(pub(crate) wire::Id);

impl<S: Send + Sync> FromRequestParts<S> for CaptureRequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = named(parts, state, "request_id").await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(malformed_id)
    }
}

fn malformed_id() -> Problem {
    Problem::bad_request("malformed_id", "the id in the path is not a UUID")
}

/// A parameter of the path, taken by name, so that those of a host's own prefix do not matter.
async fn named<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Option<String> {
    let Path(named) = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await.ok()?;
    named.into_iter().rev().find(|(given, _)| given == name).map(|(_, value)| value)
}

/// The `Idempotency-Key`, if there is one: 1 to 255 visible ASCII characters.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

impl IdempotencyKey {
    const HEADER: &'static str = "Idempotency-Key";

    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(Self::HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let legal = |bytes: &[u8]| (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        match value.to_str() {
            Ok(text) if legal(text.as_bytes()) && values.next().is_none() => Ok(Self(Some(text.to_owned()))),
            _ => Err(Problem::invalid(Self::HEADER, "1 to 255 visible ASCII characters, given once")),
        }
    }
}
