//! Histograms that are read packed are those that are read one by one, and with counts and sums only
//! each says as much of resets as its buckets told.

use isobar_model::histogram::CounterReset;
use isobar_model::series::Samples;
use isobar_model::{Columns, FloatHistogram, TimeRange};
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::chunks::Chunk;
use isobar_tsdb::merge::ChunkSamples;

use crate::data::all_contract_blocks;
use crate::start_times::goldens;

/// Whether they could be packed.
fn check(chunks: &[Chunk], range: TimeRange) -> bool {
    let samples = ChunkSamples(chunks.to_vec());
    let (mut whole, mut packed, mut stats) = Default::default();
    let read = samples.read(range, &mut whole);
    let done = samples.read_packed(range, false, &mut packed);
    let done_too = samples.read_packed(range, true, &mut stats);
    let done = match (read, done) {
        (Ok(()), Ok(done)) => done,
        // It is left to `read`, which fails then.
        (Err(_), Ok(false)) => return false,
        (read, done) => {
            assert!(read.is_err() && done.is_err() && done_too.is_err());
            return false;
        }
    };
    assert_eq!(done_too.unwrap(), done);
    if !done {
        assert_eq!((packed, stats), (Columns::default(), Columns::default()));
        return false;
    }
    let shape = |columns: &Columns| -> Vec<_> {
        let packed = columns.packed.iter();
        let all = columns.histograms.iter().cloned().chain(packed);
        all.map(|(time_ms, it)| (time_ms, it.hint, FloatHistogram::clone(&it)))
            .collect()
    };
    assert!(whole.is_empty() && packed.histograms.is_empty() && stats.histograms.is_empty());
    assert_eq!(shape(&packed), shape(&whole));
    keep_stats(&mut whole);
    assert_eq!(shape(&stats), shape(&whole));
    true
}

/// What `stats` asks for, sample by sample.
fn keep_stats(columns: &mut Columns) {
    let mut before: Option<FloatHistogram> = None;
    for (_, histogram) in &mut columns.histograms {
        if histogram.is_stale() {
            continue;
        }
        let hint = match (&before, histogram.hint) {
            (Some(before), CounterReset::Unknown) => match histogram.detect_reset(before) {
                true => CounterReset::Reset,
                false => CounterReset::NotReset,
            },
            (_, hint) => hint,
        };
        let stats = FloatHistogram {
            hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            ..FloatHistogram::default()
        };
        before = Some(FloatHistogram::clone(histogram));
        *histogram = stats.into();
    }
}

/// All, and such as begin and end within chunks.
fn ranges(chunks: &[Chunk]) -> impl Iterator<Item = TimeRange> + use<> {
    let mut all = Columns::default();
    for chunk in chunks {
        if chunk.decode_into(TimeRange::ALL, &mut all).is_err() {
            break;
        }
    }
    let times: Vec<i64> = all.histograms.iter().map(|it| it.0).collect();
    let at = move |part: usize| times.get(times.len() * part / 7).copied();
    let cuts = (0..7).flat_map(move |from| {
        let at = at.clone();
        (from..7).filter_map(move |to| Some(TimeRange::new(at(from)?, at(to)?)))
    });
    std::iter::once(TimeRange::ALL).chain(cuts)
}

#[test]
fn packed_histograms_of_blocks() {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/start_times/block"
    );
    let mut done = 0;
    for dir in all_contract_blocks().into_iter().chain([golden.into()]) {
        let block = BlockReader::open(&dir).unwrap();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let chunks = series.unwrap().chunks;
            if chunks
                .iter()
                .any(|it| !it.encoding.name().contains("histogram"))
            {
                assert!(!check(&chunks, TimeRange::ALL));
                continue;
            }
            for range in ranges(&chunks) {
                done += usize::from(check(&chunks, range));
            }
            // In disorder they are left to `read`.
            let turned: Vec<_> = chunks.into_iter().rev().collect();
            check(&turned, TimeRange::ALL);
        }
    }
    println!("{done} reads of packed histograms are those of single ones");
    assert!(done > 100);
}

#[test]
fn packed_histograms_of_chunks() {
    let mut done = 0;
    for golden in goldens() {
        let chunk = Chunk {
            min_ms: i64::MIN,
            max_ms: i64::MAX,
            ..golden.chunk
        };
        for range in ranges(std::slice::from_ref(&chunk)) {
            done += usize::from(check(std::slice::from_ref(&chunk), range));
        }
        let mut bytes = chunk.data.to_vec();
        for bit in (0..bytes.len() * 8).step_by(3) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = Chunk {
                data: bytes.clone().into(),
                ..chunk.clone()
            };
            check(&[damaged], TimeRange::ALL);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert!(done > 100);
}
