//! The file: one line for each transaction.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use webhook_core::StoreError;

use crate::broken;
use crate::tables::Change;

pub(crate) struct Journal {
    file: File,
    /// An append failed: what is in memory may not be in the file.
    failed: bool,
}

impl Journal {
    /// Opens the file, and hands over what its whole lines say.
    pub(crate) fn open(path: &Path, mut apply: impl FnMut(Change)) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(unavailable)?;
        file.try_lock().map_err(|error| unavailable(error.into()))?;
        let (mut whole, mut line) = (0, String::new());
        let mut reader = BufReader::new(&file);
        loop {
            line.clear();
            let length = reader.read_line(&mut line).map_err(unavailable)?;
            if !line.ends_with('\n') {
                break;
            }
            let changes: Vec<Change> = serde_json::from_str(&line)
                .map_err(|error| StoreError::Corrupt(format!("journal at byte {whole}: {error}")))?;
            changes.into_iter().for_each(&mut apply);
            whole += length as u64;
        }
        file.set_len(whole).map_err(unavailable)?;
        file.seek(SeekFrom::End(0)).map_err(unavailable)?;
        Ok(Self { file, failed: false })
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.failed { Err(broken()) } else { Ok(()) }
    }

    /// Returns when the changes are on the disk.
    pub(crate) fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.failed = true;
        let mut line = serde_json::to_vec(changes).map_err(|error| StoreError::Other(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(unavailable)?;
        self.failed = false;
        Ok(())
    }
}

fn unavailable(error: std::io::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}
