//! Components of a cluster as processes with a client of their services, and samples in a form in which
//! equal ones are equal, whoever tells them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, Labels, TimeRange};
use isobar_promql::value::Value as QueryValue;
use isobar_proto::thanos::store_client::StoreClient;
use isobar_proto::thanos::{LabelMatcher, Series, SeriesRequest, series_response};
use isobar_tsdb::chunks::{Chunk, Encoding};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{Process, Server, free_port};

/// A component and a client of its services.
pub(crate) struct Component {
    pub(crate) server: Server,
    pub(crate) runtime: Runtime,
    pub(crate) channel: Channel,
    /// Host and port of its gRPC server.
    pub(crate) grpc: String,
}

impl Component {
    /// `isobar sidecar` beside a Prometheus whose data are in `dir`, ready to answer.
    pub(crate) fn sidecar(prometheus_url: &str, dir: &Path, flags: &[&str]) -> Self {
        let mut sidecar = Component::sidecar_unready(prometheus_url, dir, flags);
        sidecar.server.wait_ready();
        sidecar
    }

    /// `isobar sidecar` that may not get ready.
    pub(crate) fn sidecar_unready(prometheus_url: &str, dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        // As prometheus-operator runs it: nothing may be written but below the data directory.
        let empty = dir.join("empty");
        fs::create_dir_all(&empty).unwrap();
        command
            .current_dir(&empty)
            .env("TMPDIR", "/nonexistent")
            .arg("sidecar")
            .arg(format!("--prometheus.url={prometheus_url}"))
            .arg(format!("--tsdb.path={}", dir.join("prometheus").display()))
            .arg("--prometheus.get_config_interval=500ms")
            .args(flags);
        Component::start(command)
    }

    /// `isobar store` over the bucket of a configuration, ready to answer.
    pub(crate) fn store(bucket: &str, data_dir: &Path, flags: &[&str]) -> Self {
        let mut store = Component::store_unready(bucket, data_dir, flags);
        store.server.wait_ready();
        store
    }

    /// `isobar store` that may not get ready.
    pub(crate) fn store_unready(bucket: &str, data_dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command
            .arg("store")
            .arg(format!("--objstore.config={bucket}"))
            .arg(format!("--data-dir={}", data_dir.display()))
            .args(flags);
        Component::start(command)
    }

    /// `isobar standalone` that may not get ready.
    pub(crate) fn standalone_unready(data_dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command
            .arg("standalone")
            .arg(format!("--data-dir={}", data_dir.display()))
            .args(flags);
        Component::start(command)
    }

