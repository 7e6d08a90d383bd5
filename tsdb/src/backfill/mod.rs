//! Cuts blocks from samples that come in any order and may be of any age: what comes too late for
//! the head, what another database has left in its log, what a file holds.
//!
//! Samples gather in *windows*, the ranges of blocks (2 h, aligned). When they take more memory
//! than they may, all windows go to a file as a *run*, and it begins anew. In the end each window
//! is read from all runs at once, series by series, and becomes a block. So memory holds the labels
//! of all series, and of the samples no more than the limit.
//!
//! Of several samples of a series for one time the first that came stays: an equal one is a
//! duplicate, another is a conflict, and both are counted. Nothing is visible before
//! [`Backfill::finish`]. Exemplars are kept as a head keeps them: the newest, beside the block of
//! their time, or of the first that comes after it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;

use hashbrown::{HashMap, HashTable};
use isobar_model::{Clock, Exemplar, Labels, Tenant, TimeRange};
use ulid::Ulid;

mod combine;
mod open;
mod points;
mod run;

use crate::Error;
use crate::block::writer::TEMPORARY_SUFFIX;
use crate::block::{BlockMeta, BlockWriter};
use crate::chunks::Chunk;
use crate::db::blocks::meta_fields_of;
use crate::db::files;
use crate::exemplars::file as exemplars_file;
use crate::head::BLOCK_RANGE_MS;
use crate::wal::record::ExemplarsEncoder;
use open::Open;
pub use points::Value;
use run::{Run, RunWriter, Section};

/// What samples may take in memory unless it is said otherwise.
pub const BYTES_MAX_DEFAULT: usize = 256 << 20;
/// How many exemplars are kept, as in Prometheus unless it is configured otherwise.
const EXEMPLARS_MAX: usize = 100_000;
/// What a series takes in a window beyond its samples, roughly.
const OPEN_BYTES: usize = 2 * size_of::<(u32, Open)>();

/// Where blocks go and what they are.
#[derive(Debug, Clone)]
pub struct BackfillConfig {
    /// The directory in which blocks appear.
    pub dir: PathBuf,
    /// Whose the blocks are; `None` gives blocks that say nothing of it, as those of Prometheus.
    pub tenant: Option<Tenant>,
    /// Where the samples come from, as `isobar.origin` in `meta.json` tells it: one word.
    pub origin: &'static str,
    /// How many bytes of samples are held in memory.
    pub bytes_max: usize,
    /// Tells the time, for the names of blocks.
    pub clock: Clock,
}

/// What came in, and what of it was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Samples that came one by one.
    pub samples: u64,
    /// Chunks that came as they are.
    pub chunks: u64,
    /// Samples that were there already, with the same value.
    pub duplicates: u64,
    /// Samples that were there already, with another value; the first stayed.
    pub conflicts: u64,
    /// Samples that lost their start times, because they had to be encoded anew.
    pub start_times_dropped: u64,
    /// Exemplars that are beside blocks.
    pub exemplars: u64,
}

/// What was made of it.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// The blocks, in the order of time.
    pub blocks: Vec<BlockMeta>,
    /// What came in, and what of it was left out.
    pub counted: Counted,
}

/// The number of a series within a [`Backfill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId(u32);

impl SeriesId {
    /// Series are counted from 0 on.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Takes the samples of one tenant and cuts blocks from them.
pub struct Backfill {
    config: BackfillConfig,
    scratch: Scratch,
    labels: Vec<Labels>,
    by_labels: HashTable<u32>,
    /// The series in label order, as far as it is known, and the place of each in it.
    order: Vec<u32>,
    rank: Vec<u32>,
    /// By their first times, where in `windows` they are.
    window_at: BTreeMap<i64, usize>,
    windows: Vec<Window>,
    /// Where each series was found last. Samples come series by series in the same order again and
    /// again, so that memory is read in its order, and no table is looked into.
    places: Vec<Place>,
    bytes: usize,
    runs: Vec<Run>,
    deleted: HashMap<u32, Vec<TimeRange>>,
    /// The newest, as they came.
    exemplars: VecDeque<(SeriesId, Exemplar)>,
    counted: Counted,
}

/// What is in memory of a window.
struct Window {
    start_ms: i64,
    /// In the order in which they came.
    series: Vec<(u32, Open)>,
    slots: HashMap<u32, u32>,
}

/// Where in memory a series is in a window.
#[derive(Clone, Copy)]
struct Place {
    window_ms: i64,
    window: u32,
    slot: u32,
}

impl Place {
    const NOWHERE: Place = Place {
        window_ms: 0,
        window: u32::MAX,
        slot: 0,
    };
}

impl Backfill {
    /// Begins without samples.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(config: BackfillConfig) -> Result<Self, Error> {
        // A directory by such a name is removed at the next start, whoever starts.
        let name = format!("{}{TEMPORARY_SUFFIX}", new_ulid(&config.clock));
        let scratch = Scratch(config.dir.join(name));
        files::create_dir(&scratch.0)?;
        Ok(Backfill {
            config,
            scratch,
            labels: Vec::new(),
            by_labels: HashTable::new(),
            order: Vec::new(),
            rank: Vec::new(),
            window_at: BTreeMap::new(),
            windows: Vec::new(),
            places: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
            deleted: HashMap::new(),
            exemplars: VecDeque::new(),
            counted: Counted::default(),
        })
    }

