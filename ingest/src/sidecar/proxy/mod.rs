//! What the HTTP API of a Prometheus says of rules, targets, metrics, exemplars and its head, as the
//! gRPC services of Thanos. External labels are added, since Prometheus does not do that itself.
//! Source: `pkg/{rules,targets,metadata,exemplars}/prometheus.go` and `pkg/promclient` of Thanos.

mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, BoxStream, StreamExt};
use isobar_proto::convert;
use isobar_proto::thanos::{
    ExemplarsRequest, ExemplarsResponse, MetricMetadata, MetricMetadataRequest,
    MetricMetadataResponse, RulesRequest, RulesResponse, TargetsRequest, TargetsResponse,
    TsdbStatistics, TsdbStatisticsRequest, TsdbStatisticsResponse, exemplars_response,
    exemplars_server, metadata_server, metric_metadata_response, rules_request, rules_response,
    rules_server, status_server, targets_request, targets_response, targets_server,
    tsdb_statistics_response,
};
use isobar_store::prometheus::{ClientError, Peer};
use serde::de::DeserializeOwned;
use tonic::{Code, Request, Response, Status};

use answers::{ExemplarsOf, HeadStatus, Meta, RuleGroups, TargetsPage};

/// The messages of an answer.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// The services.
#[derive(Clone)]
pub struct Proxy {
    peer: Arc<Peer>,
    ready: Arc<AtomicBool>,
}

impl Proxy {
    /// Passes requests on to `peer`; those for its statistics only while it is `ready`.
    pub fn new(peer: Arc<Peer>, ready: Arc<AtomicBool>) -> Self {
        Proxy { peer, ready }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &[(&str, String)],
    ) -> Result<T, Status> {
        let answer = self.peer.client().api(path, params).await;
        answer.map_err(|error| status(&error))
    }
}

/// The status of a failed request, as Thanos gives it where there was an answer.
fn status(error: &ClientError) -> Status {
    let code = match error {
        ClientError::Refused { status: 400, .. } => Code::InvalidArgument,
        ClientError::Refused { status: 404, .. } => Code::NotFound,
        ClientError::Refused { status: 503, .. } | ClientError::Unreachable { .. } => {
            Code::Unavailable
        }
        ClientError::TooLarge { .. } => Code::ResourceExhausted,
        ClientError::Refused { .. } | ClientError::Unexpected { .. } | ClientError::Config(_) => {
            Code::Internal
        }
    };
    Status::new(code, error.to_string())
}

fn messages<T: Send + 'static>(all: Vec<T>) -> Response<Messages<T>> {
    Response::new(stream::iter(all.into_iter().map(Ok)).boxed())
}

#[tonic::async_trait]
impl rules_server::Rules for Proxy {
    type RulesStream = Messages<RulesResponse>;

    async fn rules(
        &self,
        request: Request<RulesRequest>,
    ) -> Result<Response<Self::RulesStream>, Status> {
        let kind = match request.get_ref().r#type() {
            rules_request::Type::All => None,
            rules_request::Type::Alert => Some("alert"),
            rules_request::Type::Record => Some("record"),
        };
        let params: Vec<_> = kind.map(|it| ("type", it.to_owned())).into_iter().collect();
        let answer: RuleGroups = self.ask("/api/v1/rules", &params).await?;
        let known = self.peer.known();
        let groups = answer.groups.into_iter().map(|it| it.wire(&known.labels));
        let group = |it| RulesResponse {
            result: Some(rules_response::Result::Group(it)),
        };
        Ok(messages(groups.map(group).collect()))
    }
}

#[tonic::async_trait]
impl targets_server::Targets for Proxy {
    type TargetsStream = Messages<TargetsResponse>;

