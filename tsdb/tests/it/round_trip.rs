//! What is written is read back, whatever it is.

use isobar_model::sample::STALE_NAN_BITS;
use isobar_model::{Columns, Labels, TimeRange};
use isobar_tsdb::chunks::{XorAppender, xor};
use isobar_tsdb::merge::read_samples;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ulid::Ulid;

use crate::data::{Data, read_block, write_block};

/// The bits of a value, of all kinds that matter.
fn value_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<f64>().prop_map(f64::to_bits),
        (-1000i32..1000).prop_map(|value| f64::from(value).to_bits()),
        (0u64..1 << 20).prop_map(|payload| 0x7ff0_0000_0000_0000 | payload),
        Just(STALE_NAN_BITS),
        Just(f64::INFINITY.to_bits()),
        Just(f64::NEG_INFINITY.to_bits()),
        Just((-0.0f64).to_bits()),
        (1u64..1 << 52),
    ]
}

/// How far time moves from one sample to the next.
fn step_ms() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => Just(15_000),
        2 => 14_990..15_010i64,
        1 => 1..20_000_000i64,
        1 => Just(1),
        1 => prop::sample::select(vec![8191, 8192, 8193, 65_536, 524_287, 524_288, 524_289]),
        1 => 1..1i64 << 50,
    ]
}

fn samples(count: usize) -> impl Strategy<Value = Vec<(i64, u64)>> {
    (
        -(1i64 << 55)..1i64 << 55,
        vec((step_ms(), value_bits()), 1..count),
    )
        .prop_map(|(first_ms, steps)| {
            let mut now = first_ms;
            let timed = steps.into_iter().map(|(step, bits)| {
                now += step;
                (now, bits)
            });
            timed.collect()
        })
}

fn encode(samples: &[(i64, u64)]) -> XorAppender {
    let mut appender = XorAppender::new();
    for (timestamp_ms, bits) in samples {
        appender.append(*timestamp_ms, f64::from_bits(*bits));
    }
    appender
}

fn pairs(columns: &Columns) -> Vec<(i64, u64)> {
    let bits = columns.values.iter().map(|value| value.to_bits());
    columns.timestamps.iter().copied().zip(bits).collect()
}

proptest! {
    #[test]
    fn chunks(samples in samples(300), cut in any::<prop::sample::Index>()) {
        let appender = encode(&samples);
        let mut columns = Columns::default();
        prop_assert!(xor::decode(appender.as_bytes(), &mut columns).unwrap());
        prop_assert_eq!(pairs(&columns), samples.clone());

        let cut = cut.index(samples.len());
        let mut resumed = XorAppender::resume(encode(&samples[..cut]).as_bytes()).unwrap();
        for (timestamp_ms, bits) in &samples[cut..] {
            resumed.append(*timestamp_ms, f64::from_bits(*bits));
        }
        prop_assert_eq!(resumed.as_bytes(), appender.as_bytes());
    }

    #[test]
    fn times_in_any_order(samples in vec((any::<i64>(), value_bits()), 1..50)) {
        let mut columns = Columns::default();
        xor::decode(encode(&samples).as_bytes(), &mut columns).unwrap();
        prop_assert_eq!(pairs(&columns), samples);
    }

    #[test]
    fn random_bytes_are_no_trouble(mut bytes in vec(any::<u8>(), 0..200), count in 0u8..40) {
        if let [high, low, ..] = bytes.as_mut_slice() {
            (*high, *low) = (0, count);
        }
        let mut columns = Columns::default();
        if xor::decode(&bytes, &mut columns).is_ok() {
            prop_assert_eq!(columns.len(), usize::from(xor::sample_count(&bytes).unwrap()));
            let mut resumed = XorAppender::resume(&bytes).unwrap();
            resumed.append(5, 5.0);
            let last = pairs(&columns);
            columns.clear();
            xor::decode(resumed.as_bytes(), &mut columns).unwrap();
            prop_assert_eq!(&pairs(&columns)[..last.len()], last);
            prop_assert_eq!(columns.timestamps.last(), Some(&5));
        } else {
            prop_assert!(columns.is_empty());
        }
    }

    #[test]
    fn overlapping_chunks(sources in vec(samples(40), 1..5), from in any::<i64>(), to in any::<i64>()) {
        let mut sources = sources;
        sources.sort_by_key(|samples| samples[0].0);
        let chunks: Vec<_> = sources.iter().map(|it| encode(it).into_chunk().unwrap()).collect();
        let mut expected = std::collections::BTreeMap::new();
        for (timestamp_ms, bits) in sources.iter().flatten() {
            expected.entry(*timestamp_ms).or_insert(*bits);
        }
        let mut columns = Columns::default();
        read_samples(&chunks, TimeRange::ALL, &mut columns).unwrap();
        prop_assert_eq!(pairs(&columns), expected.clone().into_iter().collect::<Vec<_>>());

        let range = TimeRange::new(from.min(to), from.max(to));
        expected.retain(|timestamp_ms, _| range.contains(*timestamp_ms));
        columns.clear();
        read_samples(&chunks, range, &mut columns).unwrap();
        prop_assert_eq!(pairs(&columns), expected.into_iter().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn blocks(data in btree_map(vec(("[a-zé]{1,3}", "[a-z\"\\\\é]{1,4}"), 1..5), samples(200), 1..40)) {
        let data: Data = data
            .into_iter()
            .map(|(pairs, samples)| (Labels::from_pairs(pairs), samples))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let block = write_block(dir.path(), Ulid::from_parts(1, 1), &data).unwrap();
        let mut read = Data::new();
        read_block(&block, &mut read);
        prop_assert_eq!(&read, &data);
        prop_assert_eq!(block.meta().stats.num_series, data.len() as u64);
        let again = tempfile::tempdir().unwrap();
        let twin = write_block(again.path(), Ulid::from_parts(1, 1), &data).unwrap();
        for file in ["index", "chunks/000001", "meta.json", "tombstones"] {
            let read = |block: &isobar_tsdb::block::BlockReader| std::fs::read(block.dir().join(file)).unwrap();
            prop_assert_eq!(read(&twin), read(&block));
        }
    }
}
