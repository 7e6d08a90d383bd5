//! Series as messages.

use std::borrow::Cow;

use isobar_proto::thanos::chunk::Encoding as WireEncoding;
use isobar_proto::thanos::series_response::Result as Answer;
use isobar_proto::thanos::{ChunkContent, ChunkData, ChunkParts, SeriesResponse, SeriesWriter};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::aggregate::{self, AGGREGATES, Part};
use isobar_tsdb::chunks::{Chunk, Encoding};
use isobar_tsdb::merge;
use xxhash_rust::xxh64::xxh64;

use crate::StoreError;
use crate::api::Aggregate;

/// Bytes after which a batch goes out although it could hold more series.
const BATCH_BYTES: usize = 1 << 20;

/// Which aggregates of downsampled data the caller looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted([bool; AGGREGATES]);

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

/// Puts series into messages of as many as the caller wants.
pub(super) struct Batcher {
    wanted: Wanted,
    per_message: usize,
    waiting: SeriesWriter,
    count: usize,
}

impl Batcher {
    /// Messages of `per_message` series each; of one each, in the form that all callers know, for 0
    /// and 1.
    pub(super) fn new(per_message: i64, wanted: Wanted) -> Self {
        Batcher {
            wanted,
            per_message: usize::try_from(per_message).unwrap_or(0),
            waiting: SeriesWriter::default(),
            count: 0,
        }
    }

    /// Adds a series to what is waiting, and appends the messages that are full.
    ///
    /// # Errors
    /// When a chunk has to be decoded, and cannot be.
    pub(super) fn push(
        &mut self,
        series: &SeriesChunks,
        out: &mut Vec<SeriesResponse>,
    ) -> Result<(), StoreError> {
        let chunks = on_the_wire(&series.chunks)?;
        let aggregates = chunks
            .iter()
            .filter(|it| it.encoding == Encoding::Aggregate);
        let split = aggregates.map(|chunk| aggregate::split(&chunk.data));
        let split = split.collect::<Result<Vec<_>, _>>()?;
        let mut split = split.iter();
        let parts: Vec<_> = chunks
            .iter()
            .map(|chunk| ChunkParts {
                min_time: chunk.min_ms,
                max_time: chunk.max_ms,
                content: match wire_encoding(chunk.encoding) {
                    Some(encoding) => ChunkContent::Raw(data(encoding, &chunk.data)),
                    None => aggregates_of(split.next(), self.wanted),
                },
            })
            .collect();
        if self.per_message <= 1 {
            out.push(self.waiting.one(&series.labels, &parts));
            return Ok(());
        }
        self.waiting.push(&series.labels, &parts);
        self.count += 1;
        if self.count >= self.per_message || self.waiting.bytes() >= BATCH_BYTES {
            self.flush(out);
        }
        Ok(())
    }

    /// Appends what is waiting.
    pub(super) fn flush(&mut self, out: &mut Vec<SeriesResponse>) {
        self.count = 0;
        out.extend(self.waiting.take());
    }
}

/// The chunks in encodings that the Store API has, where there is a way.
///
/// # Errors
/// When a chunk has to be decoded, and cannot be.
fn on_the_wire(chunks: &[Chunk]) -> Result<Cow<'_, [Chunk]>, StoreError> {
    let known =
        |it: &Chunk| wire_encoding(it.encoding).is_some() || it.encoding == Encoding::Aggregate;
    if chunks.iter().all(known) {
        return Ok(Cow::Borrowed(chunks));
    }
    let mut converted = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if known(chunk) {
            converted.push(chunk.clone());
        } else {
            converted.extend(merge::without_start_times(chunk)?);
        }
    }
    Ok(Cow::Owned(converted))
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

fn data(encoding: WireEncoding, data: &[u8]) -> ChunkData<'_> {
    ChunkData {
        encoding,
        data,
        hash: xxh64(data, 0),
    }
}

fn aggregates_of(parts: Option<&[Option<Part>; AGGREGATES]>, wanted: Wanted) -> ChunkContent<'_> {
    let mut aggregates = Box::new([None; AGGREGATES]);
    let parts = parts.into_iter().flatten();
    for ((aggregate, part), wanted) in aggregates.iter_mut().zip(parts).zip(wanted.0) {
        let part = part.as_ref().filter(|_| wanted);
        *aggregate = part.and_then(|it| Some(data(wire_encoding(it.encoding)?, &it.data)));
    }
    ChunkContent::Aggregates(aggregates)
}

/// A message.
pub(super) fn answer(result: Answer) -> SeriesResponse {
    SeriesResponse {
        result: Some(result),
    }
}
