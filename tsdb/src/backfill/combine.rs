//! The chunks of a series from several runs as one list, and without what was deleted.

use isobar_model::TimeRange;

use super::Counted;
use super::points;
use crate::Error;
use crate::chunks::{Chunk, Encoding};
use crate::merge::CHUNK_SAMPLES_MAX;

/// The chunks of all parts, of which each has some in order and without overlap. Where parts
/// overlap, the sample of the first part stays. Chunks that are small because a run ended are
/// joined.
pub(super) fn combine(
    mut parts: Vec<Vec<Chunk>>,
    counted: &mut Counted,
) -> Result<Vec<Chunk>, Error> {
    if parts.len() <= 1 {
        return Ok(parts.pop().unwrap_or_default());
    }
    let numbered = parts.into_iter().enumerate();
    let mut all: Vec<(usize, Chunk)> = numbered
        .flat_map(|(part, chunks)| chunks.into_iter().map(move |chunk| (part, chunk)))
        .collect();
    all.sort_by_key(|(part, chunk)| (chunk.min_ms, *part));
    let mut result = Vec::new();
    let mut rest = all.as_mut_slice();
    while !rest.is_empty() {
        let (group, later) = rest.split_at_mut(group_len(rest)?);
        rest = later;
        if let [(_, alone)] = group {
            result.push(alone.clone());
            continue;
        }
        group.sort_by_key(|(part, _)| *part);
        let mut samples = Vec::new();
        for (_, chunk) in group.iter() {
            points::decode(chunk, &mut samples, counted)?;
        }
        points::settle(&mut samples, counted);
        result.extend(points::encode(&samples));
    }
    Ok(result)
}

/// How many chunks from the first on overlap, or make one chunk together.
fn group_len(chunks: &[(usize, Chunk)]) -> Result<usize, Error> {
    let Some((_, first)) = chunks.first() else {
        return Ok(0);
    };
    let mut end_ms = first.max_ms;
    let mut samples = usize::from(first.sample_count()?);
    let mut len = 1;
    for (_, chunk) in chunks.get(1..).unwrap_or_default() {
        let more = usize::from(chunk.sample_count()?);
        let small = chunk.encoding == first.encoding
            && is_plain(chunk.encoding)
            && samples + more <= CHUNK_SAMPLES_MAX;
        if chunk.min_ms > end_ms && !small {
            break;
        }
        end_ms = end_ms.max(chunk.max_ms);
        samples += more;
        len += 1;
    }
    Ok(len)
}

/// Whether nothing is lost when a chunk is encoded anew.
fn is_plain(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram
    )
}

/// The chunks without the samples of deleted times.
pub(super) fn without(
    chunks: Vec<Chunk>,
    deleted: &[TimeRange],
    counted: &mut Counted,
) -> Result<Vec<Chunk>, Error> {
    let mut kept = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if !deleted.iter().any(|range| range.overlaps(&chunk.range())) {
            kept.push(chunk);
            continue;
        }
        let mut samples = Vec::new();
        points::decode(&chunk, &mut samples, counted)?;
        samples.retain(|(ms, _)| !deleted.iter().any(|range| range.contains(*ms)));
        kept.extend(points::encode(&samples));
    }
    Ok(kept)
}
