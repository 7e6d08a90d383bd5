//! Generated queries: a real Prometheus and Isobar are asked the same over the same data, and
//! their answers compared.
//!
//! By itself this asks a few hundred queries of the Prometheus on the path, which may be
//! Debian's 2.42; [`since`] lists what changed since. By hand, the environment says more:
//!
//! - `ISOBAR_PEER_PROMETHEUS`: the path of another Prometheus. From 3.0 on, all of the language
//!   is generated, broken queries too, annotations are compared, and half of the queries go to
//!   the recorded block of `../shared/contract/promql/data`.
//! - `ISOBAR_GENERATED_QUERIES`: how many queries, 400 if not given.
//! - `ISOBAR_GENERATED_SEED`: the seed, 1 if not given. Query number n of a seed is always the
//!   same; `ISOBAR_GENERATED_FIRST` begins with a later one.
//! - `ISOBAR_GENERATED_FEATURES`: features that are switched on on both sides, as
//!   `promql-delayed-name-removal`.
//! - `ISOBAR_GENERATED_HISTOGRAMS=1`: metrics with native histograms are asked for, too.
//!
//! Floats may differ by 1e-12 relative, results of sums by 1e-12 of the largest sample that the
//! query may read, since the order of additions is free. Of errors the status and type are
//! compared, and the text of those of the parser; which of equal series `topk` and its like take
//! is free.

mod answers;
mod data;
mod modern;
mod queries;
mod requests;
mod since;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::faults::copy_dir;
use crate::harness::{Random, Server, peer};
use crate::peers::prometheus;
use answers::Difference;
use queries::{Vocabulary, Writer};
use requests::{Request, seconds};

const CLIENTS: u64 = 2;
/// What a modern peer has to be told.
const FEATURES: &str = "--enable-feature=promql-experimental-functions,\
    promql-extended-range-selectors,promql-binop-fill-modifiers,promql-duration-expr,\
    promql-per-step-stats";
/// How often the peer is asked whether it has another answer.
const ANSWERS_MAX: usize = 30;
/// Differences that are printed in full.
const PRINTED_MAX: usize = 400;

/// The times of the data, and who is asked.
pub(crate) struct Setting {
    start_ms: i64,
    end_ms: i64,
    /// Whether the peer is 3.0 or later.
    modern: bool,
}

/// What came of a run.
#[derive(Default)]
struct Tally {
    failed: u64,
    empty: u64,
    rounded: u64,
    /// Queries to which the peer has several answers that differ as this one does from its first.
    unsteady: u64,
    /// Queries that were not asked, by the change since 2.42 that they touch.
    left_out: BTreeMap<&'static str, u64>,
    found: Vec<(u64, String, Difference)>,
}

fn setting_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn generated_queries_are_answered_as_by_prometheus() {
    let given = std::env::var_os("ISOBAR_PEER_PROMETHEUS").map(PathBuf::from);
    let Some(binary) = given.or_else(|| peer("prometheus")) else {
        return;
    };
    let seed = setting_from_env("ISOBAR_GENERATED_SEED", 1);
    let first = setting_from_env("ISOBAR_GENERATED_FIRST", 0);
    let count = setting_from_env("ISOBAR_GENERATED_QUERIES", 400);
    let modern = is_modern(&binary);
    let contract = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract/promql/data"
    ));
    let recorded = modern && contract.is_dir();
    let mut numbers = first..first + count;
    let mut differences = 0;
    if recorded {
        let half = Setting {
            start_ms: 1_700_005_800_000,
            end_ms: 1_700_016_600_000,
            modern,
        };
        let middle = first + count / 2;
        differences += run(&binary, &half, seed, first..middle, Some(contract));
        numbers.start = middle;
    }
    let setting = Setting {
        start_ms: data::START_MS,
        end_ms: data::END_MS,
        modern,
    };
    differences += run(&binary, &setting, seed, numbers, None);
    assert_eq!(differences, 0, "differences, printed above");
}

