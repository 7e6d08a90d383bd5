//! Reads what the head of a Prometheus has left on disk into a [`Backfill`].
//!
//! The chunk files are read several times, because the log says which labels the numbers of their series
//! stand for: first to know which samples of the log are in them, later for what they hold. What
//! is kept for each series is its number, its labels and the times that its chunks cover.
//!
//! What is older than the newest block is in blocks, as Prometheus has it when it starts; samples
//! that came late are not bound by that. Prometheus would give up the log behind the first damage.
//! Here all that can be read is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use isobar_model::sample::is_stale;
use isobar_model::{Columns, Exemplar, FloatHistogram, Labels, TimeRange};
use serde::{Deserialize, Serialize};

use super::head_chunks::{HeadChunk, HeadChunkReader};
use super::numbers::ByNumber;
use super::record::{self, At, RecordSink, SeriesNumber};
use super::segment::{Damage, SegmentReader};
use crate::Error;
use crate::backfill::{Backfill, SeriesId, Value};
use crate::chunks::histogram::Counts;
use crate::db::event::{Event, Events};
use crate::db::files;
use crate::mmap::map_file;

/// The log of what came in order, of what came late, and the chunks of both.
pub(super) const WAL: &str = "wal";
pub(super) const WBL: &str = "wbl";
pub(super) const CHUNKS_HEAD: &str = "chunks_head";
const CHECKPOINT_PREFIX: &str = "checkpoint.";

/// What was found besides samples, and what could not be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// Samples of series whose labels are not in the log.
    pub(super) unknown_series: u64,
    /// Histograms of kinds that nobody knows.
    pub(super) unknown_histograms: u64,
    /// Samples of the log that lost their start times.
    pub(super) start_times_dropped: u64,
    /// Places that are damaged.
    pub(super) damages: u64,
    /// What is said of metrics: type by its number, unit and help.
    #[serde(skip)]
    pub(super) metadata: BTreeMap<String, (u8, String, String)>,
}

/// Reads logs and chunks of the data directory `dir`. Samples before `min_valid_ms` that came in
/// order are left out: blocks hold them.
///
/// # Errors
/// When a directory cannot be listed, a file cannot be mapped, or `backfill` cannot write.
pub(super) fn read(
    dir: &Path,
    min_valid_ms: i64,
    backfill: &mut Backfill,
    events: &Events,
) -> Result<Found, Error> {
    let mut reading = Reading {
        min_valid_ms,
        backfill,
        events,
        numbers: ByNumber::default(),
        covered: ByNumber::default(),
        last_counts: Vec::new(),
        is_late: false,
        found: Found::default(),
        error: None,
    };
    let chunks_head = dir.join(CHUNKS_HEAD);
    reading.head_chunks(&chunks_head, Pass::Cover)?;
    for segment in log_files(&dir.join(WAL))? {
        reading.segment(&segment)?;
    }
    // What came in order comes first: of two values for one time it stays.
    reading.head_chunks(&chunks_head, Pass::Take)?;
    reading.is_late = true;
    for segment in numbered(&dir.join(WBL))? {
        reading.segment(&segment)?;
    }
    reading.head_chunks(&chunks_head, Pass::Take)?;
    Ok(reading.found)
}

/// The segments of the newest checkpoint of a log, and of the log those behind it.
fn log_files(wal: &Path) -> Result<Vec<Box<Path>>, Error> {
    let mut checkpoint = None;
    for name in names_if_any(wal)? {
        let number = name.strip_prefix(CHECKPOINT_PREFIX);
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            checkpoint = checkpoint.max(Some((number, name)));
        }
    }
    let mut segments = numbered(wal)?;
    let Some((last, name)) = checkpoint else {
        return Ok(segments);
    };
    segments.retain(|path| number_of(path).is_some_and(|number| number > last));
    let mut files = numbered(&wal.join(name))?;
    files.append(&mut segments);
    Ok(files)
}

