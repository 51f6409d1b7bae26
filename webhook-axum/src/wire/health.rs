//! Health.

use serde::Serialize;

/// The service answers.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Health<'a> {
    /// `ok`.
    pub(crate) status: &'static str,
    pub(crate) service: &'a str,
    pub(crate) version: &'a str,
}

/// The process lives.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Live {
    /// `alive`.
    pub(crate) status: &'static str,
}

/// Whether the process should get requests.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Ready {
    /// `ready`, `degraded` or `not_ready`.
    pub(crate) status: &'static str,
    pub(crate) checks: Vec<Check>,
}

/// One thing that the process needs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Check {
    /// `server`, `store`, `queue` or `worker`.
    pub(crate) name: &'static str,
    /// `ok` or `failed`.
    pub(crate) status: &'static str,
    pub(crate) latency_ms: u64,
}
