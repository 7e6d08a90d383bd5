//! `isobar sidecar` beside a real Prometheus: its data over gRPC are what Prometheus says itself, its
//! blocks get into a bucket, its configuration is reloaded, and faults are told.
//!
//! The Prometheus on the path is used, and the newer one that `ISOBAR_PEER_PROMETHEUS` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use isobar_model::{Clock, TimeRange};
use isobar_proto::thanos::exemplars_client::ExemplarsClient;
use isobar_proto::thanos::info::InfoRequest;
use isobar_proto::thanos::info::info_client::InfoClient;
use isobar_proto::thanos::metadata_client::MetadataClient;
use isobar_proto::thanos::rules_client::RulesClient;
use isobar_proto::thanos::status_client::StatusClient;
use isobar_proto::thanos::store_client::StoreClient;
use isobar_proto::thanos::targets_client::TargetsClient;
use isobar_proto::thanos::{
    ExemplarsRequest, LabelNamesRequest, LabelValuesRequest, MetricMetadataRequest, RulesRequest,
    Series, SeriesRequest, TargetsRequest, TsdbStatisticsRequest, metric_metadata_response, rule,
    rules_response, targets_response, tsdb_statistics_response,
};
use serde_json::Value;
use tonic::Code;

use crate::components::{Component, asked, matcher, samples_of, samples_said};
use crate::harness::{Process, Server, eventually, peer};
use crate::peers::prometheus;

const CONFIG: &str = "\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
  external_labels: {cluster: us, a_first: '1'}
rule_files: ['DIR/rules.yml']
scrape_configs:
- job_name: self
  static_configs: [{targets: ['127.0.0.1:PORT']}]
- job_name: more
  static_configs: [{targets: ['127.0.0.1:PORT'], labels: {z: '1'}}]
";

/// The external labels of that configuration.
const EXTERNAL: [(&str, &str); 2] = [("cluster", "us"), ("a_first", "1")];

const RULES: &str = "\
groups:
- name: g
  rules:
  - {record: 'job:up:sum', expr: 'sum by (job) (up)'}
  - {alert: Always, expr: 'vector(1)', labels: {severity: none}}
";

const NO_COMPACTION: [&str; 3] = [
    "--storage.tsdb.min-block-duration=2h",
    "--storage.tsdb.max-block-duration=2h",
    "--web.enable-lifecycle",
];

pub(crate) fn binaries() -> Vec<PathBuf> {
    let newer = std::env::var_os("ISOBAR_PEER_PROMETHEUS").map(PathBuf::from);
    peer("prometheus").into_iter().chain(newer).collect()
}

fn start_prometheus(binary: &Path, dir: &Path, flags: &[&str]) -> Server {
    fs::write(dir.join("rules.yml"), RULES).unwrap();
    let config = CONFIG.replace("DIR", &dir.display().to_string());
    prometheus(binary, dir, &config, flags)
}

fn wait_for_scrapes(prometheus: &Server) {
    eventually("some scrapes", || {
        let now = (Clock::system().now_ms() / 1000).to_string();
        let query = "count_over_time(up{z=\"1\"}[1m]) > 6 and on () job:up:sum{job=\"self\"}";
        let data = prometheus.query(query, &now);
        (!data["result"].as_array().unwrap().is_empty()).then_some(())
    });
}

#[test]
fn its_data_are_those_of_prometheus() {
    for binary in binaries() {
        let dir = tempfile::tempdir().unwrap();
        let prometheus = start_prometheus(&binary, dir.path(), &NO_COMPACTION);
        wait_for_scrapes(&prometheus);
        let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[]);
        // A second and a half ago nothing changes any more.
        let end = Clock::system().now_ms() - 1500;
        let time = format!("{}.{:03}", end / 1000, end % 1000);
        let range = TimeRange::new(end - 4999, end);
        for (query, matchers) in [
            ("{__name__!=\"\"}[5s]", vec![matcher(3, "__name__", "")]),
            (
                "{job=\"self\"}[5s]",
                vec![matcher(0, "job", "self"), matcher(2, "cluster", "u.")],
            ),
            (
                "{z!=\"1\",__name__=~\"up|job:.*\"}[5s]",
                vec![matcher(1, "z", "1"), matcher(2, "__name__", "up|job:.*")],
            ),
        ] {
            let got = sidecar.series(asked(range.min_ms, end, matchers)).unwrap();
            let labels: Vec<_> = got.iter().map(|it| it.label_set()).collect();
            assert!(labels.is_sorted(), "{query}: out of order");
            let (ours, theirs) = (
                samples_of(&got, range),
                samples_said(&prometheus, query, &time, &EXTERNAL),
            );
            assert!(!theirs.is_empty());
            assert_eq!(ours.len(), theirs.len(), "{query}");
            for (labels, samples) in &theirs {
                assert_eq!(ours.get(labels), Some(samples), "{query}: {labels}");
            }
        }
        let elsewhere = vec![matcher(0, "up", ""), matcher(0, "cluster", "eu")];
        assert!(sidecar.series(asked(0, end, elsewhere)).unwrap().is_empty());
        assert!(
            fs::read_dir(dir.path().join("empty"))
                .unwrap()
                .next()
                .is_none()
        );
    }
}

