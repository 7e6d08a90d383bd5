//! The list of a series' chunks, as the index has it.
//!
//! ```text
//! number <uvarint> │ min time <varint> │ length <uvarint> │ reference <uvarint>
//!                  │ (gap <uvarint> │ length <uvarint> │ distance <varint>)…
//! ```
//!
//! Each chunk is told by its distance from the one before it, so a list can be read from its begin
//! only, or from a place where somebody has been before and left a [`Fence`].

use isobar_model::TimeRange;

use super::ChunkMeta;
use crate::chunks::ChunkRef;
use crate::encoding::{DecodeError, Decoder, unzigzag};

/// Chunks from one fence to the next.
const FENCE_CHUNKS: u32 = 16;

/// A place in the list of chunks, and what has to be known to read on there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fence {
    /// Bytes of the series' entry in front of it.
    at: u32,
    /// Chunks from here on.
    left: u32,
    /// Time of the last sample of the chunk in front, unix milliseconds.
    last_ms: i64,
    /// Where the chunk in front lies; `None` when there is none.
    reference: Option<i64>,
}

impl Fence {
    /// Of some fences of one list in their order, the last that lies in front of all chunks that
    /// reach into `range`; `None` when there is no fence.
    pub fn before(fences: &[Fence], range: TimeRange) -> Option<Fence> {
        let behind =
            fences.partition_point(|it| it.reference.is_none() || it.last_ms < range.min_ms);
        fences.get(behind.checked_sub(1)?).copied()
    }

    /// Whether it lies behind `other`, of the same list.
    pub fn is_behind(&self, other: &Fence) -> bool {
        self.at > other.at
    }
}

/// Reads the list from its number on. `content` is what is left of an entry of `len` bytes.
///
/// Appends the chunks that overlap `range` to `chunks`, and to `fences` those of the places that were
/// passed.
pub(super) fn read(
    content: &mut Decoder<'_>,
    len: usize,
    range: TimeRange,
    chunks: &mut Vec<ChunkMeta>,
    fences: &mut Vec<Fence>,
) -> Result<(), DecodeError> {
    let begin = Fence {
        left: content.uvarint32()?,
        at: place(content, len)?,
        last_ms: 0,
        reference: None,
    };
    fences.push(begin);
    read_on(content, len, begin, range, chunks, fences)
}

/// As [`read()`], from a fence on; `content` is what lies behind it. Only fences behind that one are
/// appended.
pub(super) fn read_on(
    content: &mut Decoder<'_>,
    len: usize,
    fence: Fence,
    range: TimeRange,
    chunks: &mut Vec<ChunkMeta>,
    fences: &mut Vec<Fence>,
) -> Result<(), DecodeError> {
    let (mut left, mut last_ms) = (fence.left, fence.last_ms);
    let mut reference = match fence.reference {
        Some(reference) => reference,
        None if left == 0 => return Ok(()),
        None => {
            let (min_ms, len_ms) = (content.varint()?, content.uvarint()?);
            if min_ms > range.max_ms {
                return Ok(());
            }
            last_ms = add(min_ms, len_ms)?;
            let reference = content.uvarint()?.cast_signed();
            left -= 1;
            keep(chunks, range, reference, min_ms, last_ms);
            reference
        }
    };
    while left > 0 {
        for _ in 0..left.min(FENCE_CHUNKS) {
            let [gap_ms, len_ms, distance] = three_numbers(content)?;
            reference = reference.wrapping_add(unzigzag(distance));
            let min_ms = add(last_ms, gap_ms)?;
            if min_ms > range.max_ms {
                // Those behind it begin later still.
                return Ok(());
            }
            last_ms = add(min_ms, len_ms)?;
            keep(chunks, range, reference, min_ms, last_ms);
        }
        left = left.saturating_sub(FENCE_CHUNKS);
        if left > 0 {
            fences.push(Fence {
                at: place(content, len)?,
                left,
                last_ms,
                reference: Some(reference),
            });
        }
    }
    Ok(())
}

