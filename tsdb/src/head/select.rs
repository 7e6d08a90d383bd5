//! The way out of the head: which series match, and their chunks in batches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use isobar_model::{Matcher, TimeRange};
use roaring::RoaringBitmap;

use crate::Error;
use crate::chunks::Chunk;
use crate::db::describe;
use crate::db::event::{Event, Events};
use crate::merge::SeriesChunks;
use crate::pace::breathe;

use super::chunk_files::ChunkFile;
use super::gather::{Gathered, GatheredSeries};
use super::late::Uncut;
use super::series::{MemSeries, Stored};
use super::shard::shard_of;
use super::{Head, TenantId};

/// Chunks are fetched for this many series at a time.
const CHUNKS_BATCH: usize = 256;
/// Who cuts a block has read pages of chunk files in memory for about this many bytes of chunks.
const RELEASE_BYTES: usize = 8 << 20;

impl Head {
    /// The series that match, with the chunks that overlap `range`. The caller sees to it that
    /// nothing is truncated while the iterator lives.
    pub(crate) fn select(
        self: &Arc<Self>,
        tenant: Option<TenantId>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> HeadSeries {
        let gathered = {
            let index = &self.catalog.read().index;
            index.gather(&index.select(tenant, matchers))
        };
        self.series_of(gathered, range)
    }

    /// The series with ids in `ids`, with what of them goes into a block of `range`.
    pub(crate) fn select_block(
        self: &Arc<Self>,
        ids: &RoaringBitmap,
        range: TimeRange,
        part: BlockPart,
    ) -> HeadSeries {
        let gathered = self.catalog.read().index.gather(ids);
        HeadSeries {
            part: Some(part),
            ..self.series_of(gathered, range)
        }
    }

    /// The number of series that match, and at most `some` of them, evenly taken, as
    /// [`Head::select`] gives them.
    pub(crate) fn select_some(
        self: &Arc<Self>,
        tenant: Option<TenantId>,
        matchers: &[Matcher],
        range: TimeRange,
        some: usize,
    ) -> (usize, HeadSeries) {
        let (count, gathered) = {
            let index = &self.catalog.read().index;
            let all = index.select(tenant, matchers);
            let count = all.len() as usize;
            let every = count.div_ceil(some.max(1)).max(1);
            (count, index.gather(&all.iter().step_by(every).collect()))
        };
        (count, self.series_of(gathered, range))
    }

    fn series_of(self: &Arc<Self>, mut gathered: Gathered, range: TimeRange) -> HeadSeries {
        gathered.sort();
        HeadSeries {
            head: Arc::clone(self),
            range,
            gathered,
            next: 0,
            fetched: VecDeque::new(),
            text: String::new(),
            part: None,
            failed: None,
            cutting: None,
        }
    }

    /// The names of all labels of the series that match, sorted.
    pub(crate) fn label_names(
        &self,
        tenant: Option<TenantId>,
        matchers: &[Matcher],
    ) -> Vec<String> {
        let index = &self.catalog.read().index;
        let all = tenant.is_none() && matchers.is_empty();
        let set = (!all).then(|| index.select(tenant, matchers));
        index.label_names(set.as_ref())
    }

    /// The values of a label of the series that match, sorted.
    pub(crate) fn label_values(
        &self,
        tenant: Option<TenantId>,
        name: &str,
        matchers: &[Matcher],
    ) -> Vec<String> {
        let index = &self.catalog.read().index;
        let all = tenant.is_none() && matchers.is_empty();
        let set = (!all).then(|| index.select(tenant, matchers));
        index.label_values(name, set.as_ref())
    }
}

/// The samples that go into a block.
#[derive(Debug, Clone)]
pub(crate) struct BlockPart {
    /// Whether all that came in order does.
    pub(crate) in_order: bool,
    /// Those that came late.
    pub(crate) late: Option<Uncut>,
}

/// Series of the head in label order; those of equal labels in different tenants are one.
pub(crate) struct HeadSeries {
    head: Arc<Head>,
    range: TimeRange,
    gathered: Gathered,
    next: usize,
    fetched: VecDeque<(GatheredSeries, Vec<Stored>)>,
    text: String,
    part: Option<BlockPart>,
    /// Why chunks could not be fetched.
    failed: Option<Error>,
    cutting: Option<Cutting>,
}

/// What is different when a block is cut from the head.
struct Cutting {
    /// Told of chunks that cannot be read, which are left out.
    events: Events,
    /// Files that were read from, and how much since their pages were released.
    touched: HashMap<u32, Arc<ChunkFile>>,
    bytes: usize,
}

impl Cutting {
    /// All chunks are read once, from files that together are much larger than the head.
    fn note(&mut self, file: Option<&Arc<ChunkFile>>, bytes: usize) {
        let Some(file) = file else { return };
        self.touched
            .entry(file.number())
            .or_insert_with(|| Arc::clone(file));
        self.bytes += bytes;
        if self.bytes >= RELEASE_BYTES {
            self.release();
        }
    }

