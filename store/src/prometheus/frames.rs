//! The frames of a streamed remote read, and the series in them.
//!
//! ```text
//! frame    uvarint size   crc32c of the payload, 4 bytes, big endian   payload
//! payload  prometheus.ChunkedReadResponse
//! ```
//!
//! A frame holds one series as a rule; a series that is too long for one goes on in the next.
//! Source: `storage/remote/chunked.go` of Prometheus.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::{Buf, Bytes, BytesMut};
use isobar_proto::prometheus::{ChunkedReadResponse, ChunkedSeries};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::{Chunk, Encoding};
use isobar_tsdb::encoding::crc32c;
use prost::Message;

use crate::StoreError;

/// The largest payload that is taken, as with Prometheus' own client.
pub const FRAME_BYTES_MAX: u64 = 50_000_000;

/// What was received and is not taken out yet: less than a frame, when all frames were taken.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Adds what came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The payload of the next frame, when it is complete.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when what was received is no frame, or its checksum is another.
    pub fn take(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some((size, at)) = self.size()? else {
            return Ok(None);
        };
        if size > FRAME_BYTES_MAX {
            let why = format!("a frame of {size} bytes, more than {FRAME_BYTES_MAX}");
            return Err(corrupt(why));
        }
        let size = usize::try_from(size).map_err(|why| corrupt(why.to_string()))?;
        let whole = at + 4 + size;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole);
        frame.advance(at);
        let checksum = frame.get_u32();
        if crc32c(&frame) != checksum {
            return Err(corrupt("a frame with a wrong checksum".into()));
        }
        Ok(Some(frame.freeze()))
    }

    /// Says that nothing comes any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that is in the middle of a frame.
    pub fn finish(self) -> Result<(), StoreError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let why = "the answer of Prometheus ends in the middle of a frame";
        Err(StoreError::Unavailable(why.into()))
    }

    /// The size that a frame begins with, and how many bytes it takes.
    fn size(&self) -> Result<Option<(u64, usize)>, StoreError> {
        let mut size = 0u64;
        for (i, byte) in self.buffer.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 || i > 9 {
                return Err(corrupt("a frame whose size has more than 64 bits".into()));
            }
            size |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(Some((size, i + 1)));
            }
        }
        Ok(None)
    }
}

fn corrupt(why: String) -> StoreError {
    StoreError::Corrupt(format!("remote read of Prometheus: {why}"))
}

/// The series of a payload.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is not such a message, [`StoreError::Unsupported`] for chunks of an
/// encoding that is not known.
pub fn series(payload: Bytes) -> Result<Vec<SeriesChunks>, StoreError> {
    let message =
        ChunkedReadResponse::decode(payload).map_err(|why| corrupt(format!("a frame: {why}")))?;
    message.chunked_series.into_iter().map(one).collect()
}

fn one(wire: ChunkedSeries) -> Result<SeriesChunks, StoreError> {
    let labels = isobar_proto::convert::labels(&wire.labels);
    let chunk = |it: isobar_proto::prometheus::Chunk| {
        let encoding = u8::try_from(it.r#type).ok().and_then(Encoding::from_u8);
        let encoding = encoding.filter(|it| *it != Encoding::Aggregate);
        let encoding = encoding.ok_or_else(|| {
            let why = format!("Prometheus gave a chunk of encoding {}", it.r#type);
            StoreError::Unsupported(why)
        })?;
        Ok(Chunk {
            encoding,
            min_ms: it.min_time_ms,
            max_ms: it.max_time_ms,
            data: it.data,
        })
    };
    let chunks: Result<Vec<Chunk>, StoreError> = wire.chunks.into_iter().map(chunk).collect();
    Ok(SeriesChunks::in_memory(labels, chunks?))
}

#[cfg(test)]
pub(super) mod tests {
    use isobar_proto::thanos::Label;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        isobar_tsdb::encoding::put_uvarint(&mut out, payload.len() as u64);
        out.extend(crc32c(payload).to_be_bytes());
        out.extend(payload);
        out
    }

    fn message(kind: i32) -> Vec<u8> {
        let series = ChunkedSeries {
            labels: vec![Label {
                name: "a".into(),
                value: "1".into(),
            }],
            chunks: vec![isobar_proto::prometheus::Chunk {
                min_time_ms: 1,
                max_time_ms: 2,
                r#type: kind,
                data: Bytes::from_static(b"xyz"),
            }],
        };
        let answer = ChunkedReadResponse {
            chunked_series: vec![series],
            query_index: 0,
        };
        answer.encode_to_vec()
    }

    #[test]
    fn in_any_pieces() {
        let payloads: Vec<Vec<u8>> = vec![vec![], vec![7; 300], vec![1], vec![9; 20_000]];
        let all: Vec<u8> = payloads.iter().flat_map(|it| frame(it)).collect();
        for size in [1, 2, 3, 7, 128, 1 << 20] {
            let mut frames = Frames::default();
            let mut got = Vec::new();
            for piece in all.chunks(size) {
                frames.push(piece);
                while let Some(payload) = frames.take().expect("frames") {
                    got.push(payload.to_vec());
                }
            }
            frames.finish().expect("complete");
            assert_eq!(got, payloads, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |bytes: &[u8], expected: &str| {
            let mut frames = Frames::default();
            frames.push(bytes);
            let result = frames.take().and_then(|_| frames.finish());
            let text = result.expect_err("wrong").to_string();
            assert!(text.contains(expected), "{text}");
        };
        let mut broken = frame(b"abc");
        broken[5] ^= 1;
        check(&broken, "wrong checksum");
        check(&frame(b"abc")[..6], "in the middle of a frame");
        check(&[0xff; 12], "more than 64 bits");
        check(&[0xff, 0xff, 0xff, 0xff, 0x7f], "more than 50000000");
    }

    #[test]
    fn chunks_of_a_payload() {
        let got = series(Bytes::from(message(1))).expect("a series");
        assert_eq!(got[0].labels.get("a"), "1");
        assert_eq!(got[0].chunks[0].encoding, Encoding::Xor);
        for kind in [0, 7, -1, 255, 256 + 1] {
            let error = series(Bytes::from(message(kind))).expect_err("no such encoding");
            assert!(matches!(error, StoreError::Unsupported(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(payload)) = frames.take() {
                let _read_or_refused = series(payload);
            }
            let _read_or_refused = series(Bytes::from(bytes));
        }
    }
}