fn is_modern(binary: &Path) -> bool {
    let output = std::process::Command::new(binary)
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    !text.contains("version 2.")
}

/// Starts both, gives them the block or writes the data, and asks. The number of differences.
fn run(
    binary: &Path,
    setting: &Setting,
    seed: u64,
    numbers: std::ops::Range<u64>,
    block: Option<&Path>,
) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    if let Some(block) = block {
        copy_dir(block, &data_dir);
        copy_dir(block, &dir.path().join("prometheus"));
    }
    // Features on both sides, besides those that the peer has to be told.
    let more = std::env::var("ISOBAR_GENERATED_FEATURES").unwrap_or_default();
    let features = format!("--enable-feature={more},promql-per-step-stats");
    let isobar = Server::isobar(&data_dir, &["--no-self-monitoring", &features]);
    let mut flags = vec![
        "--storage.tsdb.retention.time=90y",
        "--web.enable-remote-write-receiver",
    ];
    if setting.modern {
        flags.extend([FEATURES, &features]);
    }
    let peer = prometheus(binary, dir.path(), "", &flags);
    if block.is_none() {
        data::write(seed, &[&isobar, &peer]);
    }
    let vocabulary = vocabulary(&peer, setting);
    let next = AtomicU64::new(numbers.start);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
                    let request = draw(&vocabulary, setting, &mut random, &tally);
                    ask(&isobar, &peer, setting, number, &request, &tally);
                }
            });
        }
    });
    let log = isobar.process.log();
    assert!(!log.contains("panicked"), "{log}");
    report(
        &tally.into_inner().unwrap(),
        seed,
        numbers.end - numbers.start,
    )
}

/// A request that the peer has to answer as Isobar does.
fn draw(
    vocabulary: &Vocabulary,
    setting: &Setting,
    random: &mut Random,
    tally: &Mutex<Tally>,
) -> Request {
    loop {
        let broken = setting.modern && random.chance(3);
        let times = (setting.start_ms, setting.end_ms);
        let mut writer = Writer::new(random, vocabulary, times, setting.modern);
        let query = if broken {
            writer.broken()
        } else {
            writer.query()
        };
        if queries::unsteady(&query) {
            continue;
        }
        match since::change(&query).filter(|_| !setting.modern) {
            Some(change) => {
                *tally
                    .lock()
                    .unwrap()
                    .left_out
                    .entry(change.why)
                    .or_default() += 1
            }
            None => return Request::draw(query, setting, random),
        }
    }
}

