//! Any samples come back, bit by bit, also when the encoder is resumed after any of them.
//!
//! Run with `cargo +nightly fuzz run chunk_round_trip` in `tsdb/`.
#![no_main]

use isobar_model::Columns;
use isobar_tsdb::chunks::{XorAppender, xor};
use libfuzzer_sys::fuzz_target;

/// Each sample takes a byte that says how the next two numbers are made, and up to 16 more.
fn samples(mut data: &[u8]) -> Vec<(i64, u64)> {
    let mut samples = Vec::new();
    let (mut time, mut bits) = (0i64, 0u64);
    let number = |data: &mut &[u8], width: usize| {
        let (head, tail) = data.split_at(width.min(data.len()));
        *data = tail;
        head.iter()
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    while let Some((how, rest)) = data.split_first() {
        data = rest;
        let step = number(&mut data, usize::from(how & 3) * 2).cast_signed();
        time = match how >> 2 & 3 {
            0 => time.wrapping_add(15_000 + step),
            1 => time.wrapping_add(step),
            2 => time.wrapping_sub(step),
            _ => step << 16,
        };
        let change = number(&mut data, usize::from(how >> 4 & 3) * 2 + 1);
        bits = match how >> 6 {
            0 => bits ^ change,
            1 => bits ^ change << (how & 31),
            2 => (change as f64).to_bits(),
            _ => bits,
        };
        samples.push((time, bits));
    }
    samples.truncate(usize::from(xor::SAMPLES_MAX));
    samples
}

fuzz_target!(|data: &[u8]| {
    let samples = samples(data);
    let mut appender = XorAppender::new();
    for (at, (time, bits)) in samples.iter().enumerate() {
        if at == samples.len() / 2 {
            appender = XorAppender::resume(appender.as_bytes()).unwrap();
        }
        appender.append(*time, f64::from_bits(*bits));
    }
    let mut columns = Columns::default();
    let rising = xor::decode(appender.as_bytes(), &mut columns).unwrap();
    assert_eq!(rising, samples.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(columns.len(), samples.len());
    for ((time, bits), (got_time, got)) in samples
        .iter()
        .zip(columns.timestamps.iter().zip(&columns.values))
    {
        assert_eq!((time, *bits), (got_time, got.to_bits()));
    }
});
