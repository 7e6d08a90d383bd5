//! Samples that come late: what a real Prometheus takes and refuses, Isobar takes and refuses.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::{Random, Server, columns, labels};
use crate::import::other_peer;
use crate::peers::{compare, prometheus};

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
