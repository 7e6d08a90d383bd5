//! `isobar store` as a process over recorded buckets, asked over gRPC as a Thanos Query asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use isobar_proto::thanos::info::InfoRequest;
use isobar_proto::thanos::info::info_client::InfoClient;
use isobar_proto::thanos::series_response::Result as Answer;
use isobar_proto::thanos::store_client::StoreClient;
use isobar_proto::thanos::{
    self, Aggr, AggrChunk, LabelMatcher, LabelNamesRequest, LabelValuesRequest, SeriesRequest,
    ShardInfo, hints, label_matcher,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{Process, client, eventually, free_port};

fn contract() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract")
}

/// A gateway to a recorded bucket.
struct Gateway {
    _process: Process,
    _data_dir: tempfile::TempDir,
    url: String,
    grpc: String,
}

impl Gateway {
    /// `None`, after saying so, where the recording is not there.
    fn over(bucket: &str, flags: &[&str]) -> Option<Self> {
        let bucket = contract().join(bucket);
        if !bucket.exists() {
            eprintln!("skipped: {} not found", bucket.display());
            return None;
        }
        let data_dir = tempfile::tempdir().unwrap();
        let (http, grpc) = (free_port(), free_port());
        let config = format!(
            "type: FILESYSTEM\nconfig:\n  directory: {}\n",
            bucket.display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command
            .arg("store")
            .arg(format!("--objstore.config={config}"))
            .arg(format!("--data-dir={}", data_dir.path().display()))
            .arg(format!("--http-address=127.0.0.1:{http}"))
            .arg(format!("--grpc-address=127.0.0.1:{grpc}"))
            .args(flags);
        let mut process = Process::start(&mut command);
        let url = format!("http://127.0.0.1:{http}");
        eventually("the gateway to be ready", || {
            assert!(process.is_running(), "stopped:\n{}", process.log());
            let answer = client().get(format!("{url}/-/ready")).send().ok()?;
            answer.status().is_success().then_some(())
        });
        Some(Gateway {
            _process: process,
            _data_dir: data_dir,
            url,
            grpc: format!("http://127.0.0.1:{grpc}"),
        })
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::try_from(self.grpc.clone()).unwrap();
        endpoint.connect().await.unwrap()
    }
}

fn number(value: &Value) -> i64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_i64().or(text).unwrap_or(0)
}

fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn matchers(value: &Value) -> Vec<LabelMatcher> {
    let one = |it: &Value| LabelMatcher {
        r#type: label_matcher::Type::from_str_name(it["type"].as_str().unwrap())
            .unwrap()
            .into(),
        name: it["name"].as_str().unwrap().to_owned(),
        value: it["value"].as_str().unwrap().to_owned(),
    };
    value.as_array().into_iter().flatten().map(one).collect()
}

fn series_request(request: &Value) -> SeriesRequest {
    let aggregate = |it: &String| i32::from(Aggr::from_str_name(it).unwrap());
    let shard = request.get("shardInfo").map(|it| ShardInfo {
        shard_index: number(&it["shardIndex"]),
        total_shards: number(&it["totalShards"]),
        by: it["by"].as_bool().unwrap_or(false),
        labels: texts(&it["labels"]),
    });
    SeriesRequest {
        min_time: number(&request["minTime"]),
        max_time: number(&request["maxTime"]),
        matchers: matchers(&request["matchers"]),
        max_resolution_window: number(&request["maxResolutionWindow"]),
        aggregates: texts(&request["aggregates"])
            .iter()
            .map(aggregate)
            .collect(),
        skip_chunks: request["skipChunks"].as_bool().unwrap_or(false),
        shard_info: shard,
        without_replica_labels: texts(&request["withoutReplicaLabels"]),
        limit: number(&request["limit"]),
        response_batch_size: number(&request["responseBatchSize"]),
        ..SeriesRequest::default()
    }
}

/// A series as the recording has it.
fn series_json(series: &thanos::Series) -> Value {
    let labels = series.label_set();
    let pair = |(name, value): (&str, &str)| json!({"name": name, "value": value});
    let labels: Vec<Value> = labels.iter().map(pair).collect();
    let chunks: Vec<Value> = series.chunks.iter().map(chunk_json).collect();
    match chunks.is_empty() {
        true => json!({"labels": labels}),
        false => json!({"labels": labels, "chunks": chunks}),
    }
}

