//! Data directories that a real Prometheus has left are taken over: all that it answered from them
//! Isobar answers too, and so does Prometheus when it comes back.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use isobar_model::Clock;
use isobar_model::sample::STALE_NAN;
use serde_json::Value;

use crate::faults::copy_dir;
use crate::harness::{Process, Server, client, eventually, free_port, peer};

const STEP_MS: i64 = 30_000;
/// Six and a half hours: enough for the head to cut blocks.
const STEPS: i64 = 780;
const BATCH: i64 = 60;
/// How often Prometheus is started while they come.
const PARTS: i64 = 5;

/// A message of remote write, series by series.
#[derive(Default)]
struct Message(Vec<u8>);

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    key(out, field, 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    key(out, field, 0);
    varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// A histogram of the remote write protocol.
struct Histogram {
    ms: i64,
    /// -53 for custom buckets.
    schema: i64,
    /// The counts of the buckets from the third positive one on.
    buckets: Vec<u64>,
    is_float: bool,
    is_stale: bool,
}

impl Histogram {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let is_custom = self.schema == -53;
        let zeros = if is_custom { 0 } else { 2 };
        let count = self.buckets.iter().sum::<u64>() + zeros;
        match self.is_float {
            true => double(&mut out, 2, count as f64),
            false => number(&mut out, 1, count),
        }
        double(
            &mut out,
            3,
            if self.is_stale {
                STALE_NAN
            } else {
                count as f64 / 3.0
            },
        );
        number(&mut out, 4, zigzag(self.schema));
        if !is_custom {
            double(&mut out, 5, 0.001);
            match self.is_float {
                true => double(&mut out, 7, zeros as f64),
                false => number(&mut out, 6, zeros),
            }
        }
        let mut span = Vec::new();
        number(&mut span, 1, zigzag(if is_custom { 0 } else { 2 }));
        number(&mut span, 2, self.buckets.len() as u64);
        bytes(&mut out, 11, &span);
        let mut packed = Vec::new();
        let mut before = 0;
        for count in &self.buckets {
            match self.is_float {
                true => packed.extend_from_slice(&(*count as f64).to_bits().to_le_bytes()),
                false => varint(&mut packed, zigzag(*count as i64 - before)),
            }
            before = *count as i64;
        }
        bytes(&mut out, if self.is_float { 13 } else { 12 }, &packed);
        number(&mut out, 15, self.ms.cast_unsigned());
        if is_custom {
            let bounds = (1..self.buckets.len()).map(|at| (at as f64 * 0.25).to_bits());
            let bounds: Vec<u8> = bounds.flat_map(u64::to_le_bytes).collect();
            bytes(&mut out, 16, &bounds);
        }
        out
    }
}

impl Message {
    fn add(&mut self, metric: &str, series: i64, floats: &[(i64, f64)], histograms: &[Histogram]) {
        let mut out = Vec::new();
        for (name, value) in [("__name__", metric), ("series", &series.to_string())] {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut out, 1, &label);
        }
        for (ms, value) in floats {
            let mut sample = Vec::new();
            double(&mut sample, 1, *value);
            number(&mut sample, 2, ms.cast_unsigned());
            bytes(&mut out, 2, &sample);
        }
        for histogram in histograms {
            bytes(&mut out, 4, &histogram.encode());
        }
        if let (Some((ms, value)), "counter") = (floats.last(), metric) {
            let mut label = Vec::new();
            bytes(&mut label, 1, b"trace_id");
            bytes(&mut label, 2, format!("t{ms}").as_bytes());
            let mut exemplar = Vec::new();
            bytes(&mut exemplar, 1, &label);
            double(&mut exemplar, 2, *value);
            number(&mut exemplar, 3, ms.cast_unsigned());
            bytes(&mut out, 3, &exemplar);
        }
        bytes(&mut self.0, 1, &out);
    }

    fn send(self, to: &Target) {
        let body = snap::raw::Encoder::new().compress_vec(&self.0).unwrap();
        let response = client()
            .post(&to.url)
            .header("Content-Encoding", "snappy")
            .header("THANOS-TENANT", to.tenant)
            .body(body)
            .send()
            .unwrap();
        let status = response.status();
        assert!(status.is_success(), "{status} {}", response.text().unwrap());
    }
}

/// Where samples are written to.
struct Target {
    url: String,
    tenant: &'static str,
    /// What the numbers of series begin with.
    first_series: i64,
    has_custom_buckets: bool,
}