    fn release(&mut self) {
        self.touched
            .drain()
            .for_each(|(_, file)| file.release_pages());
        self.bytes = 0;
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.release();
    }
}

impl HeadSeries {
    /// For who reads all to cut a block: chunks whose file is damaged are left out, and `events`
    /// is told, where otherwise the series would be an error; and what was read does not stay in
    /// memory.
    pub(crate) fn cutting(mut self, events: &Events) -> Self {
        self.cutting = Some(Cutting {
            events: Arc::clone(events),
            touched: HashMap::new(),
            bytes: 0,
        });
        self
    }

    fn read(&mut self, stored: Vec<Stored>) -> Result<Vec<Chunk>, Error> {
        let Some(cutting) = &mut self.cutting else {
            return stored.into_iter().map(Stored::read).collect();
        };
        let mut chunks = Vec::with_capacity(stored.len());
        for one in stored {
            let (range, file) = (one.range(), one.file().cloned());
            match one.read() {
                Ok(chunk) => {
                    cutting.note(file.as_ref(), chunk.data.len());
                    chunks.push(chunk);
                }
                Err(error) => (cutting.events)(Event::ChunkLost {
                    why: describe(&error),
                    range,
                }),
            }
        }
        Ok(chunks)
    }

    fn chunks_of(&self, series: &MemSeries, chunks: &mut Vec<Stored>) -> Result<(), Error> {
        let BlockPart { in_order, late } = match &self.part {
            None => {
                series.chunks(self.range, chunks);
                return Ok(());
            }
            Some(part) => part,
        };
        if *in_order {
            series.in_order_chunks(self.range, chunks);
        }
        if let Some(uncut) = late {
            let late = series.uncut_late(self.range, uncut)?;
            chunks.extend(late.into_iter().map(|chunk| Stored::Heap(Box::new(chunk))));
            chunks.sort_by_key(|chunk| chunk.range().min_ms);
        }
        Ok(())
    }

    /// The label pairs of all series that match, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.gathered.pairs()
    }

    /// Fetches the chunks of the next few series, and leaves out series without any.
    fn fetch(&mut self) {
        let rest = self.gathered.series().get(self.next..).unwrap_or_default();
        let batch = rest.get(..CHUNKS_BATCH).unwrap_or(rest);
        self.next += batch.len();
        let mut chunks: Vec<Vec<Stored>> = Vec::new();
        chunks.resize_with(batch.len(), Vec::new);
        for (shard, locked) in self.head.shards.iter().enumerate() {
            if self.cutting.is_some() {
                breathe();
            }
            let locked = locked.lock();
            let wanted = batch.iter().zip(&mut chunks);
            for (series, chunks) in wanted.filter(|(series, _)| shard_of(series.id) == shard) {
                if let Some(series) = locked.get(series.id)
                    && let Err(error) = self.chunks_of(series, chunks)
                {
                    self.failed = Some(error);
                    return;
                }
            }
        }
        let found = batch
            .iter()
            .copied()
            .zip(chunks)
            .filter(|(_, chunks)| !chunks.is_empty());
        self.fetched.extend(found);
    }
}

impl Iterator for HeadSeries {
    type Item = Result<SeriesChunks, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found: Option<(GatheredSeries, Vec<Stored>)> = None;
        loop {
            if self.fetched.is_empty() && self.next < self.gathered.series().len() {
                self.fetch();
                continue;
            }
            if let Some(error) = self.failed.take() {
                self.next = self.gathered.series().len();
                return Some(Err(error));
            }
            let same = match (&found, self.fetched.front()) {
                (None, _) => true,
                (Some((series, _)), Some((next, _))) => self.gathered.same_labels(*series, *next),
                (Some(_), None) => false,
            };
            match (&mut found, self.fetched.pop_front_if(|_| same)) {
                (None, Some(first)) => found = Some(first),
                (Some((_, chunks)), Some((_, more))) => {
                    chunks.extend(more);
                    chunks.sort_by_key(|chunk| chunk.range().min_ms);
                }
                (_, None) => break,
            }
        }
        let (series, chunks) = found?;
        let heap_bytes = chunks.iter().filter_map(Stored::on_heap);
        let heap_bytes = heap_bytes.map(|chunk| chunk.data.len()).sum();
        let chunks = match self.read(chunks) {
            Ok(chunks) => chunks,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(SeriesChunks {
            labels: self.gathered.labels(series, &mut self.text),
            chunks,
            heap_bytes,
        }))
    }
}