fn chunk_json(chunk: &AggrChunk) -> Value {
    let mut all = json!({
        "minTime": chunk.min_time.to_string(),
        "maxTime": chunk.max_time.to_string(),
    });
    for (name, part) in [
        ("raw", &chunk.raw),
        ("count", &chunk.count),
        ("sum", &chunk.sum),
        ("min", &chunk.min),
        ("max", &chunk.max),
        ("counter", &chunk.counter),
    ] {
        let Some(part) = part else { continue };
        let mut one = json!({"data": STANDARD.encode(&part.data), "hash": part.hash.to_string()});
        match part.r#type {
            0 => {}
            1 => one["type"] = "HISTOGRAM".into(),
            _ => one["type"] = "FLOAT_HISTOGRAM".into(),
        }
        all[name] = one;
    }
    all
}

/// The blocks that an answer was made from, in the form of the recording.
fn blocks_json(any: Option<&prost_types::Any>) -> Value {
    let Some(any) = any else { return Value::Null };
    // The messages of both calls have the same field.
    let blocks = hints::LabelNamesResponseHints::decode(any.value.as_slice()).unwrap();
    let one = |it: &hints::Block| json!({"id": it.id});
    let blocks: Vec<Value> = blocks.queried_blocks.iter().map(one).collect();
    let mut all = json!({"@type": any.type_url});
    if !blocks.is_empty() {
        all["queriedBlocks"] = blocks.into();
    }
    all
}

/// The messages of an answer in the form of the recording, or the status.
async fn ask(channel: Channel, method: &str, request: &Value) -> Result<Vec<Value>, Status> {
    let mut store = StoreClient::new(channel.clone());
    Ok(match method {
        "thanos.Store/Series" => {
            let mut answers = store.series(series_request(request)).await?.into_inner();
            let mut messages = Vec::new();
            while let Some(answer) = answers.message().await? {
                messages.push(match answer.result.unwrap() {
                    Answer::Series(series) => json!({"series": series_json(&series)}),
                    Answer::Batch(batch) => {
                        let all: Vec<Value> = batch.series.iter().map(series_json).collect();
                        json!({"batch": {"series": all}})
                    }
                    Answer::Warning(text) => json!({"warning": text}),
                    Answer::Hints(any) => json!({"hints": any.type_url}),
                    Answer::Written(_) => panic!("nothing that is received is written"),
                });
            }
            messages
        }
        "thanos.Store/LabelNames" => {
            let request = LabelNamesRequest {
                start: number(&request["start"]),
                end: number(&request["end"]),
                matchers: matchers(&request["matchers"]),
                ..LabelNamesRequest::default()
            };
            let answer = store.label_names(request).await?.into_inner();
            vec![json!({"names": answer.names, "hints": blocks_json(answer.hints.as_ref())})]
        }
        "thanos.Store/LabelValues" => {
            let request = LabelValuesRequest {
                label: request["label"].as_str().unwrap().to_owned(),
                start: number(&request["start"]),
                end: number(&request["end"]),
                matchers: matchers(&request["matchers"]),
                ..LabelValuesRequest::default()
            };
            let answer = store.label_values(request).await?.into_inner();
            let mut one = json!({"hints": blocks_json(answer.hints.as_ref())});
            if !answer.values.is_empty() {
                one["values"] = answer.values.into();
            }
            vec![one]
        }
        "thanos.info.Info/Info" => {
            let answer = InfoClient::new(channel)
                .info(InfoRequest {})
                .await?
                .into_inner();
            let set = |it: &thanos::ZLabelSet| {
                let pair = |it: &thanos::Label| json!({"name": it.name, "value": it.value});
                json!({"labels": it.labels.iter().map(pair).collect::<Vec<_>>()})
            };
            let store = answer.store.unwrap();
            let mut sets = store.tsdb_infos;
            sets.sort_by_key(|it| format!("{:?} {}", it.labels, it.min_time));
            let tsdb = |it: &thanos::info::TsdbInfo| {
                json!({
                    "labels": set(it.labels.as_ref().unwrap()),
                    "minTime": it.min_time.to_string(),
                    "maxTime": it.max_time.to_string(),
                })
            };
            vec![json!({
                "labelSets": answer.label_sets.iter().map(set).collect::<Vec<_>>(),
                "ComponentType": answer.component_type,
                "store": {
                    "minTime": store.min_time.to_string(),
                    "maxTime": store.max_time.to_string(),
                    "supportsSharding": store.supports_sharding,
                    "supportsWithoutReplicaLabels": store.supports_without_replica_labels,
                    "tsdbInfos": sets.iter().map(tsdb).collect::<Vec<_>>(),
                },
            })]
        }
        other => panic!("{other} is not asked of a store"),
    })
}

