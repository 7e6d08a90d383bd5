//! The whole way of a sample with real programs: a Prometheus, `isobar sidecar` beside it, a bucket behind
//! a real S3 API, and `isobar store` over the bucket. Whoever asks sidecar and store gets, sample by
//! sample, what Prometheus says itself, and queries over both together give its answers. A sidecar that is
//! killed at any write leaves each block in the bucket complete or absent.
//!
//! The Prometheus on the path is used, and the newer one that `ISOBAR_PEER_PROMETHEUS` names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::histogram::Buckets;
use isobar_model::sample::STALE_NAN_BITS;
use isobar_model::{Columns, FloatHistogram, Labels, TimeRange};
use isobar_proto::thanos::LabelMatcher;
use isobar_query::engine::{Config, Engine, QueryOptions};
use isobar_query::metrics::EngineMetrics;
use isobar_store::Store;
use isobar_store::compute::Pool;
use isobar_store::grpc::RemoteStore;
use isobar_store::testing::s3::{Held, S3Server};
use isobar_store::union::Union;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::components::{
    Component, asked, matcher, samples_answered, samples_in, samples_of, samples_said,
};
use crate::harness::{Server, eventually};
use crate::peers::{block_dirs, prometheus};
use crate::sidecar::binaries;

const CONFIG: &str = "global: {external_labels: {cluster: us, a_first: '1'}}\n";
const EXTERNAL: [(&str, &str); 2] = [("cluster", "us"), ("a_first", "1")];
/// Blocks are cut while the samples come, and not compacted.
const FLAGS: [&str; 4] = [
    "--storage.tsdb.min-block-duration=10m",
    "--storage.tsdb.max-block-duration=10m",
    "--web.enable-remote-write-receiver",
    "--enable-feature=native-histograms",
];
const BLOCK_MS: i64 = 600_000;
/// Where samples begin.
const BASE_MS: i64 = 1_700_000_000_000;
/// How many there are of each series, and how far apart.
const STEPS: i64 = 260;
const STEP_MS: i64 = 15_000;
const BUCKET: &str = "metrics";

/// Series whose order changes when external labels are added, with all that a sample can be.
fn history() -> Vec<(Labels, Columns)> {
    let times = |shift: i64| (0..STEPS).map(move |step| (step, BASE_MS + step * STEP_MS + shift));
    let floats = |labels: &[(&str, &str)], value: &dyn Fn(i64) -> f64| {
        let mut columns = Columns::default();
        times(137).for_each(|(step, time)| columns.push(time, value(step)));
        (Labels::from_pairs(labels.iter().copied()), columns)
    };
    let histogram = |step: i64| {
        let (at, far) = ((step % 90) as f64, 3 + (step % 90 / 30) as i32);
        FloatHistogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count: at + 1.0,
            count: at * 3.0 + 1.0,
            sum: at * 3.5,
            positive: Buckets::of_layout([-1, far].into(), vec![at, at]).unwrap(),
            ..FloatHistogram::default()
        }
    };
    let histograms = Columns {
        histograms: times(5)
            .map(|(step, time)| (time, Arc::new(histogram(step))))
            .collect(),
        ..Columns::default()
    };
    let mut all = vec![
        floats(&[("__name__", "a_total")], &|step| (step % 100) as f64),
        floats(&[("__name__", "gauge"), ("Zone", "é")], &|step| {
            (step as f64 / 7.0).sin()
        }),
        floats(
            &[("__name__", "gauge"), ("b", "1")],
            &|step| match step % 9 {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => -0.0,
                _ => 1e-300 * step as f64,
            },
        ),
        floats(&[("__name__", "gauge"), ("b", "1"), ("z", "1")], &|step| {
            step as f64 / 3.0
        }),
        // It ends and comes back.
        floats(&[("__name__", "gauge"), ("z", "2")], &|step| match step {
            100 => f64::from_bits(STALE_NAN_BITS),
            _ => 7.0,
        }),
        floats(&[("__name__", "up"), ("job", "x")], &|_| 1.0),
    ];
    all.push((
        Labels::from_pairs([("__name__", "sizes"), ("job", "x")]),
        histograms,
    ));
    all
}

/// Prometheus with that history, all but the last quarter of an hour of it in blocks.
fn prometheus_with_blocks(binary: &Path, dir: &Path) -> Server {
    let prometheus = prometheus(binary, dir, CONFIG, &FLAGS);
    let (status, text) = prometheus.write(&history()).unwrap();
    assert!(status < 300, "{status} {text}");
    eventually("blocks to be cut", || {
        let status = prometheus.api("/api/v1/status/tsdb", &[]);
        let head = &status["data"]["headStats"];
        let (from, to) = (head["minTime"].as_i64()?, head["maxTime"].as_i64()?);
        (to - from <= BLOCK_MS * 3 / 2).then_some(())
    });
    prometheus
}

