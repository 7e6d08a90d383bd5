//! A real Prometheus beside Isobar: it writes in, both are asked the same, and each reads what
//! the other wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use isobar_model::{Clock, Columns, Labels};
use serde_json::Value;

use crate::faults::copy_dir;
use crate::harness::{Process, Server, columns, eventually, free_port, labels, peer};

/// Asked of both. None depends on where a range begins: no scrape falls on a whole second and a
/// half, see `odd_time`.
const QUERIES: [&str; 30] = [
    "up",
    "count({__name__!=\"\"})",
    "count by (__name__) ({job=\"node\"})",
    "sum by (mode) (rate(node_cpu_seconds_total[10s]))",
    "irate(node_cpu_seconds_total{mode!=\"idle\"}[10s])",
    "increase(prometheus_tsdb_head_samples_appended_total[10s])",
    "delta(process_resident_memory_bytes[10s])",
    "avg_over_time(go_goroutines[10s])",
    "max_over_time(go_goroutines[10s]) - min_over_time(go_goroutines[10s])",
    "stddev_over_time(go_memstats_alloc_bytes[10s])",
    "quantile_over_time(0.9, go_memstats_alloc_bytes[10s])",
    "count_over_time(up[10s])",
    "last_over_time(process_start_time_seconds[10s])",
    "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[10s])))",
    "topk(5, node_filesystem_size_bytes)",
    "bottomk(2, sum by (device) (node_network_receive_bytes_total))",
    "quantile(0.5, go_gc_duration_seconds)",
    "stdvar by (job) (process_cpu_seconds_total)",
    "count_values(\"version\", prometheus_build_info)",
    "group by (job) (up)",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes * 100",
    "node_memory_MemFree_bytes + on (instance) group_left () node_memory_Cached_bytes",
    "up and on (job) process_start_time_seconds > 0",
    "up unless on (job) node_uname_info",
    "up == bool 1 or vector(5)",
    "label_replace(up, \"short\", \"$1\", \"job\", \"(.).*\")",
    "label_join(up, \"both\", \"-\", \"job\", \"instance\")",
    "timestamp(up) > 0",
    "max_over_time(sum(rate(process_cpu_seconds_total[5s]))[10s:2s])",
    "sum(up offset 5s) + sum(up @ 0 or vector(1))",
];

/// Prometheus with a configuration, its data in `dir`.
pub(crate) fn prometheus(binary: &Path, dir: &Path, config: &str, flags: &[&str]) -> Server {
    let file = dir.join("prometheus.yml");
    let data = dir.join("prometheus");
    fs::create_dir_all(&data).unwrap();
    let port = free_port();
    fs::write(&file, config.replace("PORT", &port.to_string())).unwrap();
    let mut command = Command::new(binary);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(flags);
    let process = Process::start(&mut command);
    let mut server = Server {
        process,
        url: format!("http://127.0.0.1:{port}"),
    };
    server.wait_ready();
    server
}

pub(crate) fn compare(ours: &Server, theirs: &Server, path: &str, params: &[(&str, &str)]) {
    let (a, b) = (ours.api(path, params), theirs.api(path, params));
    let (a, b) = (normal(&a["data"]), normal(&b["data"]));
    assert!(
        same(&a, &b),
        "{path} {params:?}\n  isobar     {a}\n  prometheus {b}"
    );
}

/// Series in one order; the order of an instant vector is free.
fn normal(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(series) = data.get_mut("result").and_then(Value::as_array_mut) {
        series.sort_by_key(|one| one["metric"].to_string());
    }
    data
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(v, w)| same(v, w))
        }
        (Value::String(a), Value::String(b)) => {
            a == b
                || match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(x), Ok(y)) => (x - y).abs() <= 1e-12 * x.abs().max(y.abs()),
                    _ => false,
                }
        }
        _ => a == b,
    }
}

#[test]
fn prometheus_writes_in_and_both_answer_alike() {
    let (Some(binary), Some(node), Some(promtool)) = (
        peer("prometheus"),
        peer("prometheus-node-exporter"),
        peer("promtool"),
    ) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let isobar = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let node_port = free_port();
    let mut command = Command::new(node);
    command.arg(format!("--web.listen-address=127.0.0.1:{node_port}"));
    let _node = Process::start(&mut command);
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{ targets: ['127.0.0.1:PORT'] }}]
  - job_name: node
    static_configs: [{{ targets: ['127.0.0.1:{node_port}'] }}]