/// Thanos tells its sets in any order.
fn in_order(messages: &mut [Value]) {
    for message in messages {
        let sets = message.pointer_mut("/store/tsdbInfos");
        if let Some(sets) = sets.and_then(Value::as_array_mut) {
            sets.sort_by_key(|it| format!("{} {}", it["labels"], it["minTime"]));
        }
    }
}

/// Asks all recorded calls of a component again.
fn replay(component: &str, gateway: &Gateway) {
    let text = std::fs::read_to_string(contract().join("grpc.jsonl")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let channel = runtime.block_on(gateway.channel());
    let mut asked = 0;
    for line in text.lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        if call["component"] != component {
            continue;
        }
        asked += 1;
        let method = call["method"].as_str().unwrap();
        let got = runtime.block_on(ask(channel.clone(), method, &call["request"]));
        let what = format!("{method} {}", call["request"]);
        if method == "thanos.Store/Series" && call["request"]["matchers"] == json!([]) {
            // Thanos' gateway says that there is nothing when nothing is left of the matchers, which also
            // happens to `{cluster="us"}` when that is an external label. We give what matches.
            assert!(got.unwrap().len() > 100, "{what}");
            continue;
        }
        match (got, call["error"].as_str()) {
            (Ok(messages), None) => {
                assert_eq!(messages.len() as i64, number(&call["messages"]), "{what}");
                let mut first = call["first_messages"].as_array().unwrap().clone();
                in_order(&mut first);
                for (got, recorded) in messages.iter().zip(&first) {
                    assert_eq!(got, recorded, "{what}");
                }
            }
            (Err(status), Some(error)) => {
                // As grpcurl prints it, with Go's name of the code.
                let code = format!("Code: {:?}\n", status.code());
                assert!(
                    error.contains(&code),
                    "{what}: {status:?}, recorded {error}"
                );
                let text = format!("Message: {}", status.message());
                assert!(
                    error.contains(&text),
                    "{what}: {status:?}, recorded {error}"
                );
            }
            (got, error) => panic!("{what}: {got:?}, recorded {error:?}"),
        }
    }
    assert!(asked > 0, "no call of {component} is recorded");
}

#[test]
fn recorded_calls_over_two_collectors() {
    if let Some(gateway) = Gateway::over("ha", &[]) {
        replay("store", &gateway);
    }
}

#[test]
fn recorded_calls_over_downsampled_blocks() {
    if let Some(gateway) = Gateway::over("life", &[]) {
        replay("store-life", &gateway);
    }
}

#[test]
fn loaded_blocks_are_listed() {
    let Some(gateway) = Gateway::over("life", &["--min-time=2023-12-07T01:00:00Z"]) else {
        return;
    };
    let ask = |query: &str| -> Value {
        let url = format!("{}/api/v1/blocks{query}", gateway.url);
        client().get(url).send().unwrap().json().unwrap()
    };
    assert_eq!(ask("")["data"]["blocks"], json!([]));
    let loaded = ask("?view=loaded");
    let blocks = loaded["data"]["blocks"].as_array().unwrap();
    let all = std::fs::read_dir(contract().join("life")).unwrap().count();
    assert!(
        !blocks.is_empty() && blocks.len() < all,
        "{} of {all}",
        blocks.len()
    );
    for block in blocks {
        assert!(number(&block["maxTime"]) >= 1_701_910_800_000, "{block}");
    }
}

