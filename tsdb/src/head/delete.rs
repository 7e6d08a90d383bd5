//! Deleting samples of the head: they leave memory at once, and a record of the log says so, so that
//! they do not come back with it.
//!
//! A record of deleted times stands in the log behind the samples that it takes away: it is pushed
//! under the lock under which they were. Deletions and snapshots take turns ([`crate::db`] sees to it):
//! a snapshot is never in the middle of one.

use isobar_model::{Matcher, TimeRange};

use crate::Error;
use crate::wal::log::Log;
use crate::wal::record::{self, Kind};

use super::shard::shard_of;
use super::{Head, TenantState};

/// Records are ended near this size.
const RECORD_BYTES: usize = 1 << 20;

impl Head {
    /// Deletes the samples of a tenant's series that match, at the times of a range, and pushes that
    /// into the log. Series without samples go. Gives the number of series with samples around those
    /// times.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when chunks that hold such samples cannot be read: the samples of all other
    /// series are deleted.
    pub(crate) fn delete(
        &self,
        log: &Log,
        tenant: &TenantState,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<u64, Error> {
        let ids = self.catalog.read().index.select(Some(tenant.id), matchers);
        let (mut deleted, mut empty) = (0, Vec::new());
        let mut result = Ok(());
        let mut payload = Vec::new();
        for (shard, locked) in self.shards.iter().enumerate() {
            let mut locked = locked.lock();
            for id in ids.iter().filter(|id| shard_of(*id) == shard) {
                let Some(series) = locked.get_mut(id) else {
                    continue;
                };
                match series.delete(range) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(e) => {
                        result = result.and(Err(e));
                        continue;
                    }
                }
                deleted += 1;
                if series.is_empty() {
                    empty.push(id);
                }
                if payload.is_empty() {
                    record::put_tombstones_range(&mut payload, range);
                }
                record::put_tombstone(&mut payload, id);
                if payload.len() >= RECORD_BYTES {
                    log.push(Kind::Tombstones, &payload);
                    payload.clear();
                }
            }
            if !payload.is_empty() {
                log.push(Kind::Tombstones, &payload);
                payload.clear();
            }
        }
        self.drop_empty(&empty);
        result.map(|()| deleted)
    }
}
