//! A bucket that fails by a seed: answers are right, or say what is missing; and when it works again, all is
//! there at once.

use super::*;
use crate::testing::faulty::{Fault, Faulty};

const SELECTORS: [&str; 4] = [
    "__name__=~.+",
    "__name__=up",
    "job=~.*o.*",
    "__name__=~.*_total,instance!=x",
];

/// The answer to a request of a fixture whose bucket fails; the number of remarks.
fn check(fixture: &Fixture, gateway: &Gateway, selector: &str, seed: u64) -> usize {
    let request = SeriesRequest::new(matchers(selector), TimeRange::ALL);
    let whole = fixture.naive(gateway, &request);
    let (got, remarks) = drain(gateway.series(request.clone())).unwrap();
    let place = format!("{selector}, seed {seed}");
    if remarks.is_empty() {
        assert_eq!(got, whole, "{place}");
        return 0;
    }
    let mut others = Vec::new();
    for remark in &remarks {
        let rest = remark.strip_prefix("fetch series for block ");
        let name = rest.and_then(|it| it.split_once(':')).map(|it| it.0);
        let name = name.unwrap_or_else(|| panic!("{place}: {remark}"));
        assert!(fixture.metas.iter().any(|it| it.id().to_string() == name));
        others.push(Matcher::new(choose::BLOCK_ID, MatchOp::NotEqual, name).unwrap());
    }
    let without = SeriesRequest {
        block_matchers: others,
        ..request
    };
    let chunks_of = |all: &[SeriesChunks], labels: &Labels| {
        let found = all.binary_search_by(|it| it.labels.cmp(labels));
        found.map(|at| all[at].chunks.clone()).unwrap_or_default()
    };
    for series in &got {
        let all = chunks_of(&whole, &series.labels);
        let invented = series.chunks.iter().find(|it| !all.contains(it));
        assert!(invented.is_none(), "{place}: {}", series.labels);
    }
    for series in fixture.naive(gateway, &without) {
        let given = chunks_of(&got, &series.labels);
        let missing = series.chunks.iter().find(|it| !given.contains(it));
        assert!(missing.is_none(), "{place}: {}", series.labels);
    }
    remarks.len()
}

fn runs(fixture: &Fixture, faults: &[Fault], seed: u64) -> (usize, usize) {
    let inner = Arc::clone(&fixture.store) as Arc<dyn ObjectStore>;
    let faulty = Arc::new(Faulty::new(inner, faults, 300, seed));
    let data_dir = tempfile::tempdir().unwrap();
    let mut config = GatewayConfig::new(data_dir.path());
    config.way = [Way::Cheapest, Way::Extents, Way::Postings][seed as usize % 3];
    let gateway = fixture.gateway_over(config, Arc::clone(&faulty) as Arc<dyn ObjectStore>);
    let mut remarks = 0;
    for selector in SELECTORS {
        remarks += check(fixture, &gateway, selector, seed);
    }
    let values = LabelsRequest::new(matchers("__name__=up"), TimeRange::ALL);
    let values = block_on(gateway.label_values("job".into(), values)).unwrap();
    remarks += values.warnings.warnings().len();
    faulty.set_rate(0);
    for selector in SELECTORS {
        let left = check(fixture, &gateway, selector, seed);
        assert_eq!(left, 0, "{faults:?}, seed {seed}");
    }
    (faulty.injected(), remarks)
}

#[test]
fn a_bucket_that_fails_now_and_then() {
    let Some(fixture) = Fixture::contract("ha") else {
        return;
    };
    let (mut injected, mut remarks) = (0, 0);
    let mut add = |counts: (usize, usize)| {
        injected += counts.0;
        remarks += counts.1;
    };
    for fault in Fault::ALL {
        for seed in 0..3 {
            add(runs(&fixture, &[fault], seed));
        }
    }
    for seed in 10..40 {
        add(runs(&fixture, &Fault::ALL, seed));
    }
    println!("{injected} faults, {remarks} remarks");
    assert!(injected > 180 && remarks > 100);
}

/// A card that was written although the bucket said otherwise is written once more, and is right.
#[test]
fn answers_that_are_lost_when_cards_are_written() {
    let Some(fixture) = Fixture::contract("ha") else {
        return;
    };
    let inner = Arc::clone(&fixture.store) as Arc<dyn ObjectStore>;
    let faulty = Arc::new(Faulty::new(inner, &[Fault::LostResponse], 0, 1));
    let gateway = fixture.gateway_over(
        fixture.config(),
        Arc::clone(&faulty) as Arc<dyn ObjectStore>,
    );
    check(&fixture, &gateway, SELECTORS[0], 1);
    faulty.set_rate(1000);
    let publish = || fixture.runtime.block_on(gateway.publish_cards());
    assert!(publish().is_err());
    faulty.set_rate(0);
    assert_eq!(publish().unwrap(), fixture.metas.len());
    assert_eq!(publish().unwrap(), 0);
    for meta in &fixture.metas {
        let card = block_on(fixture.store.get(&block::bucket_card(meta.id()))).unwrap();
        let card = block_on(card.bytes()).unwrap();
        assert_eq!(
            card,
            std::fs::read(gateway.inner.card_path(meta.id())).unwrap()
        );
    }
}
