//! All kinds of samples from a real Prometheus: native histograms, exemplars and metadata are sent
//! by remote write, and both answer alike; blocks with histograms open in Prometheus.
//!
//! The Prometheus on the path is used, and the newer one that `ISOBAR_PEER_PROMETHEUS` names.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset};
use isobar_model::{Clock, Columns, Exemplar, FloatHistogram, Labels};
use serde_json::Value;

use crate::faults::copy_dir;
use crate::harness::{Server, eventually, labels, peer};
use crate::peers::{block_dirs, compare, odd_time, prometheus};

const WITH_EXEMPLARS: [&str; 2] = ["--no-self-monitoring", "--tsdb.max-exemplars=1000"];

/// The newer Prometheus; `None` when none is named.
fn newer() -> Option<PathBuf> {
    let named = std::env::var_os("ISOBAR_PEER_PROMETHEUS").map(PathBuf::from);
    if named.is_none() {
        eprintln!("skipped: ISOBAR_PEER_PROMETHEUS names no newer Prometheus");
    }
    named
}

/// Serves a page of OpenMetrics with a counter, its metadata and its exemplar to whoever asks.
fn page_with_exemplars() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (count, stream) in (1..).zip(listener.incoming()) {
            if let Ok(stream) = stream {
                // Who hangs up early asks again.
                let _sent = answer(stream, count);
            }
        }
    });
    port
}

fn answer(mut stream: TcpStream, count: u64) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request)?;
    let body = format!(
        "# HELP work Work that is done.\n# TYPE work counter\n# UNIT work_seconds seconds\n\
         work_total{{kind=\"a\"}} {count} # {{trace_id=\"t{count}\",span=\"é\"}} {count}.5\n# EOF\n"
    )
    .replace("# UNIT work_seconds seconds\n", "");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn config(isobar: &str, page: u16, globals: &str, jobs: &str) -> String {
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s{globals} }}
scrape_configs:
  - job_name: page
    static_configs: [{{ targets: ['127.0.0.1:{page}'] }}]
{jobs}
remote_write:
  - url: {isobar}/api/v1/write
    send_exemplars: true
    send_native_histograms: true
    metadata_config: {{ send_interval: 1s }}
    queue_config: {{ batch_send_deadline: 200ms }}
"
    )
}

fn now_s() -> i64 {
    Clock::system().now_ms() / 1000
}

/// Waits until samples as new as two seconds ago have come, and gives a time before them.
fn settled(isobar: &Server) -> String {
    let now_s = now_s();
    eventually("the last samples to arrive", || {
        let answer = isobar.api("/api/v1/query", &[("query", "min(timestamp(up))")]);
        let newest = answer["data"]["result"][0]["value"][1].as_str()?;
        (newest.parse::<f64>().ok()? > (now_s + 1) as f64).then_some(())
    });
    odd_time(now_s - 1)
}

fn compare_exemplars_and_metadata(isobar: &Server, prometheus: &Server) {
    let now_s = now_s();
    let (start, end) = ((now_s - 12).to_string(), (now_s - 2).to_string());
    for query in [
        "work_total",
        "rate({kind=~\"a|b\"}[5m]) + work_total",
        "none",
    ] {
        let params = [("query", query), ("start", &start), ("end", &end)];
        compare(isobar, prometheus, "/api/v1/query_exemplars", &params);
    }
    let params = [("query", "work_total"), ("start", &start), ("end", &end)];
    let found = isobar.api("/api/v1/query_exemplars", &params);
    let count = found["data"][0]["exemplars"].as_array().map_or(0, Vec::len);
    assert!(count > 3, "{found}");
    let described = |server: &Server| -> Value {
        server.api("/api/v1/metadata", &[("metric", "work")])["data"].take()
    };
    let theirs = described(prometheus);
    assert_eq!(theirs["work"][0]["help"], "Work that is done.");
    eventually("metadata to arrive", || {
        (described(isobar) == theirs).then_some(())
    });
}