    /// The number of a series.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] when there are no labels, or 2^32 series.
    pub fn series(&mut self, labels: &Labels) -> Result<SeriesId, Error> {
        let hash = labels.hash64();
        let is_it = |id: &u32| self.labels.get(*id as usize) == Some(labels);
        if let Some(id) = self.by_labels.find(hash, is_it) {
            return Ok(SeriesId(*id));
        }
        if labels.is_empty() {
            return Err(Error::LimitExceeded("a series has no labels".into()));
        }
        let id = u32::try_from(self.labels.len())
            .map_err(|_| Error::LimitExceeded("there are more than 2^32 series".into()))?;
        self.labels.push(labels.clone());
        self.places.push(Place::NOWHERE);
        let all = &self.labels;
        self.by_labels
            .insert_unique(hash, id, |id| all[*id as usize].hash64());
        Ok(SeriesId(id))
    }

    /// The labels of a series.
    pub fn labels(&self, series: SeriesId) -> &Labels {
        &self.labels[series.0 as usize]
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.labels.len()
    }

    /// Takes a sample of the series with these labels.
    ///
    /// # Errors
    /// As [`Backfill::series`] and [`Backfill::add_to`].
    pub fn add(&mut self, labels: &Labels, ms: i64, value: Value) -> Result<(), Error> {
        let series = self.series(labels)?;
        self.add_to(series, ms, value)
    }

    /// Takes a sample of a series at a unix time in milliseconds.
    ///
    /// # Errors
    /// When samples have to go to a file and it cannot be written.
    pub fn add_to(&mut self, series: SeriesId, ms: i64, value: Value) -> Result<(), Error> {
        self.counted.samples += 1;
        self.push(series, ms, value)
    }

    fn push(&mut self, series: SeriesId, ms: i64, value: Value) -> Result<(), Error> {
        let bytes = self.open(series, window_of(ms)).add(ms, value);
        self.took(bytes)
    }

    /// Takes a chunk of a series. Where it overlaps with nothing of the series that is in memory, it
    /// stays as it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it cannot be decoded; nothing of it was taken then. As
    /// [`Backfill::add_to`].
    pub fn add_chunk(&mut self, series: SeriesId, chunk: &Chunk) -> Result<(), Error> {
        let mut counted = Counted::default();
        let mut samples = Vec::new();
        points::decode(chunk, &mut samples, &mut counted)?;
        self.counted.chunks += 1;
        let range = match (samples.first(), samples.last()) {
            (Some(first), Some(last)) => TimeRange::new(first.0, last.0),
            _ => return Ok(()),
        };
        let window = window_of(range.min_ms);
        let whole = range == chunk.range() && window == window_of(range.max_ms);
        if whole && self.open(series, window).add_chunk(chunk) {
            // Its bytes are mapped, not held.
            return self.took(2 * size_of::<Chunk>());
        }
        self.counted.start_times_dropped += counted.start_times_dropped;
        samples
            .into_iter()
            .try_for_each(|(ms, value)| self.push(series, ms, value))
    }

    /// Takes an exemplar. When there are too many the first of them goes.
    pub fn add_exemplar(&mut self, series: SeriesId, exemplar: Exemplar) {
        if self.exemplars.len() >= EXEMPLARS_MAX {
            self.exemplars.pop_front();
        }
        self.exemplars.push_back((series, exemplar));
    }

    /// Leaves out all samples of a series in a range, those that come later too.
    pub fn delete(&mut self, series: SeriesId, range: TimeRange) {
        self.deleted.entry(series.0).or_default().push(range);
    }

