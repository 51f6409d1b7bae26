//! Looking for a text in captured requests, without keeping others from the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use webhook_core::store::{Page, PageRequest, Position};
use webhook_core::{CaptureFilter, CapturedRequest, PathId, StoreError, TenantId};

use crate::captured;
use crate::store::PostgresStore;

/// A search waits for others so long for each of its steps, and so long for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Searches use no more than this part of the connections for callers.
const PART: u32 = 4;

/// Places for the steps of searches.
#[derive(Clone, Debug)]
pub(crate) struct Searches(Arc<Semaphore>);

impl Searches {
    /// Beside so many connections.
    pub(crate) fn new(connections: u32) -> Self {
        Self(Arc::new(Semaphore::new((connections / PART).max(1) as usize)))
    }
}

impl PostgresStore {
    /// Those requests of a page in which the filter's text is. Each step has its place and its connection for itself, and
    /// gives them back: many searches are all slow, and nobody else is.
    pub(crate) async fn search(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        page: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, StoreError> {
        let (mut below, skip, counts) = match page.position {
            Position::Start => (None, 0, false),
            Position::After(id) => (Some(id), 0, false),
            Position::Offset(offset) => (None, offset, true),
        };
        let wanted = page.limit as usize + 1;
        let (mut found, mut total) = (Vec::new(), 0);
        while counts || found.len() < wanted {
            let _place = match timeout(PATIENCE, self.searches.0.acquire()).await {
                Ok(Ok(place)) => place,
                _ => return Err(StoreError::Unavailable("too many searches at once".into())),
            };
            let step = async {
                let mut session = self.reader().await?;
                let step = captured::searched(&mut session.conn(), tenant, path_id, filter, below).await;
                self.end(session, step).await
            };
            let late = |_| Err(StoreError::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()).into()));
            let step = timeout(PATIENCE, step).await.unwrap_or_else(late)?;
            let Some(last) = step.last() else { break };
            below = Some(last.id.as_uuid());
            for mut captured in step.into_iter().filter(|captured| filter.matches(captured)) {
                total += 1;
                if total > skip && found.len() < wanted {
                    let body = &mut captured.request.body;
                    if body.len() > body_limit as usize {
                        // A slice would keep the whole body in memory.
                        *body = Bytes::copy_from_slice(&body[..body_limit as usize]);
                    }
                    found.push(captured);
                }
            }
        }
        Ok(Page::from_probe(found, page.limit, counts.then_some(total)))
    }
}
