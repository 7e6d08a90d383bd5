//! The way back: records of the log, in order, become the head again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use isobar_model::{Labels, Tenant, TimeRange};
use parking_lot::{MutexGuard, RwLockWriteGuard};

use crate::Error;
use crate::chunks::{Chunk, Encoding};
use crate::merge::without;
use crate::wal::record::{self, FiledChunk, Kind};

use super::chunk_files::{ChunkFiles, OpenFiles};
use super::late::{Epoch, LateCut, LateCuts};
use super::series::{Bounds, Filed, LateSample, MemSeries};
use super::shard::{IDS_END, SHARDS, Shard, id_of, shard_of};
use super::tenants::TenantState;
use super::{Catalog, Head};

/// Sealed chunks are moved to files when they take this many bytes.
const FILE_BYTES_MIN: usize = 8 << 20;

/// Applies records to a head that nobody else uses yet.
pub(crate) struct Restore<'a> {
    head: &'a Head,
    known: Known<'a>,
    /// The chunk files that snapshots name.
    files: Option<OpenFiles<'a>>,
    /// The late samples that blocks hold.
    late_cuts: LateCuts,
    /// The latest that was seen.
    epoch: Epoch,
    /// What was applied.
    pub(crate) counts: RestoreCounts,
}

/// What the records so far have defined.
struct Known<'a> {
    catalog: RwLockWriteGuard<'a, Catalog>,
    shards: Vec<MutexGuard<'a, Shard>>,
    /// Ids of the log that stand for a series which has another id already.
    aliases: HashMap<u32, u32>,
    tenants: Vec<TenantTimes>,
}

impl Known<'_> {
    fn resolve(&self, id: u32) -> u32 {
        if self.aliases.is_empty() {
            id
        } else {
            self.aliases.get(&id).copied().unwrap_or(id)
        }
    }

    /// The series that an id of the log stands for, and the times of its tenant.
    #[inline]
    fn find(&mut self, id: u32) -> Option<(&mut TenantTimes, &mut MemSeries)> {
        let id = self.resolve(id);
        let tenant = self.catalog.index.tenant_of(id)?;
        let tenant = self.tenants.get_mut(tenant.0 as usize)?;
        let series = self.shards[shard_of(id)].get_mut(id)?;
        Some((tenant, series))
    }
}

/// A tenant's times, gathered without atomics.
struct TenantTimes {
    state: Arc<TenantState>,
    cut_until_ms: i64,
    min_ms: i64,
    max_ms: i64,
    late_min_ms: i64,
    late_cuts: Vec<LateCut>,
}

impl TenantTimes {
    fn took_late(&mut self, range: TimeRange) {
        self.min_ms = self.min_ms.min(range.min_ms);
        self.max_ms = self.max_ms.max(range.max_ms);
        self.late_min_ms = self.late_min_ms.min(range.min_ms);
    }
}

/// What a replay has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// Series that were defined.
    pub series: u64,
    /// Samples and samples of chunks that came back; those of chunks in files are not counted.
    pub samples: u64,
    /// Chunks that came back, from a snapshot or in files.
    pub chunks: u64,
    /// Samples that lie in blocks already.
    pub samples_in_blocks: u64,
    /// Samples whose series is not known, because its definition was lost.
    pub samples_without_series: u64,
}

impl<'a> Restore<'a> {
    /// To `head`; chunks that snapshots name are in `files`.
    pub(crate) fn new(head: &'a Head, files: Option<&'a ChunkFiles>) -> Self {
        Restore {
            files: files.map(OpenFiles::new),
            head,
            known: Known {
                catalog: head.catalog.write(),
                shards: head.shards.iter().map(|shard| shard.lock()).collect(),
                aliases: HashMap::new(),
                tenants: Vec::new(),
            },
            late_cuts: LateCuts::new(),
            epoch: Epoch::default(),
            counts: RestoreCounts::default(),
        }
    }

    /// Leaves out the late samples that blocks hold.
    pub(crate) fn without_late(mut self, cuts: LateCuts) -> Self {
        let epochs = cuts.values().flatten().map(|cut| cut.until);
        self.epoch = epochs.fold(self.epoch, Epoch::max);
        self.late_cuts = cuts;
        self
    }

