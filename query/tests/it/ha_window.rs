//! What `window`, the default, answers over the blocks of two collectors, beside Thanos' answers.
//!
//! Each recorded question that is about single series is asked again: deduplicated by `window`,
//! and of each collector alone. Every value of `window` must be, to the last digit, the one that a
//! collector alone gives at that step. How many of Thanos' values are so is counted and shown: the
//! others nobody ever measured. Four of them stand in [`BESIDE`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use axum::http::Method;
use isobar_query::replicas::Function;
use serde_json::Value as Json;

use crate::fixture::Server;
use crate::ha::{CONTRACT, External, REPLICA, parameters, server, thanos_store};

/// By labels and time, the values that are given, as they are written.
type Values = BTreeMap<(String, String), BTreeSet<String>>;

/// The values of an answer, without the label that tells collectors apart.
fn values(answer: &Json) -> Values {
    let mut all = Values::new();
    for series in answer["data"]["result"].as_array().expect("a result") {
        let mut labels = series["metric"].clone();
        labels.as_object_mut().expect("labels").remove(REPLICA);
        for key in ["value", "values", "histogram", "histograms"] {
            let found = &series[key];
            let samples = match found[0].is_array() {
                true => found.as_array().cloned().unwrap_or_default(),
                false if found.is_array() => vec![found.clone()],
                false => Vec::new(),
            };
            for sample in samples {
                let at = (labels.to_string(), sample[0].to_string());
                all.entry(at).or_default().insert(sample[1].to_string());
            }
        }
    }
    all
}

/// Whether two numbers are one but for rounding: Thanos sums counters up before it looks at them.
fn close(a: &str, b: &str) -> bool {
    let number = |text: &str| text.trim_matches('"').parse::<f64>();
    match (number(a), number(b)) {
        _ if a == b => true,
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => false,
    }
}