#[inline(always)]
fn keep(chunks: &mut Vec<ChunkMeta>, range: TimeRange, reference: i64, min_ms: i64, max_ms: i64) {
    if max_ms >= range.min_ms {
        chunks.push(ChunkMeta {
            reference: ChunkRef::from_u64(reference.cast_unsigned()),
            min_ms,
            max_ms,
        });
    }
}

/// The decoder behind a fence in an entry.
pub(super) fn at(entry: &[u8], fence: Fence) -> Result<Decoder<'_>, DecodeError> {
    let rest = entry.get(fence.at as usize..);
    rest.map(Decoder::new).ok_or(DecodeError::Truncated)
}

/// How far `content` is into an entry of `len` bytes.
fn place(content: &Decoder<'_>, len: usize) -> Result<u32, DecodeError> {
    u32::try_from(len - content.len()).map_err(|_| DecodeError::NumberTooLarge)
}

/// The three numbers of a chunk that is not the first: they take about 7 bytes.
#[inline(always)]
fn three_numbers(content: &mut Decoder<'_>) -> Result<[u64; 3], DecodeError> {
    if let Some(three) = content.three_uvarints::<7>() {
        return Ok(three);
    }
    if let Some(three) = content.three_uvarints::<6>() {
        return Ok(three);
    }
    if let Some(three) = content.three_uvarints::<8>() {
        return Ok(three);
    }
    Ok([content.uvarint()?, content.uvarint()?, content.uvarint()?])
}

fn add(time_ms: i64, distance_ms: u64) -> Result<i64, DecodeError> {
    time_ms
        .checked_add_unsigned(distance_ms)
        .ok_or(DecodeError::NumberTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{put_uvarint, put_varint};

    /// A list of `count` chunks of a minute, one behind the other with a second between.
    fn list(count: u32) -> Vec<u8> {
        let mut bytes = vec![0xff; 5];
        put_uvarint(&mut bytes, count.into());
        for i in 0..count {
            if i == 0 {
                put_varint(&mut bytes, 0);
            } else {
                put_uvarint(&mut bytes, 1_000);
            }
            put_uvarint(&mut bytes, 59_000);
            if i == 0 {
                put_uvarint(&mut bytes, 8);
            } else {
                put_varint(&mut bytes, 100);
            }
        }
        bytes
    }

    #[test]
    fn fences_lead_to_the_same_chunks() {
        for count in [0, 1, 2, 15, 16, 17, 18, 33, 34, 100] {
            let bytes = list(count);
            let read_whole = |range, fences: &mut Vec<Fence>| {
                let mut chunks = Vec::new();
                let mut content = Decoder::new(&bytes[5..]);
                read(&mut content, bytes.len(), range, &mut chunks, fences).unwrap();
                chunks
            };
            let mut fences = Vec::new();
            let all = read_whole(TimeRange::ALL, &mut fences);
            assert_eq!(all.len(), count as usize);
            assert_eq!(fences.len(), 1 + (count as usize).saturating_sub(2) / 16);
            for from in 0..=i64::from(count) {
                for known in 1..=fences.len() {
                    let range = TimeRange::new(from * 60_000, (from + 5) * 60_000);
                    let fence = Fence::before(&fences[..known], range).unwrap();
                    let (mut chunks, mut more) = (Vec::new(), Vec::new());
                    let mut content = at(&bytes, fence).unwrap();
                    let (len, chunks_of) = (bytes.len(), &mut chunks);
                    read_on(&mut content, len, fence, range, chunks_of, &mut more).unwrap();
                    assert_eq!(chunks, read_whole(range, &mut Vec::new()));
                    assert!(
                        more.iter()
                            .all(|it| fences.contains(it) && it.is_behind(&fence))
                    );
                }
            }
        }
    }

    #[test]
    fn a_fence_of_another_list_is_no_panic() {
        let (long, short) = (list(100), list(3));
        let mut fences = Vec::new();
        let mut content = Decoder::new(&long[5..]);
        read(
            &mut content,
            long.len(),
            TimeRange::ALL,
            &mut Vec::new(),
            &mut fences,
        )
        .unwrap();
        assert!(fences.iter().skip(1).all(|it| at(&short, *it).is_err()));
    }
}