    /// Moves chunks that the log has sealed to files, as the head does with those that appends seal: a
    /// long log holds more of them than memory should.
    pub(crate) fn file_chunks(&mut self) {
        let Some(files) = self.files.as_ref().map(OpenFiles::files) else {
            return;
        };
        self.known.shards.clear();
        // What cannot be written stays where it is, and no disk is too full for a start. Maintenance
        // comes upon the same error, and tells.
        let _told_later = self.head.file_chunks(files, FILE_BYTES_MIN);
        self.known.shards = self.head.shards.iter().map(|shard| shard.lock()).collect();
    }

    /// Applies one record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record contradicts its format or an earlier one; what could be
    /// applied of it is.
    pub(crate) fn apply(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let corrupt = |why: String| Error::corrupt("record", why);
        let mut trouble: Option<String> = None;
        let read = match kind {
            Kind::Series => record::read_series(payload, |tenant, id, labels| {
                if let Err(why) = self.define(tenant, id, labels) {
                    trouble.get_or_insert(why);
                }
            }),
            Kind::Samples => record::read_samples(payload, |id, timestamp_ms, value| {
                self.append(id, timestamp_ms, |series, bounds| {
                    series.append(timestamp_ms, value, bounds);
                });
            }),
            Kind::Chunks => record::read_chunks(payload, |id, chunk| {
                if let Err(e) = self.chunk(id, chunk) {
                    trouble.get_or_insert(e.to_string());
                }
            }),
            Kind::Filed => record::read_filed(payload, |id, chunk| {
                if let Err(why) = self.filed(id, chunk) {
                    trouble.get_or_insert(why);
                }
            }),
            Kind::Tenant => record::read_tenant(payload).map(|times| {
                if let Err(why) = self.tenant_times(&times) {
                    trouble.get_or_insert(why);
                }
            }),
            Kind::Histograms => record::read_histograms(payload, |id, timestamp_ms, it, counts| {
                self.append(id, timestamp_ms, |series, bounds| {
                    series.append_histogram(timestamp_ms, it, counts, bounds);
                });
            }),
            Kind::Exemplars => record::read_exemplars(payload, |tenant, labels, exemplar| {
                match Tenant::new(tenant) {
                    Ok(tenant) => self.head.exemplars.restore(&tenant, &labels, &exemplar),
                    Err(e) => drop(trouble.get_or_insert(e.to_string())),
                }
            }),
            Kind::Metadata => record::read_metadata(payload, |tenant, metric, metadata| {
                match Tenant::new(tenant) {
                    Ok(tenant) => drop(self.head.metadata.insert(&tenant, metric, metadata)),
                    Err(e) => drop(trouble.get_or_insert(e.to_string())),
                }
            }),
            Kind::Tombstones => record::read_tombstones(payload, |id, range| {
                if let Err(e) = self.delete(id, range) {
                    trouble.get_or_insert(e.to_string());
                }
            }),
            Kind::Late => record::read_late(payload).and_then(|(epoch, samples)| {
                let epoch = self.saw(epoch);
                record::read_samples(samples, |id, timestamp_ms, value| {
                    self.late(id, timestamp_ms, LateSample::Float(value), epoch);
                })
            }),
            Kind::LateHistograms => record::read_late(payload).and_then(|(epoch, samples)| {
                let epoch = self.saw(epoch);
                record::read_histograms(samples, |id, timestamp_ms, it, counts| {
                    self.late(id, timestamp_ms, LateSample::Histogram(it, counts), epoch);
                })
            }),
            Kind::LateChunks => record::read_late_chunks(payload, |id, epoch, chunk| {
                if let Err(e) = self.late_chunk(id, epoch, chunk) {
                    trouble.get_or_insert(e.to_string());
                }
            })
            .map(|epoch| {
                self.saw(epoch);
            }),
            Kind::End => Ok(()),
        };
        read.map_err(|e| corrupt(e.to_string()))?;
        trouble.map_or(Ok(()), |why| Err(corrupt(why)))
    }

