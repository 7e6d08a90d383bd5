//! Chunks with start times, written by Prometheus 3.14 (`golden/start_times/chunks.txt`): they
//! decode to the samples beside them, and damage gives an error or other samples.

use bytes::Bytes;
use isobar_model::histogram::Buckets;
use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::chunks::{Chunk, Encoding};

/// A chunk with its name and its samples in the words of the file.
pub(crate) struct Golden {
    name: &'static str,
    pub(crate) chunk: Chunk,
    samples: Vec<&'static str>,
}

pub(crate) fn goldens() -> Vec<Golden> {
    let text = include_str!("../golden/start_times/chunks.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let goldens = lines.map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, encoding, bytes, samples] = fields[..] else {
            panic!("{line}");
        };
        let byte = |at: usize| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..bytes.len()).step_by(2).map(byte).collect();
        Golden {
            name,
            chunk: chunk(
                Encoding::from_u8(encoding.parse().unwrap()).unwrap(),
                &bytes,
            ),
            samples: samples.split_whitespace().collect(),
        }
    });
    goldens.collect()
}

fn chunk(encoding: Encoding, bytes: &[u8]) -> Chunk {
    Chunk {
        encoding,
        min_ms: 0,
        max_ms: 0,
        data: Bytes::copy_from_slice(bytes),
    }
}

fn decode(chunk: &Chunk, range: TimeRange) -> Result<Columns, Error> {
    let mut columns = Columns::default();
    chunk.decode_into(range, &mut columns)?;
    Ok(columns)
}

/// The samples as the file has them; `fields` of each histogram.
fn describe(mut columns: Columns, fields: usize) -> Vec<String> {
    columns.start_times.resize(columns.timestamps.len(), 0);
    columns
        .histogram_start_times
        .resize(columns.histograms.len(), 0);
    let floats = columns.timestamps.iter().zip(&columns.start_times);
    let floats = floats.zip(&columns.values);
    let mut all: Vec<String> = floats
        .map(|((time, start), value)| format!("{time}:{start}:{:x}", value.to_bits()))
        .collect();
    let histograms = columns
        .histograms
        .iter()
        .zip(&columns.histogram_start_times);
    for ((time, histogram), start) in histograms {
        let mut text = format!("{time}:{start}");
        if fields > 2 {
            for number in [histogram.sum, histogram.count, histogram.zero_count] {
                text.push_str(&format!(":{:x}", number.to_bits()));
            }
            let mut side = |sign: char, buckets: &Buckets| {
                for (index, count) in buckets.iter() {
                    text.push_str(&format!(":{sign}{index}={:x}", count.to_bits()));
                }
            };
            side('+', &histogram.positive);
            side('-', &histogram.negative);
        }
        all.push(text);
    }
    all
}

#[test]
fn samples_are_those_that_prometheus_reads() {
    let goldens = goldens();
    for encoding in [
        Encoding::Xor2,
        Encoding::HistogramSt,
        Encoding::FloatHistogramSt,
    ] {
        assert!(goldens.iter().any(|it| it.chunk.encoding == encoding));
    }
    for golden in &goldens {
        let columns = decode(&golden.chunk, TimeRange::ALL).unwrap();
        let count = usize::from(golden.chunk.sample_count().unwrap());
        assert_eq!(count, golden.samples.len(), "{}", golden.name);
        let fields = golden.samples.first().map_or(0, |it| it.split(':').count());
        assert_eq!(
            columns.has_start_times(),
            !golden.name.starts_with("none ") && count > 0
        );
        assert_eq!(describe(columns, fields), golden.samples, "{}", golden.name);
    }
}

#[test]
fn ranges_keep_start_times_with_their_samples() {
    for golden in goldens() {
        let time = |text: &&str| text.split(':').next().unwrap().parse::<i64>().unwrap();
        let times: Vec<i64> = golden.samples.iter().map(time).collect();
        let fields = golden.samples.first().map_or(0, |it| it.split(':').count());
        for (from, to) in [(1, 1), (0, 2), (3, 6)] {
            let (Some(first), Some(last)) = (times.get(from), times.get(to)) else {
                continue;
            };
            let columns = decode(&golden.chunk, TimeRange::new(*first, *last)).unwrap();
            let name = golden.name;
            assert_eq!(
                describe(columns, fields),
                golden.samples[from..=to],
                "{name}"
            );
        }
    }
}

#[test]
fn cut_chunks_are_corrupt() {
    for golden in goldens() {
        let bytes = &golden.chunk.data;
        for len in 0..bytes.len() {
            let cut = decode(&chunk(golden.chunk.encoding, &bytes[..len]), TimeRange::ALL);
            let empty = golden.samples.is_empty() && len >= 2;
            assert!(
                matches!(cut, Err(Error::Corrupt { .. })) || empty,
                "{}: {len} bytes",
                golden.name
            );
        }
    }
}

#[test]
fn changed_bits_give_samples_or_an_error() {
    for golden in goldens() {
        let mut bytes = golden.chunk.data.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = chunk(golden.chunk.encoding, &bytes);
            let mut columns = Columns::default();
            columns.push(i64::MIN, 0.0);
            match damaged.decode_into(TimeRange::ALL, &mut columns) {
                Ok(()) => assert!(columns.timestamps.is_sorted_by(|a, b| a < b)),
                Err(_) => assert_eq!((columns.len(), columns.histograms.len()), (1, 0)),
            }
            assert!(columns.start_times.len() <= columns.len());
            assert!(columns.histogram_start_times.len() <= columns.histograms.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
