//! What is done to data that are there: deleting samples, and writing blocks anew without them.
//!
//! Samples of blocks are marked as deleted in a file of the block, as Prometheus does, and left out
//! when it is read; those of the head leave it. [`Db::clean_tombstones`] copies blocks without what was
//! deleted. A copy names the block that it was made from as its parent, and a block whose copy is there
//! is removed, now or at the next start: no crash leaves both.

use isobar_model::{Matcher, Tenant, TimeRange};
use ulid::Ulid;

use crate::Error;
use crate::block::tools::{Rewrite, rewrite};

use super::Db;
use super::event::Event;

impl Db {
    /// Deletes the samples of the series that match, at the times of a range, of one tenant or of all.
    /// They are gone from queries that begin after this, and for good. A sample of a deleted time that
    /// is sent again is a new one.
    ///
    /// # Errors
    /// When a block cannot be read or written, or the log cannot be written. Some of the samples may be
    /// deleted then; doing it again does the rest.
    pub fn delete_series(
        &self,
        tenant: Option<&Tenant>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<(), Error> {
        // Nothing is cut meanwhile, so that nothing moves from the head to a block behind our back, and
        // no snapshot is taken.
        let _agenda = self.agenda.lock();
        self.log.check_writable()?;
        // The head first: what it has is not in a block later.
        for state in self.head.tenants().all() {
            if tenant.is_none_or(|tenant| state.name == *tenant) {
                self.head.delete(&self.log, &state, matchers, range)?;
            }
        }
        self.log.wait(self.log.ticket())?;
        for block in self.blocks_of(tenant) {
            self.blocks.delete(&block, matchers, range)?;
        }
        Ok(())
    }

    /// Copies all blocks of which samples are deleted without these, and gives the names of the copies.
    /// A block of which nothing is left is removed.
    ///
    /// # Errors
    /// When a block cannot be read or a copy cannot be written; what is not copied stays as it is.
    pub fn clean_tombstones(&self) -> Result<Vec<Ulid>, Error> {
        let _agenda = self.agenda.lock();
        let mut copies = Vec::new();
        for block in self.blocks.served().iter() {
            if block.reader().tombstones().is_empty() {
                continue;
            }
            let ulid = self.new_ulid();
            let copied = rewrite(block.reader(), &self.config.dir, ulid, &Rewrite::default());
            if self.blocks.checked(block, copied)?.is_some() {
                self.blocks.replace(block, ulid)?;
                copies.push(ulid);
            } else {
                // Replay leaves out what the block says that it holds: from here on the log has none
                // of that.
                self.replace_log()?;
                self.blocks.remove(block)?;
            }
            (self.config.events)(Event::BlockCleaned {
                path: block.reader().dir().to_owned(),
                copy: copies.last().filter(|it| **it == ulid).copied(),
            });
        }
        Ok(copies)
    }
}
