//! Following what reaches a path.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::capturer::no_path;
use super::{CapturedRequest, PathId};
use crate::store::ReadLimit;
use crate::{CaptureId, Error, PathKey, TenantId, Webhooks};

/// What a watch holds at once: more than these bytes only where one request alone has more.
const AT_ONCE: ReadLimit = ReadLimit::requests(16).with_bytes(256 << 10);

/// What a watch sees next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A request.
    Request(Box<CapturedRequest>),
    /// One or more requests came here that are gone: removed, or beyond a quota.
    Gap,
}

/// Follows what reaches a path, also by way of other processes. The store is the truth: what a slow reader has not seen
/// yet waits there, not in memory.
#[derive(Debug)]
pub struct CaptureWatch {
    webhooks: Webhooks,
    tenant: TenantId,
    path_id: PathId,
    key: PathKey,
    after: Option<CaptureId>,
    /// The number of the last one seen; none where that is not known.
    number: Option<u64>,
    gap: bool,
    read: VecDeque<CapturedRequest>,
    changed: watch::Receiver<()>,
}

impl Webhooks {
    /// Watches a path from now on, or from after the request with that id on, if one is given.
    ///
    /// In a test, begin to watch before you cause what you wait for:
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use webhook_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let webhooks = Webhooks::builder(Arc::new(MemoryStore::new())).build()?;
    /// # let tenant = TenantId::default();
    /// let path = webhooks.create_path(&tenant, PathDraft::new()).await?;
    /// let mut capture = webhooks.watch(&tenant, &path.path_id, None).await?;
    ///
    /// // Something that calls https://…/webhook/{path_id}, for example:
    /// let request = IncomingRequest::new("POST", "/webhook/x").with_body("paid");
    /// webhooks.capture(&path.path_id, request, None).await?;
    ///
    /// let paid = capture.wait_for(|captured| captured.request.body == "paid", Duration::from_secs(5)).await?;
    /// assert!(paid.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
    ) -> Result<CaptureWatch, Error> {
        let (record, usage) = self.path_record(tenant, path_id).await?;
        let mut watch = CaptureWatch {
            changed: self.capturer().watchers.subscribe(record.key),
            webhooks: self.clone(),
            tenant: tenant.clone(),
            path_id: path_id.clone(),
            key: record.key,
            after: usage.last_id,
            number: Some(usage.last_number),
            gap: false,
            read: VecDeque::new(),
        };
        let Some(after) = after.filter(|after| usage.last_id != Some(*after)) else { return Ok(watch) };
        // Where that one is gone, nobody can tell what else is. An id from the future is no place to go on from.
        let found = self.context().in_time(self.context().store.captured(tenant, path_id, after)).await?;
        watch.number = found.map(|captured| captured.number);
        watch.gap = watch.number.is_none();
        watch.after = usage.last_id.map(|last| last.min(after));
        Ok(watch)
    }
}

impl CaptureWatch {
    /// The next request, whenever it comes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when the path is gone. After [`Error::Store`] ask again: nothing is passed over.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if std::mem::take(&mut self.gap) {
                return Ok(WatchEvent::Gap);
            }
            if let Some(captured) = self.read.pop_front() {
                let before = self.number.replace(captured.number);
                if before.is_some_and(|before| before + 1 != captured.number) {
                    self.number = Some(captured.number - 1);
                    self.read.push_front(captured);
                    self.gap = true;
                    continue;
                }
                self.after = Some(captured.id);
                return Ok(WatchEvent::Request(Box::new(captured)));
            }
            self.changed.borrow_and_update();
            let context = self.webhooks.context();
            let read = context.store.captured_after(&self.tenant, &self.path_id, self.after, AT_ONCE);
            self.read = context.in_time(read).await?.into();
            if self.read.is_empty() {
                self.wait().await?;
            }
        }
    }

    /// The first request from here on that `matcher` wants; none when it has not come in time. Gaps are passed over.
    ///
    /// # Errors
    ///
    /// As [`CaptureWatch::next`].
    pub async fn wait_for(
        &mut self,
        mut matcher: impl FnMut(&CapturedRequest) -> bool,
        patience: Duration,
    ) -> Result<Option<CapturedRequest>, Error> {
        let wanted = async {
            loop {
                match self.next().await? {
                    WatchEvent::Request(captured) if matcher(&captured) => return Ok(*captured),
                    _ => {}
                }
            }
        };
        timeout(patience, wanted).await.ok().transpose()
    }

    /// Until something was captured here, or it is time to see whether something was elsewhere.
    async fn wait(&mut self) -> Result<(), Error> {
        let poll = self.webhooks.options().poll_interval;
        let woken = timeout(poll, self.changed.changed()).await;
        let (record, _) = self.webhooks.path_record(&self.tenant, &self.path_id).await?;
        if record.key != self.key {
            return Err(no_path());
        }
        if let Ok(Err(_)) = woken {
            // Its sender is never dropped while there is a receiver.
            tokio::time::sleep(poll).await;
        }
        Ok(())
    }
}