/// The calls of the recording, asked of a Prometheus with other data: shapes, codes and texts.
#[test]
fn calls_are_answered_as_by_thanos() {
    for binary in binaries() {
        let dir = tempfile::tempdir().unwrap();
        let prometheus = start_prometheus(&binary, dir.path(), &NO_COMPACTION);
        wait_for_scrapes(&prometheus);
        let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[]);
        store_calls(&sidecar);
        other_calls(&sidecar);
    }
}

fn store_calls(sidecar: &Component) {
    let end = Clock::system().now_ms();
    let up = || vec![matcher(0, "__name__", "up")];
    let all = sidecar.series(asked(0, end, up())).unwrap();
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .all(|it| it.chunks[0].raw.as_ref().unwrap().hash != 0)
    );
    let skip = SeriesRequest {
        skip_chunks: true,
        ..asked(0, end, up())
    };
    let labels = |all: &[Series]| -> Vec<_> { all.iter().map(|it| it.label_set()).collect() };
    let skipped = sidecar.series(skip).unwrap();
    assert_eq!(labels(&skipped), labels(&all));
    assert!(skipped.iter().all(|it| it.chunks.is_empty()));
    let without = SeriesRequest {
        without_replica_labels: vec!["z".into(), "job".into(), "a_first".into()],
        response_batch_size: 64,
        ..asked(0, end, up())
    };
    let one = sidecar.series(without).unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].label_set().get("cluster"), "us");
    assert!(!one[0].label_set().has("job"));

    let refused = |matchers| {
        let status = sidecar.series(asked(0, end, matchers)).unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let (code, text) = refused(vec![matcher(2, "job", "(")]);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(text, "error parsing regexp: missing closing ): `(`");
    assert_eq!(
        refused(vec![]),
        (
            Code::InvalidArgument,
            "no matchers specified (excluding external labels)".to_owned()
        )
    );
    sidecar.runtime.block_on(async {
        let mut client = StoreClient::new(sidecar.channel.clone());
        let request = LabelNamesRequest {
            end,
            matchers: up(),
            ..LabelNamesRequest::default()
        };
        let names = client.label_names(request).await.unwrap().into_inner();
        let expected = ["__name__", "a_first", "cluster", "instance", "job", "z"];
        assert_eq!(names.names, expected);
        let mut values = async |label: &str| {
            let request = LabelValuesRequest {
                label: label.into(),
                end,
                ..LabelValuesRequest::default()
            };
            client
                .label_values(request)
                .await
                .map(|it| it.into_inner().values)
        };
        assert_eq!(values("job").await.unwrap(), ["more", "self"]);
        assert_eq!(values("cluster").await.unwrap(), ["us"]);
        let refused = values("").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), "label name parameter cannot be empty");
    });
}