/// Writes hours of all kinds of samples, and some that come late.
fn feed(to: &Target, base_ms: i64, all_steps: Range<i64>) {
    for from in all_steps.clone().step_by(BATCH as usize) {
        let mut message = Message::default();
        let steps = from..(from + BATCH).min(all_steps.end);
        let ms = |step: i64| base_ms + step * STEP_MS + 7;
        let floats = |value: &dyn Fn(i64) -> f64| -> Vec<(i64, f64)> {
            steps.clone().map(|step| (ms(step), value(step))).collect()
        };
        for series in to.first_series..to.first_series + 10 {
            let counter = floats(&|step| (step % 500 * (series + 1)) as f64);
            message.add("counter", series, &counter, &[]);
            let gauge = floats(&|step| ((step + series) as f64 / 9.0).sin());
            message.add("gauge", series, &gauge, &[]);
            let gappy = floats(&|step| {
                if step % 7 == 0 {
                    STALE_NAN
                } else {
                    step as f64
                }
            });
            message.add("gappy", series, &gappy, &[]);
        }
        let histograms = |schema: i64, is_float: bool| -> Vec<Histogram> {
            let of_step = |step: i64| Histogram {
                ms: ms(step),
                schema,
                // The layout grows and the counter is reset.
                buckets: (0..3 + step / 100)
                    .map(|bucket| (step % 300 * (bucket + 1)) as u64)
                    .collect(),
                is_float,
                is_stale: step % 90 == 89,
            };
            steps.clone().map(of_step).collect()
        };
        for series in to.first_series..to.first_series + 3 {
            let schema = series % 10;
            message.add("integers", series, &[], &histograms(schema, false));
            message.add("floats", series, &[], &histograms(schema, true));
            if to.has_custom_buckets {
                message.add("custom", series, &[], &histograms(-53, schema == 1));
            }
        }
        message.send(to);
        if from % (3 * BATCH) == 0 {
            late(to, ms(from + BATCH) + 3, from);
        }
    }
    late(to, base_ms + all_steps.end * STEP_MS + 12, 1);
}

/// Samples that are up to half an hour old. No two have the same time: which of them is shown is
/// for Prometheus a matter of where its chunks begin.
fn late(to: &Target, now_ms: i64, salt: i64) {
    for part in 0..3 {
        let mut message = Message::default();
        for series in to.first_series..to.first_series + 12 {
            let samples: Vec<(i64, f64)> = (0..40)
                .map(|at| {
                    (
                        now_ms - 1_700_000 + at * 40_000 + part * 500,
                        (at + salt) as f64,
                    )
                })
                .collect();
            message.add("gauge", series, &samples, &[]);
        }
        message.send(to);
    }
}

/// All series that a server has, with all samples. Histograms are asked for step by step: in a
/// range, Prometheus 2.42 repeats the last one.
fn everything(server: &Server, now_ms: i64) -> BTreeMap<String, Value> {
    let time = (now_ms / 1000).to_string();
    let floats = server.query("{__name__=~\"counter|gauge|gappy\"}[12h]", &time);
    let from = ((now_ms - STEPS * STEP_MS) / 1000 - 300).to_string();
    let range = [
        ("query", "{__name__=~\"integers|floats|custom\"}"),
        ("start", &from),
        ("end", &time),
        ("step", "30"),
    ];
    let histograms = server.api("/api/v1/query_range", &range)["data"].take();
    let results = [floats, histograms];
    // Older ones a Prometheus keeps longer than their log.
    let last_hour = ((now_ms - 3_600_000) / 1000).to_string();
    let range = [("query", "counter"), ("start", &last_hour), ("end", &time)];
    let exemplars = server.api("/api/v1/query_exemplars", &range)["data"].take();
    let exemplars = exemplars.as_array().unwrap().iter().map(|one| {
        let series = format!("exemplars of {}", one["seriesLabels"]);
        (series, serde_json::json!({ "values": one["exemplars"] }))
    });
    let series = results
        .iter()
        .flat_map(|it| it["result"].as_array().unwrap())
        .map(|one| {
            let mut one = one.clone();
            (one["metric"].take().to_string(), one)
        });
    series.chain(exemplars).collect()
}

fn check_same(what: &str, got: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    if let Some(name) = got.keys().find(|name| !expected.contains_key(*name)) {
        panic!("{what}: {name} is there: {}", got[name]);
    }
    assert_eq!(names(got), names(expected), "{what}");
    for (name, expected) in expected {
        for kind in ["values", "histograms"] {
            let samples = |of: &Value| of[kind].as_array().cloned().unwrap_or_default();
            let (got, expected) = (samples(&got[name]), samples(expected));
            let differing = got.iter().zip(&expected).position(|(a, b)| a != b);
            if let Some(at) = differing {
                panic!(
                    "{what}: {name} {kind} {at}: {} not {}",
                    got[at], expected[at]
                );
            }
            assert_eq!(got.len(), expected.len(), "{what}: {name} {kind}");
        }
    }
}

/// The length of a block.
const BLOCK_MS: i64 = 7_200_000;

