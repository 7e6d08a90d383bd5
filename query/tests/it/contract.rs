//! Recorded requests to Prometheus 3.14, asked here over the same blocks.
//!
//! `../shared/contract/http.jsonl` holds them, `../shared/contract/ha` the blocks. Without the
//! folder the test is skipped.

use std::path::Path;
use std::sync::Arc;

use axum::http::{Method, header};
use isobar_store::local::LocalStore;
use isobar_tsdb::db::{Db, DbConfig};
use serde_json::Value as Json;

use crate::fixture::{Response, Server, copy_dir};

/// Paths that no router of this crate serves yet, or that other crates serve.
const ELSEWHERE: &[&str] = &[
    "/",
    "/-/reload",
    "/api/v1/admin/tsdb/delete_series",
    "/api/v1/alertmanagers",
    "/api/v1/alerts",
    "/api/v1/features",
    "/api/v1/notifications",
    "/api/v1/rules",
    "/api/v1/scrape_pools",
    "/api/v1/status/config",
    "/api/v1/status/walreplay",
    "/api/v1/targets",
    "/api/v1/write",
    "/federate",
];

/// Paths whose data name a machine or a moment: only their shape is compared.
const SHAPE_ONLY: &[(&str, &str)] = &[
    ("/api/v1/status/buildinfo", "names the build"),
    (
        "/api/v1/status/runtimeinfo",
        "names the process and the time",
    ),
    ("/api/v1/status/flags", "names the flags of another program"),
    ("/api/v1/status/tsdb", "counts the recorder's own metrics"),
    ("/version", "names the build"),
];

/// What is not met, with the reason. An entry that is met is to be taken out.
const MISSES: &[(&str, &str)] = &[(
    "/api/v1/metadata limit=3 ",
    "tells what the recorder scraped from itself",
)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_answers_are_met() {
    let contract = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract"
    ));
    let Ok(lines) = std::fs::read_to_string(contract.join("http.jsonl")) else {
        println!("skipped: {} not found", contract.display());
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    copy_dir(&contract.join("ha"), dir.path());
    let db = Db::open(DbConfig::new(dir.path())).expect("a database");
    let server = Server::new(Arc::new(LocalStore::new(Arc::new(db))));

    let (mut met, mut all, mut wrong) = (0, 0, Vec::new());
    for line in lines.lines() {
        let recorded: Json = serde_json::from_str(line).expect("a request a line");
        let path = recorded["path"].as_str().expect("a path");
        if recorded["component"] != "prometheus" || ELSEWHERE.contains(&path) {
            continue;
        }
        all += 1;
        let params = parameters(&recorded);
        let method = recorded["method"].as_str().expect("a method");
        let name = format!(
            "{method} {path} {}",
            params
                .iter()
                .map(|(n, v)| format!("{n}={v} "))
                .collect::<String>()
        );
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = server.ask(method, path, &params).await;
        let listed = MISSES.iter().find(|(part, _)| name.contains(part));
        match (compare(&recorded, &answer), listed) {
            (Ok(()), None) => met += 1,
            (Ok(()), Some(_)) => wrong.push(format!("{name}: is met and still listed as a miss")),
            (Err(_), Some((_, reason))) => println!("not met: {name}: {reason}"),
            (Err(why), None) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!("contract: {met} of {all} requests met");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(met + MISSES.len(), all);
}

pub(crate) fn parameters(recorded: &Json) -> Vec<(String, String)> {
    let text = |json: &Json| {
        json.as_str()
            .map_or_else(|| json.to_string(), str::to_owned)
    };
    let pairs = recorded["params"].as_array().expect("parameters").iter();
    pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn compare(recorded: &Json, answer: &Response) -> Result<(), String> {
    let check = |what: &str, expected: String, given: String| {
        if expected == given {
            Ok(())
        } else {
            Err(format!("{what}: expected {expected}, given {given}"))
        }
    };
    check(
        "status",
        recorded["status"].to_string(),
        answer.status.as_u16().to_string(),
    )?;
    for (name, key) in [
        (header::CONTENT_TYPE, "Content-Type"),
        (header::ALLOW, "Allow"),
    ] {
        let expected = recorded["headers"][key].as_str().unwrap_or_default();
        check(key, expected.to_owned(), answer.header(name).to_owned())?;
    }
    let expected = &recorded["answer"];
    if let Some(text) = expected.as_str() {
        return check("text", text.to_owned(), answer.text());
    }
    let given = answer.json();
    if SHAPE_ONLY.iter().any(|(path, _)| recorded["path"] == *path) {
        return check_shape(expected, &given);
    }
    for key in ["status", "errorType", "error", "data", "warnings", "infos"] {
        let mut expected = numbers_as_floats(&expected[key]);
        let mut given = numbers_as_floats(&given[key]);
        for side in [&mut expected, &mut given] {
            forget_timings(side);
        }
        check(key, expected.to_string(), given.to_string())?;
    }
    Ok(())
}

/// Whether the objects have the same keys, down to lists and maps of free names.
fn check_shape(expected: &Json, given: &Json) -> Result<(), String> {
    const FREE: &[&str] = &["alertmanager.notification-queue-capacity"];
    let (Some(want), Some(have)) = (expected.as_object(), given.as_object()) else {
        return if std::mem::discriminant(expected) == std::mem::discriminant(given) {
            Ok(())
        } else {
            Err(format!("expected the kind of {expected}, given {given}"))
        };
    };
    if FREE.iter().any(|key| want.contains_key(*key)) {
        return Ok(());
    }
    if !want.keys().eq(have.keys()) {
        return Err(format!("expected the keys of {expected}, given {given}"));
    }
    want.iter()
        .try_for_each(|(key, expected)| check_shape(expected, &given[key]))
}

/// How long a query took differs from run to run, and from machine to machine.
fn forget_timings(data: &mut Json) {
    if let Some(timings) = data
        .pointer_mut("/stats/timings")
        .and_then(Json::as_object_mut)
    {
        timings.values_mut().for_each(|value| *value = Json::Null);
    }
    // The engines hold different things in memory at a time.
    if let Some(peak) = data.pointer_mut("/stats/samples/peakSamples") {
        *peak = Json::Null;
    }
}

/// `1` and `1.0` are one number.
fn numbers_as_floats(json: &Json) -> Json {
    match json {
        Json::Number(number) => Json::from(number.as_f64()),
        Json::Array(items) => items.iter().map(numbers_as_floats).collect(),
        Json::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), numbers_as_floats(value)))
            .collect(),
        other => other.clone(),
    }
}
