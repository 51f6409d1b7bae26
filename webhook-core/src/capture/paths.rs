//! The handle's methods about capture paths.

use std::collections::BTreeMap;

use super::capturer::no_path;
use super::{CaptureFilter, CapturePath, CustomResponse, PathDraft, PathId, PathSettings};
use crate::context::Context;
use crate::error::Conflict;
use crate::store::{
    CaptureStats, IdempotencyKey, KeyedAnswer, Page, PageRequest, PathInserted, PathRecord, PathUpdated, PathUsage,
};
use crate::{CaptureId, Error, Invalid, PathKey, PathVersion, Sealed, SubscriptionId, TenantId, Timestamp, Webhooks};

/// How often creating is tried while names are in the way.
const TRIES: usize = 4;
const AT_ONCE: u32 = 1000;

/// How creating a path under an idempotency key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathCreated {
    /// It was created.
    Created(Box<CapturePath>),
    /// The key was used before with the same body: this was the answer that the caller gave.
    Repeated(Vec<u8>),
}

impl Webhooks {
    /// Creates a capture path.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names every field that is not acceptable; [`Conflict::PathTaken`] when there is a path of that
    /// name, of whatever tenant.
    pub async fn create_path(&self, tenant: &TenantId, draft: PathDraft) -> Result<CapturePath, Error> {
        self.check_path(tenant, &draft, &[]).await?;
        let (record, path) = self.new_path(tenant, draft);
        match self.insert_path(&record, None).await? {
            PathInserted::Created => Ok(path),
            PathInserted::Taken => Err(Conflict::PathTaken.into()),
            PathInserted::Repeated(_) | PathInserted::Conflict => Err(Conflict::KeyReused.into()),
        }
    }

    /// Creates a capture path under an idempotency key; `answer` makes what a repeat is answered with.
    ///
    /// # Errors
    ///
    /// As [`Webhooks::create_path`]; [`Conflict::KeyReused`] when the key was used with another fingerprint.
    pub async fn create_path_once(
        &self,
        tenant: &TenantId,
        draft: PathDraft,
        key: String,
        fingerprint: [u8; 32],
        answer: impl FnOnce(&CapturePath) -> Vec<u8> + Send,
    ) -> Result<PathCreated, Error> {
        let context = self.context();
        let aad = format!("answer/paths/{tenant}/{key}").into_bytes();
        let expires_at = context.now() + context.options.idempotency_window;
        let key = IdempotencyKey::new("paths", key, fingerprint, expires_at);
        let inserted = match self.check_path(tenant, &draft, &[]).await {
            Ok(()) => {
                let (record, path) = self.new_path(tenant, draft);
                let answer = context.keyring.seal(&*context.entropy, &aad, &answer(&path));
                match self.insert_path(&record, Some(&KeyedAnswer { key, answer })).await? {
                    PathInserted::Created => return Ok(PathCreated::Created(Box::new(path))),
                    inserted => inserted,
                }
            }
            // What was acceptable at first may not be any more, as a subscription is gone: a repeat is answered all the
            // same.
            Err(error) => context.in_time(context.store.keyed_path(tenant, &key, context.now())).await?.ok_or(error)?,
        };
        match inserted {
            PathInserted::Repeated(sealed) => {
                let answer = context.keyring.open(&aad, &sealed).map_err(|error| Error::Unreadable(error.into()))?;
                Ok(PathCreated::Repeated(answer.to_vec()))
            }
            PathInserted::Conflict => Err(Conflict::KeyReused.into()),
            PathInserted::Taken | PathInserted::Created => Err(Conflict::PathTaken.into()),
        }
    }

    /// One capture path of the tenant.
    pub async fn capture_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<CapturePath, Error> {
        let (record, usage) = self.path_record(tenant, path_id).await?;
        let response = self.context().open_response(&record)?;
        Ok(CapturePath::of(record, usage, response))
    }

