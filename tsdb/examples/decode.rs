//! How fast are XOR chunks decoded?
//!
//! `cargo run --release -p isobar-tsdb --example decode -- BLOCK_DIR` goes through the XOR chunks of
//! a block again and again on one core, and prints million samples per second for each kind of
//! series and for all: chunks decoded one by one, and series read as queries read them. The time is
//! the sum of the shortest times of groups of series, so that other work on the machine does not
//! count.
//!
//! `--dump FILE` behind the directory writes the chunks to a file instead, for the same measurement
//! of another reader (`benches/peers/xoriter.go` for Prometheus'): of each the number of the series
//! and of the kind and the length, 32 bits each, little-endian, and the bytes.

#![expect(clippy::print_stdout, reason = "a program that prints figures")]

use std::time::{Duration, Instant};

use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::chunks::{Chunk, Encoding, Scratch, xor};
use isobar_tsdb::merge::read_samples;

/// For each kind.
const DURATION: Duration = Duration::from_secs(1);
/// Series that are timed together: some 100 µs.
const GROUP: usize = 8;
const KINDS: [&str; 5] = [
    "constant",
    "integer counter",
    "integer gauge",
    "float counter",
    "float gauge",
];

struct Series {
    kind: usize,
    chunks: Vec<Chunk>,
    samples: usize,
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let block = BlockReader::open(args.first().map_or(".", String::as_str))?;
    let mut all = Vec::new();
    for series in block.select(&[], TimeRange::ALL)? {
        let mut chunks = series?.chunks;
        chunks.retain(|it| it.encoding == Encoding::Xor);
        let mut columns = Columns::default();
        read_samples(&chunks, TimeRange::ALL, &mut columns)?;
        if !chunks.is_empty() {
            all.push(Series {
                kind: kind(&columns.values),
                chunks,
                samples: columns.len(),
            });
        }
    }
    if let [_, dump, path] = args.as_slice()
        && dump == "--dump"
    {
        let written = std::fs::write(path, dumped(&all));
        return written.map_err(|e| Error::io("write", path, e));
    }
    for (kind, name) in KINDS.iter().enumerate() {
        let of_kind: Vec<&Series> = all.iter().filter(|it| it.kind == kind).collect();
        measure(name, &of_kind)?;
    }
    measure("all", &all.iter().collect::<Vec<_>>())
}

fn kind(values: &[f64]) -> usize {
    let mut pairs = values.windows(2);
    if pairs.all(|pair| pair[0].to_bits() == pair[1].to_bits()) {
        return 0;
    }
    let rises = values.windows(2).all(|pair| pair[1] >= pair[0]);
    let integer = values.iter().all(|it| it.is_nan() || it.fract() == 0.0);
    1 + usize::from(!rises) + 2 * usize::from(!integer)
}

fn measure(name: &str, series: &[&Series]) -> Result<(), Error> {
    let samples: usize = series.iter().map(|it| it.samples).sum();
    if samples == 0 {
        return Ok(());
    }
    let chunks = || series.iter().flat_map(|it| &it.chunks);
    let bytes: usize = chunks().map(|chunk| chunk.data.len()).sum();
    let mut scratch = Scratch::default();
    let decoded = seconds(series, |series, columns| {
        for chunk in &series.chunks {
            xor::decode_with(&chunk.data, columns, &mut scratch)?;
        }
        Ok(())
    })?;
    let read = seconds(series, |series, columns| {
        read_samples(&series.chunks, TimeRange::ALL, columns)
    })?;
    println!(
        "{name:15} {:6} chunks {samples:8} samples {:5.2} bytes a sample, \
         M samples/s: {:6.1} decoded {:6.1} read",
        chunks().count(),
        bytes as f64 / samples as f64,
        samples as f64 / decoded / 1e6,
        samples as f64 / read / 1e6,
    );
    Ok(())
}

/// The shortest time for all series, group by group.
fn seconds(
    series: &[&Series],
    mut read: impl FnMut(&Series, &mut Columns) -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut shortest = vec![Duration::MAX; series.len().div_ceil(GROUP)];
    let mut columns = Columns::default();
    let begin = Instant::now();
    while begin.elapsed() < DURATION {
        for (group, shortest) in series.chunks(GROUP).zip(&mut shortest) {
            let begin = Instant::now();
            for series in group {
                columns.clear();
                read(series, &mut columns)?;
            }
            *shortest = begin.elapsed().min(*shortest);
        }
    }
    Ok(shortest.iter().sum::<Duration>().as_secs_f64())
}

fn dumped(all: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, series) in all.iter().enumerate() {
        for chunk in &series.chunks {
            for field in [number, series.kind, chunk.data.len()] {
                out.extend_from_slice(&(field as u32).to_le_bytes());
            }
            out.extend_from_slice(&chunk.data);
        }
    }
    out
}