/// The files of a directory whose names are numbers, in their order. None when it does not exist.
pub(super) fn numbered(dir: &Path) -> Result<Vec<Box<Path>>, Error> {
    let names = names_if_any(dir)?;
    let mut paths: Vec<Box<Path>> = names.iter().map(|name| dir.join(name).into()).collect();
    paths.retain(|path| number_of(path).is_some() && path.is_file());
    paths.sort_by_key(|path| number_of(path));
    Ok(paths)
}

fn names_if_any(dir: &Path) -> Result<Vec<String>, Error> {
    match dir.is_dir() {
        true => files::names(dir),
        false => Ok(Vec::new()),
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Cover,
    Take,
}

struct Reading<'a> {
    min_valid_ms: i64,
    backfill: &'a mut Backfill,
    events: &'a Events,
    numbers: ByNumber<Option<SeriesId>>,
    /// The times of which the chunks hold all that came in order.
    covered: ByNumber<Vec<TimeRange>>,
    /// How the counts of the last sample are written, by series, if it was a histogram.
    last_counts: Vec<Option<Counts>>,
    /// Whether what is read came late.
    is_late: bool,
    found: Found,
    /// The first that was met while a record was read.
    error: Option<Error>,
}

impl Reading<'_> {
    fn segment(&mut self, path: &Path) -> Result<(), Error> {
        let bytes = map_file(path)?;
        let mut reader = SegmentReader::new(&bytes);
        loop {
            let offset = reader.offset();
            match reader.next_record() {
                None => return Ok(()),
                Some(Err(damage)) => self.damaged(path, damage),
                Some(Ok(bytes)) => {
                    if let Err(e) = record::decode(bytes, self) {
                        let why = e.to_string();
                        self.damaged(path, Damage { offset, why });
                    }
                    if let Some(error) = self.error.take() {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn head_chunks(&mut self, dir: &Path, pass: Pass) -> Result<(), Error> {
        let mut columns = Columns::default();
        let mut is_damaged = false;
        for path in numbered(dir)? {
            let bytes = map_file(&path)?;
            let reader = match HeadChunkReader::new(&bytes) {
                Ok(reader) => reader,
                Err(damage) => {
                    is_damaged = true;
                    if pass == Pass::Cover {
                        self.damaged(&path, damage);
                    }
                    continue;
                }
            };
            for chunk in reader {
                let chunk = chunk.and_then(|it| {
                    columns.clear();
                    let offset = it.offset;
                    let decoded = it.chunk.decode_into(TimeRange::ALL, &mut columns);
                    let why = |e: Error| e.to_string();
                    decoded.map(|()| it).map_err(|e| Damage {
                        offset,
                        why: why(e),
                    })
                });
                match (chunk, pass) {
                    (Ok(chunk), Pass::Cover) => self.cover(&chunk, is_damaged),
                    (Ok(chunk), Pass::Take) => self.take(&chunk, &columns)?,
                    (Err(damage), Pass::Cover) => {
                        is_damaged = true;
                        self.damaged(&path, damage);
                    }
                    (Err(_), Pass::Take) => {}
                }
            }
        }
        Ok(())
    }

    /// Between two chunks of a series there is nothing in order, unless one may be missing.
    fn cover(&mut self, chunk: &HeadChunk, is_damaged: bool) {
        let range = chunk.chunk.range();
        if chunk.late || range.max_ms < self.min_valid_ms {
            return;
        }
        let covered = self.covered.get_mut(chunk.series);
        match covered.last_mut() {
            Some(last) if !is_damaged && last.max_ms < range.min_ms => last.max_ms = range.max_ms,
            _ => covered.push(range),
        }
    }

    fn take(&mut self, chunk: &HeadChunk, columns: &Columns) -> Result<(), Error> {
        let range = chunk.chunk.range();
        let is_in_blocks = !chunk.late && range.max_ms < self.min_valid_ms;
        if chunk.late != self.is_late || is_in_blocks {
            return Ok(());
        }
        let Some(series) = self.numbers.get(chunk.series).copied().flatten() else {
            self.found.unknown_series += (columns.len() + columns.histograms.len()) as u64;
            return Ok(());
        };
        if chunk.late || range.min_ms >= self.min_valid_ms {
            return self.backfill.add_chunk(series, &chunk.chunk);
        }
        let counts = chunk
            .chunk
            .histogram_kind()
            .map_or(Counts::Float, |it| it.counts);
        let floats = columns.timestamps.iter().zip(&columns.values);
        let floats = floats.map(|(ms, value)| (*ms, Value::Float(*value)));
        let histograms = columns.histograms.iter();
        let histograms = histograms.map(|(ms, it)| (*ms, Value::Histogram(Arc::clone(it), counts)));
        floats
            .chain(histograms)
            .filter(|(ms, _)| *ms >= self.min_valid_ms)
            .try_for_each(|(ms, value)| self.backfill.add_to(series, ms, value))
    }

    fn damaged(&mut self, path: &Path, damage: Damage) {
        self.found.damages += 1;
        (self.events)(Event::WalDamage {
            path: path.to_owned(),
            offset: damage.offset,
            why: damage.why,
        });
    }

    fn sample(&mut self, at: At, value: Value) {
        let ms = at.ms;
        if !self.is_late && (ms < self.min_valid_ms || self.is_covered(at.series, ms)) {
            return;
        }
        let Some(series) = self.numbers.get(at.series).copied().flatten() else {
            self.found.unknown_series += 1;
            return;
        };
        self.found.start_times_dropped += u64::from(at.start_ms != 0);
        let value = self.of_its_kind(series, value);
        if let Err(e) = self.backfill.add_to(series, ms, value) {
            self.error.get_or_insert(e);
        }
    }

    fn is_covered(&self, series: SeriesNumber, ms: i64) -> bool {
        let covered = self.covered.get(series);
        covered.is_some_and(|ranges| ranges.iter().any(|range| range.contains(ms)))
    }

    /// The end of a series of histograms is one of them, even where the log has a float for it:
    /// so Prometheus takes it from its log.
    fn of_its_kind(&mut self, series: SeriesId, value: Value) -> Value {
        let at = series.index();
        if at >= self.last_counts.len() {
            self.last_counts.resize(at + 1, None);
        }
        let Some(last) = self.last_counts.get_mut(at) else {
            return value;
        };
        match (value, *last) {
            (Value::Float(value), Some(counts)) if is_stale(value) => {
                Value::Histogram(Arc::new(FloatHistogram::stale()), counts)
            }
            (value, _) => {
                *last = match &value {
                    Value::Float(_) => None,
                    Value::Histogram(_, counts) => Some(*counts),
                };
                value
            }
        }
    }
}

impl RecordSink for Reading<'_> {
    fn series(&mut self, number: SeriesNumber, labels: Labels) {
        // Prometheus has no series without labels.
        if let Ok(series) = self.backfill.series(&labels) {
            *self.numbers.get_mut(number) = Some(series);
        }
    }

    fn float(&mut self, at: At, value: f64) {
        self.sample(at, Value::Float(value));
    }

    fn histogram(&mut self, at: At, histogram: FloatHistogram, counts: Counts) {
        self.sample(at, Value::Histogram(Arc::new(histogram), counts));
    }

    fn unknown_histogram(&mut self, _: At) {
        self.found.unknown_histograms += 1;
    }

    fn tombstone(&mut self, number: SeriesNumber, range: TimeRange) {
        // All of time stands for a series that went into a block and left the head.
        if range == TimeRange::ALL || range.max_ms < self.min_valid_ms {
            return;
        }
        if let Some(series) = self.numbers.get(number).copied().flatten() {
            self.backfill.delete(series, range);
        }
    }

    fn exemplar(&mut self, at: At, value: f64, labels: Labels) {
        let exemplar = Exemplar {
            labels,
            value,
            timestamp_ms: at.ms,
        };
        // They are in no block of Prometheus, however old.
        if let Some(series) = self.numbers.get(at.series).copied().flatten() {
            self.backfill.add_exemplar(series, exemplar);
        }
    }

    fn metadata(&mut self, number: SeriesNumber, kind: u8, unit: &str, help: &str) {
        if let Some(series) = self.numbers.get(number).copied().flatten() {
            let metric = self.backfill.labels(series).metric_name().to_owned();
            let said = (kind, unit.to_owned(), help.to_owned());
            self.found.metadata.insert(metric, said);
        }
    }
}