remote_write:
  - url: {}/api/v1/write
    metadata_config: {{ send_interval: 2s }}
    queue_config: {{ batch_send_deadline: 200ms }}
",
        isobar.url
    );
    let prometheus = prometheus(&binary, dir.path(), &config, &[]);

    let clock = Clock::system();
    let start_ms = clock.now_ms();
    // No window that is asked for may hold the beginning of a series: since 3.0, Prometheus
    // extrapolates less there than 2.42 does.
    eventually("enough samples", || {
        (clock.now_ms() > start_ms + 36_000).then_some(())
    });
    let now_s = clock.now_ms() / 1000;
    // All of it has to have arrived: ask for what lies five seconds back.
    let time = odd_time(now_s - 5);
    eventually("the last samples to arrive", || {
        let answer = isobar.api("/api/v1/query", &[("query", "min(timestamp(up))")]);
        let newest: f64 = answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()?;
        (newest > (now_s - 3) as f64).then_some(())
    });

    let (start, end) = (odd_time(now_s - 14), time.clone());
    for query in QUERIES {
        compare(
            &isobar,
            &prometheus,
            "/api/v1/query",
            &[("query", query), ("time", &time)],
        );
        let range = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "3"),
        ];
        compare(&isobar, &prometheus, "/api/v1/query_range", &range);
    }
    let (from, to) = ((now_s - 25).to_string(), now_s.to_string());
    let range = [("start", from.as_str()), ("end", to.as_str())];
    compare(&isobar, &prometheus, "/api/v1/labels", &range);
    compare(
        &isobar,
        &prometheus,
        "/api/v1/label/__name__/values",
        &range,
    );
    compare(&isobar, &prometheus, "/api/v1/label/mode/values", &range);
    let metadata = eventually("metadata to arrive", || {
        let answer = isobar.api("/api/v1/metadata", &[("metric", "node_cpu_seconds_total")]);
        answer["data"]["node_cpu_seconds_total"].get(0).cloned()
    });
    assert_eq!(metadata["type"], "counter");

    for args in [
        vec!["query", "instant", isobar.url.as_str(), "sum(up)"],
        vec!["query", "labels", isobar.url.as_str(), "job"],
        vec!["query", "series", "--match=up", isobar.url.as_str()],
        vec![
            "query",
            "range",
            "--start",
            &from,
            "--end",
            &to,
            isobar.url.as_str(),
            "up",
        ],
    ] {
        let output = Command::new(&promtool).args(&args).output().unwrap();
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{args:?}: {output:?}"
        );
    }
}

/// A time between scrapes: their offsets within a second are fixed by the target, so two of three
/// odd milliseconds are surely free, and this one is asked of both sides.
pub(crate) fn odd_time(seconds: i64) -> String {
    format!("{seconds}.503")
}

/// Five and a half hours of a few series, oldest first.
fn history(base_ms: i64) -> Vec<(Labels, Columns)> {
    let steps = 330 * 4;
    (0..20)
        .map(|series| {
            let samples: Vec<(i64, f64)> = (0..steps)
                .map(|step| {
                    let value = if series % 2 == 0 {
                        (step * series) as f64
                    } else {
                        (step as f64).sin()
                    };
                    (base_ms + step * 15_000 + 137, value)
                })
                .collect();
            (
                labels("history_total", "series", &series.to_string()),
                columns(&samples),
            )
        })
        .collect()
}