#[test]
fn exemplars_and_metadata_of_prometheus_are_kept() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut isobar = Server::isobar(&data, &WITH_EXEMPLARS);
    let config = config(&isobar.url, page_with_exemplars(), "", "");
    let features = ["--enable-feature=exemplar-storage,native-histograms"];
    let prometheus = prometheus(&binary, dir.path(), &config, &features);
    let start_s = now_s();
    eventually("enough samples", || (now_s() > start_s + 15).then_some(()));
    compare_exemplars_and_metadata(&isobar, &prometheus);

    // Both are there after a kill, too.
    drop(prometheus);
    let exemplars = |isobar: &Server| -> Value {
        isobar.api("/api/v1/query_exemplars", &[("query", "work_total")])["data"].take()
    };
    let metadata = |isobar: &Server| isobar.api("/api/v1/metadata", &[])["data"].take();
    let before = (exemplars(&isobar), metadata(&isobar));
    isobar.process.kill();
    let isobar = Server::isobar(&data, &WITH_EXEMPLARS);
    assert_eq!((exemplars(&isobar), metadata(&isobar)), before);
}

#[test]
fn native_histograms_of_prometheus_are_kept() {
    let Some(binary) = newer() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut isobar = Server::isobar(&data, &WITH_EXEMPLARS);
    let itself = "  - job_name: prometheus\n    static_configs: [{ targets: ['127.0.0.1:PORT'] }]";
    let globals = ", scrape_native_histograms: true";
    let config = config(&isobar.url, page_with_exemplars(), globals, itself);
    let features = ["--enable-feature=exemplar-storage"];
    let prometheus = prometheus(&binary, dir.path(), &config, &features);
    let start_s = now_s();
    eventually("enough samples", || {
        prometheus.query("up", &now_s().to_string());
        (now_s() > start_s + 20).then_some(())
    });
    compare_exemplars_and_metadata(&isobar, &prometheus);
    let time = settled(&isobar);
    let start = odd_time(time.split_once('.').unwrap().0.parse::<i64>().unwrap() - 12);
    let queries = [
        "prometheus_http_request_duration_seconds",
        "prometheus_http_request_duration_seconds[10s]",
        "count({__name__!=\"\"})",
        "sum by (handler) (rate(prometheus_http_request_duration_seconds[8s]))",
        "histogram_quantile(0.9, sum(rate(prometheus_http_request_duration_seconds[8s])))",
        "histogram_count({__name__=\"prometheus_http_request_duration_seconds\"})",
        "{__name__=~\"prometheus_.+_seconds\"}",
        "resets(prometheus_http_request_duration_seconds[10s])",
    ];
    let compare_all = |isobar: &Server| {
        for query in queries {
            let params = [("query", query), ("time", time.as_str())];
            compare(isobar, &prometheus, "/api/v1/query", &params);
            if !query.contains("seconds[10s]") || query.contains('(') {
                let (from, to) = (start.as_str(), time.as_str());
                let range = [
                    ("query", query),
                    ("start", from),
                    ("end", to),
                    ("step", "3"),
                ];
                compare(isobar, &prometheus, "/api/v1/query_range", &range);
            }
        }
    };
    let found = isobar.query(queries[0], &time);
    assert!(found["result"][0]["histogram"].is_array(), "{found}");
    compare_all(&isobar);
    isobar.process.kill();
    compare_all(&Server::isobar(&data, &WITH_EXEMPLARS));
}

