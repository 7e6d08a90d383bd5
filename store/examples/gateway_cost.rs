//! What does a request to the store gateway cost, in time, processor time, requests and bytes?
//!
//! Data: blocks of 2 h of 20,000 series (100 metrics of 200 pods, 8 labels, 15 s) in a local directory.
//! Two runs over each selector: through the file system as a bucket, and with 30 ms to the first byte and
//! 50 MB/s. Then the start with 10,000 blocks known. Command, with a directory for the data, which is
//! kept for the next time:
//!
//! ```sh
//! cargo run --release -p isobar-store --example gateway_cost -- DIRECTORY [blocks]
//! ```

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::executor::block_on;
use isobar_model::{Budget, Labels, MatchOp, Matcher, TimeRange};
use isobar_store::api::{LabelsRequest, SeriesBatch, SeriesRequest, Store};
use isobar_store::block::{Meta, Summary, paths};
use isobar_store::cache::PageCache;
use isobar_store::cache::remote::Remote;
use isobar_store::compute::Pool;
use isobar_store::gateway::{Gateway, GatewayConfig};
use isobar_tsdb::block::{BlockMeta, BlockWriter};
use isobar_tsdb::chunks::{Chunk, XorAppender};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use ulid::Ulid;

const METRICS: usize = 100;
const PODS: usize = 200;
const HOURS: i64 = 2;
const STEP_MS: i64 = 15_000;
const BEGIN_MS: i64 = 1_700_000_000_000 / 7_200_000 * 7_200_000;

fn labels() -> Vec<Labels> {
    let mut all: Vec<Labels> = (0..METRICS * PODS)
        .map(|i| {
            let (metric, pod) = (i / PODS, i % PODS);
            Labels::from_pairs([
                ("__name__", format!("container_metric_{metric:03}_total")),
                ("cluster", "eu-west-1".into()),
                ("container", format!("app-{}", pod % 20)),
                ("instance", format!("10.0.{}.{}:9100", pod / 50, pod % 50)),
                ("job", "kubelet".into()),
                ("namespace", format!("team-{}", pod % 10)),
                ("node", format!("node-{:02}", pod % 24)),
                (
                    "pod",
                    format!("app-{}-7d9f8b6c5-{:05x}", pod % 20, pod * 7919),
                ),
            ])
        })
        .collect();
    all.sort();
    all
}

/// A chunk each 30 minutes; values of a counter that differs from series to series.
fn chunks(series: usize, from_ms: i64) -> Vec<Chunk> {
    let samples = HOURS * 3_600_000 / STEP_MS;
    let mut value = (series * 31) as f64;
    let mut chunks = Vec::new();
    let mut appender = XorAppender::new();
    for i in 0..samples {
        value += ((i * 7 + series as i64 * 13) % 29) as f64;
        appender.append(from_ms + i * STEP_MS + (series as i64 % 7), value);
        if i % 120 == 119 {
            chunks.extend(std::mem::replace(&mut appender, XorAppender::new()).into_chunk());
        }
    }
    chunks
}

fn write_blocks(dir: &Path, blocks: usize) -> Vec<Meta> {
    let labels = labels();
    let texts = labels
        .iter()
        .flat_map(Labels::iter)
        .flat_map(|(a, b)| [a, b]);
    let symbols: BTreeSet<&str> = texts.collect();
    let mut metas = Vec::new();
    for n in 0..blocks {
        let ulid = Ulid::from_parts(n as u64 + 1, 7);
        let path = dir.join(ulid.to_string()).join("meta.json");
        if !path.exists() {
            let from_ms = BEGIN_MS + n as i64 * HOURS * 3_600_000;
            let meta = BlockMeta::new(ulid, from_ms, from_ms + HOURS * 3_600_000);
            let symbols = symbols.iter().map(|it| Ok(*it));
            let mut writer = BlockWriter::create(dir, meta, symbols).expect("a block");
            for (i, labels) in labels.iter().enumerate() {
                writer.add(labels, &chunks(i, from_ms)).expect("a series");
            }
            writer.finish().expect("a block");
        }
        let json = std::fs::read(path).expect("a meta.json");
        let mut meta = Meta::decode("meta.json", &json).expect("a meta.json");
        meta.thanos
            .labels
            .insert("prometheus".into(), "monitoring/k8s".into());
        metas.push(meta);
    }
    metas
}

/// A bucket in memory with the files of a local one.
fn in_memory(bucket: &Path, metas: &[Meta]) -> InMemory {
    let store = InMemory::new();
    for meta in metas {
        let id = meta.id();
        let dir = bucket.join(id.to_string());
        let segments = std::fs::read_dir(dir.join("chunks")).expect("chunks");
        let segments = segments.map(|it| it.expect("a file").file_name().into_string());
        let segments = segments.map(|it| format!("chunks/{}", it.expect("a number")));
        for file in segments.chain(["index".to_owned()]) {
            let bytes = std::fs::read(dir.join(&file)).expect("a file");
            block_on(store.put(&paths::file(id, &file), bytes.into())).expect("an object");
        }
    }
    store
}

fn gateway(runtime: &Runtime, store: Arc<dyn ObjectStore>, data_dir: PathBuf) -> Gateway {
    let remote = Remote::new(store, runtime.handle().clone());
    let cache = Arc::new(PageCache::in_memory(512 << 20));
    let pool = Arc::new(Pool::new("gateway", 2, 10_000).expect("threads"));
    let budget = Budget::new("the memory of the gateway", 2 << 30);
    Gateway::new(GatewayConfig::new(data_dir), remote, cache, pool, budget)
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let _own = stat;
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let nanos = stat.split(' ').next().and_then(|it| it.parse::<u64>().ok());
        total += nanos.unwrap_or(0);
    }
    Duration::from_nanos(total)
}