#[test]
fn blocks_cut_by_isobar_open_in_prometheus() {
    let (Some(binary), Some(promtool)) = (peer("prometheus"), peer("promtool")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut isobar = Server::isobar(&data, &["--no-self-monitoring"]);
    // Recent, so that Prometheus' retention leaves the blocks alone.
    let base_ms = (Clock::system().now_ms() - 8 * 3_600_000) / 7_200_000 * 7_200_000;
    let all = history(base_ms);
    for from in (0..all[0].1.len()).step_by(120) {
        let part: Vec<(Labels, Columns)> = all
            .iter()
            .map(|(labels, columns)| {
                let to = (from + 120).min(columns.len());
                let cut = Columns {
                    timestamps: columns.timestamps[from..to].to_vec(),
                    values: columns.values[from..to].to_vec(),
                    ..Columns::default()
                };
                (labels.clone(), cut)
            })
            .collect();
        assert_eq!(isobar.write(&part).unwrap(), (204, String::new()));
    }
    assert_eq!(isobar.process.terminate(), Some(0));
    let isobar = Server::isobar(&data, &["--no-self-monitoring"]);
    let blocks = eventually("two blocks to be cut", || {
        let blocks = block_dirs(&data);
        (blocks.len() >= 2).then_some(blocks)
    });

    // Prometheus gets the blocks only, not what is still in the head.
    let copy = dir.path().join("prometheus");
    for block in &blocks {
        copy_dir(&data.join(block), &copy.join(block));
    }
    let listed = Command::new(&promtool)
        .args(["tsdb", "list"])
        .arg(&copy)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.status.success() && blocks.iter().all(|b| text.contains(b.as_str())),
        "{listed:?}"
    );
    for block in &blocks {
        let analyzed = Command::new(&promtool)
            .args(["tsdb", "analyze"])
            .arg(&copy)
            .arg(block)
            .output()
            .unwrap();
        assert!(analyzed.status.success(), "{analyzed:?}");
    }

    let prometheus = prometheus(&binary, dir.path(), "", &[]);
    let end_ms = base_ms + 2 * 7_200_000 - 1;
    let time = format!("{}.503", end_ms / 1000 - 1);
    for query in [
        "history_total[4h]",
        "sum(rate(history_total[5m]))",
        "max by (series) (max_over_time(history_total[1h]))",
        "count({__name__=~\"history.*\", series=~\"1.*|3\"})",
    ] {
        compare(
            &isobar,
            &prometheus,
            "/api/v1/query",
            &[("query", query), ("time", &time)],
        );
    }
    let start = format!("{}.503", base_ms / 1000 + 600);
    let range = [
        ("query", "history_total"),
        ("start", start.as_str()),
        ("end", &time),
        ("step", "47"),
    ];
    compare(&isobar, &prometheus, "/api/v1/query_range", &range);
}

pub(crate) fn block_dirs(data: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("meta.json").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn blocks_made_by_promtool_are_read() {
    let Some(promtool) = peer("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut expected: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let mut text = String::from("# TYPE made gauge\n");
    for series in 0..5 {
        for step in 0..400_i64 {
            let (time_s, value) = (1_700_000_000 + step * 30, (step * series) as f64 / 3.0);
            text.push_str(&format!("made{{series=\"{series}\"}} {value} {time_s}\n"));
            expected
                .entry(series.to_string())
                .or_default()
                .push((time_s * 1000, value));
        }
    }
    text.push_str("# EOF\n");
    let file = dir.path().join("made.txt");
    fs::write(&file, text).unwrap();
    let made = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &data])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");

    let isobar = Server::isobar(&data, &["--no-self-monitoring"]);
    let answer = isobar.query("made[1d]", "1700020000");
    let mut got: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for one in answer["result"].as_array().unwrap() {
        let samples = one["values"].as_array().unwrap().iter().map(|sample| {
            let time_ms = (sample[0].as_f64().unwrap() * 1000.0).round() as i64;
            (time_ms, sample[1].as_str().unwrap().parse().unwrap())
        });
        got.insert(
            one["metric"]["series"].as_str().unwrap().to_owned(),
            samples.collect(),
        );
    }
    assert_eq!(got, expected);
}

#[test]
fn answers_are_compressed_when_offered() {
    let dir = tempfile::tempdir().unwrap();
    let isobar = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let plain = reqwest::blocking::Client::builder()
        .gzip(false)
        .build()
        .unwrap();
    let response = plain
        .get(format!("{}/api/v1/status/flags", isobar.url))
        .header("Accept-Encoding", "gzip, deflate, br, zstd")
        .send()
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
}
