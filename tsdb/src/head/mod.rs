//! The head: series that are still written to, in memory, backed by the log.
//!
//! One head serves all tenants. [`index`] knows which series exist, the shards ([`shard`]) hold
//! their samples, [`append`] is the way in, [`select`] the way out, [`restore`] the way back after
//! a start. Locks are taken in this order and never the other way round: the catalog (ids and
//! index), then one shard, then the log's buffer.

mod append;
pub(crate) mod chunk_files;
mod delete;
mod filing;
mod gather;
pub mod incoming;
mod index;
mod keys;
pub(crate) mod late;
pub mod limits;
mod memory;
mod postings;
mod restore;
mod select;
mod series;
mod shard;
mod snapshot;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isobar_model::budget::Budget;
use parking_lot::{Mutex, RwLock};

use crate::Error;

pub use series::{BLOCK_RANGE_MS, CHUNK_SAMPLES_MAX};

pub(crate) use append::AHEAD_MS_MAX;
pub(crate) use restore::Restore;
pub use restore::RestoreCounts;
pub(crate) use select::BlockPart;
pub(crate) use series::{block_end_ms, block_start_ms};
pub(crate) use shard::SECRET_BYTES;
pub(crate) use tenants::{TenantId, TenantState};

use crate::exemplars::Exemplars;
use crate::metadata::MetadataMap;
use crate::pace::breathe;

use index::Index;
use late::LateCut;
use limits::Limits;
use memory::HeadMemory;
use shard::{Hasher, IDS_END, SHARDS, Shard, id_of, shard_of};
use tenants::Tenants;

/// How many series are truncated, and how many dropped, at a time.
const TRUNCATE_BATCH: usize = 4096;
const DROP_BATCH: usize = 256;

/// Series in memory, of all tenants.
pub(crate) struct Head {
    tenants: Tenants,
    catalog: RwLock<Catalog>,
    shards: Box<[Mutex<Shard>; SHARDS]>,
    /// The memory of chunks that appends have sealed since chunks were last moved to files, in bytes.
    sealed_bytes: AtomicUsize,
    hasher: Hasher,
    /// Kept beside the series. Their locks are held while the log's buffer is locked, and while
    /// nothing else is.
    pub(crate) exemplars: Exemplars,
    pub(crate) metadata: MetadataMap,
    /// How much older than the newest of its tenant a late sample may be; none are taken without.
    pub(crate) late_window_ms: Option<i64>,
    pub(crate) limits: Limits,
    memory: HeadMemory,
}

/// What a head takes and keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadBounds {
    /// So many exemplars of each tenant are kept.
    pub(crate) exemplars_max: usize,
    /// How much older than the newest of its tenant a late sample may be; with zero none is taken.
    pub(crate) late_window: Duration,
    pub(crate) limits: Limits,
    /// Its share of the memory of the process.
    pub(crate) memory: Option<Arc<Budget>>,
}

/// Which series exist, and which ids are free.
#[derive(Default)]
struct Catalog {
    index: Index,
    ids: Ids,
}

/// Hands out ids. An id that was freed may still stand for its old series in the log, so it is
/// handed out again only when a snapshot has replaced that part of the log.
#[derive(Default)]
struct Ids {
    next: [u32; SHARDS],
    free: [Vec<u32>; SHARDS],
    freed: Vec<u32>,
}

impl Ids {
    /// An id of the shard that no series has; none when there is no room for more.
    fn take(&mut self, shard: usize) -> Option<u32> {
        if let Some(slot) = self.free[shard].pop() {
            return Some(id_of(shard, slot));
        }
        let slot = self.next[shard];
        let room = slot < IDS_END / SHARDS as u32;
        room.then(|| {
            self.next[shard] += 1;
            id_of(shard, slot)
        })
    }

    /// Makes sure that an id is not handed out.
    fn reserve(&mut self, id: u32) {
        let next = &mut self.next[shard_of(id)];
        *next = (*next).max(shard::slot_of(id) + 1);
    }
}

