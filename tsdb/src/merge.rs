//! Many sources of series, each sorted by labels, as one; and chunks that overlap, as samples.
//!
//! Where two chunks have a sample for the same time, that of the chunk that begins first is
//! taken, and of chunks that begin together that of the earlier source.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

mod histograms;
pub mod splice;

use isobar_model::histogram::PackedHistograms;
use isobar_model::series::Samples;
use isobar_model::{Columns, Labels, SelectError, TimeRange};

use crate::Error;
use crate::chunks::histogram::{self, Counts, Stats};
use crate::chunks::{Chunk, Encoding, Scratch, XorAppender, sort_from};

/// The most samples of a chunk that is written here, as in Prometheus.
pub const CHUNK_SAMPLES_MAX: usize = 120;

/// A series with its chunks, ordered by their first time. Chunks may overlap where the series
/// was merged from several sources.
#[derive(Debug, Clone)]
pub struct SeriesChunks {
    /// The labels.
    pub labels: Labels,
    /// The chunks.
    pub chunks: Vec<Chunk>,
    /// The bytes of memory that the data of the chunks keep: 0 where they lie in a mapped file. Whoever
    /// keeps the series reserves them.
    pub heap_bytes: usize,
}

/// Where the data lie does not matter.
impl PartialEq for SeriesChunks {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels && self.chunks == other.chunks
    }
}

impl Eq for SeriesChunks {}

impl SeriesChunks {
    /// A series whose chunks lie in files that are mapped, or that has none.
    pub fn mapped(labels: Labels, chunks: Vec<Chunk>) -> Self {
        SeriesChunks {
            labels,
            chunks,
            heap_bytes: 0,
        }
    }

    /// A series whose chunks keep as many bytes of memory as they are long.
    pub fn in_memory(labels: Labels, chunks: Vec<Chunk>) -> Self {
        let heap_bytes = chunks.iter().map(|chunk| chunk.data.len()).sum();
        SeriesChunks {
            labels,
            chunks,
            heap_bytes,
        }
    }
}

/// Series in label order, each label set once. Owns what it reads from.
pub type SeriesIter = Box<dyn Iterator<Item = Result<SeriesChunks, Error>> + Send>;

/// The series of all sources in label order. Series with equal labels are one; of equal chunks
/// one stays. After an error there is nothing more.
pub fn merge(mut sources: Vec<SeriesIter>) -> SeriesIter {
    if sources.len() == 1
        && let Some(only) = sources.pop()
    {
        return only;
    }
    Box::new(Merge {
        heads: BinaryHeap::with_capacity(sources.len()),
        sources,
        started: false,
    })
}

struct Merge {
    sources: Vec<SeriesIter>,
    /// The next series of each source, the first labels and of equal ones the first source on top.
    heads: BinaryHeap<Reverse<Head>>,
    started: bool,
}

struct Head {
    source: usize,
    series: SeriesChunks,
}

impl Head {
    fn key(&self) -> (&Labels, usize) {
        (&self.series.labels, self.source)
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl Merge {
    fn step(&mut self) -> Result<Option<SeriesChunks>, Error> {
        if !self.started {
            self.started = true;
            for (source, series) in self.sources.iter_mut().enumerate() {
                if let Some(series) = series.next().transpose()? {
                    self.heads.push(Reverse(Head { source, series }));
                }
            }
        }
        let Some(mut merged) = self.take()? else {
            return Ok(None);
        };
        let mut joined = false;
        while self
            .heads
            .peek()
            .is_some_and(|head| head.0.series.labels == merged.labels)
        {
            let Some(more) = self.take()? else { break };
            merged.chunks.extend(more.chunks);
            merged.heap_bytes += more.heap_bytes;
            joined = true;
        }
        if joined {
            merged.chunks.sort_by_key(|chunk| chunk.min_ms);
            merged.chunks.dedup();
        }
        Ok(Some(merged))
    }

    /// Takes the first series and draws the next one from its source.
    fn take(&mut self) -> Result<Option<SeriesChunks>, Error> {
        let Some(mut top) = self.heads.peek_mut() else {
            return Ok(None);
        };
        let source = self.sources.get_mut(top.0.source).and_then(Iterator::next);
        match source.transpose()? {
            Some(next) => Ok(Some(std::mem::replace(&mut top.0.series, next))),
            None => Ok(Some(PeekMut::pop(top).0.series)),
        }
    }
}

impl Iterator for Merge {
    type Item = Result<SeriesChunks, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.heads.clear();
            self.sources.clear();
        }
        step.transpose()
    }
}

