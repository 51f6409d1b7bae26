#![doc = include_str!("../README.md")]

#[cfg(not(any(feature = "sqlite-bundled", feature = "sqlite-unbundled")))]
compile_error!("enable the feature `sqlite-bundled` or `sqlite-unbundled`");

mod bulk;
mod claim;
mod delivery;
mod error;
mod event;
mod history;
mod key;
mod lock;
mod maintenance;
mod options;
mod pace;
mod rows;
mod schema;
mod stats;
mod store;
mod subscription;
mod writer;

pub use error::OpenError;
pub use options::{SqliteStoreOptions, Synchronous};
pub use schema::MigrationStatus;
pub use store::SqliteStore;
