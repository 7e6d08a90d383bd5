//! `thanos.info.Info`: what this server is, and which times and external labels its data have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isobar_model::Labels;
use isobar_proto::convert::wire_labels;
use isobar_proto::thanos::info::{
    ExemplarsInfo, InfoRequest, InfoResponse, MetricMetadataInfo, QueryApiInfo, RulesInfo,
    StatusInfo, StoreInfo as WireStoreInfo, TargetsInfo, TsdbInfo, info_server,
};
use tonic::{Request, Response, Status};

use crate::Store;

/// Which services are served beside the Store API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Apis {
    /// `thanos.Rules`.
    pub rules: bool,
    /// `thanos.Targets`.
    pub targets: bool,
    /// `thanos.Metadata`.
    pub metadata: bool,
    /// `thanos.Exemplars`.
    pub exemplars: bool,
    /// `thanos.Query`.
    pub query: bool,
    /// `thanos.Status`.
    pub status: bool,
}

/// The service.
pub struct InfoService {
    component: &'static str,
    store: Arc<dyn Store>,
    apis: Apis,
    ready: Option<Arc<AtomicBool>>,
}

impl InfoService {
    /// Tells about `store`, as a component of a kind that Thanos knows, such as `store` or `sidecar`.
    pub fn new(component: &'static str, store: Arc<dyn Store>, apis: Apis) -> Self {
        InfoService {
            component,
            store,
            apis,
            ready: None,
        }
    }

    /// Refuses to tell anything while `ready` is not, so that nobody asks the store.
    pub fn ready_when(mut self, ready: Arc<AtomicBool>) -> Self {
        self.ready = Some(ready);
        self
    }

    fn answer(&self) -> InfoResponse {
        let held = self.store.info();
        // Thanos gives these for a store without data.
        let (min_time, max_time) = held
            .range
            .map_or((i64::MAX, i64::MIN), |it| (it.min_ms, it.max_ms));
        let mut sets: Vec<&Labels> = held.sets.iter().map(|set| &set.labels).collect();
        sets.sort();
        sets.dedup();
        let apis = self.apis;
        InfoResponse {
            label_sets: sets.into_iter().map(wire_labels).collect(),
            component_type: self.component.to_owned(),
            store: Some(WireStoreInfo {
                min_time,
                max_time,
                supports_sharding: true,
                supports_without_replica_labels: true,
                supports_projections: false,
                tsdb_infos: (held.sets.iter())
                    .map(|set| TsdbInfo {
                        labels: Some(wire_labels(&set.labels)),
                        min_time: set.range.min_ms,
                        max_time: set.range.max_ms,
                    })
                    .collect(),
            }),
            rules: apis.rules.then_some(RulesInfo {}),
            metric_metadata: apis.metadata.then_some(MetricMetadataInfo {}),
            targets: apis.targets.then_some(TargetsInfo {}),
            exemplars: apis
                .exemplars
                .then_some(ExemplarsInfo { min_time, max_time }),
            query: apis.query.then_some(QueryApiInfo {}),
            status: apis.status.then_some(StatusInfo {}),
        }
    }
}

#[tonic::async_trait]
impl info_server::Info for InfoService {
    async fn info(&self, _request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let ready = self.ready.as_ref();
        if ready.is_some_and(|it| !it.load(Ordering::Acquire)) {
            return Err(Status::unavailable("Not ready"));
        }
        Ok(Response::new(self.answer()))
    }
}
