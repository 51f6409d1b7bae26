//! The engine that is measured, as a host would assemble it.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use webhook_core::{AddressGuard, MemoryQueue, MemoryStore, Role, Store, Webhooks};
use webhook_store_sqlite::SqliteStore;

use crate::{Error, QueueKind, StoreKind};

pub(crate) async fn build(store: StoreKind, queue: QueueKind, file: &Path) -> Result<Webhooks, Error> {
    let store: Arc<dyn Store> = match store {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
        StoreKind::Sqlite => {
            let store = SqliteStore::open(file.to_str().ok_or("the folder's name is not UTF-8")?).await?;
            store.migrate().await?;
            Arc::new(store)
        }
    };
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse()?);
    let builder = Webhooks::builder(store).guard(guard);
    let builder = match queue {
        QueueKind::None => builder,
        QueueKind::Memory => builder.queue(Arc::new(MemoryQueue::new())),
    };
    Ok(builder.build()?)
}

pub(crate) async fn serve(_: StoreKind, _: QueueKind, _: &Path) -> Result<(), Error> { Err("later".into()) }
