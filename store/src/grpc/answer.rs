//! Series as messages.

use bytes::Bytes;
use isobar_proto::thanos::chunk::Encoding as WireEncoding;
use isobar_proto::thanos::series_response::Result as Answer;
use isobar_proto::thanos::{self, AggrChunk, SeriesBatch, SeriesLabels, SeriesResponse};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::aggregate::{self, Part};
use isobar_tsdb::chunks::{Chunk, Encoding};
use isobar_tsdb::merge;
use xxhash_rust::xxh64::xxh64;

use crate::StoreError;
use crate::api::Aggregate;

/// Bytes of chunks after which a batch goes out although it could hold more series.
const BATCH_BYTES: usize = 1 << 20;

/// Which aggregates of downsampled data the caller looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted([bool; aggregate::AGGREGATES]);

impl Wanted {
    /// Those that are asked for; none, as Thanos has it, when only raw data are.
    pub(super) fn of(aggregates: &[Aggregate]) -> Self {
        let has = |it| aggregates.contains(&it);
        Wanted([
            has(Aggregate::Count),
            has(Aggregate::Sum),
            has(Aggregate::Min),
            has(Aggregate::Max),
            has(Aggregate::Counter),
        ])
    }
}

/// A series as a message.
///
/// # Errors
/// When a chunk has to be decoded, and cannot be.
pub(super) fn series(series: SeriesChunks, wanted: Wanted) -> Result<thanos::Series, StoreError> {
    let mut chunks = Vec::with_capacity(series.chunks.len());
    for chunk in &series.chunks {
        match wire_encoding(chunk.encoding) {
            Some(_) => chunks.push(raw(chunk)),
            None if chunk.encoding == Encoding::Aggregate => {
                chunks.push(aggregates(chunk, wanted)?)
            }
            None => chunks.extend(merge::without_start_times(chunk)?.iter().map(raw)),
        }
    }
    Ok(thanos::Series {
        labels: SeriesLabels::Set(series.labels),
        chunks,
    })
}

/// The number that the Store API has for an encoding, one less than that of the block format, where it
/// has one.
fn wire_encoding(encoding: Encoding) -> Option<WireEncoding> {
    match encoding {
        Encoding::Xor => Some(WireEncoding::Xor),
        Encoding::Histogram => Some(WireEncoding::Histogram),
        Encoding::FloatHistogram => Some(WireEncoding::FloatHistogram),
        Encoding::Xor2
        | Encoding::HistogramSt
        | Encoding::FloatHistogramSt
        | Encoding::Aggregate => None,
    }
}

fn wire_chunk(encoding: Encoding, data: &Bytes) -> thanos::Chunk {
    thanos::Chunk {
        r#type: wire_encoding(encoding).map_or(0, i32::from),
        hash: xxh64(data, 0),
        data: data.clone(),
    }
}

fn raw(chunk: &Chunk) -> AggrChunk {
    AggrChunk {
        min_time: chunk.min_ms,
        max_time: chunk.max_ms,
        raw: Some(wire_chunk(chunk.encoding, &chunk.data)),
        ..AggrChunk::default()
    }
}

fn aggregates(chunk: &Chunk, wanted: Wanted) -> Result<AggrChunk, StoreError> {
    let parts = aggregate::split(&chunk.data)?;
    let mut wire = parts.iter().zip(wanted.0).map(|(part, wanted)| {
        let there = part.as_ref().filter(|_| wanted);
        there.map(|Part { encoding, data }| wire_chunk(*encoding, data))
    });
    let mut next = || wire.next().flatten();
    Ok(AggrChunk {
        min_time: chunk.min_ms,
        max_time: chunk.max_ms,
        raw: None,
        count: next(),
        sum: next(),
        min: next(),
        max: next(),
        counter: next(),
    })
}

/// Puts series into messages of as many as the caller wants.
pub(super) struct Batcher {
    per_message: usize,
    waiting: Vec<thanos::Series>,
    bytes: usize,
}

impl Batcher {
    /// Messages of `per_message` series each; of one each, in the form that all callers know, for 0
    /// and 1.
    pub(super) fn new(per_message: i64) -> Self {
        Batcher {
            per_message: usize::try_from(per_message).unwrap_or(0),
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a series to what is waiting, and appends the messages that are full.
    pub(super) fn push(&mut self, series: thanos::Series, out: &mut Vec<SeriesResponse>) {
        if self.per_message <= 1 {
            out.push(answer(Answer::Series(series)));
            return;
        }
        let data = |chunk: &AggrChunk| chunk.raw.as_ref().map_or(256, |raw| raw.data.len());
        self.bytes += series.chunks.iter().map(data).sum::<usize>();
        self.waiting.push(series);
        if self.waiting.len() >= self.per_message || self.bytes >= BATCH_BYTES {
            self.flush(out);
        }
    }

    /// Appends what is waiting.
    pub(super) fn flush(&mut self, out: &mut Vec<SeriesResponse>) {
        self.bytes = 0;
        if !self.waiting.is_empty() {
            let series = std::mem::take(&mut self.waiting);
            out.push(answer(Answer::Batch(SeriesBatch { series })));
        }
    }
}

/// A message.
pub(super) fn answer(result: Answer) -> SeriesResponse {
    SeriesResponse {
        result: Some(result),
    }
}
