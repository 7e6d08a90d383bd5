//! The chunks of series, read from the segments of a block in few requests.

use bytes::Bytes;
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

/// A chunk of a segment.
struct Piece {
    offset: u64,
    /// Its place among those asked for.
    at: usize,
}

/// Reads the chunks of series: `series` has the labels and where the chunks of each end in `chunks`.
pub(super) async fn load(
    inner: &Inner,
    block: &Block,
    query: &Query,
    series: Vec<(Labels, usize)>,
    chunks: &[ChunkMeta],
) -> Result<Vec<SeriesChunks>, StoreError> {
    let mut pieces: Vec<(u32, Piece)> = chunks
        .iter()
        .enumerate()
        .map(|(at, chunk)| {
            let offset = u64::from(chunk.reference.offset());
            (chunk.reference.segment(), Piece { offset, at })
        })
        .collect();
    pieces.sort_by_key(|(segment, piece)| (*segment, piece.offset));
    let mut segments: Vec<(u32, Vec<Piece>)> = Vec::new();
    for (segment, piece) in pieces {
        match segments.last_mut() {
            Some(last) if last.0 == segment => last.1.push(piece),
            _ => segments.push((segment, vec![piece])),
        }
    }
    let reads = segments
        .into_iter()
        .map(|(segment, pieces)| read_segment(inner, block, query, segment, pieces));
    let mut datas: Vec<Option<(Encoding, Bytes)>> = Vec::new();
    datas.resize_with(chunks.len(), || None);
    for (at, data) in try_join_all(reads).await?.into_iter().flatten() {
        if let Some(slot) = datas.get_mut(at) {
            *slot = Some(data);
        }
    }
    let mut datas = datas.into_iter().zip(chunks);
    let mut begin = 0;
    let mut result = Vec::with_capacity(series.len());
    for (labels, end) in series {
        let own = datas.by_ref().take(end - begin);
        let chunks = own.filter_map(|(data, meta)| {
            let (encoding, data) = data?;
            Some(Chunk {
                encoding,
                min_ms: meta.min_ms,
                max_ms: meta.max_ms,
                data,
            })
        });
        let chunks = chunks.collect();
        begin = end;
        result.push(SeriesChunks { labels, chunks });
    }
    Ok(result)
}

type Found = (usize, (Encoding, Bytes));

async fn read_segment(
    inner: &Inner,
    block: &Block,
    query: &Query,
    segment: u32,
    pieces: Vec<Piece>,
) -> Result<Vec<Found>, StoreError> {
    let object = block.segment(segment);
    let guess = block.chunk_bytes();
    let mut wanted = Vec::with_capacity(pieces.len());
    for (piece, next) in pieces
        .iter()
        .zip(pieces.iter().skip(1).map(Some).chain([None]))
    {
        let begin = piece.offset;
        let limit = next.map_or(u64::MAX, |next| next.offset);
        // What lies close in front of another chunk is there for certain.
        let certain = if limit - begin <= guess {
            limit
        } else {
            begin + CHUNK_BYTES_MIN
        };
        wanted.push(Wanted {
            range: begin..certain,
            hope: (begin + guess).min(limit),
        });
    }
    let place = |offset: u64| format!("{} at {offset}", object.path);
    let mut found = Vec::with_capacity(pieces.len());
    let mut pieces = pieces;
    // A chunk that is longer than expected is read once more.
    for round in 0..3 {
        let tally = Tally::default();
        let read = inner.ranges.read(&object, &wanted, &tally).await;
        query.fetched(Subject::Chunks, &tally)?;
        let pages = read.map_err(|e| match pieces.first() {
            Some(piece) => StoreError::Unavailable(format!("chunk {}: {e}", place(piece.offset))),
            None => StoreError::from(e),
        })?;
        let mut again = (Vec::new(), Vec::new());
        for (piece, asked) in pieces.into_iter().zip(&wanted) {
            let end = asked.range.end.max(asked.hope);
            match decode(&pages, piece.offset, end) {
                Ok(Read::Chunk(code, data)) => {
                    let encoding = Encoding::from_u8(code).ok_or_else(|| {
                        let place = place(piece.offset);
                        StoreError::Unsupported(format!("chunk {place}: unknown encoding {code}"))
                    })?;
                    found.push((piece.at, (encoding, data)));
                }
                Ok(Read::Longer(len)) if round < 2 => {
                    let range = piece.offset..piece.offset + len;
                    let hope = range.end;
                    again.1.push(Wanted { range, hope });
                    again.0.push(piece);
                }
                Ok(Read::Longer(_)) => {
                    let name = object.path.to_string();
                    let error = DecodeError::Truncated.at_offset(&name, "chunk", piece.offset);
                    return Err(error.into());
                }
                Err(error) => {
                    let name = object.path.to_string();
                    return Err(error.at_offset(&name, "chunk", piece.offset).into());
                }
            }
        }
        if again.0.is_empty() {
            break;
        }
        let refetches = &query.stats.chunk_refetches;
        refetches.fetch_add(again.0.len() as u64, std::sync::atomic::Ordering::Relaxed);
        (pieces, wanted) = again;
    }
    Ok(found)
}

enum Read {
    Chunk(u8, Bytes),
    /// So many bytes are needed.
    Longer(u64),
}

fn decode(pages: &Pages, offset: u64, end: u64) -> Result<Read, DecodeError> {
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
