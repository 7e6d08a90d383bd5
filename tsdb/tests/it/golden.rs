//! Blocks that named versions of Prometheus wrote, kept here for ever: they open, hold what was written,
//! and are written again as they were, or with a difference that is explained.
//!
//! Both hold the same series, sent by remote write: floats with gaps, resets, NaN, infinities and the
//! smallest number, histograms with whole and with float counts whose buckets change half way, and that
//! of 3.14 also custom buckets. A part of `up{job="a"}` was deleted over the API.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::TimeRange;
use isobar_tsdb::block::tools::{Rewrite, dump, rewrite, verify};
use isobar_tsdb::block::{BlockMeta, BlockReader};
use isobar_tsdb::index::SeriesEntry;
use ulid::Ulid;

/// The blocks by the version that wrote them.
pub(crate) fn golden_blocks() -> [(&'static str, PathBuf); 2] {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    [
        ("2.42", "prometheus-2.42/01M82RF2JJR508J39HE997YB64"),
        ("3.14", "prometheus-3.14/01M82RF5MSEX47SVE1JAERWAH6"),
    ]
    .map(|(version, dir)| (version, golden.join(dir)))
}

/// All samples as text.
pub(crate) fn dump_all(block: &Arc<BlockReader>) -> String {
    let mut text = Vec::new();
    dump(block, &[], TimeRange::ALL, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn they_hold_what_was_written() {
    for (version, dir) in golden_blocks() {
        let report = verify(&dir).unwrap();
        assert!(report.is_clean(), "{version}: {:?}", report.findings);
        let block = BlockReader::open(&dir).unwrap();
        let text = dump_all(&block);
        // 21 samples are deleted.
        assert_eq!(text.lines().count() as u64, report.read.num_samples - 21);
        for line in [
            "{__name__=\"up\", instance=\"one\", job=\"a\"} 1 1700006685000",
            "{__name__=\"up\", instance=\"one\", job=\"a\"} 1 1700007015000",
            "{__name__=\"requests_total\", code=\"200\", path=\"/é\\\"quoted\\\"\\n\"} 186.25 1700008635000",
            "{__name__=\"requests_total\", code=\"500\", path=\"/\"} 5e-324 1700006445000",
            "{__name__=\"latency\", kind=\"whole\"} {count:11, sum:0, [-1.189207115002721,-1.0905077326652577):2, (0.8408964152537144,0.9170040432046711]:3, (0.9170040432046711,1]:1, (1.0905077326652577,1.189207115002721]:5} 1700006400000",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{version}: no {line} in {text}"
            );
        }
        assert!(!text.contains("job=\"a\"} 1 1700006700000\n"));
        let custom = text.contains("kind=\"custom\"} {count:");
        assert_eq!(custom, version == "3.14");
    }
}

#[test]
fn they_are_written_again_as_they_were() {
    for (version, dir) in golden_blocks() {
        let to = tempfile::tempdir().unwrap();
        // Without its tombstones nothing is left out.
        let whole = to.path().join(dir.file_name().unwrap());
        crate::support::copy_dir(&dir, &whole);
        fs::remove_file(whole.join("tombstones")).unwrap();
        let block = BlockReader::open(&whole).unwrap();
        let ulid = Ulid::from_parts(1, 1);
        rewrite(&block, to.path(), ulid, &Rewrite::default()).unwrap();
        let copy = to.path().join(ulid.to_string());
        let same =
            |file: &str| fs::read(dir.join(file)).unwrap() == fs::read(copy.join(file)).unwrap();
        assert!(same("chunks/000001"), "{version}");
        // 2.42 also writes label indices, which no reader has used since 2017, in front of the postings;
        // without them all that follows lies elsewhere.
        assert_eq!(same("index"), version == "3.14");
        let copied = BlockReader::open(&copy).unwrap();
        let parts = |block: &BlockReader| {
            let index = block.index();
            let symbols: Vec<_> = index.symbols().map(|it| it.unwrap().to_owned()).collect();
            let mut lists = Vec::new();
            for name in index.label_names().chain([""]) {
                for value in index.label_values(name, "").unwrap() {
                    let (value, offset) = value.unwrap();
                    let series = index.postings_at(offset).unwrap().into_vec();
                    lists.push((name.to_owned(), value.to_owned(), series));
                }
            }
            let mut series = Vec::new();
            for reference in index.all_postings().unwrap().into_vec() {
                let mut entry = SeriesEntry::default();
                index.series(reference, &mut entry).unwrap();
                series.push((reference, entry));
            }
            (symbols, lists, series)
        };
        assert_eq!(parts(&block), parts(&copied), "{version}");
        let json = fs::read(dir.join("meta.json")).unwrap();
        let encoded = BlockMeta::decode("meta.json", &json).unwrap().encode();
        assert_eq!(encoded, String::from_utf8(json).unwrap(), "{version}");
        let tombstones = fs::read(dir.join("tombstones")).unwrap();
        let block = BlockReader::open(&dir).unwrap();
        assert_eq!(block.tombstones().encode(), tombstones, "{version}");
    }
}

#[test]
fn what_was_deleted_is_gone_from_a_copy() {
    for (version, dir) in golden_blocks() {
        let to = tempfile::tempdir().unwrap();
        let block = BlockReader::open(&dir).unwrap();
        let ulid = Ulid::from_parts(1, 1);
        let meta = rewrite(&block, to.path(), ulid, &Rewrite::default())
            .unwrap()
            .unwrap();
        let copy = to.path().join(ulid.to_string());
        assert!(verify(&copy).unwrap().is_clean());
        let copied = BlockReader::open(&copy).unwrap();
        assert_eq!(dump_all(&copied), dump_all(&block), "{version}");
        assert_eq!(meta.stats.num_samples, block.meta().stats.num_samples - 21);
        assert_eq!(meta.stats.num_tombstones, 0);
    }
}
