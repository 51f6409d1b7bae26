//! Looking.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};

use super::App;
use crate::database::{Page, Stats};
use crate::filter::Filter;
use crate::refusal::Refusal;

pub(super) async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Page>, Refusal> {
    let filter = Filter::parse(&query.unwrap_or_default())?;
    Ok(Json(app.database.list(&filter).await?))
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Result<Json<Stats>, Refusal> {
    Ok(Json(app.database.stats().await?))
}