/// Prometheus 2.42 knows how to send native histograms, but exposes none of its own: it scrapes
/// those of the newer one, which goes away in the end.
#[test]
fn native_histograms_of_an_old_prometheus_are_kept_until_they_end() {
    let (Some(newer), Some(binary)) = (newer(), peer("prometheus")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let isobar = Server::isobar(&dir.path().join("data"), &WITH_EXEMPLARS);
    let target = tempfile::tempdir().unwrap();
    let target = prometheus(&newer, target.path(), "", &[]);
    let address = target.url.trim_start_matches("http://").to_owned();
    let job = format!("  - job_name: newer\n    static_configs: [{{ targets: ['{address}'] }}]");
    let config = config(&isobar.url, page_with_exemplars(), "", &job);
    let features = ["--enable-feature=exemplar-storage,native-histograms"];
    let prometheus = prometheus(&binary, dir.path(), &config, &features);
    let start_s = now_s();
    eventually("enough samples", || {
        target.query("up", &now_s().to_string());
        (now_s() > start_s + 12).then_some(())
    });
    drop(target);
    let end_s = now_s();
    eventually("the end of the target", || {
        (now_s() > end_s + 4).then_some(())
    });
    let time = settled(&isobar);
    let start = odd_time(time.split_once('.').unwrap().0.parse::<i64>().unwrap() - 14);
    let name = "prometheus_http_request_duration_seconds";
    let all = format!("{name}[20s]");
    let params = [("query", all.as_str()), ("time", &time)];
    compare(&isobar, &prometheus, "/api/v1/query", &params);
    let found = isobar.query(&all, &time);
    assert!(found["result"][0]["histograms"].is_array(), "{found}");
    for query in [
        name.to_owned(),
        format!("histogram_count({name})"),
        format!("histogram_sum({name})"),
        "count({__name__!=\"\"})".to_owned(),
    ] {
        let params = [("query", query.as_str()), ("time", &time)];
        compare(&isobar, &prometheus, "/api/v1/query", &params);
        let (from, to) = (start.as_str(), time.as_str());
        let range = [
            ("query", query.as_str()),
            ("start", from),
            ("end", to),
            ("step", "1"),
        ];
        compare(&isobar, &prometheus, "/api/v1/query_range", &range);
    }
    // The markers have come as well: nothing of it is left.
    assert_eq!(
        isobar.query(name, &time)["result"],
        Value::Array(Vec::new())
    );
}

/// Five and a half hours of series of histograms: a counter that is reset, a gauge with fractions,
/// one with bounds of its own, and one that takes turns with floats and ends in between.
fn history(base_ms: i64) -> Vec<(Labels, Columns)> {
    let times = (0..330 * 4).map(|step: i64| (step, base_ms + step * 15_000 + 137));
    let series = |name: &str, sample: &dyn Fn(i64) -> FloatHistogram| {
        let histograms = times
            .clone()
            .map(|(step, time)| (time, Arc::new(sample(step))));
        let columns = Columns {
            histograms: histograms.collect(),
            ..Columns::default()
        };
        (labels("past", "kind", name), columns)
    };
    let buckets = |of: &[(i32, f64)]| {
        let (indexes, counts): (Vec<i32>, Vec<f64>) = of.iter().copied().unzip();
        Buckets::of_layout(indexes.into(), counts).unwrap()
    };
    let counter = |step: i64| {
        let (at, far) = ((step % 500) as f64, 3 + (step % 500 / 100) as i32);
        FloatHistogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count: at,
            count: at * 4.0,
            sum: at * 3.5,
            positive: buckets(&[(-1, at), (far, at)]),
            negative: buckets(&[(2, at)]),
            ..FloatHistogram::default()
        }
    };
    let gauge = |step: i64| {
        let at = (step as f64 / 40.0).sin() + 1.0;
        FloatHistogram {
            hint: CounterReset::Gauge,
            schema: 0,
            count: at * 2.0,
            sum: -at,
            positive: buckets(&[((step % 7) as i32, at), (9, at)]),
            ..FloatHistogram::default()
        }
    };
    let own_bounds = |step: i64| FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: step as f64 * 3.0,
        sum: step as f64,
        positive: buckets(&[(0, step as f64), (2, step as f64 * 2.0)]),
        custom: [0.25, 7.5].into(),
        ..FloatHistogram::default()
    };
    let mut mixed = series("mixed", &counter);
    let is_float = |time: i64| (time - base_ms) / 900_000 % 3 == 1;
    let floats = times.clone().filter(|(_, time)| is_float(*time));
    mixed.1.histograms.retain(|(time, _)| !is_float(*time));
    floats.for_each(|(step, time)| mixed.1.push(time, step as f64));
    if let Some((_, last)) = mixed.1.histograms.last_mut() {
        *last = Arc::new(FloatHistogram::stale());
    }
    vec![
        series("counter", &counter),
        series("gauge", &gauge),
        series("own bounds", &own_bounds),
        mixed,
    ]
}

/// The part of the series in a range of time.
fn part(all: &[(Labels, Columns)], from_ms: i64, to_ms: i64) -> Vec<(Labels, Columns)> {
    use isobar_model::series::Samples;
    let range = isobar_model::TimeRange::new(from_ms, to_ms - 1);
    let cut = all.iter().map(|(labels, columns)| {
        let mut part = Columns::default();
        columns.read(range, &mut part).unwrap();
        (labels.clone(), part)
    });
    cut.filter(|(_, columns)| columns.sample_count() > 0)
        .collect()
}

