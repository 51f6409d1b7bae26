//! Ingest.

use serde::Serialize;

use super::Id;

/// An ingested request.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Ingested {
    /// The id of its delivery.
    pub(crate) webhook_id: Id,
    /// The id of its event.
    pub(crate) event_id: Id,
}

/// Any bytes.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = "binary")]
#[expect(dead_code, reason = "describes a body that is not parsed")]
pub(crate) struct RawBody(Vec<u8>);
