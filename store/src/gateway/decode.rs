//! From bytes of an index to series that match: their labels, and where their chunks lie.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use isobar_model::{Labels, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::encoding::DecodeError;
use isobar_tsdb::index::parts::{RawSeries, SeriesWalk};
use isobar_tsdb::index::{ChunkMeta, SeriesEntry};

use super::recent::{KnownLabels, SELECT_MAX};
use super::select::Tests;
use crate::card::{Card, Lookup};

/// Texts that are kept at hand; more, and they are read anew.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Series that match, with what the index says of their chunks.
#[derive(Debug, Default)]
pub(super) struct Matched {
    /// The labels, and where the chunks of each end in `chunks`.
    pub(super) series: Vec<(Labels, usize)>,
    /// The chunks that overlap the range, series by series.
    pub(super) chunks: Vec<ChunkMeta>,
    /// How many series were looked at, and the bytes they take.
    pub(super) touched: u64,
    pub(super) touched_bytes: u64,
    /// The bytes of all labels.
    pub(super) label_bytes: usize,
}

impl Matched {
    /// About the memory that is taken, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.label_bytes + self.series.len() * 48 + self.chunks.len() * size_of::<ChunkMeta>()
    }
}

/// Reads series of one block, one piece of its index after the other.
pub(super) struct SeriesDecoder {
    /// What the index is called in errors.
    name: String,
    tests: Tests,
    lookup: Lookup,
    texts: Texts,
    entry: SeriesEntry,
    range: TimeRange,
    scratch: String,
    known: Arc<KnownLabels>,
    /// What the block is called there.
    number: u64,
    /// How many more series are looked up there.
    known_left: usize,
    /// How many series were tested.
    tested: usize,
    /// Where those begin that passed; nothing when they are too many.
    passed: Option<Vec<u64>>,
}

impl SeriesDecoder {
    /// For the series that pass `tests` and have chunks that overlap `range`.
    /// Labels are looked up in `known`, where the block is called `number`.
    pub(super) fn new(
        name: String,
        card: &Card,
        tests: Tests,
        range: TimeRange,
        known: Arc<KnownLabels>,
        number: u64,
    ) -> Self {
        SeriesDecoder {
            known,
            number,
            known_left: SELECT_MAX,
            tested: 0,
            passed: Some(Vec::new()),
            name,
            tests,
            lookup: card.lookup(),
            texts: Texts::default(),
            entry: SeriesEntry::default(),
            range,
            scratch: String::new(),
        }
    }

    /// Takes the series that begin in `run` and end in `bytes`, which lie at `begin`. Gives the offset
    /// where to go on, which is behind the last series that was read.
    pub(super) fn run(
        &mut self,
        bytes: &[u8],
        begin: u64,
        run: &Range<u64>,
        out: &mut Matched,
    ) -> Result<u64, Error> {
        let mut walk = SeriesWalk::new(bytes, begin);
        loop {
            let next = walk.offset().next_multiple_of(16);
            if next >= run.end {
                return Ok(run.end);
            }
            let read = walk.next();
            let at = |e: DecodeError| e.at_offset(&self.name, "series", next);
            let Some(series) = read.map_err(at)? else {
                return Ok(next);
            };
            out.touched_bytes += walk.offset() - next;
            if series.content.is_empty() {
                // Zeros in front of the next section.
                continue;
            }
            self.series(series, out)?;
        }
    }

    /// Takes one series.
    pub(super) fn series(&mut self, raw: RawSeries<'_>, out: &mut Matched) -> Result<(), Error> {
        out.touched += 1;
        let labels = self.entry.decode_labels(raw.content);
        let chunks = labels.map_err(|e| e.at_offset(&self.name, "series", raw.offset))?;
        self.tested += 1;
        if !self.tests.pass(&self.entry.labels, &mut self.lookup)? {
            return Ok(());
        }
        match &mut self.passed {
            Some(passed) if passed.len() < SELECT_MAX => passed.push(raw.offset),
            passed => *passed = None,
        }
        let decoded = self.entry.decode_chunks(chunks, self.range);
        decoded.map_err(|e| e.at_offset(&self.name, "series", raw.offset))?;
        if self.entry.chunks.is_empty() {
            return Ok(());
        }
        // The numbers of symbols are sorted as their texts are.
        if !self.entry.labels.is_sorted_by(|a, b| a.0 < b.0) {
            let why = format!("series at {}: the names are not sorted", raw.offset);
            return Err(Error::corrupt_at(&self.name, raw.offset, why));
        }
        let labels = self.labels_of(raw.offset)?;
        out.label_bytes += labels.as_bytes().len() + 32;
        out.chunks.append(&mut self.entry.chunks);
        out.series.push((labels, out.chunks.len()));
        Ok(())
    }

    /// How many series were tested, and where those begin that passed unless they are too many.
    pub(super) fn passed(self) -> (usize, Option<Vec<u64>>) {
        (self.tested, self.passed)
    }

    fn labels_of(&mut self, offset: u64) -> Result<Labels, Error> {
        if self.known_left == 0 {
            return self.labels();
        }
        self.known_left -= 1;
        let key = (self.number, offset);
        if let Some(labels) = self.known.get(&key) {
            return Ok(labels);
        }
        let labels = self.labels()?;
        let bytes = labels.as_bytes().len();
        self.known.insert(key, labels.clone(), bytes);
        Ok(labels)
    }

    fn labels(&mut self) -> Result<Labels, Error> {
        if self.texts.text.len() > TEXT_BYTES_MAX {
            self.texts.text.clear();
            self.texts.places.clear();
        }
        for (name, value) in &self.entry.labels {
            self.texts.load(*name, &mut self.lookup)?;
            self.texts.load(*value, &mut self.lookup)?;
        }
        let texts = &self.texts;
        let pairs = self.entry.labels.iter();
        let pairs = pairs.map(|(name, value)| (texts.get(*name), texts.get(*value)));
        let pairs = pairs.filter(|pair| !pair.1.is_empty());
        Ok(Labels::from_sorted(pairs, &mut self.scratch))
    }
}

/// Texts of symbols, each once.
#[derive(Default)]
struct Texts {
    text: String,
    /// Where the text of a symbol begins and ends.
    places: HashMap<u32, (usize, usize)>,
}

impl Texts {
    fn load(&mut self, symbol: u32, lookup: &mut Lookup) -> Result<(), Error> {
        if !self.places.contains_key(&symbol) {
            let begin = self.text.len();
            self.text.push_str(lookup.text(symbol)?);
            self.places.insert(symbol, (begin, self.text.len()));
        }
        Ok(())
    }

    fn get(&self, symbol: u32) -> &str {
        let (begin, end) = self.places.get(&symbol).copied().unwrap_or_default();
        self.text.get(begin..end).unwrap_or_default()
    }
}
