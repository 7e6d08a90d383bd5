//! `query_explain`, `query_range_explain` and `analyze=true` in the shape of Thanos' answers.

use std::path::Path;
use std::sync::Arc;

use axum::http::Method;
use isobar_store::local::LocalStore;
use isobar_tsdb::db::{Db, DbConfig};
use serde_json::Value as Json;

use crate::fixture::{Memory, Server, copy_dir};

/// An operator with the fields that Thanos gives it, of the types that Thanos gives them.
fn check_shape(node: &Json, analyzed: bool) {
    let is_u64_or_none = |field: &str| node[field].is_null() || node[field].is_u64();
    assert!(node["name"].is_string(), "{node}");
    assert!(node["children"].is_null() || node["children"].is_array());
    assert!(is_u64_or_none("peakSamples") && is_u64_or_none("totalSamples"));
    assert_eq!(node["executionTime"].is_string(), analyzed, "{node}");
    for child in node["children"].as_array().into_iter().flatten() {
        check_shape(child, analyzed);
    }
}

/// The names as an indented list.
fn names(node: &Json, level: usize, out: &mut String) {
    let name = node["name"].as_str().expect("a name");
    let name = name.split(", form ").next().unwrap_or(name);
    out.push_str(&format!("{}{name}\n", "  ".repeat(level)));
    for child in node["children"].as_array().into_iter().flatten() {
        names(child, level + 1, out);
    }
}

async fn check(path: &str, field: &str, expected: &str) -> Json {
    let answer = Server::new(Memory::hour(5)).get(path).await;
    let data = answer.json()["data"].clone();
    let tree = if field.is_empty() {
        &data
    } else {
        &data[field]
    };
    check_shape(tree, field == "analysis");
    let mut given = String::new();
    names(tree, 0, &mut given);
    let expected: Vec<&str> = expected
        .lines()
        .map(|line| line.trim_start_matches('|'))
        .collect();
    assert_eq!(given.trim_end(), expected.join("\n").trim(), "{path}");
    tree.clone()
}

#[tokio::test]
async fn operators_have_readable_names() {
    check(
        "/api/v1/query_explain?query=sum%20by(i,j)(rate(m[5m]))%20/%20on(i)%20m%20%2b%201&time=1700049600",
        "",
        "[query] at 2023-11-15T12:00:00Z
|  [binary] … + 1
|    [join] / on (i)
|      [aggregate] sum by (i, j)
|        [windows] rate over [5m] of m, samples from 2023-11-15T11:55:00Z to 2023-11-15T12:00:00Z, read once for 2 operators
|      [selector] m, samples from 2023-11-15T11:55:00Z to 2023-11-15T12:00:00Z, read once for 2 operators",
    )
    .await;
    check(
        "/api/v1/query_range_explain?query=topk(scalar(m{i=%2200001%22}),max_over_time(m[5m:1m]))%20unless%20m&start=1700049000&end=1700049600&step=60&engine=thanos",
        "",
        "[query] 11 steps of 1m from 2023-11-15T11:50:00Z to 2023-11-15T12:00:00Z
|  [set] unless
|    [aggregate] topk(scalar(…))
|      [selector] m{i=\"00001\"}, samples from 2023-11-15T11:45:00Z to 2023-11-15T12:00:00Z
|      [subquery] max_over_time over [5m:1m], 15 steps
|        [selector] m, samples from 2023-11-15T11:41:00Z to 2023-11-15T12:00:00Z, read once for 2 operators
|    [selector] m, samples from 2023-11-15T11:41:00Z to 2023-11-15T12:00:00Z, read once for 2 operators",
    )
    .await;
}

#[tokio::test]
async fn an_analysis_counts_what_flowed() {
    let query = "/api/v1/query?query=sum(max_over_time(m{i!=%2200000%22}[5m]))&time=1700049600&analyze=true";
    let tree = check(
        query,
        "analysis",
        "[query] at 2023-11-15T12:00:00Z
|  [aggregate] sum
|    [windows] max_over_time over [5m] of m{i!=\"00000\"}, labels (), samples from 2023-11-15T11:55:00Z to 2023-11-15T12:00:00Z",
    )
    .await;
    assert_eq!(
        (&tree["totalSamples"], &tree["peakSamples"]),
        (&76.into(), &4.into())
    );
    assert_eq!((&tree["series"], &tree["samples"]), (&1.into(), &1.into()));
    assert!(tree["wallTime"].is_string() && tree["ownTime"].is_string());
    let sum = &tree["children"][0];
    assert_eq!((&sum["series"], &sum["samples"]), (&1.into(), &1.into()));
    let windows = &sum["children"][0];
    for (field, expected) in [
        ("series", 4),
        ("samples", 4),
        ("seriesRead", 4),
        ("samplesRead", 76),
        ("totalSamples", 76),
    ] {
        assert_eq!(windows[field], expected, "{field} of {windows}");
    }
    assert!(windows["bytesRead"].as_u64() > Some(0), "{windows}");
    assert!(windows["decodeTime"].is_string() && windows["storeTime"].is_string());
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_there() {
    let server = Server::new(Memory::hour(1));
    let data = server
        .get("/api/v1/query?query=m&time=1700049600")
        .await
        .json();
    assert!(data["data"]["analysis"].is_null());
    let refused = server.get("/api/v1/query_explain?query=m&engine=x").await;
    assert_eq!(
        refused.text(),
        r#"{"status":"error","errorType":"bad_data","error":"'x' bad engine"}"#
    );
    for (path, kind) in [
        ("/api/v1/query_explain?query=m%20%2b", "bad_data"),
        (
            "/api/v1/query_range_explain?query=m&start=1&end=0&step=1",
            "bad_data",
        ),
    ] {
        assert_eq!(server.get(path).await.json()["errorType"], kind, "{path}");
    }
}

#[tokio::test]
async fn what_nests_deep_is_cut() {
    let server = Server::new(Memory::hour(1));
    let sum = vec!["m"; 1_000].join("%2b");
    for query in [sum, format!("{}m{}", "abs(".repeat(400), ")".repeat(400))] {
        for path in ["query_explain?", "query?analyze=1&"] {
            let answer = server.get(&format!("/api/v1/{path}query={query}")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains("deeper operators are not shown"));
        }
    }
}

/// The requests that were recorded from Thanos, over the blocks that it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_shapes_are_met() {
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
    let mut met = 0;
    for line in lines.lines() {
        let recorded: Json = serde_json::from_str(line).expect("a request a line");
        let path = recorded["path"].as_str().expect("a path");
        let params = crate::contract::parameters(&recorded);
        let analyze = params.iter().any(|(name, _)| name == "analyze");
        if !path.ends_with("_explain") && !analyze {
            continue;
        }
        let answer = server.ask(Method::GET, path, &params).await;
        assert_eq!(recorded["status"], answer.status.as_u16(), "{path}");
        let (theirs, ours) = (&recorded["answer"]["data"], answer.json()["data"].clone());
        match analyze {
            true => {
                check_shape(&theirs["analysis"], true);
                check_shape(&ours["analysis"], true);
                assert_eq!(theirs["resultType"], ours["resultType"]);
            }
            false => {
                check_shape(theirs, false);
                check_shape(&ours, false);
                let mut leaf = &ours;
                while let Some(child) = leaf["children"].get(0) {
                    leaf = child;
                }
                assert!(leaf["estimatedSeries"].as_u64() > Some(0), "{ours}");
                assert!(leaf["estimatedSamples"].as_u64() > Some(0), "{ours}");
            }
        }
        met += 1;
    }
    println!("explain: {met} recorded shapes met");
    assert_eq!(met, 5);
}
