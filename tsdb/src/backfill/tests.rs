//! Backfilled blocks against a map that keeps the first sample of each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use isobar_model::{Columns, FloatHistogram};
use proptest::prelude::*;

use super::*;
use crate::block::BlockReader;
use crate::chunks::XorAppender;
use crate::chunks::histogram::Counts;
use crate::merge::read_samples;

const HOUR_MS: i64 = 3_600_000;

fn backfill(dir: &Path, bytes_max: usize) -> Backfill {
    Backfill::new(BackfillConfig {
        dir: dir.to_owned(),
        tenant: Some(Tenant::new("t").unwrap()),
        origin: "test",
        bytes_max,
        clock: Clock::manual(1),
    })
    .unwrap()
}

fn labels(number: u32) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", number.to_string().as_str())])
}

/// Series, time and text of each value, of all blocks.
fn contents(dir: &Path, blocks: &[BlockMeta]) -> BTreeMap<(String, i64), String> {
    let mut all = BTreeMap::new();
    for meta in blocks {
        assert_eq!(window_of(meta.min_ms), window_of(meta.end_ms - 1));
        let block = BlockReader::open(dir.join(meta.ulid.to_string())).unwrap();
        assert_eq!(block.meta().other["isobar"]["origin"], "test");
        let mut samples = 0;
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            let mut columns = Columns::default();
            read_samples(&series.chunks, TimeRange::ALL, &mut columns).unwrap();
            let floats = columns.timestamps.iter().zip(&columns.values);
            let floats = floats.map(|(ms, value)| (*ms, format!("{:x}", value.to_bits())));
            let histograms = columns.histograms.iter();
            let histograms = histograms.map(|(ms, it)| (*ms, format!("h{}", it.count)));
            for (ms, text) in floats.chain(histograms) {
                assert!(meta.min_ms <= ms && ms < meta.end_ms);
                samples += 1;
                assert_eq!(all.insert((series.labels.to_string(), ms), text), None);
            }
        }
        assert_eq!(samples, meta.stats.num_samples);
    }
    all
}

fn histogram(count: f64) -> Arc<FloatHistogram> {
    Arc::new(FloatHistogram {
        count,
        zero_count: count,
        sum: count,
        ..FloatHistogram::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the order and the memory, a map that keeps the first has the same samples.
    #[test]
    fn blocks_hold_what_came_first(
        samples in proptest::collection::vec(
            (0..4u32, 0..60i64, 0..3u8, proptest::bool::weighted(0.2)), 1..600),
        bytes_max in prop_oneof![Just(0usize), 500..4000usize, Just(BYTES_MAX_DEFAULT)],
        rising in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut backfill = backfill(dir.path(), bytes_max);
        let mut model = BTreeMap::new();
        let (mut duplicates, mut conflicts) = (0, 0);
        for (at, (series, slot, value, is_histogram)) in samples.iter().enumerate() {
            let ms = match rising {
                true => at as i64 * 60_000,
                false => slot * HOUR_MS / 6,
            };
            let (value, text) = match is_histogram {
                true => {
                    let count = f64::from(*value);
                    let counts = if at % 2 == 0 { Counts::Integer } else { Counts::Float };
                    (Value::Histogram(histogram(count), counts), format!("h{count}"))
                }
                false => {
                    let value = f64::from(*value);
                    (Value::Float(value), format!("{:x}", value.to_bits()))
                }
            };
            let labels = labels(*series);
            match model.get(&(labels.to_string(), ms)) {
                None => { model.insert((labels.to_string(), ms), text); }
                Some(first) if *first == text => duplicates += 1,
                Some(_) => conflicts += 1,
            }
            backfill.add(&labels, ms, value).unwrap();
        }
        let finished = backfill.finish().unwrap();
        prop_assert_eq!(contents(dir.path(), &finished.blocks), model);
        prop_assert_eq!(finished.counted.samples, samples.len() as u64);
        // A later duplicate of a sample that lost is counted by what it finds within a run.
        prop_assert_eq!(
            finished.counted.duplicates + finished.counted.conflicts,
            duplicates + conflicts
        );
        if bytes_max == BYTES_MAX_DEFAULT {
            prop_assert_eq!(finished.counted.conflicts, conflicts);
        }
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        prop_assert_eq!(names, finished.blocks.len());
    }
}

fn chunk(samples: &[(i64, f64)]) -> Chunk {
    let mut appender = XorAppender::new();
    samples
        .iter()
        .for_each(|(ms, value)| appender.append(*ms, *value));
    appender.into_chunk().unwrap()
}

#[test]
fn chunks_are_passed_on_where_they_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut backfill = backfill(dir.path(), BYTES_MAX_DEFAULT);
    let series = backfill.series(&labels(1)).unwrap();
    backfill
        .add_chunk(series, &chunk(&[(10, 1.0), (20, 2.0)]))
        .unwrap();
    backfill.add_to(series, 25, Value::Float(2.5)).unwrap();
    backfill
        .add_chunk(series, &chunk(&[(30, 3.0), (40, 4.0)]))
        .unwrap();
    // One that overlaps, and one that reaches into the next window.
    backfill
        .add_chunk(series, &chunk(&[(20, 9.0), (35, 3.5)]))
        .unwrap();
    let end = 2 * HOUR_MS;
    backfill
        .add_chunk(series, &chunk(&[(end - 1, 5.0), (end, 6.0)]))
        .unwrap();
    let finished = backfill.finish().unwrap();
    let values: Vec<_> = contents(dir.path(), &finished.blocks)
        .into_iter()
        .map(|((_, ms), text)| (ms, f64::from_bits(u64::from_str_radix(&text, 16).unwrap())))
        .collect();
    let expected = [
        (10, 1.0),
        (20, 2.0),
        (25, 2.5),
        (30, 3.0),
        (35, 3.5),
        (40, 4.0),
        (end - 1, 5.0),
        (end, 6.0),
    ];
    assert_eq!(values, expected);
    assert_eq!(finished.counted.conflicts, 1);
    assert_eq!(finished.blocks.len(), 2);
}

#[test]
fn what_is_deleted_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut backfill = backfill(dir.path(), 0);
    for ms in 0..10 {
        backfill.add(&labels(1), ms, Value::Float(1.0)).unwrap();
        backfill.add(&labels(2), ms, Value::Float(1.0)).unwrap();
        backfill
            .add(&labels(3), ms + 4 * HOUR_MS, Value::Float(1.0))
            .unwrap();
    }
    let one = backfill.series(&labels(1)).unwrap();
    backfill.delete(one, TimeRange::new(2, 7));
    let three = backfill.series(&labels(3)).unwrap();
    backfill.delete(three, TimeRange::ALL);
    let finished = backfill.finish().unwrap();
    assert_eq!(finished.blocks.len(), 1);
    assert_eq!(contents(dir.path(), &finished.blocks).len(), 14);
}

#[test]
fn extreme_times_have_windows() {
    let dir = tempfile::tempdir().unwrap();
    let mut backfill = backfill(dir.path(), BYTES_MAX_DEFAULT);
    for ms in [i64::MIN, -1, 0, i64::MAX - 1] {
        backfill.add(&labels(1), ms, Value::Float(1.0)).unwrap();
    }
    let finished = backfill.finish().unwrap();
    assert_eq!(contents(dir.path(), &finished.blocks).len(), 4);
    assert!(backfill_without_labels_is_refused(dir.path()));
}

fn backfill_without_labels_is_refused(dir: &Path) -> bool {
    backfill(dir, 0).series(&Labels::empty()).is_err()
}