    async fn targets(
        &self,
        request: Request<TargetsRequest>,
    ) -> Result<Response<Self::TargetsStream>, Status> {
        let state = match request.get_ref().state() {
            targets_request::State::Any => None,
            targets_request::State::Active => Some("active"),
            targets_request::State::Dropped => Some("dropped"),
        };
        let params: Vec<_> = state
            .map(|it| ("state", it.to_owned()))
            .into_iter()
            .collect();
        let answer: TargetsPage = self.ask("/api/v1/targets", &params).await?;
        let targets = answer.wire(&self.peer.known().labels);
        Ok(messages(vec![TargetsResponse {
            result: Some(targets_response::Result::Targets(targets)),
        }]))
    }
}

#[tonic::async_trait]
impl metadata_server::Metadata for Proxy {
    type MetricMetadataStream = Messages<MetricMetadataResponse>;

    async fn metric_metadata(
        &self,
        request: Request<MetricMetadataRequest>,
    ) -> Result<Response<Self::MetricMetadataStream>, Status> {
        let request = request.into_inner();
        let mut params = Vec::new();
        if !request.metric.is_empty() {
            params.push(("metric", request.metric));
        }
        if request.limit >= 0 {
            params.push(("limit", request.limit.to_string()));
        }
        let answer: BTreeMap<String, Vec<Meta>> = self.ask("/api/v1/metadata", &params).await?;
        let entries = answer.into_iter();
        let metadata = MetricMetadata {
            metadata: entries
                .map(|(name, metas)| (name, answers::entry(metas)))
                .collect(),
        };
        Ok(messages(vec![MetricMetadataResponse {
            result: Some(metric_metadata_response::Result::Metadata(metadata)),
        }]))
    }
}

#[tonic::async_trait]
impl exemplars_server::Exemplars for Proxy {
    type ExemplarsStream = Messages<ExemplarsResponse>;

    async fn exemplars(
        &self,
        request: Request<ExemplarsRequest>,
    ) -> Result<Response<Self::ExemplarsStream>, Status> {
        let request = request.into_inner();
        let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
        let params = [
            ("query", request.query),
            ("start", seconds(request.start)),
            ("end", seconds(request.end)),
        ];
        let answer: Vec<ExemplarsOf> = self.ask("/api/v1/query_exemplars", &params).await?;
        let known = self.peer.known();
        let data = |it: ExemplarsOf| {
            let data = it.wire(&known.labels).map_err(Status::internal)?;
            Ok(ExemplarsResponse {
                result: Some(exemplars_response::Result::Data(data)),
            })
        };
        let all: Result<Vec<_>, Status> = answer.into_iter().map(data).collect();
        Ok(messages(all?))
    }
}

#[tonic::async_trait]
impl status_server::Status for Proxy {
    type TSDBStatisticsStream = Messages<TsdbStatisticsResponse>;

    async fn tsdb_statistics(
        &self,
        request: Request<TsdbStatisticsRequest>,
    ) -> Result<Response<Self::TSDBStatisticsStream>, Status> {
        if !self.ready.load(Ordering::Acquire) {
            return Err(Status::unavailable("not ready"));
        }
        let request = request.into_inner();
        let matchers = convert::matchers(&request.matchers).map_err(Status::invalid_argument)?;
        let known = self.peer.known();
        let mut statistics = BTreeMap::new();
        let ours = |it: &isobar_model::Matcher| it.matches(known.labels.get(it.name()));
        if matchers.iter().all(ours) {
            let limit = u32::try_from(request.limit).ok().filter(|it| *it > 0);
            let params: Vec<_> = limit
                .map(|it| ("limit", it.to_string()))
                .into_iter()
                .collect();
            let answer: HeadStatus = self.ask("/api/v1/status/tsdb", &params).await?;
            let most = limit.map_or(usize::MAX, |it| it as usize);
            statistics.insert(String::new(), answer.wire(most));
        }
        Ok(messages(vec![TsdbStatisticsResponse {
            result: Some(tsdb_statistics_response::Result::Statistics(
                TsdbStatistics { statistics },
            )),
        }]))
    }
}