/// Where the blocks of Prometheus end, unix milliseconds.
fn blocks_end(data: &Path) -> i64 {
    let blocks = block_dirs(data);
    let metas = blocks.iter().map(|it| meta(&data.join(it)).unwrap());
    metas
        .map(|it| it["maxTime"].as_i64().unwrap())
        .max()
        .unwrap()
}

fn meta(block: &Path) -> Option<Value> {
    let text = fs::read(block.join("meta.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// All files below a directory with their content.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name = path.strip_prefix(directory).unwrap().to_owned();
                    all.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    all
}

/// How many blocks are in the bucket. Each is there as Prometheus has it.
fn complete_blocks(bucket: &Path, data: &Path) -> usize {
    let mut complete = 0;
    for entry in fs::read_dir(bucket).unwrap() {
        let block = entry.unwrap().path();
        let local = data.join(block.file_name().unwrap());
        let (sent, own) = (files(&block), files(&local));
        let Some(meta) = meta(&block) else {
            continue;
        };
        complete += 1;
        assert_eq!(meta["thanos"]["labels"]["cluster"], "us");
        let listed = meta["thanos"]["files"].as_array().unwrap();
        assert_eq!(listed.len(), sent.len(), "{sent:?}");
        for file in listed {
            let name = file["rel_path"].as_str().unwrap();
            if name != "meta.json" {
                let name = Path::new(name);
                assert!(sent[name] == own[name], "{} differs", name.display());
            }
        }
    }
    complete
}

/// Kills a sidecar at each of its first writes, before the bucket has it or when only the answer is missing.
fn killed_in_mid_upload(s3: &S3Server, dir: &Path, prometheus: &Server, flag: &str) {
    let data = dir.join("prometheus");
    let rounds = [
        (0, Held::Request, "the first block's chunks"),
        (1, Held::Request, "its index"),
        (0, Held::Answer, "its index, that was written"),
        (0, Held::Request, "its meta.json"),
        (0, Held::Answer, "its meta.json, that was written"),
        (1, Held::Request, "the second block's index"),
    ];
    let complete = [0, 0, 0, 0, 1, 1];
    for ((passing, held, what), complete) in rounds.into_iter().zip(complete) {
        s3.hold(passing, held);
        let mut sidecar = Component::sidecar_unready(&prometheus.url, dir, &[flag]);
        eventually(what, || (s3.waiting() > 0).then_some(()));
        sidecar.server.process.kill();
        s3.open();
        eventually("the write to be lost", || (s3.waiting() == 0).then_some(()));
        let found = complete_blocks(&s3.directory(BUCKET), &data);
        assert_eq!(found, complete, "killed at {what}");
    }
    let begun = fs::read_dir(s3.directory(BUCKET)).unwrap().count();
    assert_eq!(begun, 2);
}

fn compare(component: &Component, prometheus: &Server, from_ms: i64, to_ms: i64) -> usize {
    let range = TimeRange::new(from_ms, to_ms - 1);
    let time = format!("{}.{:03}", range.max_ms / 1000, range.max_ms % 1000);
    let length = range.max_ms - range.min_ms;
    let mut count = 0;
    let selects: [(&str, Vec<LabelMatcher>); 4] = [
        ("{__name__!=\"\"}", vec![matcher(1, "__name__", "")]),
        ("gauge", vec![matcher(0, "__name__", "gauge")]),
        (
            "{z=~\"1|2\",b=\"\"}",
            vec![
                matcher(2, "z", "1|2"),
                matcher(0, "b", ""),
                matcher(2, "cluster", "u."),
            ],
        ),
        ("sizes", vec![matcher(0, "__name__", "sizes")]),
    ];
    for (selector, matchers) in selects {
        let query = format!("{selector}[{length}ms]");
        let series = component.series(asked(range.min_ms, range.max_ms, matchers));
        let series = series.unwrap();
        let labels: Vec<_> = series.iter().map(|it| it.label_set()).collect();
        assert!(labels.is_sorted(), "{query}: out of order");
        let ours = samples_of(&series, range);
        let theirs = samples_said(prometheus, &query, &time, &EXTERNAL);
        assert!(!theirs.is_empty(), "{query}");
        assert_eq!(ours.len(), theirs.len(), "{query}");
        for (labels, samples) in &theirs {
            assert_eq!(ours.get(labels), Some(samples), "{query}: {labels}");
        }
        count += theirs.values().map(Vec::len).sum::<usize>();
    }
    count
}

/// Queries, and whether their answers have the external labels.
const QUERIES: [(&str, bool); 8] = [
    ("{__name__=~\"a_total|up|gauge\"}", true),
    ("sizes", true),
    ("rate(a_total[2m])", true),
    ("sum by (z) (gauge{b=\"\"})", false),
    ("max_over_time(gauge{z!=\"\"}[5m])", true),
    ("count_over_time({job=\"x\",__name__!=\"sizes\"}[4m])", true),
    ("sum by (job) (histogram_count(sizes))", false),
    ("quantile by (b) (0.5, gauge{b!=\"1\"}) > 0", false),
];

/// Asks our engine over both components, as one store, and Prometheus.
fn compare_queries(runtime: &Runtime, components: [&Component; 2], prometheus: &Server) {
    let (start, end) = (BASE_MS + 300_000, BASE_MS + STEPS * STEP_MS);
    let (start, end) = (start / 60_000 * 60_000, end / 60_000 * 60_000);
    let stores = components.map(|it| {
        let remote = RemoteStore::new("test", it.channel.clone());
        runtime.block_on(remote.refresh()).unwrap();
        Arc::new(remote) as Arc<dyn Store>
    });
    let pool = Arc::new(Pool::new("test", 1, 100).unwrap());
    let metrics = EngineMetrics::new(&mut Registry::default());
    let union = Arc::new(Union::of(stores.to_vec()));
    let engine = Engine::new(union, pool, Config::default(), metrics);
    for (query, has_external) in QUERIES {
        let options = QueryOptions::default();
        let answer = runtime.block_on(engine.range(query, start, end, 60_000, options));
        let answer = answer.unwrap();
        assert!(answer.result.warnings.is_empty(), "{query}");
        let ours = samples_answered(&answer.result.value);
        let params = [
            ("query", query),
            ("start", &(start / 1000).to_string()),
            ("end", &(end / 1000).to_string()),
            ("step", "60"),
        ];
        let theirs = prometheus.api("/api/v1/query_range", &params);
        let external: &[_] = if has_external { &EXTERNAL } else { &[] };
        let theirs = samples_in(&theirs["data"]["result"], external);
        assert!(!theirs.is_empty(), "{query}");
        assert!(
            ours.keys().eq(theirs.keys()),
            "{query}: {ours:?} {theirs:?}"
        );
        for (labels, theirs) in &theirs {
            let ours = &ours[labels];
            let same = |a: &[u64], b: &[u64]| a.iter().zip(b).all(|(a, b)| near(*a, *b));
            let times = |all: &[(i64, Vec<u64>)]| all.iter().map(|it| it.0).collect::<Vec<_>>();
            assert_eq!(times(ours), times(theirs), "{query}: {labels}");
            for (a, b) in ours.iter().zip(theirs) {
                assert!(
                    a.1.len() == b.1.len() && same(&a.1, &b.1),
                    "{query}: {labels}: {a:?} {b:?}"
                );
            }
        }
    }
}

/// Whether floats are the same but for the last digits, in which versions of Prometheus differ.
fn near(a: u64, b: u64) -> bool {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    a == b || (x - y).abs() <= 1e-12 * x.abs().max(y.abs())
}

#[test]
fn from_prometheus_over_a_bucket_to_who_asks() {
    for binary in binaries() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("prometheus");
        let prometheus = prometheus_with_blocks(&binary, dir.path());
        let runtime = Runtime::new().unwrap();
        let s3 = runtime.block_on(S3Server::start(BUCKET));
        let config = s3.config(BUCKET, "");
        let flag = format!("--objstore.config={config}");
        killed_in_mid_upload(&s3, dir.path(), &prometheus, &flag);

        // What is there half is not there for who reads.
        let cache = tempfile::tempdir().unwrap();
        let store = Component::store(&config, cache.path(), &[]);
        let loaded = store.server.api("/api/v1/blocks", &[("view", "loaded")]);
        assert_eq!(loaded["data"]["blocks"].as_array().unwrap().len(), 1);
        drop(store);

        let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[&flag]);
        let blocks = block_dirs(&data).len();
        assert!(blocks >= 4, "{blocks}");
        eventually("all blocks to be shipped", || {
            let noted = fs::read(data.join("thanos.shipper.json")).ok()?;
            let noted: Value = serde_json::from_slice(&noted).unwrap();
            (noted["uploaded"].as_array()?.len() == blocks).then_some(())
        });
        assert_eq!(complete_blocks(&s3.directory(BUCKET), &data), blocks);

        let store = Component::store(&config, cache.path(), &[]);
        let (end, shipped) = (BASE_MS + STEPS * STEP_MS, blocks_end(&data));
        let all = compare(&sidecar, &prometheus, BASE_MS, end);
        let in_bucket = compare(&store, &prometheus, BASE_MS, shipped);
        // Within a block, and over the border between two.
        for (from, to) in [(1_000, 290_000), (300_000, 1_500_321)] {
            let (from, to) = (BASE_MS + from, BASE_MS + to);
            assert_eq!(
                compare(&sidecar, &prometheus, from, to),
                compare(&store, &prometheus, from, to)
            );
        }
        assert!(in_bucket > 2000 && all > in_bucket, "{in_bucket} of {all}");
        compare_queries(&runtime, [&sidecar, &store], &prometheus);
    }
}
