//! Samples that come late: what a real Prometheus takes and refuses, Isobar takes and refuses.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use isobar_ingest::local::{self, LocalSample};
use isobar_model::{Clock, Sample, Tenant};
use isobar_tsdb::db::{Cut, Db, DbConfig, Sync};

use crate::faults::copy_dir;
use crate::harness::{Random, Server, columns, labels, peer};
use crate::import::other_peer;
use crate::peers::{block_dirs, compare, prometheus};

const START: i64 = 1_700_000_000_000;
const MINUTE: i64 = 60_000;
/// Values are sent one by one, so that what becomes of each is told.
const SAMPLES: u64 = 400;
const CONFIG: &str = "storage:\n  tsdb:\n    out_of_order_time_window: 2h\n";

/// Whether a sample was taken, and if not, why.
fn send(server: &Server, job: &str, time_ms: i64, value: f64) -> String {
    let sample = (labels("m", "job", job), columns(&[(time_ms, value)]));
    let (status, text) = server.write(&[sample]).unwrap();
    let reasons = ["too old sample", "duplicate sample for timestamp"];
    let reason = reasons.iter().find(|reason| text.contains(**reason));
    format!("{} {}", status / 100, reason.unwrap_or(&""))
}

fn check(binary: &Path, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let theirs = prometheus(
        binary,
        dir.path(),
        CONFIG,
        &["--web.enable-remote-write-receiver"],
    );
    let ours = Server::isobar(&dir.path().join("isobar"), &["--no-self-monitoring"]);
    let mut random = Random::new(seed);
    let mut sent = BTreeMap::<(&str, i64), f64>::new();
    let mut newest = BTreeMap::<&str, i64>::new();
    let mut outcomes = BTreeMap::<String, u32>::new();
    let mut cursor = START;
    for round in 0..SAMPLES {
        cursor += random.below(3 * MINUTE as u64) as i64;
        let job = *random.pick(&["a", "b", "c", "d"]);
        let minutes = |of: u64| of as i64 * MINUTE;
        let late = match random.below(10) {
            0..3 => Some(0),
            3..5 => Some(minutes(random.below(10))),
            5..8 => Some(minutes(random.below(119))),
            8 => Some(minutes(121 + random.below(120))),
            _ => None,
        };
        let of_job = |it: &&(&str, i64)| it.0 == job && cursor - it.1 < 100 * MINUTE;
        let time_ms = match (late, sent.keys().rev().find(of_job)) {
            // One that was sent before, with the same value.
            (None, Some((_, known_ms))) => *known_ms,
            (late, _) => cursor - late.unwrap_or(0) - random.below(1000) as i64,
        };
        let known = sent.get(&(job, time_ms)).copied();
        let value = known.unwrap_or(round as f64);
        let (a, b) = (
            send(&ours, job, time_ms, value),
            send(&theirs, job, time_ms, value),
        );
        assert_eq!(a, b, "seed {seed}: {job} {time_ms}, newest {cursor}");
        if a.starts_with('2') {
            sent.insert((job, time_ms), value);
            let of_job = newest.entry(job).or_insert(time_ms);
            *of_job = time_ms.max(*of_job);
        }
        *outcomes.entry(a).or_default() += 1;
        // Another value for the newest sample of a series. For an older one Prometheus does not look.
        let of_job = newest.get(job).copied();
        if let Some(newest_ms) = of_job.filter(|it| cursor - it < 50 * MINUTE && random.chance(15))
        {
            for server in [&ours, &theirs] {
                assert_eq!(
                    send(server, job, newest_ms, -1.0),
                    DUPLICATE,
                    "{job} {newest_ms}"
                );
            }
            *outcomes.entry(DUPLICATE.to_owned()).or_default() += 1;
        }
    }
    eprintln!("{}: {outcomes:?}", binary.display());
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    let time = ((cursor + MINUTE) / 1000).to_string();
    for query in [
        "m[24h]",
        "count_over_time(m[24h])",
        "sum(max_over_time(m[30m]))",
    ] {
        compare(
            &ours,
            &theirs,
            "/api/v1/query",
            &[("query", query), ("time", &time)],
        );
    }
}

const DUPLICATE: &str = "4 duplicate sample for timestamp";