    /// Writes the blocks. Each is there when it is complete, one after the other; when this fails,
    /// those before stay.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn finish(mut self) -> Result<Finished, Error> {
        self.put_in_order();
        self.spill()?;
        let windows: BTreeSet<i64> = self.runs.iter().flat_map(Run::windows).collect();
        let mut blocks = Vec::new();
        let last = windows.last().copied();
        for window in windows {
            // Behind the last there is no block that could take them.
            let exemplars_end = if Some(window) == last {
                i64::MAX
            } else {
                window
            };
            blocks.extend(self.write_block(window, exemplars_end)?);
        }
        Ok(Finished {
            blocks,
            counted: self.counted,
        })
    }

    fn open(&mut self, series: SeriesId, window_ms: i64) -> &mut Open {
        let mut place = self.places[series.index()];
        if place.window == u32::MAX || place.window_ms != window_ms {
            place = self.find(series, window_ms);
            self.places[series.index()] = place;
        }
        &mut self.windows[place.window as usize].series[place.slot as usize].1
    }

    /// Looks up where a series is in a window, or makes it a place.
    fn find(&mut self, series: SeriesId, window_ms: i64) -> Place {
        let windows = &mut self.windows;
        let at = *self.window_at.entry(window_ms).or_insert_with(|| {
            windows.push(Window {
                start_ms: window_ms,
                series: Vec::new(),
                slots: HashMap::new(),
            });
            windows.len() - 1
        });
        let window = &mut windows[at];
        let slot = *window.slots.entry(series.0).or_insert_with(|| {
            self.bytes += OPEN_BYTES;
            window.series.push((series.0, Open::default()));
            window.series.len() as u32 - 1
        });
        Place {
            window_ms,
            window: at as u32,
            slot,
        }
    }

    fn took(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes += bytes;
        match self.bytes > self.config.bytes_max {
            true => self.spill(),
            false => Ok(()),
        }
    }

    /// Writes what is in memory to a file and forgets it.
    fn spill(&mut self) -> Result<(), Error> {
        if self.windows.is_empty() {
            return Ok(());
        }
        self.put_in_order();
        let path = self.scratch.0.join(format!("{:06}", self.runs.len()));
        let mut writer = RunWriter::create(path)?;
        self.window_at.clear();
        self.places.fill(Place::NOWHERE);
        for mut window in std::mem::take(&mut self.windows) {
            let rank = |(series, _): &(u32, Open)| self.rank[*series as usize];
            window.series.sort_unstable_by_key(rank);
            for (series, open) in window.series {
                let chunks = open.into_chunks(&mut self.counted)?;
                writer.write(window.start_ms, SeriesId(series), &chunks)?;
            }
        }
        self.runs.push(writer.finish()?);
        self.bytes = 0;
        Ok(())
    }

    /// Gives each series its place in label order.
    fn put_in_order(&mut self) {
        let known = self.order.len();
        if known == self.labels.len() {
            return;
        }
        self.order.extend(known as u32..self.labels.len() as u32);
        let labels = &self.labels;
        // What was sorted before is one run to this sort.
        self.order
            .sort_by(|a, b| labels[*a as usize].cmp(&labels[*b as usize]));
        self.rank.resize(self.order.len(), 0);
        for (place, series) in self.order.iter().enumerate() {
            self.rank[*series as usize] = place as u32;
        }
    }

    fn write_block(&mut self, window: i64, exemplars_end: i64) -> Result<Option<BlockMeta>, Error> {
        let Some((range, symbols)) = self.outline(window)? else {
            return Ok(None);
        };
        let ulid = new_ulid(&self.config.clock);
        let mut meta = BlockMeta::new(ulid, range.min_ms, range.max_ms.saturating_add(1));
        if let Some(tenant) = &self.config.tenant {
            meta.other = meta_fields_of(tenant, self.config.origin);
        }
        let mut writer = BlockWriter::create(&self.config.dir, meta, symbols.into_iter().map(Ok))?;
        let mut counted = self.counted;
        let mut merged = Merged::new(&self.runs, &self.rank, window)?;
        while let Some((series, parts)) = merged.next_series()? {
            let chunks = combine::combine(parts, &mut counted)?;
            let chunks = match self.deleted.get(&series.0) {
                Some(deleted) => combine::without(chunks, deleted, &mut counted)?,
                None => chunks,
            };
            writer.add(self.labels(series), &chunks)?;
        }
        self.counted = counted;
        if let Some(bytes) = self.exemplars_until(exemplars_end) {
            writer.add_file(exemplars_file::EXEMPLARS_FILE, &bytes)?;
        }
        writer.finish()
    }

    /// The file with the exemplars of windows up to this one that are beside no block yet, if there
    /// are any: they may be older than all samples that became blocks here.
    fn exemplars_until(&mut self, window: i64) -> Option<Vec<u8>> {
        let (mut exemplars, later) = std::mem::take(&mut self.exemplars)
            .into_iter()
            .partition::<Vec<_>, _>(|it| window_of(it.1.timestamp_ms) <= window);
        self.exemplars = later.into();
        let place = |series: &SeriesId| self.rank.get(series.index());
        exemplars.sort_by_key(|(series, exemplar)| (place(series), exemplar.timestamp_ms));
        exemplars.dedup();
        let mut record = ExemplarsEncoder::new(self.config.tenant.as_ref()?);
        for (series, exemplar) in &exemplars {
            record.put(self.labels(*series), exemplar);
        }
        self.counted.exemplars += exemplars.len() as u64;
        (!record.is_empty()).then(|| exemplars_file::encode(record.as_bytes()))
    }

    /// The times and the symbols of a window.
    fn outline(&self, window: i64) -> Result<Option<(TimeRange, Vec<String>)>, Error> {
        let mut range: Option<TimeRange> = None;
        let mut symbols: BTreeSet<&str> = BTreeSet::new();
        for run in &self.runs {
            for series in run.section(window) {
                let (series, chunks) = series?;
                for chunk in &chunks {
                    range = Some(range.map_or(chunk.range(), |it| it.union(&chunk.range())));
                }
                let pairs = self.labels(series).iter();
                symbols.extend(pairs.flat_map(|(name, value)| [name, value]));
            }
        }
        let symbols = symbols.into_iter().map(str::to_owned).collect();
        Ok(range.map(|range| (range, symbols)))
    }
}