fn other_calls(sidecar: &Component) {
    let channel = || sidecar.channel.clone();
    sidecar.runtime.block_on(async {
        let info = InfoClient::new(channel())
            .info(InfoRequest {})
            .await
            .unwrap();
        let info = info.into_inner();
        assert_eq!(info.component_type, "sidecar");
        let names: Vec<_> = info.label_sets[0]
            .labels
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["a_first", "cluster"]);
        let store = info.store.unwrap();
        assert_eq!(store.max_time, i64::MAX);
        assert!(store.supports_sharding && store.supports_without_replica_labels);
        assert_eq!(store.tsdb_infos.len(), 1);
        let apis = (
            info.rules,
            info.targets,
            info.metric_metadata,
            info.exemplars,
            info.status,
        );
        assert!(matches!(
            apis,
            (Some(_), Some(_), Some(_), Some(_), Some(_))
        ));
        assert!(info.query.is_none());

        let rules = RulesClient::new(channel())
            .rules(RulesRequest::default())
            .await;
        let group = rules
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(rules_response::Result::Group(group)) = group.result else {
            panic!("a group")
        };
        let Some(rule::Result::Alert(alert)) = &group.rules[1].result else {
            panic!("an alert")
        };
        let labels: Vec<_> = alert.labels.as_ref().unwrap().labels.iter().collect();
        let names: Vec<_> = labels.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a_first", "cluster", "severity"]);

        let targets = TargetsClient::new(channel())
            .targets(TargetsRequest::default())
            .await;
        let targets = targets
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(targets_response::Result::Targets(targets)) = targets.result else {
            panic!("targets")
        };
        assert_eq!(targets.active_targets.len(), 2);

        let request = MetricMetadataRequest {
            limit: 2,
            ..MetricMetadataRequest::default()
        };
        let metadata = MetadataClient::new(channel())
            .metric_metadata(request)
            .await;
        let metadata = metadata
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(metric_metadata_response::Result::Metadata(metadata)) = metadata.result else {
            panic!("metadata")
        };
        assert_eq!(metadata.metadata.len(), 2);

        let request = |query: &str| ExemplarsRequest {
            query: query.into(),
            end: 1,
            ..ExemplarsRequest::default()
        };
        let mut client = ExemplarsClient::new(channel());
        let none = client.exemplars(request("up")).await.unwrap();
        assert!(none.into_inner().message().await.unwrap().is_none());
        let refused = client.exemplars(request("up{")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);

        let request = TsdbStatisticsRequest {
            limit: 2,
            ..TsdbStatisticsRequest::default()
        };
        let status = StatusClient::new(channel()).tsdb_statistics(request).await;
        let status = status
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(tsdb_statistics_response::Result::Statistics(status)) = status.result else {
            panic!("statistics")
        };
        let status = &status.statistics[""];
        assert!(status.head_statistics.as_ref().unwrap().num_series > 0);
        assert_eq!(status.series_count_by_metric_name.len(), 2);
    });
}

#[test]
fn blocks_get_into_the_bucket() {
    for binary in binaries() {
        let Some(promtool) = peer("promtool") else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("prometheus");
        let text = dir.path().join("old.txt");
        fs::write(
            &text,
            "old{a=\"1\"} 1 1700000000\nold{a=\"1\"} 2 1700000060\n# EOF\n",
        )
        .unwrap();
        let made = Command::new(promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&text, &data])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let flags = [&NO_COMPACTION[..], &["--storage.tsdb.retention.time=100y"]].concat();
        let prometheus = start_prometheus(&binary, dir.path(), &flags);
        let bucket = dir.path().join("bucket");
        fs::create_dir_all(&bucket).unwrap();
        let config = format!(
            "type: FILESYSTEM\nconfig:\n  directory: {}\n",
            bucket.display()
        );
        let flag = format!("--objstore.config={config}");
        let sidecar =
            Component::sidecar(&prometheus.url, dir.path(), &[&flag, "--hash-func=SHA256"]);
        let meta = eventually("a block in the bucket", || {
            let entries = fs::read_dir(&bucket).unwrap();
            let metas = entries.map(|it| it.unwrap().path().join("meta.json"));
            metas.filter_map(|it| fs::read_to_string(it).ok()).next()
        });
        let meta: Value = serde_json::from_str(&meta).unwrap();
        assert_eq!(meta["thanos"]["labels"]["cluster"], "us");
        assert_eq!(meta["thanos"]["source"], "sidecar");
        assert_eq!(meta["stats"]["numSamples"], 2);
        eventually("the block to be noted and counted", || {
            let noted = fs::read_to_string(data.join("thanos.shipper.json")).ok()?;
            let noted: Value = serde_json::from_str(&noted).unwrap();
            assert_eq!(noted["uploaded"][0], meta["ulid"]);
            let metrics = sidecar.server.get("/metrics", &[]).text().unwrap();
            metrics
                .contains("thanos_shipper_uploads_total 1\n")
                .then_some(())
        });
        assert!(
            fs::read_dir(dir.path().join("empty"))
                .unwrap()
                .next()
                .is_none()
        );
        let mut sidecar = sidecar;
        assert_eq!(sidecar.server.process.terminate(), Some(0));
    }
}

#[test]
fn a_prometheus_that_compacts_is_not_uploaded_from() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let prometheus = start_prometheus(&binary, dir.path(), &[]);
    let flag = format!(
        "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
        dir.path().join("bucket").display()
    );
    let sidecar = Component::sidecar_unready(&prometheus.url, dir.path(), &[&flag]);
    eventually("the reason", || {
        let said = "Compaction needs to be disabled";
        sidecar.server.process.log().contains(said).then_some(())
    });
    let ready = eventually("HTTP", || {
        let url = format!("{}/-/ready", sidecar.server.url);
        crate::harness::client().get(url).send().ok()
    });
    assert_eq!(ready.status().as_u16(), 503);
    assert_eq!(sidecar.server.get("/-/healthy", &[]).text().unwrap(), "OK");
}

