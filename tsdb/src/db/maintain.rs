//! What has to be done from time to time.

use crate::Error;
use crate::wal::snapshot;

use super::Db;

impl Db {
    /// Writes a snapshot of the head and drops the part of the log that it stands for.
    ///
    /// # Errors
    /// When log or snapshot cannot be written; the log is as long as before then.
    pub fn shorten_log(&self) -> Result<(), Error> {
        snapshot::replace_log(&self.wal_dir, &self.head, &self.log, &self.config.events)
    }
}
