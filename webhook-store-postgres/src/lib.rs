#![doc = include_str!("../README.md")]

mod capture;
mod captured;
mod choice;
mod claim;
mod clock;
mod delivery;
mod error;
mod event;
mod fan_out;
mod history;
mod key;
mod maintenance;
mod notifier;
mod options;
mod path;
mod progress;
mod receipt;
mod rows;
mod schema;
mod search;
mod session;
mod stats;
mod store;
mod subscription;
mod tenant;

pub use clock::PostgresClock;
pub use error::OpenError;
pub use notifier::PostgresNotifier;
pub use options::PostgresStoreOptions;
pub use schema::MigrationStatus;
pub use store::PostgresStore;
