//! A store of one's own: everything in `BTreeMap`s, and an append-only journal of JSON lines beside them.
//!
//! It is written against the public API of `webhook-core` alone, and its test runs the conformance suite. Read it to
//! see what a backend has to do, with nothing clever in between: each method looks through the maps, puts rows, and
//! one line with those rows is on the disk before it returns. Opening the file reads the lines again; a last line that
//! broke off was never acknowledged, and is dropped.
//!
//! What it is not: fast. Claims scan all deliveries, the journal is never compacted, and a call blocks its thread while
//! the disk syncs.

mod capture;
mod capture_rows;
mod delivery;
mod event;
mod history;
mod journal;
mod maintenance;
mod page;
mod receipt;
mod rows;
mod subscription;
mod tables;

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use webhook_core::StoreError;

use journal::Journal;
use tables::{Change, Tables};

/// A store in a file of JSON lines. One process at a time.
pub struct JournalStore {
    inner: Mutex<(Tables, Journal)>,
}

impl JournalStore {
    /// Opens the journal at `path`, or begins one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let mut tables = Tables::default();
        let journal = Journal::open(path.as_ref(), |change| tables.apply(change))?;
        Ok(Self { inner: Mutex::new((tables, journal)) })
    }

    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        let inner = self.inner.lock().map_err(|_| broken())?;
        Ok(look(&inner.0))
    }

    /// One atomic unit: what `change` puts is one line of the journal.
    fn write<T>(&self, change: impl FnOnce(&mut Transaction<'_>) -> T) -> Result<T, StoreError> {
        let mut inner = self.inner.lock().map_err(|_| broken())?;
        let (tables, journal) = &mut *inner;
        journal.check()?;
        let mut transaction = Transaction { tables, changes: Vec::new() };
        let answer = change(&mut transaction);
        journal.append(&transaction.changes)?;
        Ok(answer)
    }
}

impl fmt::Debug for JournalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalStore").finish_non_exhaustive()
    }
}

fn broken() -> StoreError {
    StoreError::Other("memory and journal may differ after a failure: open the journal again".into())
}

/// What one call changes: seen at once by what follows in the call, written as one line at its end.
struct Transaction<'a> {
    tables: &'a mut Tables,
    changes: Vec<Change>,
}

impl Transaction<'_> {
    fn put(&mut self, change: Change) {
        self.tables.apply(change.clone());
        self.changes.push(change);
    }
}
