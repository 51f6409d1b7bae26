//! The role that keeps capture paths and what reached them.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{AcceptItem, IdempotencyKey, KeyedAnswer, Page, PageRequest, StoreError};
use crate::capture::{CaptureFilter, CapturedRequest, PathId, PathSettings};
use crate::{CaptureId, PathKey, PathVersion, Sealed, TenantId, Timestamp};

/// A capture path as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathRecord {
    /// Its own id, which no other path ever has, whatever it is called.
    pub key: PathKey,
    /// Its name in the URL.
    pub path_id: PathId,
    /// Whose path this is.
    pub tenant: TenantId,
    /// Grows with each change.
    pub version: PathVersion,
    /// Everything but the response.
    pub settings: PathSettings,
    /// What it answers, sealed by core; none is the default answer.
    pub response: Option<Sealed>,
    /// When it ends, and its requests with it.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl PathRecord {
    /// A path of its first version, with default settings and answer, that does not end; set the public fields to
    /// change it.
    pub fn new(key: PathKey, path_id: PathId, tenant: TenantId, created_at: Timestamp) -> Self {
        Self {
            key,
            path_id,
            tenant,
            version: PathVersion::FIRST,
            settings: PathSettings::default(),
            response: None,
            expires_at: None,
            created_at,
            updated_at: created_at,
        }
    }

    /// Whether it has ended by `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// What a path holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathUsage {
    /// Requests that are kept.
    pub requests: u64,
    /// Bytes of their bodies that are kept.
    pub bytes: u64,
    /// The number of the last request that ever reached it: so many did.
    pub last_number: u64,
    /// The last request that ever reached it, removed or not.
    pub last_id: Option<CaptureId>,
    /// When that had arrived.
    pub last_request_at: Option<Timestamp>,
}

/// How creating a path ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathInserted {
    /// It was created.
    Created,
    /// The idempotency key was used before with the same body: this was the answer.
    Repeated(Sealed),
    /// The idempotency key was used before with another body; nothing was created.
    Conflict,
    /// There is a path of that name, of whatever tenant; nothing was created.
    Taken,
}

/// How changing a path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathUpdated {
    /// It was changed, and has this version now.
    Done(PathVersion),
    /// Somebody else changed it since it was read; nothing was done.
    Changed,
    /// There is no such path.
    Missing,
}

/// A request to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewCapture {
    /// The path that it reached.
    pub path: PathKey,
    /// The version of the path that the answer and the events go by.
    pub version: PathVersion,
    /// The request; its number is the store's to give, and its id to raise.
    pub request: CapturedRequest,
    /// Events that it becomes: each is direct, with one delivery to a subscription, and without a key. The request's id is
    /// the store's to write into their metadata, as it may be raised.
    pub forwards: Vec<AcceptItem>,
}

impl NewCapture {
    /// A request that reached that version of the path and becomes no event.
    pub fn new(path: PathKey, version: PathVersion, request: CapturedRequest) -> Self {
        Self { path, version, request, forwards: Vec::new() }
    }
}

/// How keeping a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureOutcome {
    /// It is stored under this id.
    Stored(CaptureId),
    /// The path is of another version; nothing was stored.
    Changed,
    /// The path was deleted, or has expired; nothing was stored.
    Missing,
}

/// How much a store reads at once of what a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLimit {
    /// So many requests at most, 1 or more …
    pub requests: u32,
    /// … and so many bytes of bodies together, but always one request.
    pub bytes: u64,
}

impl ReadLimit {
    /// So many requests at most, whatever they hold.
    pub const fn requests(requests: u32) -> Self {
        Self { requests, bytes: u64::MAX }
    }

    /// No more than so many bytes of bodies together.
    #[must_use]
    pub const fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Those of the rows that come within the limit, given how many bytes of a body each has.
    pub fn of<T>(self, rows: impl Iterator<Item = T>, bytes: impl Fn(&T) -> u64) -> impl Iterator<Item = T> {
        let mut sum = 0_u64;
        rows.take(self.requests as usize).enumerate().map_while(move |(index, row)| {
            sum = sum.saturating_add(bytes(&row));
            (index == 0 || sum <= self.bytes).then_some(row)
        })
    }
}

