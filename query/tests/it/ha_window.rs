//! What `window`, the default, answers over the blocks of two collectors, beside Thanos' answers.
//!
//! Each recorded question that is about single series is asked again: deduplicated by `window`,
//! and of each collector alone. Every value of `window` must be, to the last digit, the one that a
//! collector alone gives at that step. How many of Thanos' values are so is counted and shown: the
//! others nobody ever measured. Some are shown in full by [`thanos_and_the_collectors_disagree`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use axum::http::Method;
use isobar_query::replicas::Function;
use serde_json::Value as Json;

use crate::fixture::Server;
use crate::ha::{CONTRACT, REPLICA, parameters, server, thanos_store};

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
    let Some((server, _dir)) = window() else {
        return;
    };
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

/// A server that deduplicates by `window`; nothing when there are no blocks.
fn window() -> Option<(Server, tempfile::TempDir)> {
    let blocks = Path::new(CONTRACT).join("ha");
    if !blocks.exists() {
        println!("skipped: {} not found", blocks.display());
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = thanos_store(&blocks, dir.path());
    Some((server(&store, Function::Window), dir))
}
