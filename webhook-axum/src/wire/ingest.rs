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