impl Head {
    /// An empty head. `secret` keys the hashes of labels; with the same secret as in an earlier
    /// run, series are found in the shards they were in then.
    pub(crate) fn new(secret: [u8; SECRET_BYTES], bounds: HeadBounds) -> Self {
        let late_window_ms = i64::try_from(bounds.late_window.as_millis()).unwrap_or(i64::MAX);
        Head {
            tenants: Tenants::default(),
            catalog: RwLock::default(),
            shards: Box::default(),
            sealed_bytes: AtomicUsize::new(0),
            hasher: Hasher::new(secret),
            exemplars: Exemplars::new(bounds.exemplars_max),
            metadata: MetadataMap::default(),
            late_window_ms: (late_window_ms > 0).then_some(late_window_ms),
            limits: bounds.limits,
            memory: HeadMemory::new(bounds.memory),
        }
    }

    pub(crate) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Drops the in-order samples of a tenant before `before_ms`, the late ones that the cuts hold,
    /// and the series that have none left.
    ///
    /// # Errors
    /// When late samples cannot be decoded; they stay, all else is done.
    pub(crate) fn truncate(
        &self,
        tenant: &TenantState,
        before_ms: i64,
        cuts: &[LateCut],
    ) -> Result<(), Error> {
        let ids = self.catalog.read().index.all(Some(tenant.id));
        // Forgotten first and found anew: a sample that comes in meanwhile is either in its shard
        // when that is visited, or its appender sets the time after this.
        tenant.min_ms.store(i64::MAX, Ordering::Release);
        tenant.late_min_ms.store(i64::MAX, Ordering::Release);
        let mut result = Ok(());
        let mut empty = Vec::new();
        let mut ids = ids.into_iter().peekable();
        // Few at a time, so that writers never wait long for a shard.
        while ids.peek().is_some() {
            let mut batch: Vec<u32> = ids.by_ref().take(TRUNCATE_BATCH).collect();
            batch.sort_by_key(|id| shard_of(*id));
            for group in batch.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
                let Some(first) = group.first() else { continue };
                breathe();
                let mut locked = self.shards[shard_of(*first)].lock();
                for id in group {
                    let Some(series) = locked.get_mut(*id) else {
                        continue;
                    };
                    series.truncate(before_ms);
                    if series.has_late() {
                        result = result.and(series.drop_late(cuts));
                        tenant.note_late(series.late_first_ms().unwrap_or(i64::MAX), 0);
                    }
                    match series.first_ms() {
                        Some(first_ms) => tenant.widen(first_ms, i64::MIN),
                        None => empty.push(*id),
                    }
                }
            }
        }
        self.drop_empty(&empty);
        result
    }

    /// The ids of all series of a tenant.
    pub(crate) fn ids_of(&self, tenant: TenantId) -> roaring::RoaringBitmap {
        self.catalog.read().index.all(Some(tenant))
    }

    /// Ends the open chunks of a tenant that are older than `end_ms`, so that none grows over it.
    pub(crate) fn seal_until(&self, tenant: TenantId, end_ms: i64) {
        let ids = self.catalog.read().index.all(Some(tenant));
        for (shard, locked) in self.shards.iter().enumerate() {
            let mut locked = locked.lock();
            for id in ids.iter().filter(|id| shard_of(*id) == shard) {
                if let Some(series) = locked.get_mut(id) {
                    series.seal_until(end_ms);
                }
            }
        }
    }

    /// The time of the tenant's oldest in-order sample among chunks that begin at `from_ms` or later. Locks
    /// every shard once.
    pub(crate) fn oldest_from(&self, tenant: TenantId, from_ms: i64) -> Option<i64> {
        let ids = self.catalog.read().index.all(Some(tenant));
        let mut oldest_ms = None;
        for (shard, locked) in self.shards.iter().enumerate() {
            let locked = locked.lock();
            let series = ids.iter().filter(|id| shard_of(*id) == shard);
            let firsts = series.filter_map(|id| locked.get(id)?.first_from(from_ms));
            oldest_ms = firsts.chain(oldest_ms).min();
        }
        oldest_ms
    }

    /// Forgets those of the series that have no sample, and the keys that lead to them.
    fn drop_empty(&self, ids: &[u32]) {
        ids.chunks(DROP_BATCH)
            .for_each(|batch| self.drop_batch(batch));
        // Before their ids are handed out again, which takes a snapshot.
        self.forget_keys(ids);
    }

    /// Forgets the keys that lead to those of the series that are gone.
    fn forget_keys(&self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        let ids: roaring::RoaringBitmap = ids.iter().copied().collect();
        let gone: roaring::RoaringBitmap = {
            let catalog = self.catalog.read();
            let gone = |id: &u32| catalog.index.tenant_of(*id).is_none();
            ids.iter().filter(gone).collect()
        };
        for shard in self.shards.iter() {
            shard.lock().retain_keys(|id| !gone.contains(id));
        }
    }

    /// Forgets those of the series that have no sample. Their keys are left.
    fn drop_batch(&self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        let mut catalog = self.catalog.write();
        let mut dropped = Vec::new();
        for id in ids {
            let mut shard = self.shards[shard_of(*id)].lock();
            if shard.get(*id).is_some_and(series::MemSeries::is_empty) {
                shard.remove(*id);
                catalog.index.remove(*id);
                dropped.push(*id);
            }
        }
        catalog.ids.freed.extend(dropped);
    }

    /// Ids that were freed until now: to be given back when a snapshot that is begun after this
    /// call has replaced the log before it.
    pub(crate) fn take_freed(&self) -> FreedIds {
        FreedIds(std::mem::take(&mut self.catalog.write().ids.freed))
    }

    /// Lets freed ids be handed out again.
    pub(crate) fn reuse(&self, freed: FreedIds) {
        let mut catalog = self.catalog.write();
        for id in freed.0 {
            catalog.ids.free[shard_of(id)].push(shard::slot_of(id));
        }
    }

    /// Puts freed ids back where they wait for the next snapshot.
    pub(crate) fn keep_freed(&self, freed: FreedIds) {
        self.catalog.write().ids.freed.extend(freed.0);
    }

    /// How much there is room for: names, pairs and ids in the index, keys and slots in shards.
    #[cfg(test)]
    pub(crate) fn rooms(&self) -> Vec<usize> {
        let tables = self.shards.iter().map(|shard| shard.lock().table_bytes());
        let tables = tables.sum();
        let rooms = self.catalog.read().index.rooms();
        rooms.into_iter().chain([tables]).collect()
    }

    /// The number of series of a tenant, or of all.
    pub(crate) fn series_count(&self, tenant: Option<TenantId>) -> u64 {
        self.catalog.read().index.series_count(tenant)
    }

    /// The number of chunks, and the memory in bytes that series and their chunks take.
    pub(crate) fn chunk_count_and_bytes(&self) -> (u64, u64) {
        let (mut chunks, mut bytes) = (0, 0);
        for shard in self.shards.iter() {
            let shard = shard.lock();
            bytes += shard.table_bytes();
            for series in shard.series() {
                chunks += series.chunk_count();
                bytes += series.heap_bytes();
            }
        }
        (chunks as u64, bytes as u64)
    }

    /// Looks at all series for the memory that they take.
    pub(crate) fn measure(&self) {
        let mut bytes = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            bytes += shard.lock().table_bytes();
            // A page at a time, so that writers never wait long for a shard.
            for page in 0.. {
                let locked = shard.lock();
                let Some(series) = locked.page(number, page) else {
                    break;
                };
                bytes += series.map(|(_, it)| it.heap_bytes()).sum::<usize>();
                drop(locked);
                breathe();
            }
        }
        let index = self.catalog.read().index.heap_bytes();
        let exemplars = self.exemplars.stats().bytes as usize;
        self.memory.note_all(bytes + exemplars, index);
    }

    /// The memory that series, chunks and labels take, in bytes; an estimate.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// From how many bytes on no new series is taken.
    pub(crate) fn memory_max(&self) -> Option<u64> {
        self.memory.limit()
    }

    /// The series that carry each value of a label, of one tenant or of all.
    pub(crate) fn value_counts(&self, name: &str, tenant: Option<TenantId>) -> Vec<(String, u64)> {
        self.catalog.read().index.value_counts(name, tenant)
    }

    /// Calls `each` with name, value and number of series of every label pair.
    pub(crate) fn for_each_pair(
        &self,
        tenant: Option<TenantId>,
        each: impl FnMut(&str, &str, u64),
    ) {
        self.catalog.read().index.for_each_pair(tenant, each);
    }
}

/// Ids that stand for no series any more, but may in the log.
pub(crate) struct FreedIds(Vec<u32>);