    fn start(mut command: Command) -> Self {
        let (http, grpc) = (free_port(), free_port());
        command
            .arg(format!("--http-address=127.0.0.1:{http}"))
            .arg(format!("--grpc-address=127.0.0.1:{grpc}"));
        let server = Server {
            process: Process::start(&mut command),
            url: format!("http://127.0.0.1:{http}"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let grpc = format!("127.0.0.1:{grpc}");
        let endpoint = Channel::from_shared(format!("http://{grpc}")).unwrap();
        let channel = endpoint.connect_lazy();
        drop(inside);
        Component {
            server,
            runtime,
            channel,
            grpc,
        }
    }

    pub(crate) fn series(&self, request: SeriesRequest) -> Result<Vec<Series>, Status> {
        self.runtime.block_on(async {
            let mut client =
                StoreClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
            let mut answers = client.series(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(answer) = answers.message().await? {
                match answer.result.unwrap() {
                    series_response::Result::Series(series) => all.push(series),
                    series_response::Result::Batch(batch) => all.extend(batch.series),
                    series_response::Result::Warning(text) => panic!("{text}"),
                    series_response::Result::Hints(_) | series_response::Result::Written(_) => {}
                }
            }
            Ok(all)
        })
    }
}

pub(crate) fn matcher(kind: i32, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: kind,
        name: name.into(),
        value: value.into(),
    }
}

pub(crate) fn asked(min_time: i64, max_time: i64, matchers: Vec<LabelMatcher>) -> SeriesRequest {
    SeriesRequest {
        min_time,
        max_time,
        matchers,
        ..SeriesRequest::default()
    }
}

/// Samples by labels, in the order of time, without those that mark the end of a series. A float is its
/// bits; of a histogram come count, sum, and all buckets with their bounds.
pub(crate) type Samples = BTreeMap<String, Vec<(i64, Vec<u64>)>>;

/// What the chunks of series hold.
pub(crate) fn samples_of(series: &[Series], range: TimeRange) -> Samples {
    let mut all = Samples::new();
    for one in series {
        let mut columns = Columns::default();
        for chunk in &one.chunks {
            let raw = chunk.raw.as_ref().unwrap();
            let encoding = Encoding::from_u8(u8::try_from(raw.r#type + 1).unwrap()).unwrap();
            let chunk = Chunk {
                encoding,
                min_ms: chunk.min_time,
                max_ms: chunk.max_time,
                data: raw.data.clone(),
            };
            chunk.decode_into(range, &mut columns).unwrap();
        }
        let values = columns.timestamps.iter().zip(&columns.values);
        let values = values.filter(|(_, value)| !is_stale(**value));
        let mut samples: Vec<_> = values.map(|(ms, value)| (*ms, bits([*value]))).collect();
        let histograms = columns.histograms.iter().filter(|(_, it)| !it.is_stale());
        samples.extend(histograms.map(|(ms, it)| (*ms, histogram_bits(it))));
        samples.sort_unstable();
        if !samples.is_empty() {
            let labels = one.label_set().to_string();
            assert!(all.insert(labels, samples).is_none(), "a series twice");
        }
    }
    all
}

fn histogram_bits(histogram: &FloatHistogram) -> Vec<u64> {
    let buckets = histogram.all_buckets().filter(|it| it.count != 0.0);
    let buckets = buckets.flat_map(|it| [it.lower, it.upper, it.count]);
    bits([histogram.count, histogram.sum].into_iter().chain(buckets))
}

fn bits(values: impl IntoIterator<Item = f64>) -> Vec<u64> {
    let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
    values.into_iter().map(|it| one(it).to_bits()).collect()
}

/// What Prometheus says to a range selector, with external labels added.
pub(crate) fn samples_said(
    prometheus: &Server,
    query: &str,
    time: &str,
    external: &[(&str, &str)],
) -> Samples {
    samples_in(&prometheus.query(query, time)["result"], external)
}

/// The samples of a matrix in an answer, with external labels added.
pub(crate) fn samples_in(matrix: &Value, external: &[(&str, &str)]) -> Samples {
    let float = |it: &Value| -> f64 { it.as_str().unwrap().parse().unwrap() };
    let time_of = |pair: &Value| (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
    let mut all = Samples::new();
    for one in matrix.as_array().unwrap() {
        let metric = one["metric"].as_object().unwrap();
        let own = metric
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str().unwrap()));
        let labels = Labels::from_pairs(own.chain(external.iter().copied())).to_string();
        let values = one["values"].as_array().into_iter().flatten();
        let mut samples: Vec<_> = values
            .map(|pair| (time_of(pair), bits([float(&pair[1])])))
            .collect();
        for pair in one["histograms"].as_array().into_iter().flatten() {
            let buckets = pair[1]["buckets"].as_array().into_iter().flatten();
            let buckets = buckets.flat_map(|it| [float(&it[1]), float(&it[2]), float(&it[3])]);
            let sums = [float(&pair[1]["count"]), float(&pair[1]["sum"])];
            samples.push((time_of(pair), bits(sums.into_iter().chain(buckets))));
        }
        samples.sort_unstable();
        all.insert(labels, samples);
    }
    all
}

/// The samples of a value of our own engine.
pub(crate) fn samples_answered(value: &QueryValue) -> Samples {
    let QueryValue::Matrix(matrix) = value else {
        panic!("no matrix: {value:?}")
    };
    let mut all = Samples::new();
    for one in matrix {
        let floats = one.columns.timestamps.iter().zip(&one.columns.values);
        let mut samples: Vec<_> = floats.map(|(ms, it)| (*ms, bits([*it]))).collect();
        let histograms = one.columns.histograms.iter();
        samples.extend(histograms.map(|(ms, it)| (*ms, histogram_bits(it))));
        samples.sort_unstable();
        all.insert(one.labels.to_string(), samples);
    }
    all
}