fn exemplars_body(base_ms: i64) -> Vec<u8> {
    let exemplar = |minute: i64| Exemplar {
        labels: Labels::from_pairs([("trace_id", "x")]),
        value: minute as f64,
        timestamp_ms: base_ms + minute * 60_000,
    };
    let exemplars: Vec<Exemplar> = (0..240).step_by(20).map(exemplar).collect();
    let mut message = Vec::new();
    let of = labels("past", "kind", "counter");
    isobar_proto::remote::encode_exemplars(&mut message, &of, &exemplars);
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

/// What Prometheus 2.42 answers as 3.14 does, over what it can read.
const OLD_QUERIES: [&str; 4] = [
    "past{kind!~\"own bounds|mixed\"}[4h]",
    "histogram_count(past{kind!=\"own bounds\"})",
    "histogram_sum(past{kind!=\"own bounds\"})",
    "count_over_time(past{kind!=\"own bounds\"}[1h])",
];

const NEW_QUERIES: [&str; 7] = [
    "past[4h]",
    "histogram_avg(past)",
    "sum(rate(past{kind=\"counter\"}[5m]))",
    "histogram_quantile(0.7, rate(past{kind!=\"mixed\"}[10m]))",
    "avg_over_time(past{kind=\"gauge\"}[1h])",
    "resets(past[1h])",
    "count_over_time(past[1h])",
];

fn opens_alike(isobar: &Server, binary: &Path, dir: &Path, base_ms: i64, queries: &[&str]) {
    let prometheus = prometheus(binary, dir, "", &[]);
    let end_s = (base_ms + 2 * 7_200_000) / 1000 - 2;
    let (start, end) = (odd_time(base_ms / 1000 + 600), odd_time(end_s));
    for query in queries {
        let params = [("query", *query), ("time", &end)];
        compare(isobar, &prometheus, "/api/v1/query", &params);
        if !query.ends_with("[4h]") {
            let range = [
                ("query", *query),
                ("start", &start),
                ("end", &end),
                ("step", "47"),
            ];
            compare(isobar, &prometheus, "/api/v1/query_range", &range);
        }
    }
    let log = prometheus.process.log();
    assert_eq!(log.matches("level=error").count(), 0, "{log}");
}

#[test]
fn blocks_with_histograms_open_in_prometheus() {
    let newer = newer();
    let (Some(binary), Some(promtool)) = (peer("prometheus"), peer("promtool")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut isobar = Server::isobar(&data, &WITH_EXEMPLARS);
    // Recent, so that Prometheus' retention leaves the blocks alone.
    let base_ms = (Clock::system().now_ms() - 8 * 3_600_000) / 7_200_000 * 7_200_000;
    let all = history(base_ms);
    let stored = isobar.write_body(exemplars_body(base_ms)).unwrap();
    assert_eq!(stored, (204, String::new()));
    // A request's floats come before its histograms, so no part holds both of one series.
    for quarter in 0..22 {
        let from_ms = base_ms + quarter * 900_000;
        let part = part(&all, from_ms, from_ms + 900_000);
        assert_eq!(isobar.write(&part).unwrap(), (204, String::new()));
    }
    assert_eq!(isobar.process.terminate(), Some(0));
    let isobar = Server::isobar(&data, &WITH_EXEMPLARS);
    let blocks = eventually("two blocks to be cut", || {
        let blocks = block_dirs(&data);
        (blocks.len() >= 2).then_some(blocks)
    });
    let exemplars = isobar.api("/api/v1/query_exemplars", &[("query", "past")]);
    let count = exemplars["data"][0]["exemplars"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(count, 12, "{exemplars}");

    let copy = dir.path().join("prometheus");
    for block in &blocks {
        assert!(data.join(block).join("isobar-exemplars").is_file());
        copy_dir(&data.join(block), &copy.join(block));
        let analyzed = std::process::Command::new(&promtool)
            .args(["tsdb", "analyze"])
            .args([&copy, &PathBuf::from(block)])
            .output()
            .unwrap();
        assert!(analyzed.status.success(), "{analyzed:?}");
    }
    opens_alike(&isobar, &binary, dir.path(), base_ms, &OLD_QUERIES);
    if let Some(newer) = newer {
        opens_alike(&isobar, &newer, dir.path(), base_ms, &NEW_QUERIES);
    }
}
