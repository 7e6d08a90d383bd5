//! Matchers over real blocks, compared with looking at every series.

use std::collections::BTreeSet;

use isobar_model::{Labels, MatchOp, Matcher, TimeRange};
use isobar_tsdb::block::BlockReader;

use crate::data::contract_blocks;

fn matcher(text: &str) -> Matcher {
    let operators = [
        ("!~", MatchOp::NotRegexp),
        ("=~", MatchOp::Regexp),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let (name, op, value) = operators
        .into_iter()
        .find_map(|(sign, op)| text.split_once(sign).map(|(name, value)| (name, op, value)))
        .unwrap();
    Matcher::new(name, op, value).unwrap()
}

fn check(folder: &str, selectors: &[&str]) {
    for dir in contract_blocks(folder) {
        let block = BlockReader::open(&dir).unwrap();
        let all: Vec<Labels> = block
            .select(&[], TimeRange::ALL)
            .unwrap()
            .map(|series| series.unwrap().labels)
            .collect();
        for selector in selectors {
            let matchers: Vec<_> = selector
                .split(',')
                .filter(|it| !it.is_empty())
                .map(matcher)
                .collect();
            let matching: Vec<_> = all
                .iter()
                .filter(|labels| matchers.iter().all(|it| it.matches(labels.get(it.name()))))
                .collect();
            let selected: Vec<_> = block
                .select(&matchers, TimeRange::ALL)
                .unwrap()
                .map(|series| series.unwrap().labels)
                .collect();
            assert_eq!(selected.iter().collect::<Vec<_>>(), matching, "{selector}");

            let names: BTreeSet<_> = matching
                .iter()
                .flat_map(|labels| labels.iter().map(|pair| pair.0))
                .collect();
            let found = block.label_names(&matchers, TimeRange::ALL).unwrap();
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                names.iter().collect::<Vec<_>>()
            );
            for name in ["__name__", "instance", "le", "nothing"] {
                let values: BTreeSet<_> = matching
                    .iter()
                    .map(|labels| labels.get(name))
                    .filter(|value| !value.is_empty())
                    .collect();
                let found = block.label_values(name, &matchers, TimeRange::ALL).unwrap();
                let found: Vec<_> = found.iter().map(String::as_str).collect();
                assert_eq!(
                    found,
                    values.into_iter().collect::<Vec<_>>(),
                    "{name} of {selector}"
                );
            }
        }
    }
}

const SELECTORS: &[&str] = &[
    "",
    "__name__=up",
    "__name__!=up",
    "__name__=",
    "__name__!=",
    "nothing=",
    "nothing!=",
    "nothing=x",
    "nothing!=x",
    "nothing=~.*",
    "nothing=~.+",
    "nothing!~.*",
    "nothing!~.+",
    "instance=~.+",
    "instance=~.*",
    "instance!~.+",
    "instance!~.*",
    "__name__=~node_.*",
    "__name__=~node_cpu.*,mode!=idle",
    "__name__=~up|node_load1|",
    "__name__!~up|node_load1",
    "__name__=~.*_total,mode=~idle|user,cpu!~0|1",
    "mode=~idle|",
    "mode=~idle|,mode!=",
    "mode!~idle|,mode=~.*s.*",
    "le=~.+,__name__=~.*bucket",
    "le=,__name__=~.*bucket",
    "le!=+Inf,le!=,__name__=~.*bucket",
    "__name__=~a",
    "__name__=up,__name__=node_load1",
    "replica=a,cluster!=eu",
];

#[test]
fn of_a_scraped_block() {
    check("promql/data", SELECTORS);
}

#[test]
fn of_downsampled_and_compacted_blocks() {
    check("life", SELECTORS);
}

#[test]
fn of_replicas() {
    check("ha", SELECTORS);
}

#[test]
fn only_chunks_of_the_range_are_given() {
    for dir in contract_blocks("promql/data") {
        let block = BlockReader::open(&dir).unwrap();
        let middle = (block.meta().min_ms + block.meta().end_ms) / 2;
        for range in [
            TimeRange::new(middle, middle),
            TimeRange::new(middle, middle + 600_000),
        ] {
            let (mut given, mut expected) = (0, 0);
            for series in block.select(&[], range).unwrap() {
                let series = series.unwrap();
                assert!(!series.chunks.is_empty());
                assert!(
                    series
                        .chunks
                        .iter()
                        .all(|chunk| chunk.range().overlaps(&range))
                );
                given += series.chunks.len();
            }
            for series in block.select(&[], TimeRange::ALL).unwrap() {
                let chunks = series.unwrap().chunks;
                expected += chunks
                    .iter()
                    .filter(|chunk| chunk.range().overlaps(&range))
                    .count();
            }
            assert_eq!(given, expected);
            assert!(given > 0);
        }
        let before = TimeRange::new(0, block.meta().min_ms - 1);
        assert_eq!(block.select(&[], before).unwrap().count(), 0);
        assert!(block.label_names(&[], before).unwrap().is_empty());
        assert!(block.label_values("job", &[], before).unwrap().is_empty());
    }
}