async fn ask(server: &Server, path: &str, params: &[(String, String)], dedup: bool) -> Values {
    let mut params: Vec<_> = params
        .iter()
        .filter(|it| it.0 != "dedup")
        .cloned()
        .collect();
    params.push(("dedup".to_owned(), dedup.to_string()));
    values(&server.ask(Method::GET, path, &params).await.json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_value_is_one_that_a_collector_gives() {
    let Some((store, _dir)) = blocks() else {
        println!("skipped: {CONTRACT} not found");
        return;
    };
    let server = server(&store, Function::Window);
    let lines = std::fs::read_to_string(Path::new(CONTRACT).join("ha-answers.jsonl"));
    // By function: values, those that no collector gave, and those that are missing though a
    // collector has one.
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for line in lines.expect("the answers").lines() {
        let recorded: Json = serde_json::from_str(line).expect("a request a line");
        let path = recorded["path"].as_str().expect("a path");
        let params = parameters(&recorded);
        let get = |name: &str| {
            params
                .iter()
                .find(|it| it.0 == name)
                .map(|it| it.1.as_str())
        };
        let query = get("query").unwrap_or_default();
        if query.is_empty() || query.contains("sum") || query.contains("count(") {
            continue;
        }
        if get("dedup") != Some("true") || get("replicaLabels[]").is_some() {
            continue;
        }
        let alone = ask(&server, path, &params, false).await;
        let window = ask(&server, path, &params, true).await;
        let thanos = values(&recorded["answer"]);
        let func = recorded["dedup_func"].as_str().expect("a function");
        for (name, given) in [("window", &window), (func, &thanos)] {
            let [all, foreign, missing] = counts.entry(name.to_owned()).or_default();
            *all += given.len();
            let is_foreign = |(at, it): (&(String, String), &BTreeSet<String>)| {
                let real = |alone: &BTreeSet<String>| match name {
                    "window" => it.is_subset(alone),
                    _ => it
                        .iter()
                        .all(|it| alone.iter().any(|alone| close(it, alone))),
                };
                !alone.get(at).is_some_and(real)
            };
            *foreign += given.iter().filter(|it| is_foreign(*it)).count();
            *missing += alone.keys().filter(|at| !given.contains_key(*at)).count();
        }
        let count = counts["window"];
        assert_eq!(
            count[1..],
            [0, 0],
            "{path} {params:?}: {window:?} {alone:?}"
        );
    }
    for (name, [all, foreign, missing]) in &counts {
        println!(
            "{name}: {all} values, {foreign} that no collector gives, {missing} missing that one gives"
        );
    }
    assert!(counts["window"][0] > 4_000);
    assert!(counts["penalty"][1] > 0 && counts["chain"][1] > 0);
}

/// What two collectors, called a and b, and the three functions answer.
///
/// - Collector a was away for six of ten minutes, b for none. Each scrapes every 15 s, so ten
///   minutes hold 40 samples: b has them all. `penalty` loses one where it changes sides, `chain`
///   counts those of both.
/// - In these five minutes both saw the same rate; `penalty` and `chain` find another one, above
///   and below, as their samples come from both.
/// - a was away, so its rate is too low; b's is right.
/// - Of this hour a lacks the first minute and b six minutes in its middle, so a is taken. What
///   `penalty` says is more than either saw: where it changes sides it lifts what comes after.
const BESIDE: &str = "\
count_over_time(demo_num_cpus[10m]) @ 1700012400
  a 16, b 40; window 40, penalty 39, chain 56
rate(demo_items_shipped_total[5m]) @ 1700013800
  a 2.989, b 2.989; window 2.989, penalty 3.011, chain 2.901
rate(demo_items_shipped_total[5m]) @ 1700017300
  a 2.090, b 3.153; window 3.153, penalty 3.130, chain 3.130
increase(demo_items_shipped_total[1h]) @ 1700010300
  a 11149, b 11305; window 11149, penalty 11312, chain 11278
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_thanos() {
    let Some((store, _dir)) = blocks() else {
        println!("skipped: {CONTRACT} not found");
        return;
    };
    let functions = [Function::Window, Function::Penalty, Function::Chain];
    let servers = functions.map(|function| server(&store, function));
    let mut shown = String::new();
    for line in BESIDE.lines().step_by(2) {
        let (query, time) = line.split_once(" @ ").expect("a query and a time");
        let at = time.parse::<f64>().ok();
        // The steps of the recorded range queries, as what is spliced depends on where it begins.
        let path = "/api/v1/query_range";
        let mut params: Vec<(String, String)> = [
            ("query", query),
            ("start", "1700008200"),
            ("end", "1700019400"),
            ("step", "700"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
        let mut numbers = Vec::new();
        for (i, dedup) in [(0, "false"), (0, "true"), (1, "true"), (2, "true")] {
            params.push(("dedup".to_owned(), dedup.to_owned()));
            let answer = servers[i].ask(Method::GET, path, &params).await.json();
            params.pop();
            let series = answer["data"]["result"].as_array().expect("series");
            let one = |it: &&Json| it["metric"]["instance"] == "demo.promlabs.com:10000";
            for series in series.iter().filter(one) {
                let mut values = series["values"].as_array().expect("values").iter();
                let value = values.find(|it| it[0].as_f64() == at).expect("the time");
                let number: f64 = value[1]
                    .as_str()
                    .expect("a text")
                    .parse()
                    .expect("a number");
                numbers.push(match number {
                    _ if number.fract() == 0.0 || number > 1000.0 => format!("{number:.0}"),
                    _ => format!("{number:.3}"),
                });
            }
        }
        let [a, b, window, penalty, chain] = numbers.as_slice() else {
            panic!("{query}: {numbers:?}");
        };
        shown += &format!("{line}\n  a {a}, b {b}; ");
        shown += &format!("window {window}, penalty {penalty}, chain {chain}\n");
    }
    assert_eq!(shown, BESIDE);
}

/// The blocks of the two collectors; nothing where there are none.
fn blocks() -> Option<(Arc<External>, tempfile::TempDir)> {
    let blocks = Path::new(CONTRACT).join("ha");
    if !blocks.exists() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = thanos_store(&blocks, dir.path());
    Some((store, dir))
}
