//! Requests of all kinds.

use super::*;

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
    "instance=~.+",
    "instance!~.+",
    "__name__=~node_.*",
    "__name__=~http.*,code!=200",
    "__name__=~up|node_load1|",
    "__name__!~up|node_load1",
    "__name__=~.*_total,mode=~idle|user,cpu!~0|1",
    "__name__=~up|no_such_metric",
    "__name__=no_such_metric",
    "__name__=~no.*such",
    "le=~.+,__name__=~.*bucket",
    "le=,__name__=~.*bucket",
    "__name__=~a",
    "__name__=up,__name__=node_load1",
    "cluster=eu",
    "cluster=~eu|us",
    "cluster!=eu",
    "cluster=",
    "cluster!~.+",
    "replica=~.+",
    "prometheus_replica=a",
    "prometheus_replica=~.*b.*,__name__=up",
];

/// The times of all blocks, some parts of them, and times beside them.
fn ranges(fixture: &Fixture) -> Vec<TimeRange> {
    let all = fixture.metas.iter().map(|it| it.block.range());
    let all = all.reduce(|a, b| a.union(&b)).unwrap();
    let part = |n: i64| all.min_ms + (all.max_ms - all.min_ms) / 10 * n;
    vec![
        TimeRange::ALL,
        TimeRange::new(part(2), part(4)),
        TimeRange::new(part(5), part(5)),
        TimeRange::new(part(9), i64::MAX),
        TimeRange::new(i64::MIN, all.min_ms),
        TimeRange::new(all.max_ms + 1, i64::MAX),
        TimeRange::new(5, 4),
    ]
}

