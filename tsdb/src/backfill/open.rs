//! The samples of one series in one window of time, while they come in.
//!
//! Samples that rise, as they mostly do, go into chunks at once, which take a tenth of the memory
//! that they take as they are. Others wait beside them until the window is written.

use std::sync::Arc;

use isobar_model::FloatHistogram;

use super::Counted;
use super::points::{self, Point, Value};
use crate::Error;
use crate::chunks::histogram::{self, Counts};
use crate::chunks::{Chunk, XorAppender};
use crate::merge::CHUNK_SAMPLES_MAX;

/// The samples of a series in a window.
#[derive(Default)]
pub(super) struct Open {
    /// In order and without overlap.
    chunks: Vec<Chunk>,
    /// What comes behind them.
    run: Run,
    /// The last time of the chunks and of what comes behind them.
    last_ms: Option<i64>,
    /// What came behind a sample of its time or of a later one, as it came.
    late: Vec<Point>,
}

/// A chunk to be.
#[derive(Default)]
enum Run {
    #[default]
    None,
    Floats(XorAppender),
    Histograms(Vec<(i64, Arc<FloatHistogram>)>, Counts),
}

impl Open {
    /// Takes a sample; the memory in bytes that it takes.
    pub(super) fn add(&mut self, ms: i64, value: Value) -> usize {
        if self.last_ms.is_some_and(|last_ms| ms <= last_ms) {
            let bytes = size_of::<Point>() + value.heap_bytes();
            self.late.push((ms, value));
            return bytes;
        }
        self.last_ms = Some(ms);
        match (&mut self.run, value) {
            (Run::Floats(appender), Value::Float(value))
                if usize::from(appender.sample_count()) < CHUNK_SAMPLES_MAX =>
            {
                let before = appender.heap_bytes();
                appender.append(ms, value);
                appender.heap_bytes() - before
            }
            (Run::Histograms(samples, counts), Value::Histogram(value, of_value))
                if samples.len() < CHUNK_SAMPLES_MAX && *counts == of_value =>
            {
                let bytes = size_of::<Point>() + value.bytes();
                samples.push((ms, value));
                bytes
            }
            (_, value) => {
                self.seal();
                let bytes = size_of::<Chunk>() + size_of::<Point>() + value.heap_bytes();
                self.run = match value {
                    Value::Float(value) => {
                        let mut appender = XorAppender::new();
                        appender.append(ms, value);
                        Run::Floats(appender)
                    }
                    Value::Histogram(value, counts) => Run::Histograms(vec![(ms, value)], counts),
                };
                bytes
            }
        }
    }

    /// Takes a chunk as it is, when it overlaps with nothing that is there; whether it did.
    pub(super) fn add_chunk(&mut self, chunk: &Chunk) -> bool {
        self.seal();
        let range = chunk.range();
        let place = self.chunks.partition_point(|it| it.max_ms < range.min_ms);
        let overlaps = |it: &Chunk| it.range().overlaps(&range);
        if self.chunks.get(place).is_some_and(overlaps)
            || self.late.iter().any(|(ms, _)| range.contains(*ms))
        {
            return false;
        }
        self.last_ms = self.last_ms.max(Some(range.max_ms));
        self.chunks.insert(place, chunk.clone());
        true
    }

    fn seal(&mut self) {
        match std::mem::take(&mut self.run) {
            Run::None => {}
            Run::Floats(appender) => self.chunks.extend(appender.into_chunk()),
            Run::Histograms(samples, counts) => {
                let chunks = histogram::encode(&samples, counts, CHUNK_SAMPLES_MAX);
                self.chunks.extend(chunks);
            }
        }
    }

    /// All samples as chunks in order, one sample for each time.
    pub(super) fn into_chunks(mut self, counted: &mut Counted) -> Result<Vec<Chunk>, Error> {
        self.seal();
        if self.late.is_empty() {
            return Ok(self.chunks);
        }
        let mut all = Vec::new();
        for chunk in &self.chunks {
            points::decode(chunk, &mut all, counted)?;
        }
        all.append(&mut self.late);
        points::settle(&mut all, counted);
        Ok(points::encode(&all))
    }
}