    fn tenant(&mut self, name: &str) -> Result<usize, String> {
        let tenant = Tenant::new(name).map_err(|e| e.to_string())?;
        let state = self.head.tenants.find_or_add(&tenant);
        let at = state.id.0 as usize;
        for known in self
            .head
            .tenants
            .all()
            .into_iter()
            .skip(self.known.tenants.len())
        {
            let cut_until_ms = known.cut_until_ms.load(Ordering::Acquire);
            let late_cuts = self.late_cuts.remove(&known.name).unwrap_or_default();
            let times = TenantTimes {
                state: known,
                cut_until_ms,
                min_ms: i64::MAX,
                max_ms: i64::MIN,
                late_min_ms: i64::MAX,
                late_cuts,
            };
            self.known.tenants.push(times);
        }
        Ok(at)
    }

    fn tenant_times(&mut self, times: &record::TenantTimes<'_>) -> Result<(), String> {
        let at = self.tenant(times.tenant)?;
        let tenant = &mut self.known.tenants[at];
        tenant.cut_until_ms = tenant.cut_until_ms.max(times.cut_until_ms);
        tenant.max_ms = tenant.max_ms.max(times.max_ms);
        Ok(())
    }

    fn define(&mut self, tenant: &str, id: u32, labels: Labels) -> Result<(), String> {
        if id >= IDS_END {
            return Err(format!("series id {id} is too large"));
        }
        let at = self.tenant(tenant)?;
        let tenant = self.known.tenants[at].state.id;
        self.known.catalog.ids.reserve(id);
        match self.known.catalog.index.find(tenant, &labels) {
            Some(known) if known == id => return Ok(()),
            Some(known) => {
                self.known.aliases.insert(id, known);
                return Ok(());
            }
            None => {}
        }
        if self.known.catalog.index.tenant_of(id).is_some() {
            return Err(format!(
                "series id {id} stands for {labels} and for another series"
            ));
        }
        self.known.catalog.index.insert(id, tenant, &labels);
        self.known.shards[shard_of(id)].get_or_add(id);
        self.counts.series += 1;
        Ok(())
    }

    /// Counts a sample whose series is not known, and keeps its id from being given to another.
    fn lost(&mut self, id: u32) {
        let id = self.known.resolve(id);
        if id < IDS_END {
            self.known.catalog.ids.reserve(id);
        }
        self.counts.samples_without_series += 1;
    }

    /// Applies a sample of any kind; `put` does so when it is new.
    #[inline]
    fn append(&mut self, id: u32, timestamp_ms: i64, put: impl FnOnce(&mut MemSeries, Bounds)) {
        let Some((tenant, series)) = self.known.find(id) else {
            self.lost(id);
            return;
        };
        tenant.max_ms = tenant.max_ms.max(timestamp_ms);
        if timestamp_ms < tenant.cut_until_ms {
            self.counts.samples_in_blocks += 1;
            return;
        }
        // What is there already, from a snapshot or an earlier copy of the record, is older than
        // the newest of its series.
        if series
            .last_ms()
            .is_some_and(|last_ms| last_ms >= timestamp_ms)
        {
            return;
        }
        let bounds = Bounds {
            min_ms: i64::MIN,
            max_ms: i64::MAX,
            late: None,
        };
        put(series, bounds);
        tenant.min_ms = tenant.min_ms.min(timestamp_ms);
        self.counts.samples += 1;
    }

    fn chunk(&mut self, id: u32, chunk: Chunk) -> Result<(), Error> {
        let samples = u64::from(chunk.sample_count()?);
        let Some((tenant, series)) = self.known.find(id) else {
            self.counts.samples_without_series += samples;
            return Ok(());
        };
        // A chunk never crosses the border between blocks.
        if chunk.max_ms < tenant.cut_until_ms {
            self.counts.samples_in_blocks += samples;
            return Ok(());
        }
        let (min_ms, max_ms) = (chunk.min_ms, chunk.max_ms);
        series.restore(chunk)?;
        tenant.min_ms = tenant.min_ms.min(min_ms);
        tenant.max_ms = tenant.max_ms.max(max_ms);
        self.counts.samples += samples;
        self.counts.chunks += 1;
        Ok(())
    }