    /// The tenant's capture paths, newest first: by descending [`CapturePath::key`].
    pub async fn capture_paths(&self, tenant: &TenantId, page: PageRequest) -> Result<Page<CapturePath>, Error> {
        let context = self.context();
        let page = context.in_time(context.store.list_paths(tenant, context.now(), page)).await?;
        let open = |(record, usage)| {
            let response = context.open_response(&record)?;
            Ok::<_, Error>(CapturePath::of(record, usage, response))
        };
        let items = page.items.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Page { items, has_more: page.has_more, total: page.total })
    }

    /// A capture path with how many requests of each method it holds.
    pub async fn path_methods(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
    ) -> Result<(CapturePath, BTreeMap<String, u64>), Error> {
        let path = self.capture_path(tenant, path_id).await?;
        let methods = self.context().in_time(self.context().store.path_methods(tenant, path_id)).await?;
        Ok((path, methods.into_iter().collect()))
    }

    /// Replaces a capture path's settings and answer. With `version`, only if that is still its version.
    ///
    /// Requests beyond a quota that was lowered are gone when this returns. A time to live counts anew when it changes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names every field that is not acceptable, also when the draft has another name;
    /// [`Conflict::Changed`] when it is of another version.
    pub async fn replace_path(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        draft: PathDraft,
        version: Option<PathVersion>,
    ) -> Result<CapturePath, Error> {
        if draft.path_id.as_ref().is_some_and(|name| name != path_id) {
            return Err(Error::invalid("path_id", "cannot be changed"));
        }
        let context = self.context();
        for _ in 0..TRIES {
            let (mut record, mut usage) = self.path_record(tenant, path_id).await?;
            if version.is_some_and(|version| version != record.version) {
                return Err(Conflict::Changed.into());
            }
            self.check_path(tenant, &draft, &record.settings.forward_to).await?;
            let before = std::mem::replace(&mut record.settings, draft.settings.clone());
            record.response = context.seal_response(tenant, record.key, draft.response.as_ref());
            record.updated_at = context.now();
            if before.ttl != record.settings.ttl {
                record.expires_at = record.settings.ttl.map(|ttl| record.updated_at + ttl);
            }
            match context.in_time(context.store.update_path(&record)).await? {
                PathUpdated::Done(version) => {
                    record.version = version;
                    self.capturer().path_changed(path_id, record.key);
                    // Or those that were beyond one already: who lowered it got no answer, and asks again.
                    if is_lower(&before, &record.settings) || is_beyond(&usage, &record.settings) {
                        self.trim(tenant, path_id, &record.settings).await?;
                        usage = self.path_record(tenant, path_id).await?.1;
                    }
                    return Ok(CapturePath::of(record, usage, draft.response));
                }
                PathUpdated::Changed if version.is_none() => {}
                PathUpdated::Changed => return Err(Conflict::Changed.into()),
                PathUpdated::Missing => return Err(no_path()),
            }
        }
        Err(Conflict::Changed.into())
    }

    /// Deletes a capture path and all its requests: nobody finds them any more when this returns. What they take up is freed
    /// at the next cleanup ([`Options::cleanup_interval`](crate::Options::cleanup_interval)).
    pub async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<(), Error> {
        let context = self.context();
        let (record, _) = self.path_record(tenant, path_id).await?;
        if !context.in_time(context.store.delete_path(tenant, path_id)).await? {
            return Err(no_path());
        }
        self.capturer().path_changed(path_id, record.key);
        Ok(())
    }

    /// Figures about the tenant's capture paths; a path is active that was reached since then.
    pub async fn capture_stats(
        &self,
        tenant: &TenantId,
        active_since: Timestamp,
        recent: u32,
    ) -> Result<CaptureStats, Error> {
        Ok(self.context().in_time(self.context().store.capture_stats(tenant, self.now(), active_since, recent)).await?)
    }

    pub(super) async fn path_record(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
    ) -> Result<(PathRecord, PathUsage), Error> {
        let found = self.context().in_time(self.context().store.path(tenant, path_id)).await?;
        found.filter(|(record, _)| !record.has_expired(self.now())).ok_or_else(no_path)
    }

    /// An expired path that pruning has not come to yet makes room.
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, Error> {
        let context = self.context();
        for _ in 0..TRIES {
            let outcome = context.in_time(context.store.insert_path(record, key)).await?;
            let PathInserted::Taken = outcome else { return Ok(outcome) };
            let other = context.in_time(context.store.find_path(&record.path_id)).await?;
            let Some(other) = other else { continue };
            if !other.has_expired(self.now()) {
                break;
            }
            // Its owner may extend it meanwhile, and then it stays.
            if context.in_time(context.store.delete_expired_path(other.key, self.now())).await? {
                self.capturer().path_changed(&other.path_id, other.key);
            }
        }
        Ok(PathInserted::Taken)
    }

    fn new_path(&self, tenant: &TenantId, draft: PathDraft) -> (PathRecord, CapturePath) {
        let context = self.context();
        let path_id = draft.path_id.unwrap_or_else(|| PathId::generate(&*context.entropy));
        let mut record = PathRecord::new(PathKey::from_uuid(context.new_id()), path_id, tenant.clone(), context.now());
        record.expires_at = draft.settings.ttl.map(|ttl| record.created_at + ttl);
        record.settings = draft.settings;
        record.response = context.seal_response(tenant, record.key, draft.response.as_ref());
        let path = CapturePath::of(record.clone(), PathUsage::default(), draft.response);
        (record, path)
    }

    /// Everything that is wrong with a draft; subscriptions that it forwards to already may be gone.
    async fn check_path(&self, tenant: &TenantId, draft: &PathDraft, known: &[SubscriptionId]) -> Result<(), Error> {
        draft.check()?;
        let forwards = &draft.settings.forward_to;
        let new: Vec<_> = forwards.iter().filter(|id| !known.contains(id)).map(|id| (tenant.clone(), *id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let found = self.context().in_time(self.context().store.subscriptions(&new)).await?;
        let mut invalid = Invalid::new();
        for (index, id) in forwards.iter().enumerate().filter(|(_, id)| !known.contains(id)) {
            if !found.iter().any(|record| record.id == *id) {
                invalid.push(format!("forward_to[{index}]"), "there is no such subscription");
            }
        }
        Ok(invalid.into_result()?)
    }

    /// Removes what goes beyond quotas that were lowered.
    async fn trim(&self, tenant: &TenantId, path_id: &PathId, settings: &PathSettings) -> Result<(), Error> {
        let context = self.context();
        let everything = CaptureFilter::default();
        let (mut requests, mut bytes) = (0, 0);
        let mut page = PageRequest::newest(AT_ONCE);
        let through: Option<CaptureId> = loop {
            let found = context.in_time(context.store.list_captured(tenant, path_id, &everything, page, 0)).await?;
            let over = found.items.iter().find(|captured| {
                requests += 1;
                bytes += captured.body_kept;
                requests > 1
                    && (settings.max_requests.is_some_and(|quota| requests > quota)
                        || settings.max_bytes.is_some_and(|quota| bytes > quota))
            });
            match (over, found.items.last()) {
                (Some(captured), _) => break Some(captured.id),
                (None, Some(last)) if found.has_more => page = PageRequest::after(AT_ONCE, last.id.as_uuid()),
                _ => break None,
            }
        };
        if let Some(through) = through {
            while self.remove_through(tenant, path_id, through).await? == u64::from(AT_ONCE) {}
        }
        Ok(())
    }
}

fn is_lower(before: &PathSettings, after: &PathSettings) -> bool {
    let lower =
        |before: Option<u64>, after: Option<u64>| after.is_some_and(|after| before.is_none_or(|before| after < before));
    lower(before.max_requests, after.max_requests) || lower(before.max_bytes, after.max_bytes)
}

fn is_beyond(usage: &PathUsage, settings: &PathSettings) -> bool {
    settings.max_requests.is_some_and(|quota| usage.requests > quota)
        || settings.max_bytes.is_some_and(|quota| usage.bytes > quota)
}

impl Context {
    pub(super) fn open_response(&self, record: &PathRecord) -> Result<Option<CustomResponse>, Error> {
        let Some(sealed) = &record.response else { return Ok(None) };
        let aad = response_aad(&record.tenant, record.key);
        let opened = self.keyring.open(&aad, sealed).map_err(|error| Error::Unreadable(error.into()))?;
        serde_json::from_slice(&opened).map(Some).map_err(|error| Error::Unreadable(error.into()))
    }

    fn seal_response(&self, tenant: &TenantId, key: PathKey, response: Option<&CustomResponse>) -> Option<Sealed> {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(response?).unwrap_or_default());
        Some(self.keyring.seal(&*self.entropy, &response_aad(tenant, key), &plain))
    }
}

/// Binds a sealed response to its row, so that rows cannot be swapped.
fn response_aad(tenant: &TenantId, key: PathKey) -> Vec<u8> {
    format!("path/{tenant}/{key}").into_bytes()
}
