//! The handle's methods about captured requests.

use super::{CaptureFilter, CapturedRequest, PathId};
use crate::error::Noun;
use crate::store::{Page, PageRequest, ReadLimit};
use crate::{CaptureId, Error, StoreError, TenantId, Webhooks};

const AT_ONCE: u32 = 1000;

impl Webhooks {
    /// One captured request, with all of its body that is kept.
    pub async fn captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<CapturedRequest, Error> {
        self.path_record(tenant, path_id).await?;
        let found = self.context().in_time(self.context().store.captured(tenant, path_id, id)).await?;
        found.ok_or(Error::NotFound(Noun::CapturedRequest))
    }

    /// The requests of a path, newest first, with at most `body_limit` bytes of each body.
    pub async fn captured_requests(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        page: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, Error> {
        self.path_record(tenant, path_id).await?;
        let context = self.context();
        let listed = context.store.list_captured(tenant, path_id, filter, page, body_limit);
        Ok(match filter.text {
            None => context.in_time(listed).await?,
            Some(_) => context.searching(listed).await?,
        })
    }

    /// The requests of a path that come after the one with this id, oldest first, as many as come within `limit`,
    /// with all of their bodies that is kept: for going through all of them in constant memory. There is always one where
    /// there is any.
    pub async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, Error> {
        self.path_record(tenant, path_id).await?;
        Ok(self.context().in_time(self.context().store.captured_after(tenant, path_id, after, limit)).await?)
    }

    /// Removes one captured request.
    pub async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<(), Error> {
        self.path_record(tenant, path_id).await?;
        match self.context().in_time(self.context().store.remove_captured(tenant, path_id, id)).await? {
            true => Ok(()),
            false => Err(Error::NotFound(Noun::CapturedRequest)),
        }
    }

    /// Removes all requests that a path holds now, in small steps; how many there were.
    pub async fn clear_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<u64, Error> {
        let (_, usage) = self.path_record(tenant, path_id).await?;
        let Some(last) = usage.last_id else { return Ok(0) };
        let mut removed = 0;
        loop {
            let step = self.remove_through(tenant, path_id, last).await?;
            removed += step;
            if step < u64::from(AT_ONCE) {
                return Ok(removed);
            }
        }
    }

    /// Removes some of the requests up to one; how many: less than [`AT_ONCE`] when there are no more.
    pub(super) async fn remove_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        last: CaptureId,
    ) -> Result<u64, StoreError> {
        let context = self.context();
        context.in_time(context.store.remove_captured_through(tenant, path_id, last, AT_ONCE)).await
    }
}