thread_local! {
    /// Where chunks are decoded. Kept, because filling it with zeros for each series is felt.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Appends the samples of chunks, ordered by their first time, that lie in `range`, with one
/// value for each time.
///
/// # Errors
/// As [`Chunk::decode_into`].
pub fn read_samples(
    chunks: &[Chunk],
    range: TimeRange,
    columns: &mut Columns,
) -> Result<(), Error> {
    SCRATCH.with_borrow_mut(|scratch| read_into(chunks, range, columns, scratch))
}

fn read_into(
    chunks: &[Chunk],
    range: TimeRange,
    columns: &mut Columns,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let start = columns.len();
    let mut rising = true;
    let histograms_start = columns.histograms.len();
    // Where the histograms of each chunk end, for chunks that have any.
    let mut histogram_ends: Vec<usize> = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.range().overlaps(&range)) {
        let at = columns.len();
        let histograms_at = columns.histograms.len();
        chunk.decode_with(range, columns, scratch)?;
        if columns.histograms.len() > histograms_at {
            histogram_ends.push(columns.histograms.len());
        }
        // Within a chunk they rise. It may hold more than the range that it is said to have, so
        // what counts is how the samples lie.
        if at > start && columns.timestamps.get(at) <= columns.timestamps.get(at - 1) {
            rising &= at == columns.len();
        }
    }
    if !rising {
        sort_from(start, columns);
    }
    if !histogram_ends.is_empty() {
        histograms::settle(start, histograms_start, &histogram_ends, columns);
    }
    Ok(())
}

