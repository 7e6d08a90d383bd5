//! The XOR encoding of floats (encoding 1): what Facebook's Gorilla paper describes, as
//! Prometheus writes it (`tsdb/chunkenc/xor.go`, `tsdb/docs/format/chunks.md`).
//!
//! ```text
//! ┌───────────────────┬──────────────┬─────────────┬──────────────────────┬───────────┬───
//! │ number of samples │ t0 <varint>  │ v0 <8 byte> │ t1-t0 <uvarint>      │ v1 <xor>  │ …
//! │ <2 byte>          │              │             │                      │           │
//! └───────────────────┴──────────────┴─────────────┴──────────────────────┴───────────┴───
//!  … ┬────────────┬──────────┬───
//!    │ t2 <dod>   │ v2 <xor> │ …    bits from here on, the last byte filled up with zeros
//!  … ┴────────────┴──────────┴───
//!
//! <dod>  the change of the distance between times, in milliseconds
//!        0                 none
//!        10   14 bit       -8191 ..= 8192
//!        110  17 bit       -65535 ..= 65536
//!        1110 20 bit       -524287 ..= 524288
//!        1111 64 bit       any
//! <xor>  the bits that differ from the value before
//!        0                 none
//!        10 bits           as many as in the window of the last `11`
//!        11 leading zeros <5 bit>, significant bits <6 bit, 0 stands for 64>, bits
//! ```
//!
//! Decoding is bulk: one loop fills blocks of two columns. What a chunk says beyond its end reads
//! as zeros and is found out once, after the loop.

use crate::Error;

mod decode;
mod encode;

pub(super) use decode::BitReader;
pub use decode::{Scratch, decode, decode_with, sample_count};
pub use encode::XorAppender;

/// The most samples a chunk can count.
pub const SAMPLES_MAX: u16 = u16::MAX;

const HEADER_BYTES: usize = 2;
/// The number of leading zeros that says that no window was written yet.
const NO_WINDOW: u8 = 0xff;

/// Cold, so that the loop that decodes has no error to build.
#[cold]
#[inline(never)]
fn corrupt(why: &str) -> Error {
    Error::corrupt("XOR chunk", why)
}

#[cfg(test)]
mod tests {
    use isobar_model::Columns;
    use isobar_model::sample::STALE_NAN;

    use super::*;

    fn encode(samples: &[(i64, f64)]) -> XorAppender {
        let mut appender = XorAppender::new();
        for (timestamp_ms, value) in samples {
            appender.append(*timestamp_ms, *value);
        }
        appender
    }

    fn check_round_trip(samples: &[(i64, f64)]) {
        let appender = encode(samples);
        let mut columns = Columns::default();
        let rising = decode(appender.as_bytes(), &mut columns).unwrap();
        let bits: Vec<_> = columns.values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(
            columns.timestamps,
            samples.iter().map(|s| s.0).collect::<Vec<_>>()
        );
        assert_eq!(
            bits,
            samples.iter().map(|s| s.1.to_bits()).collect::<Vec<_>>()
        );
        assert_eq!(rising, samples.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(appender.first_ms(), samples.first().map(|s| s.0));
        assert_eq!(appender.last_ms(), samples.last().map(|s| s.0));
    }

    #[test]
    fn samples_come_back() {
        check_round_trip(&[]);
        check_round_trip(&[(i64::MIN, STALE_NAN)]);
        check_round_trip(&[(-1, 0.0), (i64::MAX, -0.0)]);
        check_round_trip(&[
            (1, 1.0),
            (1, 2.0),
            (0, f64::NAN),
            (5, f64::MIN_POSITIVE / 2.0),
        ]);
        let dods = [
            0, -8191, 8192, -8192, 8193, -65_535, 65_536, -65_536, 65_537,
        ];
        let dods = dods
            .into_iter()
            .chain([-524_287, 524_288, -524_288, 524_289, i64::MAX / 8]);
        let (mut now, mut delta) = (0i64, 0i64);
        let samples: Vec<_> = dods
            .flat_map(|dod| [dod, -dod])
            .map(|dod| {
                delta += dod;
                now = now.wrapping_add(delta);
                (now, now as f64 * 0.1)
            })
            .collect();
        check_round_trip(&samples);
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let appender = encode(&[(1000, 1.0), (2000, 1.0), (3000, 2.0), (4001, 2.0)]);
        let expected = [
            0,
            4, // four samples
            0xd0,
            0x0f, // varint 1000
            0x3f,
            0xf0,
            0,
            0,
            0,
            0,
            0,
            0, // 1.0
            0xe8,
            0x07, // uvarint 1000
            // 0 (1.0 again) 0 (on time) 11 00001 001011 (11 bits behind a leading zero) …
            0b0011_0000,
            0b1001_0111,
            0b1111_1111,
            // … 11 ones, 10 and 14 bits of 1, 0 (2.0 again)
            0b1110_0000,
            0b0000_0000,
            0b0100_0000,
        ];
        assert_eq!(appender.as_bytes(), expected);
    }

    #[test]
    fn resumes_anywhere_with_the_same_bytes() {
        let samples: Vec<_> = (0..40)
            .map(|i| (i * 15_000 + i % 3, f64::from(i as i32 / 4) * 0.3))
            .collect();
        let whole = encode(&samples);
        for cut in 0..samples.len() {
            let mut resumed = XorAppender::resume(encode(&samples[..cut]).as_bytes()).unwrap();
            for (timestamp_ms, value) in &samples[cut..] {
                resumed.append(*timestamp_ms, *value);
            }
            assert_eq!(resumed.as_bytes(), whole.as_bytes(), "cut at {cut}");
        }
    }

    #[test]
    fn cut_chunks_are_corrupt() {
        let samples: Vec<_> = (0..120).map(|i| (i * 15_000, (i as f64).sqrt())).collect();
        let appender = encode(&samples);
        let bytes = appender.as_bytes();
        let mut columns = Columns::default();
        columns.push(1, 1.0);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], &mut columns).is_err(), "{len} bytes");
            assert_eq!(columns.len(), 1);
        }
        assert!(decode(bytes, &mut columns).is_ok());
    }

    #[test]
    fn a_full_chunk_holds_65535_samples() {
        let samples: Vec<_> = (0..i64::from(SAMPLES_MAX)).map(|i| (i, 1.0)).collect();
        check_round_trip(&samples);
    }

    #[test]
    fn the_buffer_grows_in_small_steps() {
        let mut appender = XorAppender::new();
        for i in 0..120 {
            appender.append(i * 15_000, (i * i) as f64);
            let held = appender.heap_bytes();
            assert!(held <= appender.as_bytes().len() + 64, "{held} bytes");
        }
    }
}
