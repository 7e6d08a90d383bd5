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

/// Chunks are moved to files when those that were sealed take this many bytes on the heap.
const SEALED_BYTES_MAX: usize = 8 << 20;

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
    /// The memory of chunks that were sealed since chunks were last moved to files, in bytes.
    sealed_bytes: usize,
}

impl<'a> Known<'a> {
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
        self.find_resolved(self.resolve(id))
    }

    #[inline]
    fn find_resolved(&mut self, id: u32) -> Option<(&mut TenantTimes, &mut MemSeries)> {
        let tenant = self.catalog.index.tenant_of(id)?;
        let tenant = self.tenants.get_mut(tenant.0 as usize)?;
        let series = self.shards[shard_of(id)].get_mut(id)?;
        Some((tenant, series))
    }

    /// Takes note of a series in which chunks were sealed.
    #[cold]
    fn note_sealed(&mut self, id: u32, bytes: usize) {
        self.shards[shard_of(id)].sealed.push(id);
        self.sealed_bytes += bytes;
    }

    #[cold]
    fn file_sealed(&mut self, head: &'a Head, files: &ChunkFiles) -> Result<(), Error> {
        self.sealed_bytes = 0;
        self.shards.clear();
        let moved = head.file_sealed(files);
        self.shards = head.shards.iter().map(|shard| shard.lock()).collect();
        moved.map(|_| ())
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
                sealed_bytes: 0,
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

    /// Moves chunks to files that were sealed here, when there are many: a long log holds more of them
    /// than memory should. To be called after each record.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written. They stay where they are, and the next are tried when
    /// there are as many more.
    #[inline]
    pub(crate) fn file_sealed(&mut self) -> Result<(), Error> {
        match &self.files {
            Some(files) if self.known.sealed_bytes >= SEALED_BYTES_MAX => {
                let files = files.files();
                self.known.file_sealed(self.head, files)
            }
            _ => Ok(()),
        }
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
        let id = self.known.resolve(id);
        let Some((tenant, series)) = self.known.find_resolved(id) else {
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
        let sealed_before = series.sealed_count();
        put(series, bounds);
        tenant.min_ms = tenant.min_ms.min(timestamp_ms);
        if series.sealed_count() > sealed_before {
            let bytes = series.sealed_bytes_since(sealed_before);
            self.known.note_sealed(id, bytes);
        }
        self.counts.samples += 1;
    }

    fn chunk(&mut self, id: u32, chunk: Chunk) -> Result<(), Error> {
        let samples = u64::from(chunk.sample_count()?);
        let id = self.known.resolve(id);
        let Some((tenant, series)) = self.known.find_resolved(id) else {
            self.counts.samples_without_series += samples;
            return Ok(());
        };
        // A chunk never crosses the border between blocks.
        if chunk.max_ms < tenant.cut_until_ms {
            self.counts.samples_in_blocks += samples;
            return Ok(());
        }
        let (min_ms, max_ms) = (chunk.min_ms, chunk.max_ms);
        let sealed_before = series.sealed_count();
        series.restore(chunk)?;
        tenant.min_ms = tenant.min_ms.min(min_ms);
        tenant.max_ms = tenant.max_ms.max(max_ms);
        if series.sealed_count() > sealed_before {
            let bytes = series.sealed_bytes_since(sealed_before);
            self.known.note_sealed(id, bytes);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{HeadBounds, SECRET_BYTES};
    use crate::wal::record::SamplesEncoder;

    /// Two chunks of each series come from one file of the log, and never are all of them in memory.
    #[test]
    fn chunks_leave_the_heap_while_the_log_is_read() {
        const SERIES: u32 = 10_000;
        let dir = tempfile::tempdir().unwrap();
        let files = ChunkFiles::open(dir.path()).unwrap();
        let head = Head::new([0; SECRET_BYTES], HeadBounds::default());
        let mut restore = Restore::new(&head, Some(&files));
        let mut payload = Vec::new();
        record::put_series_tenant(&mut payload, "default");
        for id in 0..SERIES {
            let labels = Labels::from_pairs([("n", &*id.to_string())]);
            record::put_series(&mut payload, id, &labels);
        }
        restore.apply(Kind::Series, &payload).unwrap();
        let mut encoder = SamplesEncoder::default();
        // Values without anything in common: eight bytes each.
        let mut bits = 1u64;
        for i in 0..242 {
            encoder.clear();
            for id in 0..SERIES {
                bits = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) | 1;
                encoder.put(id, i * 1000, bits as f64);
            }
            restore.apply(Kind::Samples, encoder.as_bytes()).unwrap();
            restore.file_sealed().unwrap();
            assert!(restore.known.sealed_bytes < SEALED_BYTES_MAX);
        }
        let sealed: usize = restore.known.shards.iter().map(|it| it.sealed.len()).sum();
        assert_eq!((sealed, restore.known.sealed_bytes), (0, 0));
        let counts = restore.finish();
        assert_eq!(counts.samples, 242 * u64::from(SERIES));
        assert_eq!(head.file_chunks(&files, 0).unwrap(), 0, "all were in files");
        let mut stored = Vec::new();
        let locked = head.shards[shard_of(17)].lock();
        locked.get(17).unwrap().chunks(TimeRange::ALL, &mut stored);
        let ranges = stored
            .iter()
            .map(|it| (it.range().min_ms, it.range().max_ms));
        assert!(ranges.eq([(0, 119_000), (120_000, 239_000), (240_000, 241_000)]));
    }
}