/// Names of Thanos that have no counterpart, by how they begin: there is no index header, no cache of postings
/// and series, nothing that is expanded lazily, and no cache above the list of blocks.
const WITHOUT: [&str; 5] = [
    "thanos_bucket_store_indexheader_",
    "thanos_bucket_store_cached_postings_",
    "thanos_bucket_store_lazy_expanded_posting",
    "thanos_store_index_cache_",
    "thanos_blocks_meta_base_cache_busts",
];
/// Others without counterpart. A block is not loaded before it is asked for, so that neither takes time nor
/// fails, and dropping it is forgetting it. `meta.json` is never modified on its way. What is fetched are pages and not
/// items, for several blocks at once, so there are no times of single fetches. The chunks of each series are
/// not measured one by one.
const WITHOUT_ALONE: [&str; 12] = [
    "thanos_blocks_meta_modified",
    "thanos_bucket_store_block_drop_failures_total",
    "thanos_bucket_store_block_load_duration_seconds",
    "thanos_bucket_store_block_load_failures_total",
    "thanos_bucket_store_chunks_fetch_duration_seconds",
    "thanos_bucket_store_chunks_fetch_duration_sum_seconds",
    "thanos_bucket_store_empty_postings_total",
    "thanos_bucket_store_postings_fetch_duration_seconds",
    "thanos_bucket_store_sent_chunk_size_bytes",
    "thanos_bucket_store_series_data_fetched",
    "thanos_bucket_store_series_fetch_duration_seconds",
    "thanos_bucket_store_series_fetch_duration_sum_seconds",
];

#[test]
fn metrics_have_the_names_of_thanos() {
    let Some(gateway) = Gateway::over("ha", &[]) else {
        return;
    };
    replay("store", &gateway);
    let list = client().get(format!("{}/api/v1/blocks", gateway.url));
    assert!(list.send().unwrap().status().is_success());
    let text = std::fs::read_to_string(contract().join("metrics.json")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let ours = client()
        .get(format!("{}/metrics", gateway.url))
        .send()
        .unwrap()
        .text()
        .unwrap();
    let without =
        |name: &str| WITHOUT.iter().any(|it| name.starts_with(it)) || WITHOUT_ALONE.contains(&name);
    let mut missing = Vec::new();
    for (name, about) in recorded["store"].as_object().unwrap() {
        let kind = about["type"].as_str().unwrap();
        let there = ours.contains(&format!("# TYPE {name} {kind}\n"));
        assert!(!(there && without(name)), "{name} is there after all");
        if !there && !without(name) {
            missing.push(format!("{name} {kind}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    // They say what has happened.
    let value = |line: &str| -> f64 {
        let text = ours.lines().find_map(|it| it.strip_prefix(line));
        let text = text.unwrap_or_else(|| panic!("no {line}"));
        text.trim().parse().unwrap()
    };
    let tenant = "tenant=\"default-tenant\"";
    let requests = value("thanos_bucket_store_series_gate_queries_total");
    assert!(requests > 3.0, "{requests}");
    for name in [
        "series_get_all_duration_seconds",
        "series_merge_duration_seconds",
        "series_result_series",
        "series_blocks_queried",
    ] {
        let count = value(&format!("thanos_bucket_store_{name}_count{{{tenant}}}"));
        assert!(
            count > 0.0 && count <= requests,
            "{name}: {count} of {requests}"
        );
    }
    for kind in ["series", "chunks"] {
        let labels = format!("{{data_type=\"{kind}\",{tenant}}}");
        for name in [
            "series_data_touched",
            "series_data_size_touched_bytes",
            "series_data_size_fetched_bytes",
        ] {
            let sum = value(&format!("thanos_bucket_store_{name}_sum{labels}"));
            assert!(sum > 0.0, "{name} of {kind}");
        }
    }
    let blocks = std::fs::read_dir(contract().join("ha")).unwrap().count();
    let loads = value("thanos_bucket_store_block_loads_total");
    assert!(loads > 0.0 && loads <= blocks as f64, "{loads} of {blocks}");
    assert_eq!(value("thanos_bucket_store_block_drops_total"), 0.0);
}
