//! A server's parts without the socket: a store, an engine, the router, and requests to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{self, StreamExt};
use isobar_model::{Clock, Columns, Labels};
use isobar_query::engine::{Config, Engine};
use isobar_query::http::{App, Readiness, router};
use isobar_query::metrics::{EngineMetrics, HttpMetrics};
use isobar_query::status::{BuildInfo, RuntimeInfo, StatusSource, TsdbStatus};
use isobar_store::api::{Names, SeriesBatch, SeriesStream};
use isobar_store::compute::Pool;
use isobar_store::metadata::{Metadata, MetadataStore};
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::histogram::Counts;
use isobar_tsdb::merge::encode;
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use tower::ServiceExt;

/// Noon of a day in 2023, unix milliseconds: the time that the test's clock shows.
pub(crate) const NOW_MS: i64 = 1_700_049_600_000;

/// The router, and what a test may want to look at behind it.
pub(crate) struct Server {
    router: Router,
    pub(crate) readiness: Readiness,
    pub(crate) registry: Registry,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a text")
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a text"))
    }
}

impl Server {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Server::with(store, Config::default(), 2)
    }

    pub(crate) fn with(store: Arc<dyn Store>, config: Config, threads: usize) -> Self {
        let mut registry = Registry::default();
        let pool = Arc::new(Pool::new("test", threads, 1_000).expect("threads"));
        let engine = Engine::new(store, pool, config, EngineMetrics::new(&mut registry));
        let metadata = MetadataStore::default();
        for (metric, help) in [("up", "Whether it is."), ("m", "First."), ("m", "Second.")] {
            let tenant = isobar_model::Tenant::default();
            let described = metadata.insert(
                &tenant,
                metric,
                Metadata {
                    kind: "gauge".into(),
                    help: help.into(),
                    unit: String::new(),
                },
            );
            described.expect("it is kept in memory");
        }
        let readiness = Readiness::default();
        readiness.set_ready();
        let app = App {
            engine: Arc::new(engine),
            metadata: Arc::new(metadata),
            exemplars: Arc::new(()),
            admin: None,
            status: Arc::new(Status),
            clock: Clock::manual(NOW_MS),
            readiness: readiness.clone(),
            metrics: HttpMetrics::new(&mut registry),
            name: "Prometheus Server".into(),
        };
        Server {
            router: router(Arc::new(app)),
            readiness,
            registry,
        }
    }

    /// The response with its body still to be read.
    pub(crate) async fn begin(&self, path: &str) -> axum::response::Response {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("no error of its own")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("no error of its own");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a whole body");
        Response {
            status: parts.status,
            headers: parts.headers,
            body: body.to_vec(),
        }
    }

    /// GET of a path with its query string.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).expect("a request"))
            .await
    }

    /// A request with parameters, in the body when the method is POST.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        params: &[(String, String)],
    ) -> Response {
        let escape = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let pairs: Vec<_> = params
            .iter()
            .map(|(n, v)| format!("{}={}", escape(n), escape(v)))
            .collect();
        let form = pairs.join("&");
        let builder = Request::builder().method(method.clone());
        let request = if method == Method::POST {
            builder
                .uri(path)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(form))
        } else {
            builder.uri(format!("{path}?{form}")).body(Body::empty())
        };
        self.send(request.expect("a request")).await
    }
}

struct Status;

impl StatusSource for Status {
    fn build(&self) -> BuildInfo {
        BuildInfo {
            version: "1".into(),
            ..BuildInfo::default()
        }
    }

    fn flags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("b".into(), "<2>".into()), ("a".into(), "1".into())])
    }

    fn runtime(&self) -> RuntimeInfo {
        RuntimeInfo::default()
    }

    fn tsdb(&self, limit: usize) -> Result<TsdbStatus, String> {
        if limit == 13 {
            Err("no luck".into())
        } else {
            Ok(TsdbStatus::default())
        }
    }
}

/// What a store does besides answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing.
    Well,
    /// It never gives a batch.
    Stuck,
    /// It gives an error instead.
    Unreachable,
}

/// A store of a few series in memory, one batch for each.
pub(crate) struct Memory {
    series: Vec<SeriesChunks>,
    mood: Mood,
}

impl Memory {
    /// `count` series `m{i="…"}` with a sample every 15 s over the hour before [`NOW_MS`], whose
    /// value is the number of the series.
    pub(crate) fn hour(count: usize) -> Arc<Self> {
        Memory::in_mood(count, Mood::Well)
    }

    pub(crate) fn in_mood(count: usize, mood: Mood) -> Arc<Self> {
        Memory::with(count, mood, |i, _| i as f64)
    }

    /// As [`Memory::hour`], with values that are hard to compress.
    pub(crate) fn noisy_hour(count: usize) -> Arc<Self> {
        Memory::with(count, Mood::Well, |i, p| {
            (i as f64 * 240.0 + p as f64).sin()
        })
    }

    fn with(count: usize, mood: Mood, value: impl Fn(usize, i64) -> f64) -> Arc<Self> {
        let mut series: Vec<_> = (0..count)
            .map(|i| {
                let mut columns = Columns::default();
                (0..240).for_each(|p| columns.push(NOW_MS - (240 - p) * 15_000, value(i, p)));
                let labels = Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:05}"))]);
                SeriesChunks::in_memory(labels, encode(&columns, Counts::Integer))
            })
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Arc::new(Memory { series, mood })
    }

    fn names(
        &self,
        request: &LabelsRequest,
        of: impl Fn(&Labels) -> Vec<String>,
    ) -> Result<Names, StoreError> {
        if self.mood != Mood::Well {
            return Err(StoreError::Unavailable("store x is away".into()));
        }
        let chosen = self
            .series
            .iter()
            .map(|series| &series.labels)
            .filter(|labels| {
                request
                    .matchers
                    .iter()
                    .all(|matcher| matcher.matches(labels.get(matcher.name())))
            });
        let mut values: Vec<_> = chosen.flat_map(of).collect();
        values.sort();
        values.dedup();
        if request.limit > 0 {
            values.truncate(request.limit);
        }
        Ok(Names {
            values,
            ..Names::default()
        })
    }
}

impl Store for Memory {
    fn info(&self) -> StoreInfo {
        StoreInfo::default()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        match self.mood {
            Mood::Stuck => return stream::pending().boxed(),
            Mood::Unreachable => {
                let error = StoreError::Unavailable("store x is away".into());
                return stream::iter([Err(error)]).boxed();
            }
            Mood::Well => {}
        }
        let limit = if request.limit == 0 {
            usize::MAX
        } else {
            request.limit
        };
        let chosen: Vec<_> = self
            .series
            .iter()
            .filter(|series| {
                let fits = |m: &isobar_model::Matcher| m.matches(series.labels.get(m.name()));
                request.matchers.iter().all(fits)
            })
            .take(limit)
            .map(|series| Ok(SeriesBatch::Series(vec![series.clone()])))
            .collect();
        stream::iter(chosen).boxed()
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        ready(self.names(&request, |labels| {
            labels.iter().map(|(n, _)| n.into()).collect()
        }))
        .boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let value = |labels: &Labels| {
            let value = labels.get(&name);
            if value.is_empty() {
                vec![]
            } else {
                vec![value.to_owned()]
            }
        };
        ready(self.names(&request, value)).boxed()
    }
}

/// Copies a directory of plain files and directories.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// A short time limit that is still long enough to see that something hangs.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
