//! Paths made ready for capturing, and the cache of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CustomResponse, PathId, PathSettings};
use crate::context::Context;
use crate::error::Noun;
use crate::store::PathRecord;
use crate::{Error, PathKey, PathVersion, TenantId, Timestamp};

/// A path ready for capturing, as of some moment: storing a request notices when it has changed since.
#[derive(Clone, Debug)]
pub struct LivePath {
    pub(super) key: PathKey,
    pub(super) path_id: PathId,
    pub(super) tenant: TenantId,
    pub(super) version: PathVersion,
    pub(super) settings: PathSettings,
    pub(super) response: Option<Arc<CustomResponse>>,
    expires_at: Option<Timestamp>,
    loaded_at: Timestamp,
}

impl LivePath {
    /// Made of what was read from the store at `read_at`.
    fn of(context: &Context, record: PathRecord, read_at: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            response: context.open_response(&record)?.map(Arc::new),
            key: record.key,
            path_id: record.path_id,
            tenant: record.tenant,
            version: record.version,
            settings: record.settings,
            expires_at: record.expires_at,
            loaded_at: read_at,
        })
    }

    /// Whose path it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn is_good(&self, context: &Context) -> bool {
        let now = context.now();
        now.since(self.loaded_at) < context.options.cache_ttl && self.expires_at.is_none_or(|end| end > now)
    }
}

/// At most so many paths are kept ready.
const CAPACITY: usize = 10_000;

/// Paths made ready for capturing.
#[derive(Debug, Default)]
pub(super) struct LivePaths {
    ready: Mutex<HashMap<PathId, Arc<LivePath>>>,
}

impl LivePaths {
    /// The path of this name, of whatever tenant.
    pub(super) async fn get(&self, context: &Context, path_id: &PathId) -> Result<Arc<LivePath>, Error> {
        let known = self.ready().get(path_id).cloned();
        match known.filter(|path| path.is_good(context)) {
            Some(path) => Ok(path),
            None => self.load(context, path_id).await,
        }
    }

    /// The same, read anew.
    pub(super) async fn load(&self, context: &Context, path_id: &PathId) -> Result<Arc<LivePath>, Error> {
        let read_at = context.now();
        let record = context.in_time(context.store.find_path(path_id)).await?;
        let Some(record) = record.filter(|record| !record.has_expired(context.now())) else {
            self.forget(path_id);
            return Err(Error::NotFound(Noun::Path));
        };
        let path = Arc::new(LivePath::of(context, record, read_at)?);
        let mut ready = self.ready();
        if ready.len() >= CAPACITY && !ready.contains_key(path_id) {
            let mut ages: Vec<_> = ready.values().map(|path| path.loaded_at).collect();
            let (_, median, _) = ages.select_nth_unstable(CAPACITY / 2);
            let median = *median;
            ready.retain(|_, path| path.loaded_at > median);
        }
        ready.insert(path_id.clone(), Arc::clone(&path));
        Ok(path)
    }

    pub(super) fn forget(&self, path_id: &PathId) {
        self.ready().remove(path_id);
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<PathId, Arc<LivePath>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
