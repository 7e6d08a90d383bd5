//! The chunk of downsampled blocks: up to five chunks in one, an aggregate each.
//! Source: `pkg/compact/downsample/aggr.go` of Thanos.
//!
//! ```text
//! ┌────────────────┬──────────────────┬────────────────┬───
//! │ length uvarint │ encoding <1 byte> │ data <length> │ …    count, sum, min, max, counter
//! └────────────────┴──────────────────┴────────────────┴───
//! ```
//!
//! The length does not count the byte of the encoding. An aggregate that is not there has length 0 and
//! nothing else.

use bytes::Bytes;

use super::Encoding;
use crate::Error;
use crate::encoding::{Decoder, put_uvarint};

/// How many aggregates there are: count, sum, min, max and counter, in this order.
pub const AGGREGATES: usize = 5;

/// One aggregate of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// The encoded samples, one for each window.
    pub data: Bytes,
}

/// The aggregates in the data of a chunk; they share its bytes.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes do not follow the format.
pub fn split(data: &Bytes) -> Result<[Option<Part>; AGGREGATES], Error> {
    let corrupt = |why: String| Error::corrupt("aggregate chunk", why);
    let mut parts = [const { None }; AGGREGATES];
    let mut decoder = Decoder::new(data);
    for part in &mut parts {
        let length = decoder.uvarint_len().map_err(|e| corrupt(e.to_string()))?;
        if length == 0 {
            continue;
        }
        let code = decoder.u8().map_err(|e| corrupt(e.to_string()))?;
        let encoding = Encoding::from_u8(code)
            .filter(|it| *it != Encoding::Aggregate)
            .ok_or_else(|| corrupt(format!("unknown encoding {code} of an aggregate")))?;
        let at = data.len() - decoder.len();
        decoder.bytes(length).map_err(|e| corrupt(e.to_string()))?;
        *part = Some(Part {
            encoding,
            data: data.slice(at..at + length),
        });
    }
    Ok(parts)
}

/// The data of a chunk of these aggregates. A zero byte stands behind a counter that is not there,
/// since Thanos reads one byte more than a length.
pub fn join(parts: [Option<&Part>; AGGREGATES]) -> Bytes {
    let length = parts.iter().flatten().map(|part| part.data.len() + 4);
    let mut data = Vec::with_capacity(length.sum::<usize>() + AGGREGATES + 1);
    for part in parts {
        match part {
            None => data.push(0),
            Some(part) => {
                put_uvarint(&mut data, part.data.len() as u64);
                data.push(part.encoding as u8);
                data.extend_from_slice(&part.data);
            }
        }
    }
    if parts.last().is_some_and(Option::is_none) {
        data.push(0);
    }
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(data: &'static [u8]) -> Part {
        Part {
            encoding: Encoding::Xor,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn there_and_back() {
        let (count, max) = (part(b"counts"), part(b"maxima"));
        for counter in [None, Some(part(b"counter"))] {
            let parts = [Some(&count), None, None, Some(&max), counter.as_ref()];
            let split = split(&join(parts)).expect("what was joined");
            assert_eq!(split.each_ref().map(Option::as_ref), parts);
        }
    }

    #[test]
    fn any_bytes_are_split_or_refused() {
        let data = join([Some(&part(b"abc")), None, Some(&part(b"")), None, None]);
        for end in 0..data.len() {
            let _split_or_refused = split(&data.slice(..end));
        }
        let long = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        assert!(split(&long).is_err());
        let inside_itself = Bytes::from_static(&[1, 0xff, 0, 0, 0, 0, 0]);
        assert!(split(&inside_itself).is_err());
    }
}
