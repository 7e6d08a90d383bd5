//! A server of the Store API somewhere else, Isobar's or Thanos', as a store.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use isobar_model::{Labels, Matcher, TimeRange, Warnings};
use isobar_proto::convert::{labels, wire_matcher};
use isobar_proto::thanos::info::info_client::InfoClient;
use isobar_proto::thanos::info::{InfoRequest, InfoResponse};
use isobar_proto::thanos::series_response::Result as Answer;
use isobar_proto::thanos::store_client::StoreClient;
use isobar_proto::thanos::{
    self, Aggr, AggrChunk, Func, Grouping, LabelNamesRequest, LabelValuesRequest,
    PartialResponseStrategy, QueryHints, Range, SeriesResponse, ShardInfo, hints,
};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::aggregate::{self, Part};
use isobar_tsdb::chunks::{Chunk, Encoding};
use parking_lot::RwLock;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::request::pack;
use crate::api::{
    Aggregate, LabelsRequest, Names, OnFailure, SeriesBatch, SeriesRequest, SeriesStream,
    StoreInfo, StoredSet,
};
use crate::{Store, StoreError};

/// Series that the other side is asked to put into one message.
const BATCH_SERIES: i64 = 64;
/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A store behind a connection.
#[derive(Clone)]
pub struct RemoteStore {
    name: Arc<str>,
    channel: Channel,
    /// What it said about itself last.
    info: Arc<RwLock<StoreInfo>>,
}

impl RemoteStore {
    /// The store behind `channel`; errors call it `name`.
    pub fn new(name: &str, channel: Channel) -> Self {
        RemoteStore {
            name: name.into(),
            channel,
            info: Arc::default(),
        }
    }