struct Case<'a> {
    binary: &'a Path,
    flags: &'a [&'a str],
    is_new: bool,
    is_killed: bool,
    /// Minutes after the border between two blocks.
    ends_after_min: i64,
}

impl Case<'_> {
    fn target(&self, prometheus: &Server) -> Target {
        Target {
            url: format!("{}/api/v1/write", prometheus.url),
            tenant: "nobody",
            first_series: 0,
            has_custom_buckets: self.is_new,
        }
    }
}

fn start(case: &Case<'_>, dir: &Path, data: &Path) -> Server {
    let file = dir.join("prometheus.yml");
    fs::write(
        &file,
        "storage: { tsdb: { out_of_order_time_window: 40m } }\n",
    )
    .unwrap();
    let port = free_port();
    let mut command = Command::new(case.binary);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args([
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
        ])
        .args(case.flags);
    let mut server = Server {
        process: Process::start(&mut command),
        url: format!("http://127.0.0.1:{port}"),
    };
    server.wait_ready();
    server
}

fn check_import(case: &Case<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Where in a block the data end decides what is in blocks, in the log, or in both.
    let phase_ms = case.ends_after_min * 60_000;
    let now_ms = Clock::system().now_ms() - phase_ms;
    let now_ms = now_ms - now_ms.rem_euclid(BLOCK_MS) + phase_ms;
    let base_ms = now_ms - STEPS * STEP_MS - 60_000;
    let stop = |prometheus: &mut Server| match case.is_killed {
        true => prometheus.process.kill(),
        false => assert_eq!(prometheus.process.terminate(), Some(0)),
    };
    let mut prometheus = start(case, dir.path(), &data);
    // Each start begins a segment of the log, and of several segments a checkpoint is made.
    for part in 0..PARTS {
        let steps = part * STEPS / PARTS..(part + 1) * STEPS / PARTS;
        feed(&case.target(&prometheus), base_ms, steps);
        if part + 1 < PARTS {
            stop(&mut prometheus);
            prometheus = start(case, dir.path(), &data);
        }
    }
    for (series, from_ms, to_ms) in [
        (3, base_ms, now_ms),
        (5, now_ms - 3_600_000, now_ms - 600_000),
    ] {
        let time = |ms: i64| (ms / 1000).to_string();
        let status = client()
            .post(format!(
                "{}/api/v1/admin/tsdb/delete_series",
                prometheus.url
            ))
            .query(&[("match[]", format!("counter{{series=\"{series}\"}}"))])
            .query(&[("start", time(from_ms)), ("end", time(to_ms))])
            .send()
            .unwrap()
            .status();
        assert_eq!(status, 204);
    }
    let expected = everything(&prometheus, now_ms);
    assert!(expected.len() > 45, "{} series", expected.len());
    stop(&mut prometheus);
    let files = |name: &str| fs::read_dir(data.join(name)).unwrap().count();
    assert!(files("wal") > 0 && files("wbl") > 0 && files("chunks_head") > 0);

    let mut names = fs::read_dir(data.join("wal")).unwrap();
    let is_checkpoint = |name: String| name.starts_with("checkpoint.");
    let has_checkpoint =
        names.any(|it| is_checkpoint(it.unwrap().file_name().into_string().unwrap()));
    assert!(has_checkpoint || case.ends_after_min < 60);

    // While it ran the directory was its own.
    let copy = dir.path().join("copy");
    copy_dir(&data, &copy);
    let mut isobar = Server::isobar(&copy, &["--no-self-monitoring"]);
    let log = isobar.process.log();
    assert!(log.contains("taken over for default-tenant"), "{log}");
    assert!(!log.contains("damage in"), "{log}");
    check_same("isobar", &everything(&isobar, now_ms), &expected);
    assert_eq!(isobar.process.terminate(), Some(0));
    for name in ["wal", "wbl", "chunks_head"] {
        assert!(!copy.join(name).exists());
        assert!(copy.join(format!("{name}.imported")).is_dir());
    }
    let mut isobar = Server::isobar(&copy, &["--no-self-monitoring"]);
    assert!(!isobar.process.log().contains("taken over"));
    check_same("isobar again", &everything(&isobar, now_ms), &expected);
    assert_eq!(isobar.process.terminate(), Some(0));

    let prometheus = start(case, dir.path(), &copy);
    // Exemplars have no place in its blocks.
    let samples = expected
        .into_iter()
        .filter(|(name, _)| name.starts_with('{'));
    let again = everything(&prometheus, now_ms);
    check_same("prometheus again", &again, &samples.collect());
    drop(prometheus);
    drop(isobar);
}

/// A program on the path that need not be there.
pub(crate) fn other_peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