fn check_folder(folder: &str, replica: &str) {
    let Some(fixture) = Fixture::contract(folder) else {
        return;
    };
    for way in [Way::Cheapest, Way::Extents, Way::Postings] {
        let config = GatewayConfig {
            way,
            ..fixture.config()
        };
        let gateway = fixture.gateway(config);
        let mut series = 0;
        for (n, selector) in SELECTORS.iter().enumerate() {
            for (m, range) in ranges(&fixture).into_iter().enumerate() {
                if way != Way::Cheapest && (n + m) % 3 > 0 {
                    continue;
                }
                let mut request = SeriesRequest::new(matchers(selector), range);
                request.resolution_ms_max = [0, 300_000, 3_600_000][(n + m) % 3];
                request.skip_chunks = (n + m) % 5 == 4;
                request.limit = [0, 0, 0, 1, 7][(n * 3 + m) % 5];
                if (n + m) % 4 == 1 {
                    request.without_labels = vec![replica.to_owned()];
                }
                let expected = fixture.naive(&gateway, &request);
                let (got, remarks) = drain(gateway.series(request.clone())).unwrap();
                assert_eq!(
                    got, expected,
                    "{selector} of {range:?} by {way:?}: {request:?}"
                );
                series += got.len();
                let cut = SeriesRequest {
                    limit: 0,
                    ..request.clone()
                };
                let more = fixture.naive(&gateway, &cut).len() > got.len();
                assert_eq!(remarks, if more { vec![TRUNCATED] } else { vec![] });
            }
        }
        println!("{folder} by {way:?}: {series} series");
        assert_eq!(gateway.inner.budget.held(), 0);
        assert!(gateway.stats().series_touched.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn life() {
    check_folder("life", "replica");
}

#[test]
fn ha() {
    check_folder("ha", "prometheus_replica");
}

#[test]
fn a_block_of_many_metrics() {
    check_folder("promql/data", "instance");
}

#[test]
fn names_and_values() {
    for (folder, replica) in [("life", "replica"), ("ha", "prometheus_replica")] {
        let Some(fixture) = Fixture::contract(folder) else {
            return;
        };
        let gateway = fixture.gateway(fixture.config());
        for selector in SELECTORS {
            for range in ranges(&fixture).into_iter().step_by(2) {
                let mut request = LabelsRequest::new(matchers(selector), range);
                check_labels(&fixture, &gateway, &request);
                request.without_labels = vec![replica.to_owned()];
                check_labels(&fixture, &gateway, &request);
            }
        }
    }
}

fn check_labels(fixture: &Fixture, gateway: &Gateway, request: &LabelsRequest) {
    // Of blocks of all resolutions; without matchers all that cards say, whatever the times of series.
    let mut names = BTreeSet::new();
    let mut values: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let asked = [
        "__name__",
        "instance",
        "cluster",
        "replica",
        "le",
        "nothing",
        "prometheus_replica",
    ];
    for (meta, reader) in fixture.metas.iter().zip(&fixture.readers) {
        if !meta.block.overlaps(request.range) {
            continue;
        }
        let external = Labels::from_pairs(&meta.thanos.labels);
        let external_of = |it: &Matcher| !external.get(it.name()).is_empty();
        if request
            .matchers
            .iter()
            .any(|it| external_of(it) && !it.matches(external.get(it.name())))
        {
            continue;
        }
        let inner: Vec<_> = request
            .matchers
            .iter()
            .filter(|it| !external_of(it))
            .cloned()
            .collect();
        let range = if inner.is_empty() {
            TimeRange::ALL
        } else {
            request.range
        };
        for series in reader.select(&inner, range).unwrap() {
            let mut labels = LabelsBuilder::new(&series.unwrap().labels);
            external.iter().for_each(|(name, value)| {
                labels.set(name, value);
            });
            request.without_labels.iter().for_each(|name| {
                labels.remove(name);
            });
            let labels = labels.build();
            names.extend(labels.iter().map(|it| it.0.to_owned()));
            for name in asked {
                let value = labels.get(name);
                if !value.is_empty() {
                    values.entry(name).or_default().insert(value.to_owned());
                }
            }
        }
    }
    let got = block_on(gateway.label_names(request.clone())).unwrap();
    assert_eq!(
        got.values,
        names.into_iter().collect::<Vec<_>>(),
        "names of {request:?}"
    );
    for name in asked {
        let expected: Vec<_> = values
            .remove(name)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let got = block_on(gateway.label_values(name.to_owned(), request.clone())).unwrap();
        assert_eq!(got.values, expected, "{name} of {request:?}");
        let limit = LabelsRequest {
            limit: 1,
            ..request.clone()
        };
        let got = block_on(gateway.label_values(name.to_owned(), limit)).unwrap();
        assert_eq!(got.values, expected[..expected.len().min(1)]);
        assert_eq!(!got.warnings.is_empty(), expected.len() > 1);
    }
}

#[test]
fn blocks_by_name() {
    let Some(fixture) = Fixture::contract("life") else {
        return;
    };
    let gateway = fixture.gateway(fixture.config());
    let mut all = 0;
    for meta in &fixture.metas {
        let mut request = SeriesRequest::new(Vec::new(), TimeRange::ALL);
        request.block_matchers = vec![Matcher::equal(choose::BLOCK_ID, meta.id().to_string())];
        let (got, _) = drain(gateway.series(request.clone())).unwrap();
        assert_eq!(got, fixture.naive(&gateway, &request));
        all += got.len();
    }
    assert!(all > 0);
}

#[test]
fn what_is_held() {
    let Some(fixture) = Fixture::contract("life") else {
        return;
    };
    let gateway = fixture.gateway(fixture.config());
    let info = gateway.info();
    let whole = fixture
        .metas
        .iter()
        .map(|it| (it.block.min_ms, it.block.end_ms));
    let whole = whole.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap();
    assert_eq!(info.range, Some(TimeRange::new(whole.0, whole.1)));
    let labels: BTreeSet<_> = fixture
        .metas
        .iter()
        .map(|it| Labels::from_pairs(&it.thanos.labels))
        .collect();
    let got: BTreeSet<_> = info.sets.iter().map(|it| it.labels.clone()).collect();
    assert_eq!(got, labels);
    assert_eq!(
        fixture.gateway(fixture.config()).blocks().len(),
        fixture.metas.len()
    );
    gateway.set_blocks([]);
    assert_eq!(gateway.info(), StoreInfo::default());
    let request = SeriesRequest::new(Vec::new(), TimeRange::ALL);
    assert_eq!(drain(gateway.series(request)).unwrap().0, []);
}
