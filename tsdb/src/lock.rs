//! One process at a time: a lock file that the operating system releases when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::Error;

const LOCK_FILE: &str = "lock";

/// Holds a directory until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

/// Closing the file would not do: a child process that is being started holds a copy of it for a
/// moment, and the lock lasts as long as any copy.
impl Drop for DirLock {
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked when the last copy is closed.
        let _closed_soon = self.file.unlock();
    }
}

impl DirLock {
    /// Takes the directory.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Io`] when the file cannot be made.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("create lock file", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }
}