/// As [`read_samples`] where all chunks hold histograms and follow each other: these come packed, see
/// [`Samples::read_packed`]. False when they do not; what was read until then is of no use.
fn read_packed(
    chunks: &[Chunk],
    range: TimeRange,
    stats: bool,
    packed: &mut PackedHistograms,
) -> Result<bool, Error> {
    let mut before = stats.then(Stats::default);
    let needed = || chunks.iter().filter(|chunk| chunk.range().overlaps(&range));
    if needed().any(|chunk| chunk.histogram_kind().is_none()) {
        return Ok(false);
    }
    for (chunk, kind) in needed().filter_map(|chunk| Some((chunk, chunk.histogram_kind()?))) {
        let at = packed.len();
        let rising = histogram::decode_packed(&chunk.data, kind, range, before.as_mut(), packed)?;
        let times = packed.times();
        let follows = at == 0 || at == times.len() || times.get(at - 1) < times.get(at);
        if !rising || !follows {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The chunks without overlap: those that overlap others are decoded, joined and written anew,
/// the others are passed on. The input is ordered by first time.
///
/// # Errors
/// As [`Chunk::decode_into`], and [`Error::Unsupported`] where start times would have to be encoded.
pub fn without_overlap(chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Error> {
    if chunks
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.max_ms < b.min_ms))
    {
        return Ok(chunks);
    }
    let mut result = Vec::with_capacity(chunks.len());
    let mut columns = Columns::default();
    for group in overlapping(&chunks) {
        if let [alone] = group {
            result.push(alone.clone());
            continue;
        }
        columns.clear();
        group.iter().try_for_each(Chunk::check_encodable)?;
        read_samples(group, TimeRange::ALL, &mut columns)?;
        result.extend(encode(&columns, counts_of(group)));
    }
    Ok(result)
}

/// The chunk without the start times of its samples, in the encodings that readers before Prometheus 3.14
/// know; itself when it is in one of those.
///
/// # Errors
/// As [`Chunk::decode_into`].
pub fn without_start_times(chunk: &Chunk) -> Result<Vec<Chunk>, Error> {
    if !matches!(
        chunk.encoding,
        Encoding::Xor2 | Encoding::HistogramSt | Encoding::FloatHistogramSt
    ) {
        return Ok(vec![chunk.clone()]);
    }
    let mut columns = Columns::default();
    chunk.decode_into(TimeRange::ALL, &mut columns)?;
    Ok(encode(&columns, counts_of(std::slice::from_ref(chunk))))
}

/// How the counts of histograms that were decoded from `chunks` are written again.
fn counts_of(chunks: &[Chunk]) -> Counts {
    let any_float = |chunk: &Chunk| {
        matches!(
            chunk.encoding,
            Encoding::FloatHistogram | Encoding::FloatHistogramSt
        )
    };
    match chunks.iter().any(any_float) {
        true => Counts::Float,
        false => Counts::Integer,
    }
}

/// The samples as chunks of at most [`CHUNK_SAMPLES_MAX`]. Where floats and histograms alternate,
/// so do their chunks.
pub fn encode(columns: &Columns, counts: Counts) -> Vec<Chunk> {
    let (mut times, mut values) = (columns.timestamps.as_slice(), columns.values.as_slice());
    let mut histograms = columns.histograms.as_slice();
    let mut chunks = Vec::new();
    while !times.is_empty() || !histograms.is_empty() {
        let first_histogram = histograms.first().map_or(i64::MAX, |it| it.0);
        let floats = match histograms.is_empty() {
            true => times.len(),
            false => times.partition_point(|time_ms| *time_ms < first_histogram),
        };
        let (now, later) = times.split_at(floats);
        let (values_now, values_later) = values.split_at(floats);
        chunks.extend(encode_floats(now, values_now));
        (times, values) = (later, values_later);
        let first_float = times.first().copied();
        let run = histograms.partition_point(|it| first_float.is_none_or(|time_ms| it.0 < time_ms));
        let (now, later) = histograms.split_at(run);
        chunks.extend(histogram::encode(now, counts, CHUNK_SAMPLES_MAX));
        histograms = later;
        if floats == 0 && run == 0 {
            // A float and a histogram of one time, which columns do not hold: the float stays.
            histograms = histograms.get(1..).unwrap_or_default();
        }
    }
    chunks
}

fn encode_floats(times: &[i64], values: &[f64]) -> impl Iterator<Item = Chunk> {
    let parts = times.chunks(CHUNK_SAMPLES_MAX);
    parts
        .zip(values.chunks(CHUNK_SAMPLES_MAX))
        .filter_map(|(times, values)| {
            let mut appender = XorAppender::new();
            for (timestamp_ms, value) in times.iter().zip(values) {
                appender.append(*timestamp_ms, *value);
            }
            appender.into_chunk()
        })
}

/// A chunk without the samples of deleted times: nothing when none is left, and the chunk itself,
/// not decoded, when all are. What is left of a chunk with start times has none: they are not
/// encoded yet, and may be unknown for any sample.
///
/// # Errors
/// As [`Chunk::decode_into`].
pub fn without(chunk: &Chunk, deleted: &[TimeRange]) -> Result<Vec<Chunk>, Error> {
    if deleted
        .iter()
        .any(|it| it.min_ms <= chunk.min_ms && chunk.max_ms <= it.max_ms)
    {
        return Ok(Vec::new());
    }
    if !deleted.iter().any(|it| it.overlaps(&chunk.range())) {
        return Ok(vec![chunk.clone()]);
    }
    let mut all = Columns::default();
    chunk.decode_into(TimeRange::ALL, &mut all)?;
    let mut kept = Columns::default();
    for (timestamp_ms, value) in all.timestamps.into_iter().zip(all.values) {
        if !deleted.iter().any(|it| it.contains(timestamp_ms)) {
            kept.push(timestamp_ms, value);
        }
    }
    kept.histograms = all.histograms;
    kept.histograms
        .retain(|(timestamp_ms, _)| !deleted.iter().any(|it| it.contains(*timestamp_ms)));
    Ok(encode(&kept, counts_of(std::slice::from_ref(chunk))))
}

/// Divides chunks, ordered by first time, where one begins behind all before it.
fn overlapping(chunks: &[Chunk]) -> impl Iterator<Item = &[Chunk]> {
    let mut end_ms = i64::MIN;
    chunks.chunk_by(move |before, chunk| {
        end_ms = end_ms.max(before.max_ms);
        chunk.min_ms <= end_ms
    })
}

/// Chunks as the samples of a series in a query.
#[derive(Debug, Clone)]
pub struct ChunkSamples(pub Vec<Chunk>);

impl Samples for ChunkSamples {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        Ok(read_samples(&self.0, range, columns)?)
    }

    fn read_packed(
        &self,
        range: TimeRange,
        stats: bool,
        columns: &mut Columns,
    ) -> Result<bool, SelectError> {
        let done = read_packed(&self.0, range, stats, &mut columns.packed)?;
        if !done {
            columns.packed.clear();
        }
        Ok(done)
    }

    fn count_estimate(&self) -> usize {
        let counts = self.0.iter().map(Chunk::sample_count);
        // A chunk without a count is corrupt, which reading it will tell.
        counts.map(|count| count.map_or(0, usize::from)).sum()
    }

    fn encoded_bytes(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.data.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Points<'a> = &'a [(i64, f64)];

    fn chunk(points: Points<'_>) -> Chunk {
        let mut appender = XorAppender::new();
        points
            .iter()
            .for_each(|(timestamp_ms, value)| appender.append(*timestamp_ms, *value));
        appender.into_chunk().unwrap()
    }

    fn check_samples(chunks: &[Points<'_>], range: TimeRange, expected: Points<'_>) {
        let chunks: Vec<_> = chunks.iter().map(|points| chunk(points)).collect();
        let mut columns = Columns::default();
        read_samples(&chunks, range, &mut columns).unwrap();
        let got: Vec<_> = columns
            .timestamps
            .iter()
            .copied()
            .zip(columns.values)
            .collect();
        assert_eq!(got, expected);

        let mut rewritten = Columns::default();
        for chunk in without_overlap(chunks).unwrap() {
            chunk.decode_into(range, &mut rewritten).unwrap();
        }
        assert_eq!(rewritten.timestamps, columns.timestamps);
    }

    #[test]
    fn overlap_is_resolved_the_same_way_always() {
        let a: Points<'_> = &[(10, 1.0), (20, 1.0), (30, 1.0)];
        let b: Points<'_> = &[(20, 2.0), (25, 2.0), (40, 2.0)];
        let c: Points<'_> = &[(41, 3.0)];
        let joined: Points<'_> = &[
            (10, 1.0),
            (20, 1.0),
            (25, 2.0),
            (30, 1.0),
            (40, 2.0),
            (41, 3.0),
        ];
        check_samples(&[a, b, c], TimeRange::ALL, joined);
        check_samples(&[a, b, c], TimeRange::new(20, 30), &joined[1..4]);
        check_samples(&[a, a, a], TimeRange::ALL, a);
        check_samples(&[], TimeRange::ALL, &[]);
    }

    #[test]
    fn what_does_not_overlap_is_passed_on() {
        let chunks = vec![chunk(&[(1, 1.0), (5, 1.0)]), chunk(&[(6, 1.0)])];
        let pointers: Vec<_> = chunks.iter().map(|chunk| chunk.data.as_ptr()).collect();
        let passed = without_overlap(chunks).unwrap();
        assert_eq!(
            passed
                .iter()
                .map(|chunk| chunk.data.as_ptr())
                .collect::<Vec<_>>(),
            pointers
        );
    }

    #[test]
    fn long_runs_are_cut_at_120_samples() {
        let points: Vec<_> = (0..300).map(|i| (i, 1.0)).collect();
        let late: Vec<_> = (100..400).map(|i| (i, 1.0)).collect();
        let chunks = without_overlap(vec![chunk(&points), chunk(&late)]).unwrap();
        let counts: Vec<_> = chunks.iter().map(|it| it.sample_count().unwrap()).collect();
        assert_eq!(counts, [120, 120, 120, 40]);
    }

    #[test]
    fn deleted_samples_go() {
        let chunk = chunk(&[(10, 1.0), (20, 2.0), (30, 3.0)]);
        let check = |deleted: &[(i64, i64)], expected: &[i64]| {
            let deleted: Vec<_> = deleted
                .iter()
                .map(|it| TimeRange::new(it.0, it.1))
                .collect();
            let mut columns = Columns::default();
            for chunk in without(&chunk, &deleted).unwrap() {
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
            }
            assert_eq!(columns.timestamps, expected);
        };
        check(&[], &[10, 20, 30]);
        check(&[(15, 25)], &[10, 30]);
        check(&[(0, 10), (30, 30)], &[20]);
        check(&[(0, 100)], &[]);
        check(&[(0, 20), (21, 30)], &[]);
        check(&[(31, 40)], &[10, 20, 30]);
    }

    #[test]
    fn sources_are_merged_by_labels() {
        let series = |name: &str, points: Points<'_>| SeriesChunks {
            heap_bytes: 0,
            labels: Labels::from_pairs([("__name__", name)]),
            chunks: vec![chunk(points)],
        };
        let source =
            |series: Vec<SeriesChunks>| -> SeriesIter { Box::new(series.into_iter().map(Ok)) };
        let merged = merge(vec![
            source(vec![series("a", &[(5, 1.0)]), series("c", &[(5, 1.0)])]),
            source(vec![]),
            source(vec![series("b", &[(1, 1.0)]), series("c", &[(5, 1.0)])]),
            source(vec![series("c", &[(1, 1.0)]), series("d", &[(1, 1.0)])]),
        ]);
        let merged: Vec<_> = merged
            .map(|series| {
                let series = series.unwrap();
                let mins: Vec<_> = series.chunks.iter().map(|chunk| chunk.min_ms).collect();
                (series.labels.metric_name().to_owned(), mins)
            })
            .collect();
        let expected: Vec<(String, Vec<i64>)> = vec![
            ("a".into(), vec![5]),
            ("b".into(), vec![1]),
            ("c".into(), vec![1, 5]),
            ("d".into(), vec![1]),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn an_error_ends_it() {
        let fail: SeriesIter = Box::new(std::iter::once(Err(Error::corrupt("index", "test"))));
        let mut merged = merge(vec![fail, Box::new(std::iter::empty())]);
        assert!(merged.next().unwrap().is_err());
        assert!(merged.next().is_none());
    }

    #[test]
    fn histograms_are_merged_cut_and_written_again() {
        use isobar_model::FloatHistogram;
        let sample = |time: i64, count: f64| {
            let histogram = FloatHistogram {
                count,
                zero_count: count,
                ..FloatHistogram::default()
            };
            (time, std::sync::Arc::new(histogram))
        };
        let histograms = |points: &[(i64, f64)]| {
            let columns = Columns {
                histograms: points.iter().map(|(t, c)| sample(*t, *c)).collect(),
                ..Columns::default()
            };
            encode(&columns, Counts::Integer)
        };
        let told = |chunks: &[Chunk]| {
            let mut columns = Columns::default();
            read_samples(chunks, TimeRange::ALL, &mut columns).unwrap();
            let floats = columns.timestamps.iter().zip(&columns.values);
            let floats = floats.map(|(t, v)| format!("{t}={v}"));
            let samples = columns.histograms.iter();
            let samples = samples.map(|(t, it)| format!("{t}:{}", it.count));
            let names = chunks.iter().map(|it| it.encoding.name().to_owned());
            floats
                .chain(samples)
                .chain(names)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut chunks = histograms(&[(10, 1.0), (30, 3.0), (50, 5.0)]);
        chunks.extend(histograms(&[(20, 2.0), (40, 4.0)]));
        chunks.push(chunk(&[(35, 0.5)]));
        chunks.sort_by_key(|it| it.min_ms);
        let merged = without_overlap(chunks).unwrap();
        assert_eq!(
            told(&merged),
            "35=0.5 10:1 20:2 30:3 40:4 50:5 histogram XOR histogram"
        );
        let cut = without(
            &histograms(&[(10, 1.0), (30, 3.0), (50, 5.0)])[0],
            &[TimeRange::new(20, 30)],
        );
        assert_eq!(told(&cut.unwrap()), "10:1 50:5 histogram");
    }
}