fn ask(gateway: &Gateway, request: &SeriesRequest) -> (usize, usize, Duration) {
    let started = Instant::now();
    let mut first = Duration::ZERO;
    let mut counts = (0, 0);
    let mut series = gateway.series(request.clone());
    block_on(async {
        while let Some(item) = series.next().await {
            if first.is_zero() {
                first = started.elapsed();
            }
            match item.expect("an answer") {
                SeriesBatch::Series(batch) => {
                    counts.0 += batch.len();
                    counts.1 += batch.iter().map(|it| it.chunks.len()).sum::<usize>();
                }
                SeriesBatch::Warnings(remarks) => panic!("{remarks:?}"),
            }
        }
    });
    (counts.0, counts.1, first)
}

fn report(what: &str, gateway: &Gateway, request: &SeriesRequest, times: u32) {
    use std::sync::atomic::Ordering::Relaxed;
    let counters = gateway.remote().counters();
    let (requests, bytes) = (
        counters.requests.load(Relaxed),
        counters.bytes.load(Relaxed),
    );
    let (used, started) = (cpu(), Instant::now());
    let mut last = (0, 0, Duration::ZERO);
    for _ in 0..times {
        last = ask(gateway, request);
    }
    let (elapsed, used) = (started.elapsed() / times, (cpu() - used) / times);
    println!(
        "  {what:<34} {:>6} series {:>7} chunks  first {:>9.2?}  all {:>9.2?}  cpu {:>9.2?}  {:>4} requests {:>7} KiB",
        last.0,
        last.1,
        last.2,
        elapsed,
        used,
        (counters.requests.load(Relaxed) - requests) / u64::from(times),
        (counters.bytes.load(Relaxed) - bytes) / 1024 / u64::from(times),
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("a directory for the data"));
    let blocks = arguments
        .next()
        .map_or(12, |it| it.parse().expect("a number of blocks"));
    // Only this selector, many times: for a profiler.
    let only = arguments.next();
    let bucket = dir.join("bucket");
    std::fs::create_dir_all(&bucket).expect("a directory");
    let metas = write_blocks(&bucket, blocks);
    let known: Vec<Summary> = metas.iter().map(Summary::of).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let files = || LocalFileSystem::new_with_prefix(&bucket).expect("a bucket");
    let regexp =
        |name: &str, value: &str| Matcher::new(name, MatchOp::Regexp, value).expect("valid");
    let metric = |n: usize| Matcher::equal("__name__", format!("container_metric_{n:03}_total"));
    let selectors: Vec<(&str, Vec<Matcher>)> = vec![
        ("one metric", vec![metric(7)]),
        (
            "one metric of a namespace",
            vec![metric(8), Matcher::equal("namespace", "team-3")],
        ),
        (
            "one series",
            vec![metric(9), Matcher::equal("instance", "10.0.2.7:9100")],
        ),
        (
            "one metric by expression",
            vec![metric(10), regexp("pod", "app-1.*")],
        ),
        (
            "five metrics",
            vec![regexp("__name__", "container_metric_02[0-4]_total")],
        ),
        (
            "one pod, no metric",
            vec![Matcher::equal("instance", "10.0.1.3:9100")],
        ),
        ("pod is not empty", vec![regexp("pod", ".+")]),
    ];
    for slow in [false, true] {
        println!(
            "{}",
            if slow {
                "30 ms, 50 MB/s"
            } else {
                "file system"
            }
        );
        let store: Arc<dyn ObjectStore> = if slow {
            let config = ThrottleConfig {
                wait_get_per_call: Duration::from_millis(30),
                wait_get_per_byte: Duration::from_nanos(20),
                ..ThrottleConfig::default()
            };
            Arc::new(ThrottledStore::new(in_memory(&bucket, &metas), config))
        } else {
            Arc::new(files())
        };
        for (what, matchers) in &selectors {
            let data_dir = dir.join("data");
            let _absent = std::fs::remove_dir_all(&data_dir);
            let gateway = gateway(&runtime, Arc::clone(&store), data_dir);
            gateway.set_blocks(&known);
            let request = SeriesRequest::new(matchers.clone(), TimeRange::ALL);
            report(&format!("{what}, cold"), &gateway, &request, 1);
            if only.as_ref().is_some_and(|it| it == what) {
                report(what, &gateway, &request, 2000);
                return;
            }
            if !slow {
                let times = if *what == "pod is not empty" { 2 } else { 50 };
                report(&format!("{what}, warm"), &gateway, &request, times);
            }
        }
    }
    let data_dir = dir.join("data");
    let gateway = gateway(&runtime, Arc::new(files()), data_dir);
    gateway.set_blocks(&known);
    let started = Instant::now();
    let request = LabelsRequest::new(Vec::new(), TimeRange::ALL);
    let values = block_on(gateway.label_values("pod".into(), request)).expect("values");
    println!(
        "label values of pod: {} in {:.2?}",
        values.values.len(),
        started.elapsed()
    );

    let many: Vec<Summary> = (0..10_000u64)
        .map(|n| Summary {
            id: Ulid::from_parts(n + 1_000_000, 1),
            ..known[n as usize % known.len()].clone()
        })
        .collect();
    let rss = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm
            .split(' ')
            .nth(1)
            .and_then(|it| it.parse::<u64>().ok())
            .unwrap_or(0)
            * 4
    };
    let before = rss();
    let started = Instant::now();
    gateway.set_blocks(&many);
    println!(
        "10,000 blocks in {:.2?}, {} KiB",
        started.elapsed(),
        rss().saturating_sub(before)
    );
}