    fn saw(&mut self, epoch: u64) -> Epoch {
        let epoch = Epoch(epoch);
        self.epoch = self.epoch.max(epoch);
        epoch
    }

    fn late(&mut self, id: u32, timestamp_ms: i64, sample: LateSample, epoch: Epoch) {
        let Some((tenant, series)) = self.known.find(id) else {
            self.lost(id);
            return;
        };
        let holds = |cut: &LateCut| cut.until >= epoch && cut.range.contains(timestamp_ms);
        if tenant.late_cuts.iter().any(holds) {
            self.counts.samples_in_blocks += 1;
            return;
        }
        // The buffer may hold samples of later epochs, and gets the latest of all.
        if series.restore_late(timestamp_ms, sample, self.epoch) {
            tenant.took_late(TimeRange::new(timestamp_ms, timestamp_ms));
            self.counts.samples += 1;
        }
    }

    fn late_chunk(&mut self, id: u32, epoch: u64, chunk: Chunk) -> Result<(), Error> {
        let epoch = self.saw(epoch);
        let samples = u64::from(chunk.sample_count()?);
        let Some((tenant, series)) = self.known.find(id) else {
            self.counts.samples_without_series += samples;
            return Ok(());
        };
        let holding = tenant.late_cuts.iter().filter(|cut| cut.until >= epoch);
        let held: Vec<TimeRange> = holding.map(|cut| cut.range).collect();
        let mut left = 0;
        for chunk in without(&chunk, &held)? {
            left += u64::from(chunk.sample_count()?);
            let range = chunk.range();
            series.restore_late_chunk(chunk, epoch, self.epoch)?;
            tenant.took_late(range);
            self.counts.chunks += 1;
        }
        self.counts.samples += left;
        self.counts.samples_in_blocks += samples.saturating_sub(left);
        Ok(())
    }

    fn filed(&mut self, id: u32, chunk: FiledChunk) -> Result<(), String> {
        let FiledChunk {
            encoding,
            range,
            file,
            offset,
        } = chunk;
        let Some((tenant, series)) = self.known.find(id) else {
            return Err(format!("a chunk of series id {id}, which is not known"));
        };
        // It lies in a block.
        if range.max_ms < tenant.cut_until_ms {
            return Ok(());
        }
        let files = self.files.as_mut().ok_or("there are no chunk files")?;
        let encoding = Encoding::from_u8(encoding).ok_or("a chunk of unknown encoding")?;
        let file = files.get(file)?;
        if !file.holds(offset) {
            return Err(format!("a chunk behind the end of file {}", file.number()));
        }
        let filed = Filed::new(file, offset, encoding, range);
        series.restore_filed(filed.ok_or("a chunk of too long a time")?);
        tenant.min_ms = tenant.min_ms.min(range.min_ms);
        tenant.max_ms = tenant.max_ms.max(range.max_ms);
        self.counts.chunks += 1;
        Ok(())
    }

    fn delete(&mut self, id: u32, range: TimeRange) -> Result<(), Error> {
        let id = self.known.resolve(id);
        // A series that is not known has no samples to delete.
        match self.known.shards[shard_of(id)].get_mut(id) {
            Some(series) => series.delete(range).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Makes the times known, drops series without samples, and finds the ids that stand for no
    /// series.
    pub(crate) fn finish(mut self) -> RestoreCounts {
        for times in &self.known.tenants {
            times.state.note_cut(times.cut_until_ms);
            times.state.widen(times.min_ms, times.max_ms);
            times.state.note_late(times.late_min_ms, 0);
        }
        for shard in &mut self.known.shards {
            shard.epoch = self.epoch.next();
        }
        let mut empty = Vec::new();
        let mut free = Vec::new();
        for shard in 0..SHARDS {
            for slot in 0..self.known.catalog.ids.next[shard] {
                let id = id_of(shard, slot);
                match self.known.shards[shard].get(id) {
                    Some(series) if series.is_empty() => empty.push(id),
                    Some(_) => {}
                    None => free.push(id),
                }
            }
        }
        self.known.catalog.ids.freed.extend(free);
        let (head, counts) = (self.head, self.counts);
        drop(self);
        head.drop_empty(&empty);
        counts
    }
}
