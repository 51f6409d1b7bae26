//! Stores that wrap another one: for tests in which the database fails, waits or is counted.

/// Implements [`Store`](crate::Store) for a wrapper of another store, which is its field `inner`.
///
/// Every call goes through the wrapper's own
/// `async fn around<T>(&self, method: &'static str, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError>`,
/// which may fail before it, do it and fail all the same, delay or count it.
///
/// ```
/// use webhook_core::StoreError;
/// use webhook_core::store::MemoryStore;
///
/// #[derive(Debug, Default)]
/// struct ReadOnly {
///     inner: MemoryStore,
/// }
///
/// impl ReadOnly {
///     async fn around<T>(
///         &self,
///         method: &'static str,
///         call: impl Future<Output = Result<T, StoreError>> + Send,
///     ) -> Result<T, StoreError> {
///         if method == "accept" { Err(StoreError::Unavailable("read-only".into())) } else { call.await }
///     }
/// }
///
/// webhook_core::wrap_store!(ReadOnly);
/// ```
///
/// A wrapper that writes some roles itself names the others: `wrap_store!(ReadOnly: CaptureStore, MaintenanceStore)`.
#[macro_export]
macro_rules! wrap_store {
    ($wrapper:ty) => {
        $crate::wrap_store!(
            $wrapper: SubscriptionStore, EventStore, DeliveryStore, HistoryStore, MaintenanceStore, CaptureStore, ReceiptStore
        );
    };
    ($wrapper:ty: $($role:ident),+) => {
        const _: () = {
            #[allow(unused_imports, reason = "the roles name different parts of it")]
            use $crate::store::*;
            #[allow(unused_imports, reason = "the roles name different parts of it")]
            use $crate::*;

            $($crate::wrap_store! { @$role $wrapper })+
        };
    };
    (@SubscriptionStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; SubscriptionStore {
            insert_subscription(record: &SubscriptionRecord, key: Option<&KeyedAnswer>) -> Inserted;
            update_subscription(record: &SubscriptionRecord) -> Updated;
            delete_subscription(tenant: &TenantId, id: SubscriptionId, now: Timestamp) -> bool;
            subscriptions(ids: &[(TenantId, SubscriptionId)]) -> Vec<SubscriptionRecord>;
            find_subscription(id: SubscriptionId) -> Option<SubscriptionRecord>;
            list_subscriptions(tenant: &TenantId, page: PageRequest) -> Page<SubscriptionRecord>;
            subscription_changes(tenant: &TenantId, after: Generation, limit: u32) -> SubscriptionChanges;
            generations(tenants: &[TenantId]) -> Vec<Generation>;
        } }
    };
    (@EventStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; EventStore {
            accept(now: Timestamp, units: &[AcceptUnit]) -> Vec<AcceptOutcome>;
            event(tenant: &TenantId, id: EventId) -> Option<(Event, u32)>;
            list_events(tenant: &TenantId, filter: &EventFilter, page: PageRequest) -> Page<EventSummary>;
            load_events(ids: &[(TenantId, EventId)]) -> Vec<Event>;
        } }
    };
    (@DeliveryStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; DeliveryStore {
            claim(request: ClaimRequest<'_>) -> Claimed;
            claim_ids(request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Claimed;
            record(now: Timestamp, outcomes: &[Outcome]) -> Vec<Recorded>;
            release(releases: &[Release]) -> ();
        } }
    };
    (@HistoryStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; HistoryStore {
            delivery(tenant: &TenantId, id: DeliveryId) -> Option<Delivery>;
            list_deliveries(tenant: &TenantId, filter: &DeliveryFilter, page: PageRequest) -> Page<Delivery>;
            attempts_of(tenant: &TenantId, delivery: DeliveryId) -> Vec<Attempt>;
            list_attempts(tenant: &TenantId, subscription: SubscriptionId, page: PageRequest) -> Page<Attempt>;
            retry(tenant: &TenantId, id: DeliveryId, now: Timestamp) -> RetryOutcome;
            cancel(tenant: &TenantId, id: DeliveryId, now: Timestamp) -> CancelOutcome;
            recoverable(
                tenant: &TenantId, subscription: SubscriptionId, since: Timestamp, until: Timestamp, after: Option<EventId>,
                limit: u32
            ) -> Vec<Recoverable>;
            add_deliveries(
                tenant: &TenantId, subscription: SubscriptionId, deliveries: &[AddedDelivery], now: Timestamp
            ) -> u64;
            stats(tenant: &TenantId, subscription: Option<SubscriptionId>, since: Timestamp) -> Stats;
            activity(tenant: &TenantId, limit: u32) -> Vec<Activity>;
        } }
    };
    (@MaintenanceStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; MaintenanceStore {
            = clock() -> std::sync::Arc<dyn Clock>;
            = notifier() -> Option<std::sync::Arc<dyn Notifier>>;
            ping() -> ();
            prune(request: PruneRequest) -> PruneStep;
            cancel_orphans(now: Timestamp, limit: u32) -> u64;
            backlog(now: Timestamp) -> Backlog;
        } }
    };
    (@CaptureStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; CaptureStore {
            insert_path(record: &PathRecord, key: Option<&KeyedAnswer>) -> PathInserted;
            keyed_path(tenant: &TenantId, key: &IdempotencyKey, now: Timestamp) -> Option<PathInserted>;
            update_path(record: &PathRecord) -> PathUpdated;
            delete_path(tenant: &TenantId, path_id: &PathId) -> bool;
            delete_expired_path(key: PathKey, now: Timestamp) -> bool;
            find_path(path_id: &PathId) -> Option<PathRecord>;
            path(tenant: &TenantId, path_id: &PathId) -> Option<(PathRecord, PathUsage)>;
            list_paths(tenant: &TenantId, now: Timestamp, page: PageRequest) -> Page<(PathRecord, PathUsage)>;
            path_methods(tenant: &TenantId, path_id: &PathId) -> Vec<(String, u64)>;
            capture(now: Timestamp, requests: &[NewCapture]) -> Vec<CaptureOutcome>;
            captured(tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Option<CapturedRequest>;
            list_captured(
                tenant: &TenantId, path_id: &PathId, filter: &CaptureFilter, page: PageRequest, body_limit: u32
            ) -> Page<CapturedRequest>;
            captured_after(
                tenant: &TenantId, path_id: &PathId, after: Option<CaptureId>, limit: ReadLimit
            ) -> Vec<CapturedRequest>;
            remove_captured(tenant: &TenantId, path_id: &PathId, id: CaptureId) -> bool;
            remove_captured_through(tenant: &TenantId, path_id: &PathId, through: CaptureId, limit: u32) -> u64;
            prune_captured(request: CapturePruneRequest) -> CapturePruneStep;
            capture_stats(tenant: &TenantId, now: Timestamp, active_since: Timestamp, limit: u32) -> CaptureStats;
        } }
    };
    (@ReceiptStore $wrapper:ty) => {
        $crate::wrap_store! { @methods $wrapper; ReceiptStore {
            begin_receipt(receipt: &NewReceipt) -> ReceiptState;
            complete_receipt(key: &ReceiptKey, token: LeaseToken, answer: &[u8], expires_at: Timestamp) -> bool;
            fail_receipt(key: &ReceiptKey, token: LeaseToken) -> bool;
            forget_receipts(now: Timestamp, limit: u32) -> u64;
        } }
    };
    (@methods $wrapper:ty; $role:ident {
        $(= $plain:ident() -> $given:ty;)*
        $($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*
    }) => {
        #[$crate::testing::async_trait::async_trait]
        impl $role for $wrapper {
            $(fn $plain(&self) -> $given {
                self.inner.$plain()
            })*
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
                self.around(stringify!($name), self.inner.$name($($argument),*)).await
            })*
        }
    };
}