fn answer(server: &Server, request: &Request) -> Value {
    let text = server
        .get(request.path, &request.borrowed())
        .text()
        .unwrap();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn ask(
    isobar: &Server,
    peer: &Server,
    setting: &Setting,
    number: u64,
    request: &Request,
    tally: &Mutex<Tally>,
) {
    let (ours, theirs) = (answer(isobar, request), answer(peer, request));
    let query = request.query();
    let mut found = answers::compare(query, &ours, &theirs, setting.modern, 0.0);
    let mut rounded = false;
    if found.as_ref().is_some_and(|d| d.kind.ends_with("values")) && answers::sums(query) {
        found = answers::compare(
            query,
            &ours,
            &theirs,
            setting.modern,
            match largest(peer, setting, query) {
                largest if query.contains("stdvar") => largest * largest,
                largest => largest,
            },
        );
        rounded = found.is_none();
    }
    let mut unsteady = false;
    if let Some(difference) = found.as_ref().filter(|_| setting.modern) {
        // Results of operators leave Prometheus in the order of a map, and sums depend on it.
        let compare = |a: &Value, b: &Value| answers::compare(query, a, b, true, 0.0);
        unsteady = (0..ANSWERS_MAX).any(|_| {
            let again = answer(peer, request);
            let itself = compare(&theirs, &again);
            itself.is_some_and(|it| it.kind == difference.kind) || compare(&ours, &again).is_none()
        });
        found = found.filter(|_| !unsteady);
    }
    let mut tally = tally.lock().unwrap();
    tally.unsteady += u64::from(unsteady);
    tally.failed += u64::from(theirs["status"] == "error");
    tally.empty += u64::from(
        theirs["data"]["result"]
            .as_array()
            .is_some_and(Vec::is_empty),
    );
    tally.rounded += u64::from(rounded);
    if let Some(found) = found {
        tally.found.push((
            number,
            format!("{} {:?}", request.path, request.params),
            found,
        ));
    }
}

/// The largest magnitude among the samples of all metrics that are named in a query.
fn largest(peer: &Server, setting: &Setting, query: &str) -> f64 {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let span = (setting.end_ms - setting.start_ms) / 1000 + 600;
    let time = seconds(setting.end_ms + 300_000);
    let times = ["time", "ts_of_"].iter().any(|name| query.contains(name));
    let mut largest = if times {
        setting.end_ms as f64 / 1000.0
    } else {
        0.0
    };
    for word in words.filter(|word| word.contains('_') || *word == "up") {
        for extreme in ["max", "min"] {
            let query = format!("{extreme}({extreme}_over_time({word}[{span}s]))");
            let params = [("query", query.as_str()), ("time", time.as_str())];
            let Ok(answer) = peer.get("/api/v1/query", &params).json::<Value>() else {
                continue;
            };
            let value = answer["data"]["result"][0]["value"][1]
                .as_str()
                .and_then(|v| v.parse::<f64>().ok());
            largest = largest.max(value.unwrap_or(0.0).abs());
        }
    }
    largest
}

/// All that can be selected, without native histograms unless they are asked for.
fn vocabulary(peer: &Server, setting: &Setting) -> Vocabulary {
    let (start, end) = (
        seconds(setting.start_ms),
        seconds(setting.end_ms + 3_600_000),
    );
    let range = [
        ("match[]", "{__name__!=\"\"}"),
        ("start", start.as_str()),
        ("end", end.as_str()),
    ];
    let listed = peer.api("/api/v1/series", &range);
    let mut vocabulary = Vocabulary::default();
    for series in listed["data"].as_array().unwrap() {
        let labels = series.as_object().unwrap();
        let name = labels["__name__"].as_str().unwrap();
        let known = vocabulary.metrics.entry(name.to_owned()).or_default();
        for (label, value) in labels.iter().filter(|(label, _)| *label != "__name__") {
            let values = known.entry(label.clone()).or_default();
            let value = value.as_str().unwrap().to_owned();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let histograms = std::env::var_os("ISOBAR_GENERATED_HISTOGRAMS").is_some_and(|v| v == "1");
    if setting.modern && !histograms {
        vocabulary
            .metrics
            .retain(|name, _| !has_histograms(peer, name, &end));
    }
    assert!(!vocabulary.metrics.is_empty());
    vocabulary
}

fn has_histograms(peer: &Server, name: &str, end: &str) -> bool {
    let query = format!("max_over_time(count(histogram_count({name}))[5h:1m])");
    let found = peer.query(&query, end);
    !found["result"].as_array().unwrap().is_empty()
}

/// Prints what came of a run. The number of differences.
fn report(tally: &Tally, seed: u64, count: u64) -> usize {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, request, found) in tally.found.iter().take(PRINTED_MAX) {
        eprintln!(
            "seed {seed} query {number}: {}\n    {request}\n    {}",
            found.kind, found.detail
        );
    }
    for (_, _, found) in &tally.found {
        *kinds.entry(found.kind).or_default() += 1;
    }
    for (why, count) in &tally.left_out {
        eprintln!("left out {count}: {why}");
    }
    eprintln!(
        "generated: {count} queries of seed {seed}, {} differences {kinds:?}; {} errors, {} empty \
         answers, {} sums rounded otherwise, {} answered in several ways by the peer",
        tally.found.len(),
        tally.failed,
        tally.empty,
        tally.rounded,
        tally.unsteady
    );
    assert!(
        tally.failed * 4 < count && tally.empty * 10 < count * 8,
        "most queries have to have a result"
    );
    tally.found.len()
}