/// Not by an old Prometheus: it answers 500 to samples that are too old.
#[test]
fn late_samples_are_taken_and_refused_as_by_prometheus() {
    if let Some(binary) = other_peer("prometheus3") {
        check(&binary, 1);
        check(&binary, 2);
    }
}

/// Two ranges of samples in order, a fifth of them missing, and a block of each that holds that
/// fifth, which came when the ranges were cut, and a series that came late as a whole.
fn late_blocks(data: &Path, base_ms: i64) {
    let mut config = DbConfig::new(data);
    config.late_window = Duration::from_secs(12 * 3600);
    config.sync = Sync::Interval(Duration::from_secs(1));
    let db = Db::open(config).unwrap();
    let send = |late: bool| {
        for step in 0..5 * 120 {
            let is_late = |series: &i64| (step * 7 + series) % 5 == 0 || *series == 11;
            let samples = (0..12).filter(|series| is_late(series) == late);
            let samples: Vec<_> = samples
                .map(|series| LocalSample {
                    labels: labels("late_total", "series", &series.to_string()),
                    sample: Sample {
                        timestamp_ms: base_ms + step * MINUTE / 2 + 137,
                        value: (step * series) as f64,
                    },
                })
                .collect();
            let append = local::append(&db, &Tenant::default(), &samples).unwrap();
            assert!(append.rejected.is_empty(), "{:?}", append.rejected);
        }
    };
    send(false);
    assert_eq!(db.cut_now(Cut::Complete).unwrap().blocks_cut.len(), 2);
    send(true);
    assert_eq!(db.cut_now(Cut::Complete).unwrap().blocks_cut.len(), 2);
    let blocks = db.blocks();
    let hinted = blocks.iter().filter(|block| {
        let hints = &block.meta().compaction.hints;
        hints.iter().any(|hint| hint == "from-out-of-order")
    });
    assert_eq!((hinted.count(), blocks.len()), (2, 4));
}

fn check_blocks(binary: &Path, promtool: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Recent, so that Prometheus' retention leaves the blocks alone.
    let base_ms = (Clock::system().now_ms() - 8 * 60 * MINUTE) / (120 * MINUTE) * (120 * MINUTE);
    late_blocks(&data, base_ms);
    let copy = dir.path().join("prometheus");
    let blocks = block_dirs(&data);
    for block in &blocks {
        copy_dir(&data.join(block), &copy.join(block));
    }
    let told = |args: &[&str]| {
        let mut command = Command::new(promtool);
        let output = command.arg("tsdb").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let path = copy.to_str().unwrap();
    let list = told(&["list", path]);
    for block in &blocks {
        assert!(list.contains(block.as_str()), "{list}");
        let meta = std::fs::read(copy.join(block).join("meta.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        let analysis = told(&["analyze", "--extended", path, block]);
        let series = format!("Series: {}\n", meta["stats"]["numSeries"]);
        assert!(analysis.contains(&series), "{analysis}");
    }
    let theirs = prometheus(binary, dir.path(), CONFIG, &[]);
    let ours = Server::isobar(&data, &["--no-self-monitoring"]);
    let time = format!("{}.503", base_ms / 1000 + 4 * 3600 - 1);
    for query in [
        "late_total[4h]",
        "count_over_time(late_total[4h])",
        "sum(rate(late_total[5m]))",
        "late_total{series=\"11\"} - ignoring (series) late_total{series=\"3\"}",
    ] {
        let params = [("query", query), ("time", &time)];
        compare(&ours, &theirs, "/api/v1/query", &params);
    }
    let counts = ours.query("sum(count_over_time(late_total[4h]))", &time);
    assert_eq!(counts["result"][0]["value"][1], "5760", "{counts}");
    let start = format!("{}.503", base_ms / 1000 + 600);
    let range = [
        ("query", "late_total"),
        ("start", start.as_str()),
        ("end", &time),
        ("step", "47"),
    ];
    compare(&ours, &theirs, "/api/v1/query_range", &range);
}

#[test]
fn blocks_of_late_samples_open_in_prometheus() {
    if let (Some(binary), Some(promtool)) = (peer("prometheus"), peer("promtool")) {
        check_blocks(&binary, &promtool);
    }
    if let (Some(binary), Some(promtool)) = (other_peer("prometheus3"), other_peer("promtool3")) {
        check_blocks(&binary, &promtool);
    }
}
