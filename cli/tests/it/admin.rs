//! The admin API beside a real Prometheus: the same block, the same writes, the same calls, and then the
//! same answers; a snapshot that Prometheus opens.
//!
//! The Prometheus on the path is used, and the newer one that `ISOBAR_PEER_PROMETHEUS` names.

use std::path::{Path, PathBuf};

use isobar_model::{Columns, Labels};

use crate::faults::copy_dir;
use crate::harness::{Server, client, columns, labels, peer};
use crate::peers::{compare, prometheus};

/// Where the block begins and the samples of the head end, in seconds; no window ends at a sample, which
/// the versions count differently.
const RANGE: (&str, &str) = ("1700006400.1", "1700014400.1");
const FLAGS: [&str; 4] = [
    "--web.enable-admin-api",
    "--web.enable-remote-write-receiver",
    "--enable-feature=native-histograms",
    "--storage.tsdb.retention.time=90y",
];

/// Status and text of the answer to a call.
fn call(server: &Server, method: &str, call: &str) -> (u16, String) {
    let url = format!("{}/api/v1/admin/tsdb/{call}", server.url);
    let request = client().request(method.parse().unwrap(), url);
    let response = request.send().unwrap();
    (response.status().as_u16(), response.text().unwrap())
}

/// Both answer a call alike. The versions write some messages with another first letter.
fn same(ours: &Server, theirs: &Server, method: &str, text: &str) -> u16 {
    let (a, b) = (call(ours, method, text), call(theirs, method, text));
    let plain = |answer: &(u16, String)| (answer.0, answer.1.to_lowercase());
    assert_eq!(plain(&a), plain(&b), "{method} {text}");
    a.0
}

fn compare_all(ours: &Server, theirs: &Server) {
    let (start, end) = RANGE;
    for query in [
        "up",
        "count_over_time({__name__=~\".+\"}[10m])",
        "sum by (job) (rate(up[5m]))",
        "histogram_count(latency) + histogram_sum(latency)",
        "requests_total",
        "absent(up{job=\"c\"})",
    ] {
        let params = [
            ("query", query),
            ("start", start),
            ("end", end),
            ("step", "37"),
        ];
        compare(ours, theirs, "/api/v1/query_range", &params);
    }
}

/// What follows the block: samples of two series that it knows and of a new one.
fn later() -> Vec<(Labels, Columns)> {
    let samples: Vec<(i64, f64)> = (0..200)
        .map(|at| (1_700_010_900_000 + at * 15_000, at as f64))
        .collect();
    let of = |instance: &str, job: &str| {
        Labels::from_pairs([("__name__", "up"), ("instance", instance), ("job", job)])
    };
    let all = [of("one", "a"), of("two", "b"), labels("new", "job", "a")];
    all.map(|it| (it, columns(&samples))).into()
}

fn check(binary: &Path) {
    let block = "../tsdb/tests/golden/prometheus-2.42";
    let block = Path::new(env!("CARGO_MANIFEST_DIR")).join(block);
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    copy_dir(&block, &data_dir);
    copy_dir(&block, &dir.path().join("prometheus"));
    let start = || {
        Server::isobar(
            &data_dir,
            &["--no-self-monitoring", "--web.enable-admin-api"],
        )
    };
    let isobar = start();
    let peer = prometheus(binary, dir.path(), "", &FLAGS);
    for server in [&isobar, &peer] {
        let (status, text) = server.write(&later()).unwrap();
        assert!(status < 300, "{status} {text}");
    }
    compare_all(&isobar, &peer);
    let same = |method: &str, text: &str| same(&isobar, &peer, method, text);

    assert_eq!(same("POST", "delete_series"), 400);
    assert_eq!(same("PUT", "delete_series?match[]={"), 400);
    assert_eq!(same("POST", "delete_series?match[]=up&start=x"), 400);
    assert_eq!(same("POST", "delete_series?match[]=up&end=1e400"), 400);
    assert_eq!(same("POST", "snapshot?skip_head=maybe"), 400);
    assert_eq!(same("GET", "clean_tombstones"), 405);
    assert_eq!(same("POST", "delete_series?match[]=up&start=5&end=1"), 204);
    compare_all(&isobar, &peer);

    // In the block, in the head, over both, and all of a series; of histograms, too.
    for deletion in [
        "match[]=up{job=\"b\"}&start=1700007000&end=1700007900",
        "match[]=up{job=\"a\"}&start=1700011000&end=1700012000",
        "match[]={instance=~\"one|two\"}&start=1700010500&end=1700010990.5",
        "match[]=new&match[]=requests_total{code=\"500\"}",
        "match[]=latency&start=1700006500&end=1700006800",
    ] {
        assert_eq!(same("POST", &format!("delete_series?{deletion}")), 204);
        compare_all(&isobar, &peer);
    }
    assert_eq!(same("POST", "clean_tombstones"), 204);
    compare_all(&isobar, &peer);

    let (status, text) = call(&isobar, "PUT", "snapshot");
    let name = text.split("\"name\":\"").nth(1).unwrap_or_default();
    let name = name.split('"').next().unwrap();
    assert_eq!(
        (status, name.len()),
        (200, "20260101T000000Z-".len() + 16),
        "{text}"
    );
    let opened = tempfile::tempdir().unwrap();
    let snapshot = data_dir.join("snapshots").join(name);
    copy_dir(&snapshot, &opened.path().join("prometheus"));
    let opened_by = prometheus(binary, opened.path(), "", &FLAGS);
    compare_all(&isobar, &opened_by);
    assert_eq!(call(&isobar, "POST", "snapshot?skip_head=true").0, 200);

    drop(isobar);
    let isobar = start();
    compare_all(&isobar, &peer);
    assert_eq!(call(&isobar, "POST", "delete_series?match[]={}").0, 204);
    let left = isobar.api(
        "/api/v1/query_range",
        &[
            ("query", "up"),
            ("start", RANGE.0),
            ("end", RANGE.1),
            ("step", "60"),
        ],
    );
    assert_eq!(left["data"]["result"], serde_json::json!([]));
}

#[test]
fn deletions_and_snapshots_are_those_of_prometheus() {
    let binaries = peer("prometheus").into_iter();
    for binary in binaries.chain(std::env::var_os("ISOBAR_PEER_PROMETHEUS").map(PathBuf::from)) {
        check(&binary);
    }
}

#[test]
fn it_is_off_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let isobar = Server::isobar(dir.path(), &["--no-self-monitoring"]);
    let off = r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    for it in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        assert_eq!(call(&isobar, "POST", it), (500, off.to_owned()));
    }
    assert!(!dir.path().join("snapshots").exists());
}
