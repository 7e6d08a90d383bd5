//! The chunks of series, read from the segments of a block in few requests.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use isobar_model::Labels;
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::segment::read_chunk;
use isobar_tsdb::chunks::{Chunk, ChunkRef, Encoding};
use isobar_tsdb::encoding::{DecodeError, Decoder};
use isobar_tsdb::index::ChunkMeta;

use super::Inner;
use super::block::Block;
use super::query::{Query, Subject};
use crate::api::StoreError;
use crate::cache::PAGE_BYTES;
use crate::cache::ranges::{Pages, Tally, Wanted};

/// No chunk is shorter with length, encoding and checksum.
const CHUNK_BYTES_MIN: u64 = 6;
/// A chunk that says that it is longer is damaged: one of Prometheus has some KiB, and one of a
/// histogram with all its buckets some 100.
const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// Where the chunks of some series end in a list of them, and how many bytes they span.
pub(super) fn split(chunks: &[ChunkMeta], ends: &[usize], bytes_max: u64) -> Vec<usize> {
    let mut splits = Vec::new();
    let (mut bytes, mut begin) = (0, 0);
    for (series, end) in ends.iter().enumerate() {
        let own = chunks.get(begin..*end).unwrap_or_default();
        let next = chunks.get(*end).map(|it| it.reference);
        let behind = own
            .iter()
            .skip(1)
            .map(|it| Some(it.reference))
            .chain([next]);
        let span: u64 = own
            .iter()
            .zip(behind)
            .map(|(it, next)| span(it.reference, next))
            .sum();
        if bytes + span > bytes_max && bytes > 0 {
            splits.push(series);
            bytes = 0;
        }
        bytes += span;
        begin = *end;
    }
    splits.push(ends.len());
    splits
}

/// About the bytes that reading a chunk takes when the next one lies at `next`.
fn span(chunk: ChunkRef, next: Option<ChunkRef>) -> u64 {
    let distance = next.and_then(|next| next.as_u64().checked_sub(chunk.as_u64()));
    distance.unwrap_or(u64::MAX).min(PAGE_BYTES as u64)
}

/// What is read of a chunk.
type Found = (Encoding, Bytes);

/// Chunks that were read.
#[derive(Default)]
struct Loaded {
    found: Vec<Found>,
    /// The bytes of memory that they keep: whole pages, when they are most of these.
    heap_bytes: usize,
}

impl Loaded {
    fn data_bytes(&self) -> usize {
        self.found.iter().map(|it| it.1.len()).sum()
    }

    /// Copies the data when they are the smaller part of the pages they lie in, so that a few samples do
    /// not keep pages that the cache has given up.
    fn apart_from(mut self, pages_bytes: usize) -> Loaded {
        let bytes = self.data_bytes();
        if bytes * 2 > pages_bytes {
            self.heap_bytes = pages_bytes;
            return self;
        }
        let mut copy = BytesMut::with_capacity(bytes);
        let data = self.found.iter().map(|it| it.1.as_ref());
        data.for_each(|data| copy.extend_from_slice(data));
        let mut copy = copy.freeze();
        for (_, data) in &mut self.found {
            *data = copy.split_to(data.len());
        }
        self.heap_bytes = bytes;
        self
    }
}

/// Reads the chunks of series: `series` has the labels and where the chunks of each end in `chunks`.
pub(super) async fn load(
    inner: &Inner,
    block: &Block,
    query: &Query,
    series: Vec<(Labels, usize)>,
    chunks: &[ChunkMeta],
) -> Result<Vec<SeriesChunks>, StoreError> {
    let place = |at: &usize| chunks.get(*at).map(|it| it.reference.as_u64());
    let loaded = if chunks.is_sorted_by_key(|it| it.reference.as_u64()) {
        read(inner, block, query, chunks).await?
    } else {
        let mut order: Vec<usize> = (0..chunks.len()).collect();
        order.sort_by_key(place);
        let sorted = order.iter().filter_map(|at| chunks.get(*at).copied());
        let sorted: Vec<ChunkMeta> = sorted.collect();
        let mut loaded = read(inner, block, query, &sorted).await?;
        let mut found: Vec<_> = order.into_iter().zip(loaded.found).collect();
        found.sort_by_key(|it| it.0);
        loaded.found = found.into_iter().map(|it| it.1).collect();
        loaded
    };
    // Each series answers for its part of the pages.
    let (data_bytes, heap_bytes) = (loaded.data_bytes().max(1), loaded.heap_bytes);
    let part = |bytes: usize| bytes as u128 * heap_bytes as u128 / data_bytes as u128;
    let mut found = loaded.found.into_iter().zip(chunks);
    let mut begin = 0;
    let mut result = Vec::with_capacity(series.len());
    for (labels, end) in series {
        let mut chunks = Vec::with_capacity(end - begin);
        let own = found.by_ref().take(end - begin);
        chunks.extend(own.map(|((encoding, data), meta)| Chunk {
            encoding,
            min_ms: meta.min_ms,
            max_ms: meta.max_ms,
            data,
        }));
        begin = end;
        let own = chunks.iter().map(|chunk: &Chunk| chunk.data.len()).sum();
        result.push(SeriesChunks {
            labels,
            chunks,
            heap_bytes: usize::try_from(part(own)).unwrap_or(usize::MAX),
        });
    }
    Ok(result)
}

