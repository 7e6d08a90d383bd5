//! How fast are XOR chunks decoded?
//!
//! `cargo run --release -p isobar-tsdb --example decode -- BLOCK_DIR` decodes every XOR chunk of a
//! block again and again for some seconds on one core and prints million samples per second, the
//! best of the rounds.

#![expect(clippy::print_stdout, reason = "a program that prints figures")]

use std::time::{Duration, Instant};

use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::chunks::Encoding;

const DURATION: Duration = Duration::from_secs(3);

fn main() -> Result<(), Error> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let block = BlockReader::open(dir)?;
    let mut chunks = Vec::new();
    for series in block.select(&[], TimeRange::ALL)? {
        chunks.extend(
            series?
                .chunks
                .into_iter()
                .filter(|it| it.encoding == Encoding::Xor),
        );
    }
    let bytes: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
    let begin = Instant::now();
    let (mut best, mut samples, mut rounds) = (Duration::MAX, 0, 0);
    let mut columns = Columns::default();
    while begin.elapsed() < DURATION {
        let round = Instant::now();
        samples = 0;
        for chunk in &chunks {
            columns.clear();
            chunk.decode_into(TimeRange::ALL, &mut columns)?;
            samples += columns.len();
        }
        best = best.min(round.elapsed());
        rounds += 1;
    }
    println!(
        "{} chunks, {samples} samples, {:.2} bytes a sample: {:.1} M samples/s (best of {rounds})",
        chunks.len(),
        bytes as f64 / samples as f64,
        samples as f64 / best.as_secs_f64() / 1e6,
    );
    Ok(())
}
