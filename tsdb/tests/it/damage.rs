//! Blocks with damage: cut files and changed bytes give errors or change nothing, and never
//! panic.

use bytes::Bytes;
use isobar_model::{Columns, Labels, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::BlockMeta;
use isobar_tsdb::chunks::SegmentReader;
use isobar_tsdb::chunks::xor;
use isobar_tsdb::index::{ChunkMeta, IndexReader, SeriesEntry};
use ulid::Ulid;

use crate::data::{Data, write_block};

/// A block that has all that the format has to offer and is small enough to damage every byte.
fn files() -> (Vec<u8>, Vec<u8>) {
    let mut data = Data::new();
    for i in 0..40u32 {
        let value = format!("value {i:03}");
        let labels = [
            ("__name__", "metric"),
            ("label", value.as_str()),
            ("all", "same"),
        ];
        let samples = (0..i64::from(i % 5) + 1).map(|at| {
            (
                1_700_000_000_000 + at * 15_000 + i64::from(i),
                f64::from(i * 3).sqrt().to_bits(),
            )
        });
        data.insert(Labels::from_pairs(labels), samples.collect());
    }
    let dir = tempfile::tempdir().unwrap();
    let block = write_block(dir.path(), Ulid::from_parts(1, 1), &data).unwrap();
    let read = |file: &str| std::fs::read(block.dir().join(file)).unwrap();
    (read("index"), read("chunks/000001"))
}

type WalkedSeries = (Vec<(String, String)>, Vec<ChunkMeta>);

#[derive(Debug, PartialEq)]
struct Walked {
    names: Vec<String>,
    values: Vec<String>,
    series: Vec<WalkedSeries>,
}

/// Reads everything that an index holds.
fn walk(index: Bytes) -> Result<Walked, Error> {
    let index = IndexReader::open("index", index)?;
    let mut walked = Walked {
        names: index.label_names().map(str::to_owned).collect(),
        values: Vec::new(),
        series: Vec::new(),
    };
    for symbol in index.symbols() {
        index.find_symbol(symbol?)?;
    }
    let mut entry = SeriesEntry::default();
    for name in &walked.names {
        for value in index.label_values(name, "")? {
            let (value, offset) = value?;
            index.postings_at(offset)?;
            index.postings(name, value)?;
            walked.values.push(value.to_owned());
        }
    }
    for series in index.all_postings()?.into_vec() {
        index.series(series, &mut entry)?;
        let labels = entry.labels.iter().map(|(name, value)| {
            Ok((
                index.symbol(*name)?.to_owned(),
                index.symbol(*value)?.to_owned(),
            ))
        });
        let labels = labels.collect::<Result<_, Error>>()?;
        walked.series.push((labels, entry.chunks.clone()));
    }
    Ok(walked)
}

#[test]
fn a_cut_index_is_corrupt() {
    let (index, _) = files();
    for len in 0..index.len() {
        let result = walk(Bytes::copy_from_slice(&index[..len]));
        assert!(
            matches!(result, Err(Error::Corrupt { .. })),
            "{len} bytes: {result:?}"
        );
    }
}

#[test]
fn no_changed_byte_of_an_index_goes_unnoticed() {
    let (index, _) = files();
    let whole = walk(Bytes::from(index.clone())).unwrap();
    assert_eq!(whole.series.len(), 40);
    let mut unnoticed = 0;
    for i in 0..index.len() {
        let mut damaged = index.clone();
        damaged[i] ^= [0x01, 0x80, 0xff][i % 3];
        match walk(Bytes::from(damaged)) {
            Ok(walked) => {
                // Padding between the sections is no part of the data.
                assert_eq!(walked, whole, "byte {i}");
                unnoticed += 1;
            }
            Err(Error::Corrupt { .. } | Error::Unsupported(_)) => {}
            Err(other) => panic!("byte {i}: {other}"),
        }
    }
    assert!(
        unnoticed < index.len() / 5,
        "{unnoticed} of {} bytes are not checked",
        index.len()
    );
}

#[test]
fn no_changed_byte_of_a_chunk_goes_unnoticed() {
    let (index, segment) = files();
    let chunks: Vec<_> = walk(Bytes::from(index))
        .unwrap()
        .series
        .into_iter()
        .flat_map(|it| it.1)
        .collect();
    let read = |segment: &[u8]| -> Result<Columns, Error> {
        let segments = SegmentReader::new("chunks", vec![Bytes::copy_from_slice(segment)])?;
        let mut columns = Columns::default();
        for chunk in &chunks {
            xor::decode(&segments.chunk(chunk.reference)?.1, &mut columns)?;
        }
        Ok(columns)
    };
    assert!(read(&segment).is_ok());
    for i in 0..segment.len() {
        let cut = read(&segment[..i]);
        assert!(matches!(cut, Err(Error::Corrupt { .. })), "{i} bytes");
        let mut damaged = segment.clone();
        damaged[i] ^= 0xff;
        // Three bytes behind the version mean nothing.
        if !(5..8).contains(&i) {
            let result = read(&damaged);
            assert!(matches!(result, Err(Error::Corrupt { .. })), "byte {i}");
        }
    }
}

#[test]
fn damaged_samples_decode_to_something_or_to_an_error() {
    let mut appender = isobar_tsdb::chunks::XorAppender::new();
    for i in 0..120 {
        appender.append(i * 15_000 + i % 7, (i as f64 * 1.7).sin());
    }
    let bytes = appender.as_bytes();
    let mut columns = Columns::default();
    let mut errors = 0;
    for i in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[i / 8] ^= 1 << (i % 8);
        columns.clear();
        match xor::decode(&damaged, &mut columns) {
            Ok(_) => assert_eq!(
                columns.len(),
                usize::from(xor::sample_count(&damaged).unwrap())
            ),
            Err(Error::Corrupt { .. }) => {
                assert!(columns.is_empty());
                errors += 1;
            }
            Err(other) => panic!("bit {i}: {other}"),
        }
    }
    assert!(errors > 0);
}

#[test]
fn damaged_metas_are_errors() {
    let meta = BlockMeta::new(Ulid::from_parts(1, 1), 0, 1).encode();
    for i in 0..meta.len() {
        let result = BlockMeta::decode("meta.json", &meta.as_bytes()[..i]);
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{i} bytes");
        let mut damaged = meta.clone().into_bytes();
        damaged[i] ^= 0x08;
        match BlockMeta::decode("meta.json", &damaged) {
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("byte {i}: {other}"),
        }
    }
}

#[test]
fn a_range_of_all_time_is_no_trouble() {
    let mut data = Data::new();
    let samples = vec![(i64::MIN + 1, 1), (0, 2), (i64::MAX - 1, 3)];
    data.insert(
        Labels::from_pairs([("__name__", "metric")]),
        samples.clone(),
    );
    let dir = tempfile::tempdir().unwrap();
    let block = write_block(dir.path(), Ulid::from_parts(1, 1), &data).unwrap();
    let mut read = Data::new();
    crate::data::read_block(&block, &mut read);
    assert_eq!(read, data);
    assert_eq!(block.select(&[], TimeRange::new(0, 0)).unwrap().count(), 1);
}
