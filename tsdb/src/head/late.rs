//! Samples that come late: which of them lie in blocks, and which do not.
//!
//! A sample that cannot follow the newest of its series is late. It is taken when it is not older
//! than the newest of its tenant by more than the window, goes into the series' late buffer
//! (`series/late.rs`) and, in a record of its own kind, into the log. Late samples of a range are
//! written into the block of that range when they are there in time; those that come when it is
//! cut already stay in the head, and are cut as a block of their own that overlaps the first
//! (`db/maintain.rs`). Known samples are looked for in the head: a late sample is not compared with
//! what lies in blocks only, so a repeat of such a sample is stored again and a contradiction is
//! not noticed. Reading gives each time once.
//!
//! # No late sample is lost or twice
//!
//! For in-order samples one time per tenant says what lies in blocks: all before it. Late samples
//! know no such time, so they are counted in *epochs*:
//!
//! 1. Each shard has an epoch, the same for all but while it changes. A record of late samples is
//!    pushed while its shard is locked, and carries the shard's epoch.
//! 2. Before late samples of a tenant are cut, [`Head::freeze_late`] locks each shard in turn, makes
//!    chunks of the tenant's buffers, and raises the shard's epoch from `e` to `e + 1`. So a sample
//!    is in those chunks exactly if its record carries `e` or less.
//! 3. The block takes from these chunks all samples in its range. Its `meta.json` carries `e` as
//!    `isobar.late_until`. It comes into being by a rename, and with it the [`LateCut`]: *late
//!    samples of this tenant, in this range, of epoch `e` or less, are in blocks*.
//! 4. Replay reads the cuts from the blocks first. It drops the late samples that a cut holds and
//!    takes all others. Then the head's epoch is set behind all that the log and the blocks name.
//! 5. While readers keep cut samples in the head, the next block leaves out what an earlier cut
//!    holds.
//!
//! A crash before the rename leaves no block and the log as it was: nothing is dropped. A crash
//! after it, whether or not the head was truncated, a snapshot written or the log shortened, leaves
//! a block whose cut says of each record, and of each chunk of a snapshot, whether it is in there.
//! A chunk carries the epoch in which it was sealed, which may be later than that of its samples;
//! but no cut of its tenant lies between them, because a cut seals all buffers: both get the same
//! verdict. A small chunk that goes back into a buffer when a snapshot is read takes on the latest
//! epoch, since there may be later samples in the buffer. Snapshots carry the epoch even where
//! there is no late chunk, so it never falls behind that of a block which cannot be read at one
//! start and can at the next. Reading a record twice changes nothing: a time that is there already
//! is not taken again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use isobar_model::{Tenant, TimeRange};
use roaring::RoaringBitmap;

use crate::Error;
use crate::chunks::Chunk;
use crate::merge::read_samples;

use super::series::block_start_ms;
use super::shard::shard_of;
use super::{Head, TenantState};

/// Late samples that are looked at while a shard is locked: of this many series.
const SERIES_BATCH: usize = 1024;

/// Counts the cuts of late samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

impl Epoch {
    /// The one after this.
    pub(crate) fn next(self) -> Self {
        Epoch(self.0.saturating_add(1))
    }
}

/// Says that the late samples of a tenant in a range, up to an epoch, lie in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LateCut {
    pub(crate) range: TimeRange,
    pub(crate) until: Epoch,
}

/// The cuts that blocks hold, by tenant.
pub(crate) type LateCuts = HashMap<Tenant, Vec<LateCut>>;

/// Late samples that are to be cut: those of a range, sealed up to an epoch, that no cut holds.
#[derive(Debug, Clone)]
pub(crate) struct Uncut {
    pub(crate) until: Epoch,
    pub(crate) cuts: Vec<LateCut>,
}

/// Late samples in a block range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LateExtent {
    /// The oldest and the newest of them.
    pub(crate) range: TimeRange,
    /// The series that have some.
    pub(crate) series: RoaringBitmap,
}

impl Head {
    /// The epoch of all shards. Not to be called while [`Head::freeze_late`] runs.
    pub(crate) fn epoch(&self) -> Epoch {
        let epochs = self.shards.iter().map(|shard| shard.lock().epoch);
        epochs.max().unwrap_or_default()
    }

    /// Ends an epoch for one tenant: its late samples up to here are in chunks, those that come
    /// from here on have a later epoch. Nothing is done when it has no late samples. To be called
    /// by one thread at a time.
    pub(crate) fn freeze_late(&self, tenant: &TenantState) -> Option<Epoch> {
        if tenant.late_min_ms.load(Ordering::Acquire) == i64::MAX {
            return None;
        }
        let mut ids: Vec<u32> = self
            .catalog
            .read()
            .index
            .all(Some(tenant.id))
            .iter()
            .collect();
        ids.sort_by_key(|id| shard_of(*id));
        let mut rest = ids.as_slice();
        let mut frozen = Epoch::default();
        for (shard, locked) in self.shards.iter().enumerate() {
            let (of_shard, others) =
                rest.split_at(rest.partition_point(|id| shard_of(*id) <= shard));
            rest = others;
            let mut locked = locked.lock();
            frozen = locked.epoch;
            for id in of_shard {
                if let Some(series) = locked.get_mut(*id) {
                    series.seal_late(frozen);
                }
            }
            locked.epoch = frozen.next();
        }
        Some(frozen)
    }

    /// The uncut late samples of a tenant in `range`, by the start of the block range they lie in.
    ///
    /// # Errors
    /// When a chunk cannot be decoded.
    pub(crate) fn late_extents(
        &self,
        tenant: &TenantState,
        range: TimeRange,
        uncut: &Uncut,
    ) -> Result<BTreeMap<i64, LateExtent>, Error> {
        let mut extents: BTreeMap<i64, LateExtent> = BTreeMap::new();
        let ids: Vec<u32> = self
            .catalog
            .read()
            .index
            .all(Some(tenant.id))
            .iter()
            .collect();
        let mut chunks: Vec<(u32, Vec<Chunk>)> = Vec::new();
        let mut columns = isobar_model::Columns::default();
        for batch in ids.chunks(SERIES_BATCH) {
            for id in batch {
                let locked = self.shards[shard_of(*id)].lock();
                if let Some(series) = locked.get(*id).filter(|series| series.has_late()) {
                    chunks.push((*id, series.uncut_late(range, uncut)?));
                }
            }
            for (id, chunks) in chunks.drain(..) {
                columns.clear();
                read_samples(&chunks, range, &mut columns)?;
                let histograms = columns
                    .histograms
                    .iter()
                    .map(|(timestamp_ms, _)| *timestamp_ms);
                for timestamp_ms in columns.timestamps.iter().copied().chain(histograms) {
                    let at = TimeRange::new(timestamp_ms, timestamp_ms);
                    let extent = extents
                        .entry(block_start_ms(timestamp_ms))
                        .or_insert_with(|| LateExtent {
                            range: at,
                            series: RoaringBitmap::new(),
                        });
                    extent.range = extent.range.union(&at);
                    extent.series.insert(id);
                }
            }
        }
        Ok(extents)
    }
}