/// What one step of removing old requests should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePruneRequest {
    /// Requests with ids below that of this time go.
    pub received_before: Timestamp,
    /// The time now: paths that have expired go, with their requests.
    pub now: Timestamp,
    /// Remove no more requests than about this.
    pub limit: u32,
}

/// What one step of removing old requests did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapturePruneStep {
    /// Requests removed.
    pub requests: u64,
    /// There is more to remove.
    pub more: bool,
}

/// Figures about a tenant's paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureStats {
    /// Paths there are.
    pub paths: u64,
    /// Those of them that were reached since the given time.
    pub active_paths: u64,
    /// Requests that are kept.
    pub requests: u64,
    /// The newest requests, newest first, without their bodies.
    pub recent: Vec<CapturedRequest>,
}

/// So many methods of a path are counted at most.
pub const PATH_METHODS: usize = 100;

/// Keeps capture paths and what reached them.
///
/// Paths are named by `path_id`, which is unique over all tenants. A path that was deleted is gone at once with all its
/// requests, whatever its name is used for later; a store may remove the rows later, in [`CaptureStore::prune_captured`].
/// A path that has expired stays until then, except where a promise says otherwise.
#[async_trait]
pub trait CaptureStore: Debug + Send + Sync + 'static {
    /// Creates a path, and remembers the answer under the idempotency key, if one is given.
    ///
    /// # Contract
    ///
    /// - Its version and everything else come back as they were given.
    /// - A name that a path of whatever tenant has is taken, and the key is not used up.
    /// - A key that was used within its time creates nothing: the same fingerprint gives the first answer back,
    ///   another one is a conflict, also where the name is taken. The time now is the record's `created_at`.
    /// - Of concurrent calls with one name exactly one creates.
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, StoreError>;

    /// What [`CaptureStore::insert_path`] under this key would answer before it looks at anything else; none where the key
    /// is free.
    ///
    /// # Contract
    ///
    /// - The same fingerprint gives the first answer back, another one is a conflict, until the key's time is over by
    ///   `now`; another tenant's key does not count. Nothing is changed.
    async fn keyed_path(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<PathInserted>, StoreError>;

    /// Replaces a path's settings, response and end, and its `updated_at`.
    ///
    /// # Contract
    ///
    /// - Nothing is done unless `record.version` is the stored version; the version grows by one.
    /// - A deleted path and another tenant's are missing, also where the name is in use again.
    async fn update_path(&self, record: &PathRecord) -> Result<PathUpdated, StoreError>;

    /// Deletes a path with its requests. False when there is none.
    ///
    /// # Contract
    ///
    /// - Neither it nor its requests are found from then on, and its name is free.
    /// - Another tenant's path is not there to delete.
    async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<bool, StoreError>;

    /// Deletes the path with that key, of whatever tenant, with its requests, if it has expired by `now`. False when it has
    /// not, or is gone: for making room where its name is wanted.
    ///
    /// # Contract
    ///
    /// - A path that was given a later end stays, and so does another one that has the name by now.
    /// - Neither it nor its requests are found from then on, and its name is free.
    async fn delete_expired_path(&self, key: PathKey, now: Timestamp) -> Result<bool, StoreError>;

    /// The path of this name, of whatever tenant: for capturing, where the name yields the tenant.
    ///
    /// # Contract
    ///
    /// - One that has expired is found, a deleted one is not.
    async fn find_path(&self, path_id: &PathId) -> Result<Option<PathRecord>, StoreError>;

    /// One path of the tenant, with what it holds.
    ///
    /// # Contract
    ///
    /// - Another tenant's path is unknown. One that has expired is found.
    async fn path(&self, tenant: &TenantId, path_id: &PathId) -> Result<Option<(PathRecord, PathUsage)>, StoreError>;

    /// The tenant's paths with what they hold, newest first: by descending key.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last key, or from an offset, show each of them once; other tenants' are not shown.
    /// - Those that have expired by `now` are left out, and do not count in the total.
    async fn list_paths(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        page: PageRequest,
    ) -> Result<Page<(PathRecord, PathUsage)>, StoreError>;

    /// How many requests of each method a path holds, in any order: of the [`PATH_METHODS`] with the most.
    ///
    /// # Contract
    ///
    /// - Methods are told apart by case. Another tenant's path holds none.
    /// - Where there are more, those with the most requests count: whoever sends them makes methods up.
    async fn path_methods(&self, tenant: &TenantId, path_id: &PathId) -> Result<Vec<(String, u64)>, StoreError>;

    /// Keeps requests in one transaction; one outcome for each, in order.
    ///
    /// # Contract
    ///
    /// - When it returns `Ok`, every stored request is committed durably, together with its events and their deliveries,
    ///   which are due at the event's `created_at`.
    /// - Bytes come back as they were given, whatever they are (I9): body, header values, path and query.
    /// - Outcomes, ids, numbers, usage, events and what goes beyond the quotas are decided as [`super::CapturePlan`] does, also
    ///   between requests of one call and between calls at the same time: a path's numbers have no gap, and a request
    ///   that is seen has no later-seen one below it.
    /// - The oldest requests of a path go where it holds more than its quotas; the newest always stays.
    /// - An event for a subscription that was deleted, or is another tenant's, is left out; a change of subscriptions
    ///   waits for, or is seen by, every call that runs beside it.
    async fn capture(&self, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, StoreError>;

    /// One request of the tenant's path, with all of its body that is kept.
    ///
    /// # Contract
    ///
    /// - A request of another path, or of another tenant's, is unknown.
    async fn captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
    ) -> Result<Option<CapturedRequest>, StoreError>;

    /// The requests of the tenant's path, newest first, with at most `body_limit` bytes of each body.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last id, or from an offset, show each of them once; other paths' are not shown, and
    ///   another tenant's path has none.
    /// - Exactly those come that [`CaptureFilter::matches`], and they count in the total. A filter with what the backend's
    ///   texts cannot hold finds none.
    async fn list_captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        page: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, StoreError>;

    /// The requests of the tenant's path with ids above `after`, oldest first, as many as come within `limit`, with all of
    /// their bodies that is kept.
    ///
    /// # Contract
    ///
    /// - There is always one where there is any, however large; beyond it no more bytes than `limit` says.
    /// - Whoever goes on from the last one sees each request that is ever stored and not removed before, once.
    async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, StoreError>;

    /// Removes one request. False when there is none.
    ///
    /// # Contract
    ///
    /// - The path holds less by it. A request of another path, or of another tenant's, is not there to remove.
    async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<bool, StoreError>;

    /// Removes the oldest requests of the tenant's path, up to and including the id `through`; how many there were.
    ///
    /// # Contract
    ///
    /// - At most `limit`, the oldest first; the path holds less by them. Another tenant's path has none.
    async fn remove_captured_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        through: CaptureId,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// Removes in one small step what is too old, has expired, or belonged to a deleted path.
    ///
    /// # Contract
    ///
    /// - Requests with an id below [`CaptureId::floor`] of `received_before` go, and their paths hold less by them.
    /// - Paths that have expired by `now` go with their requests, and their names are free. Others stay.
    /// - At most `limit` requests go in one step; steps until there is no `more` remove everything.
    async fn prune_captured(&self, request: CapturePruneRequest) -> Result<CapturePruneStep, StoreError>;

    /// Figures about the tenant's paths.
    ///
    /// # Contract
    ///
    /// - Paths that have expired by `now` and other tenants' do not count. `recent` has at most `limit` requests, newest
    ///   first.
    async fn capture_stats(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        active_since: Timestamp,
        limit: u32,
    ) -> Result<CaptureStats, StoreError>;
}
