//! What an administrator does to the data of a store: deleting, cleaning up, copying.

use isobar_model::{Matcher, TimeRange};

use crate::StoreError;
use crate::local::LocalStore;

/// Changes data that are there. All methods block: they are for threads that may.
pub trait Admin: Send + Sync + 'static {
    /// Deletes the samples of the series that match, at the times of a range. Queries that begin after
    /// this see none of them.
    ///
    /// # Errors
    /// When data cannot be read or written. Some of the samples may be deleted then.
    fn delete_series(&self, matchers: &[Matcher], range: TimeRange) -> Result<(), StoreError>;

    /// Gives the space of deleted samples back.
    ///
    /// # Errors
    /// When data cannot be read or written.
    fn clean_tombstones(&self) -> Result<(), StoreError>;

    /// Makes a copy beside the data, of blocks and, with `with_head`, of what is in no block yet. Gives
    /// its name.
    ///
    /// # Errors
    /// When data cannot be read or written.
    fn snapshot(&self, with_head: bool) -> Result<String, StoreError>;
}

/// Of all tenants together, as it is read.
impl Admin for LocalStore {
    fn delete_series(&self, matchers: &[Matcher], range: TimeRange) -> Result<(), StoreError> {
        Ok(self.db().delete_series(None, matchers, range)?)
    }

    fn clean_tombstones(&self) -> Result<(), StoreError> {
        self.db().clean_tombstones()?;
        Ok(())
    }

    fn snapshot(&self, with_head: bool) -> Result<String, StoreError> {
        Ok(self.db().snapshot(with_head)?)
    }
}