#[test]
fn a_prometheus_without_external_labels_is_an_error() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let prometheus = prometheus(&binary, dir.path(), "global: {}\n", &[]);
    let mut sidecar = Component::sidecar_unready(&prometheus.url, dir.path(), &[]);
    assert_eq!(sidecar.server.process.wait(), Some(1));
    let log = sidecar.server.process.log();
    assert!(log.contains("no external labels configured"), "{log}");
}

#[test]
fn a_password_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let url = "http://user:sesame@127.0.0.1:1";
    let sidecar = Component::sidecar_unready(url, dir.path(), &[]);
    eventually("why it waits", || {
        let said = "GET http://user:xxxxx@127.0.0.1:1/api/v1/status/buildinfo";
        sidecar.server.process.log().contains(said).then_some(())
    });
    let shown = sidecar.server.get("/api/v1/status/flags", &[]);
    let all = shown.text().unwrap() + &sidecar.server.process.log();
    assert!(!all.contains("sesame"), "{all}");
}

#[test]
fn prometheus_goes_and_comes_back() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut prometheus = start_prometheus(&binary, dir.path(), &NO_COMPACTION);
    let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[]);
    let ready = |wanted: bool| {
        eventually("readiness to change", || {
            let status = sidecar.server.get("/-/ready", &[]).status();
            (status.is_success() == wanted).then_some(())
        });
    };
    let up = || asked(0, i64::MAX, vec![matcher(0, "__name__", "up")]);
    prometheus.process.kill();
    ready(false);
    let metrics = sidecar.server.get("/metrics", &[]).text().unwrap();
    assert!(metrics.contains("thanos_sidecar_prometheus_up 0\n"));
    let status = sidecar.series(up()).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let info = async {
        InfoClient::new(sidecar.channel.clone())
            .info(InfoRequest {})
            .await
    };
    let refused = sidecar.runtime.block_on(info).unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "Not ready")
    );
    // The same command once more, on the same port.
    let port = prometheus.url.rsplit_once(':').unwrap().1.to_owned();
    let mut command = Command::new(&binary);
    command
        .arg(format!(
            "--config.file={}",
            dir.path().join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("prometheus").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    prometheus.process = Process::start(&mut command);
    ready(true);
    sidecar.series(up()).unwrap();
}

#[test]
fn a_configuration_with_variables_is_reloaded() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let prometheus = start_prometheus(&binary, dir.path(), &NO_COMPACTION);
    // Prometheus reads what the sidecar writes.
    let (input, output) = (dir.path().join("in.yml"), dir.path().join("prometheus.yml"));
    let write = |text: &str| fs::write(&input, format!("# $(HOME)\n{text}")).unwrap();
    let before = fs::read_to_string(&output).unwrap();
    write(&before);
    let flags = [
        format!("--reloader.config-file={}", input.display()),
        format!("--reloader.config-envsubst-file={}", output.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Component::sidecar(&prometheus.url, dir.path(), &flags);
    let home = std::env::var("HOME").unwrap();
    let written = fs::read_to_string(&output).unwrap();
    assert!(written.starts_with(&format!("# {home}\n")), "{written}");
    write(&before.replace("cluster: us", "cluster: eu"));
    let end = Clock::system().now_ms();
    eventually("new external labels", || {
        let request = LabelValuesRequest {
            label: "cluster".into(),
            end,
            ..LabelValuesRequest::default()
        };
        let values = sidecar.runtime.block_on(async {
            let mut client = StoreClient::new(sidecar.channel.clone());
            client
                .label_values(request)
                .await
                .unwrap()
                .into_inner()
                .values
        });
        (values == ["eu"]).then_some(())
    });
    let metrics = sidecar.server.get("/metrics", &[]).text().unwrap();
    let line = "thanos_sidecar_reloader_last_reload_successful 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn metrics_have_the_names_of_thanos() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/metrics.json");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: {} not found", path.display());
        return;
    };
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let prometheus = start_prometheus(&binary, dir.path(), &NO_COMPACTION);
    let flag = format!(
        "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
        dir.path().join("bucket").display()
    );
    let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[&flag]);
    sidecar
        .series(asked(0, i64::MAX, vec![matcher(0, "__name__", "up")]))
        .unwrap();
    let ours = sidecar.server.get("/metrics", &[]).text().unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let mut missing = Vec::new();
    for (name, about) in recorded["sidecar"].as_object().unwrap() {
        let kind = about["type"].as_str().unwrap();
        let there = ours.contains(&format!("# TYPE {name} {kind}\n"));
        if !there {
            missing.push(format!("{name} {kind}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