/// Reads chunks that are in the order of their places.
async fn read(
    inner: &Inner,
    block: &Block,
    query: &Query,
    chunks: &[ChunkMeta],
) -> Result<Loaded, StoreError> {
    let segments = chunks.chunk_by(|a, b| a.reference.segment() == b.reference.segment());
    let reads = segments.map(|chunks| read_segment(inner, block, query, chunks));
    let mut loaded = try_join_all(reads).await?;
    if loaded.len() == 1 {
        return Ok(loaded.pop().unwrap_or_default());
    }
    Ok(Loaded {
        heap_bytes: loaded.iter().map(|it| it.heap_bytes).sum(),
        found: loaded.into_iter().flat_map(|it| it.found).collect(),
    })
}

/// Reads chunks of one segment.
async fn read_segment(
    inner: &Inner,
    block: &Block,
    query: &Query,
    chunks: &[ChunkMeta],
) -> Result<Loaded, StoreError> {
    let segment = chunks.first().map_or(0, |it| it.reference.segment());
    let object = block.segment(segment);
    let guess = block.chunk_bytes();
    let offset = |chunk: &ChunkMeta| u64::from(chunk.reference.offset());
    let behind = chunks.iter().skip(1).map(offset).chain([u64::MAX]);
    let mut pieces: Vec<Piece> = Vec::with_capacity(chunks.len());
    let mut wanted: Vec<Wanted> = Vec::new();
    for (at, (begin, limit)) in chunks.iter().map(offset).zip(behind).enumerate() {
        let end = limit.min(begin + guess);
        // What lies close in front of another chunk is there for certain.
        let certain = if end == limit {
            limit
        } else {
            begin + CHUNK_BYTES_MIN
        };
        match wanted.last_mut() {
            Some(last) if last.range.end == begin => {
                last.range.end = certain;
                last.hope = end;
            }
            _ => wanted.push(Wanted {
                range: begin..certain,
                hope: end,
            }),
        }
        pieces.push(Piece { at, begin, end });
    }
    let place = |offset: u64| format!("{} at {offset}", object.path);
    let mut found: Vec<Option<Found>> = Vec::new();
    found.resize_with(chunks.len(), || None);
    let mut pages_bytes = 0;
    // A chunk that is longer than expected is read once more, and then its length may be longer, too.
    for round in 0..3 {
        let tally = Tally::default();
        let read = inner.ranges.read(&object, &wanted, &tally).await;
        query.fetched(Subject::Chunks, &tally)?;
        let first = wanted.first().map_or(0, |it| it.range.start);
        let pages =
            read.map_err(|e| StoreError::Unavailable(format!("chunk {}: {e}", place(first))))?;
        pages_bytes += pages.total_bytes();
        let mut again = Vec::new();
        for Piece { at, begin, end } in pieces {
            let corrupt = |e: DecodeError| e.at_offset(object.path.as_ref(), "chunk", begin);
            match decode(&pages, begin, end).map_err(corrupt)? {
                Read::Chunk(code, data) => {
                    let encoding = Encoding::from_u8(code).ok_or_else(|| {
                        let place = place(begin);
                        StoreError::Unsupported(format!("chunk {place}: unknown encoding {code}"))
                    })?;
                    if let Some(slot) = found.get_mut(at) {
                        *slot = Some((encoding, data));
                    }
                }
                Read::Longer(len) if round < 2 => {
                    let end = begin + len;
                    again.push(Piece { at, begin, end });
                }
                Read::Longer(_) => return Err(corrupt(DecodeError::Truncated).into()),
            }
        }
        if again.is_empty() {
            break;
        }
        let refetches = &query.stats.chunk_refetches;
        refetches.fetch_add(again.len() as u64, Ordering::Relaxed);
        let want = |piece: &Piece| Wanted {
            range: piece.begin..piece.end,
            hope: piece.end,
        };
        wanted = again.iter().map(want).collect();
        pieces = again;
    }
    // Every one was found, or is an error.
    let loaded = Loaded {
        found: found.into_iter().flatten().collect(),
        heap_bytes: 0,
    };
    Ok(loaded.apart_from(pages_bytes))
}

/// A chunk of a segment.
struct Piece {
    /// Its place among those asked for.
    at: usize,
    begin: u64,
    /// Where it is expected to end at the latest.
    end: u64,
}

enum Read {
    Chunk(u8, Bytes),
    /// So many bytes are needed.
    Longer(u64),
}

fn decode(pages: &Pages, offset: u64, end: u64) -> Result<Read, DecodeError> {
    // Most lie in one page.
    if let Some((page, begin)) = pages.page_of(offset)
        && let Ok(begin) = u32::try_from(begin)
        && let Ok((code, data)) = read_chunk(page, begin)
    {
        return Ok(Read::Chunk(code, page.slice_ref(data)));
    }
    let bytes = pages.bytes(offset..end);
    match read_chunk(&bytes, 0) {
        Ok((code, data)) => Ok(Read::Chunk(code, bytes.slice_ref(data))),
        Err(DecodeError::Truncated) => {
            let mut decoder = Decoder::new(&bytes);
            let Ok(len) = decoder.uvarint() else {
                return Ok(Read::Longer(16));
            };
            let before = (bytes.len() - decoder.len()) as u64;
            let whole = len.saturating_add(before + 1 + 4);
            if whole > CHUNK_BYTES_MAX {
                return Err(DecodeError::NumberTooLarge);
            }
            Ok(Read::Longer(whole))
        }
        Err(error) => Err(error),
    }
}