    /// Asks what it is and holds, which [`Store::info`] tells from then on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn refresh(&self) -> Result<InfoResponse, StoreError> {
        let mut client = InfoClient::new(self.channel.clone());
        let answer = client.info(InfoRequest {}).await;
        let answer = answer.map_err(|status| self.error(&status))?.into_inner();
        *self.info.write() = store_info(&answer);
        Ok(answer)
    }

    fn client(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn error(&self, status: &Status) -> StoreError {
        let text = format!("store {}: {}", self.name, status.message());
        match status.code() {
            Code::InvalidArgument => StoreError::Invalid(text),
            Code::ResourceExhausted => StoreError::LimitExceeded(text),
            Code::Unimplemented => StoreError::Unsupported(text),
            Code::Cancelled => StoreError::Cancelled,
            Code::DataLoss => StoreError::Corrupt(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

impl Store for RemoteStore {
    fn info(&self) -> StoreInfo {
        self.info.read().clone()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let store = self.clone();
        let opened = async move {
            let answer = store.client().series(series_request(&request)).await;
            match answer {
                Ok(messages) => Receiving {
                    store,
                    messages: messages.into_inner(),
                    ahead: None,
                }
                .into_stream(),
                Err(status) => {
                    let error = store.error(&status);
                    stream::once(async { Err(error) }).boxed()
                }
            }
        };
        opened.flatten_stream().boxed()
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move {
            let wire = LabelNamesRequest {
                partial_response_disabled: request.on_failure == OnFailure::Abort,
                partial_response_strategy: strategy(request.on_failure),
                start: request.range.min_ms,
                end: request.range.max_ms,
                hints: (!request.block_matchers.is_empty()).then(|| {
                    let block_matchers = wire_matchers(&request.block_matchers);
                    pack(&hints::LabelNamesRequestHints { block_matchers })
                }),
                matchers: wire_matchers(&request.matchers),
                without_replica_labels: request.without_labels,
                limit: wire_limit(request.limit),
            };
            let answer = store.client().label_names(wire).await;
            let answer = answer.map_err(|status| store.error(&status))?.into_inner();
            Ok(names(answer.names, answer.warnings))
        }
        .boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move {
            let wire = LabelValuesRequest {
                label: name,
                partial_response_disabled: request.on_failure == OnFailure::Abort,
                partial_response_strategy: strategy(request.on_failure),
                start: request.range.min_ms,
                end: request.range.max_ms,
                hints: (!request.block_matchers.is_empty()).then(|| {
                    let block_matchers = wire_matchers(&request.block_matchers);
                    pack(&hints::LabelValuesRequestHints { block_matchers })
                }),
                matchers: wire_matchers(&request.matchers),
                without_replica_labels: request.without_labels,
                limit: wire_limit(request.limit),
            };
            let answer = store.client().label_values(wire).await;
            let answer = answer.map_err(|status| store.error(&status))?.into_inner();
            Ok(names(answer.values, answer.warnings))
        }
        .boxed()
    }
}

fn names(values: Vec<String>, remarks: Vec<String>) -> Names {
    let mut warnings = Warnings::default();
    remarks.into_iter().for_each(|text| warnings.warn(text));
    Names {
        values,
        warnings,
        queried_blocks: None,
    }
}

fn store_info(answer: &InfoResponse) -> StoreInfo {
    let Some(store) = &answer.store else {
        return StoreInfo::default();
    };
    let range = TimeRange::new(store.min_time, store.max_time);
    let external = |set: &Option<thanos::ZLabelSet>| {
        set.as_ref()
            .map_or_else(Labels::empty, |set| labels(&set.labels))
    };
    let mut sets: Vec<StoredSet> = (store.tsdb_infos.iter())
        .map(|tsdb| StoredSet {
            labels: external(&tsdb.labels),
            range: TimeRange::new(tsdb.min_time, tsdb.max_time),
        })
        .collect();
    if sets.is_empty() {
        // Thanos before 0.32 says nothing about times of sets.
        let all = answer.label_sets.iter().map(|set| labels(&set.labels));
        sets = all.map(|labels| StoredSet { labels, range }).collect();
    }
    StoreInfo {
        sets,
        range: (store.min_time <= store.max_time).then_some(range),
    }
}

fn wire_matchers(matchers: &[Matcher]) -> Vec<thanos::LabelMatcher> {
    matchers.iter().map(wire_matcher).collect()
}

fn wire_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(0)
}

fn strategy(on_failure: OnFailure) -> i32 {
    match on_failure {
        OnFailure::Warn => PartialResponseStrategy::Warn.into(),
        OnFailure::Abort => PartialResponseStrategy::Abort.into(),
    }
}

fn series_request(request: &SeriesRequest) -> thanos::SeriesRequest {
    let aggregate = |aggregate: &Aggregate| {
        i32::from(match aggregate {
            Aggregate::Count => Aggr::Count,
            Aggregate::Sum => Aggr::Sum,
            Aggregate::Min => Aggr::Min,
            Aggregate::Max => Aggr::Max,
            Aggregate::Counter => Aggr::Counter,
        })
    };
    let mut aggregates: Vec<i32> = request.aggregates.iter().map(aggregate).collect();
    if aggregates.is_empty() && request.resolution_ms_max > 0 {
        aggregates = (Aggr::Count.into()..=Aggr::Counter.into()).collect();
    }
    if aggregates.is_empty() {
        aggregates.push(Aggr::Raw.into());
    }
    let select = &request.hints;
    thanos::SeriesRequest {
        min_time: request.range.min_ms,
        max_time: request.range.max_ms,
        matchers: wire_matchers(&request.matchers),
        max_resolution_window: request.resolution_ms_max,
        aggregates,
        partial_response_disabled: request.on_failure == OnFailure::Abort,
        partial_response_strategy: strategy(request.on_failure),
        skip_chunks: request.skip_chunks,
        hints: (!request.block_matchers.is_empty()).then(|| {
            pack(&hints::SeriesRequestHints {
                block_matchers: wire_matchers(&request.block_matchers),
                enable_query_stats: false,
            })
        }),
        step: select.step_ms,
        range: select.range_ms,
        query_hints: Some(QueryHints {
            step_millis: select.step_ms,
            func: Some(Func {
                name: select.func.clone(),
            }),
            grouping: Some(Grouping {
                by: select.by,
                labels: select.grouping.clone(),
            }),
            range: Some(Range {
                millis: select.range_ms,
            }),
            ..QueryHints::default()
        }),
        shard_info: request.shard.as_ref().map(|shard| ShardInfo {
            shard_index: i64::try_from(shard.index).unwrap_or(i64::MAX),
            total_shards: i64::try_from(shard.count).unwrap_or(i64::MAX),
            by: shard.by,
            labels: shard.labels.clone(),
        }),
        without_replica_labels: request.without_labels.clone(),
        limit: wire_limit(request.limit),
        response_batch_size: BATCH_SERIES,
    }
}

/// An answer that is coming in.
struct Receiving {
    store: RemoteStore,
    messages: Streaming<SeriesResponse>,
    /// The last series, which the next message may go on with.
    ahead: Option<SeriesChunks>,
}

impl Receiving {
    fn into_stream(self) -> SeriesStream {
        stream::unfold(Some(self), |receiving| async move {
            let mut receiving = receiving?;
            match receiving.next().await {
                None => None,
                Some(Ok(batch)) => Some((Ok(batch), Some(receiving))),
                Some(Err(error)) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<SeriesBatch, StoreError>> {
        loop {
            let message = match self.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    return self
                        .ahead
                        .take()
                        .map(|it| Ok(SeriesBatch::Series(vec![it])));
                }
                Err(status) => return Some(Err(self.store.error(&status))),
            };
            let series = match message.result {
                Some(Answer::Series(series)) => vec![series],
                Some(Answer::Batch(batch)) => batch.series,
                Some(Answer::Warning(text)) => {
                    let mut warnings = Warnings::default();
                    warnings.warn(text);
                    return Some(Ok(SeriesBatch::Warnings(warnings)));
                }
                Some(Answer::Hints(_) | Answer::Written(_)) | None => continue,
            };
            let mut ready = Vec::with_capacity(series.len());
            for series in series {
                match received(series) {
                    Ok(series) => self.add(series, &mut ready),
                    Err(text) => {
                        let text = format!("store {}: {text}", self.store.name);
                        return Some(Err(StoreError::Corrupt(text)));
                    }
                }
            }
            if !ready.is_empty() {
                return Some(Ok(SeriesBatch::Series(ready)));
            }
        }
    }

    /// Thanos may send a series in parts, one behind the other.
    fn add(&mut self, series: SeriesChunks, ready: &mut Vec<SeriesChunks>) {
        match &mut self.ahead {
            Some(ahead) if ahead.labels == series.labels => {
                ahead.chunks.extend(series.chunks);
                ahead.heap_bytes += series.heap_bytes;
                ahead.chunks.sort_by_key(|chunk| chunk.min_ms);
                ahead.chunks.dedup();
            }
            ahead => ready.extend(ahead.replace(series)),
        }
    }
}

fn received(series: thanos::Series) -> Result<SeriesChunks, String> {
    let chunks: Result<Vec<Vec<Chunk>>, String> =
        series.chunks.iter().map(received_chunk).collect();
    let chunks = chunks?.into_iter().flatten().collect();
    Ok(SeriesChunks::in_memory(series.label_set(), chunks))
}

fn encoding(number: i32) -> Result<Encoding, String> {
    let code = number
        .checked_add(1)
        .and_then(|code| u8::try_from(code).ok());
    let known = code.and_then(Encoding::from_u8).filter(|it| {
        matches!(
            it,
            Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram
        )
    });
    known.ok_or_else(|| format!("a chunk has the unknown encoding {number}"))
}

/// The raw chunk and the chunk of aggregates of a message; either may be missing.
fn received_chunk(chunk: &AggrChunk) -> Result<Vec<Chunk>, String> {
    let of = |encoding, data| Chunk {
        encoding,
        min_ms: chunk.min_time,
        max_ms: chunk.max_time,
        data,
    };
    let mut chunks = Vec::with_capacity(1);
    if let Some(raw) = &chunk.raw {
        chunks.push(of(encoding(raw.r#type)?, raw.data.clone()));
    }
    let mut parts = [const { None }; aggregate::AGGREGATES];
    let wire = [
        &chunk.count,
        &chunk.sum,
        &chunk.min,
        &chunk.max,
        &chunk.counter,
    ];
    for (part, wire) in parts.iter_mut().zip(wire) {
        if let Some(wire) = wire {
            *part = Some(Part {
                encoding: encoding(wire.r#type)?,
                data: wire.data.clone(),
            });
        }
    }
    if parts.iter().any(Option::is_some) {
        let data = aggregate::join(parts.each_ref().map(Option::as_ref));
        chunks.push(of(Encoding::Aggregate, data));
    }
    Ok(chunks)
}