/// The first time of the window that a time belongs to.
fn window_of(ms: i64) -> i64 {
    ms.saturating_sub(ms.rem_euclid(BLOCK_RANGE_MS))
}

/// A name for a block.
fn new_ulid(clock: &Clock) -> Ulid {
    let random = || u128::from(std::hash::RandomState::new().build_hasher().finish());
    let now_ms = u64::try_from(clock.now_ms()).unwrap_or(0);
    Ulid::from_parts(now_ms, random() << 64 | random())
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody is left to tell. What stays is deleted at the next start by its name.
        let _ = files::remove_dir(&self.0);
    }
}

/// The series of a window from all runs, in label order.
struct Merged<'a> {
    rank: &'a [u32],
    sections: Vec<Section>,
    /// The next series of each run.
    heads: Vec<Option<(SeriesId, Vec<Chunk>)>>,
    /// Of these the place in label order and the run.
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(runs: &[Run], rank: &'a [u32], window: i64) -> Result<Self, Error> {
        let sections: Vec<Section> = runs.iter().map(|run| run.section(window)).collect();
        let mut merged = Merged {
            rank,
            heads: sections.iter().map(|_| None).collect(),
            heap: BinaryHeap::with_capacity(sections.len()),
            sections,
        };
        (0..merged.sections.len()).try_for_each(|run| merged.draw(run))?;
        Ok(merged)
    }

    fn draw(&mut self, run: usize) -> Result<(), Error> {
        if let Some(next) = self.sections[run].next().transpose()? {
            let place = self.rank.get(next.0.0 as usize).copied();
            let place = place.ok_or_else(|| Error::corrupt("run", "unknown series"))?;
            self.heap.push(Reverse((place, run)));
            self.heads[run] = Some(next);
        }
        Ok(())
    }

    /// A series with what each run has of it, the run that was written first in front.
    #[expect(
        clippy::type_complexity,
        reason = "a series with its parts, used in one place"
    )]
    fn next_series(&mut self) -> Result<Option<(SeriesId, Vec<Vec<Chunk>>)>, Error> {
        let Some(&Reverse((place, _))) = self.heap.peek() else {
            return Ok(None);
        };
        let mut found = None;
        let mut parts = Vec::new();
        while let Some(&Reverse((next, run))) = self.heap.peek()
            && next == place
        {
            self.heap.pop();
            if let Some((series, chunks)) = self.heads[run].take() {
                found = Some(series);
                parts.push(chunks);
            }
            self.draw(run)?;
        }
        Ok(found.map(|series| (series, parts)))
    }
}

#[cfg(test)]
mod tests;
