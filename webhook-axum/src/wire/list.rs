//! Lists.

use serde::Serialize;

/// A page of a list, newest first.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct List<T> {
    /// The items.
    pub(crate) data: Vec<T>,
    /// Where this page is.
    pub(crate) pagination: Pagination,
}

/// Where a page is in its list.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Pagination {
    /// At most so many items are on a page.
    pub(crate) limit: u32,
    /// Gives the next page as `cursor`; null on the last one.
    pub(crate) next_cursor: Option<String>,
    /// More items follow.
    pub(crate) has_more: bool,
    /// The offset that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// The page that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<u64>,
    /// How many items there are in all; only where an offset or a page was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
}
