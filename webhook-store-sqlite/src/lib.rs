#![doc = include_str!("../README.md")]

mod bulk;
mod capture;
mod captured;
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
mod path;
mod receipt;
mod rows;
mod schema;
mod search;
mod stats;
mod store;
mod subscription;
mod writer;

pub use error::OpenError;
pub use options::{SqliteStoreOptions, Synchronous};
pub use schema::MigrationStatus;
pub use store::SqliteStore;
