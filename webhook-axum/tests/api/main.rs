//! The API as a caller meets it.

mod access;
mod conventions;
mod events;
mod history;
mod host;
mod hostile;
mod ingest;
mod operating;
mod serving;
mod subscriptions;