#[test]
fn what_prometheus_left_is_taken_over() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    for (is_killed, ends_after_min) in [(false, 35), (true, 95)] {
        check_import(&Case {
            binary: &binary,
            flags: &["--enable-feature=native-histograms,exemplar-storage"],
            is_new: false,
            is_killed,
            ends_after_min,
        });
    }
}

#[test]
fn what_a_newer_prometheus_left_is_taken_over() {
    let Some(binary) = other_peer("prometheus3") else {
        return;
    };
    for (is_killed, ends_after_min) in [(false, 35), (true, 95)] {
        check_import(&Case {
            binary: &binary,
            flags: &[
                "--enable-feature=exemplar-storage,metadata-wal-records",
                "--storage.tsdb.wal-compression-type=zstd",
            ],
            is_new: true,
            is_killed,
            ends_after_min,
        });
    }
}

#[test]
fn a_directory_whose_prometheus_runs_is_refused() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let case = Case {
        binary: &binary,
        flags: &[],
        is_new: false,
        is_killed: false,
        ends_after_min: 0,
    };
    let prometheus = start(&case, dir.path(), &data);
    let mut isobar = Server::isobar_unready(&data, &[]);
    assert_eq!(isobar.process.wait(), Some(1));
    let log = isobar.process.log();
    assert!(log.contains("in use by another process"), "{log}");
    eventually("prometheus to be well", || {
        prometheus
            .get("/-/ready", &[])
            .status()
            .is_success()
            .then_some(())
    });
    assert!(data.join("wal").is_dir());
}

/// `thanos receive`, which keeps a directory for each tenant.
fn start_receive(binary: &Path, data: &Path) -> Server {
    let [http, write, grpc, capn] = [(); 4].map(|()| free_port());
    let mut command = Command::new(binary);
    command
        .arg("receive")
        .arg(format!("--tsdb.path={}", data.display()))
        .arg(format!("--http-address=127.0.0.1:{http}"))
        .arg(format!("--remote-write.address=127.0.0.1:{write}"))
        .arg(format!("--grpc-address=127.0.0.1:{grpc}"))
        .args([
            "--label=receive=\"a\"",
            "--tsdb.out-of-order.time-window=40m",
        ])
        .arg(format!("--receive.capnproto-address=127.0.0.1:{capn}"))
        .arg("--tsdb.enable-native-histograms");
    let mut server = Server {
        process: Process::start(&mut command),
        url: format!("http://127.0.0.1:{http}"),
    };
    server.wait_ready();
    server.url = format!("http://127.0.0.1:{write}");
    server
}

#[test]
fn what_thanos_receive_left_is_taken_over() {
    let (Some(thanos), Some(prometheus)) = (other_peer("thanos"), other_peer("prometheus3")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let case = Case {
        binary: &prometheus,
        flags: &[],
        is_new: true,
        is_killed: false,
        ends_after_min: 0,
    };
    let prometheus = start(&case, dir.path(), &dir.path().join("prometheus"));
    let data = dir.path().join("data");
    let now_ms = Clock::system().now_ms();
    let base_ms = now_ms - STEPS * STEP_MS - 60_000;
    let mut receive = start_receive(&thanos, &data);
    for (tenant, first_series) in [("team-a", 0), ("default-tenant", 100)] {
        let target = Target {
            url: format!("{}/api/v1/receive", receive.url),
            tenant,
            first_series,
            has_custom_buckets: true,
        };
        feed(&target, base_ms, 0..STEPS);
        let same = Target {
            url: format!("{}/api/v1/write", prometheus.url),
            ..target
        };
        // What has the time of the other tenant's is late to this one, so it gets each by itself.
        if first_series == 0 {
            feed(&same, base_ms, 0..STEPS);
        }
    }
    let expected = everything(&prometheus, now_ms);
    receive.process.terminate();
    drop(receive);

    let isobar = Server::isobar(&data, &["--no-self-monitoring"]);
    let log = isobar.process.log();
    for tenant in ["team-a", "default-tenant"] {
        assert!(log.contains(&format!("taken over for {tenant}")), "{log}");
        assert!(data.join(format!("{tenant}.imported")).is_dir());
        assert!(!data.join(tenant).exists());
    }
    let is_sample = |(labels, _): &(String, Value)| labels.starts_with('{');
    let got: BTreeMap<_, _> = everything(&isobar, now_ms)
        .into_iter()
        .filter(is_sample)
        .collect();
    let expected: BTreeMap<_, _> = expected.into_iter().filter(is_sample).collect();
    let of_team_a = got.clone().into_iter().filter(|(labels, _)| {
        let labels: Value = serde_json::from_str(labels).unwrap();
        labels["series"].as_str().unwrap().len() < 3
    });
    check_same("team-a", &of_team_a.collect(), &expected);
    assert_eq!(got.len(), 2 * expected.len());
}
