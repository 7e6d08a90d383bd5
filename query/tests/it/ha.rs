//! Thanos Query's answers over the blocks of two collectors, held against ours.
//!
//! The blocks and the answers lie in `../shared/contract` (its page says how they were made):
//! `ha-answers.jsonl`, functions `penalty` and `chain`, deduplicated and not. Each request goes
//! through the router. Series are compared in their order, values to 1e-9. Without the folder the
//! test is skipped; another one of the same shape can be named in `ISOBAR_HA_ANSWERS`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::http::Method;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream;
use isobar_model::{Labels, LabelsBuilder};
use isobar_query::engine::Config;
use isobar_query::replicas::{Deduplication, Function};
use isobar_store::api::{Names, SeriesBatch, SeriesStream};
use isobar_store::local::LocalStore;
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo};
use isobar_tsdb::db::{Db, DbConfig};
use serde_json::Value as Json;

use crate::fixture::{Server, copy_dir};

/// How many of the answers are met: all of them.
const MET_MIN: usize = 242;

/// Where the recordings lie.
pub(crate) const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/contract");

/// The label that tells the two collectors apart.
pub(crate) const REPLICA: &str = "prometheus_replica";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thanos_answers_are_met() {
    let other = std::env::var("ISOBAR_HA_ANSWERS").ok();
    let contract = Path::new(other.as_deref().unwrap_or(CONTRACT));
    let Ok(lines) = std::fs::read_to_string(contract.join("ha-answers.jsonl")) else {
        println!("skipped: {} not found", contract.display());
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let store = thanos_store(&contract.join("ha"), dir.path());
    let servers = BTreeMap::from([
        ("penalty", server(&store, Function::Penalty)),
        ("chain", server(&store, Function::Chain)),
    ]);
    let (mut met, mut all) = (0, 0);
    for line in lines.lines() {
        let recorded: Json = serde_json::from_str(line).expect("a request a line");
        all += 1;
        let path = recorded["path"].as_str().expect("a path");
        let func = recorded["dedup_func"].as_str().unwrap_or("penalty");
        let params = parameters(&recorded);
        let mut answer = servers[func].ask(Method::GET, path, &params).await.json();
        infos_as_warnings(&mut answer);
        match same(&recorded["answer"], &answer) {
            Ok(()) => met += 1,
            Err(why) => println!("not met: {func} {path} {params:?}: {why}"),
        }
    }
    println!("ha: {met} of {all} answers met");
    let met_min = if other.is_some() { all } else { MET_MIN };
    assert!(met >= met_min, "{met} answers met, {met_min} expected");
}

pub(crate) fn server(store: &Arc<External>, function: Function) -> Server {
    let config = Config {
        deduplication: Deduplication {
            labels: Arc::from([REPLICA.to_owned()]),
            function,
        },
        ..Config::default()
    };
    Server::with(Arc::clone(store) as Arc<dyn Store>, config, 2)
}

pub(crate) fn parameters(recorded: &Json) -> Vec<(String, String)> {
    let text = |json: &Json| match json.as_str() {
        Some(text) => text.to_owned(),
        None => json.to_string(),
    };
    let params = recorded["params"].as_object().expect("parameters").iter();
    params.map(|(n, v)| (n.clone(), text(v))).collect()
}

/// Thanos says infos among the warnings, and not where in the query.
fn infos_as_warnings(answer: &mut Json) {
    let fields = answer.as_object_mut().expect("an answer");
    let mut remarks = Vec::new();
    for key in ["warnings", "infos"] {
        if let Some(Json::Array(texts)) = fields.remove(key) {
            let texts = texts.iter().filter_map(Json::as_str);
            remarks.extend(texts.map(|text| match text.rsplit_once(" (") {
                Some((text, _)) => Json::from(text),
                None => Json::from(text),
            }));
        }
    }
    if !remarks.is_empty() {
        remarks.dedup();
        fields.insert("warnings".to_owned(), Json::Array(remarks));
    }
}

/// Whether two pieces of JSON say the same: numbers, also those in strings, to 1e-9.
fn same(want: &Json, got: &Json) -> Result<(), String> {
    let differ = || Err(format!("{got}, recorded {want}"));
    match (want, got) {
        (Json::Object(want), Json::Object(got)) => {
            if want.keys().ne(got.keys()) {
                return differ();
            }
            want.iter().try_for_each(|(key, it)| same(it, &got[key]))
        }
        (Json::Array(want), Json::Array(got)) => {
            if want.len() != got.len() {
                return Err(format!("{} items, recorded {}", got.len(), want.len()));
            }
            want.iter().zip(got).try_for_each(|(a, b)| same(a, b))
        }
        (Json::Number(a), Json::Number(b)) if a.as_f64() == b.as_f64() => Ok(()),
        (Json::String(a), Json::String(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
            _ if a == b => Ok(()),
            (Ok(a), Ok(b)) if (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) => Ok(()),
            _ => differ(),
        },
        _ if want == got => Ok(()),
        _ => differ(),
    }
}

/// The blocks of `from`, copied to `to`, as a Thanos store shows them: with the labels that their
/// `meta.json` has for the whole block.
pub(crate) fn thanos_store(from: &Path, to: &Path) -> Arc<External> {
    copy_dir(from, to);
    let mut all = std::fs::read_dir(to)
        .expect("the blocks")
        .map(|block| {
            let path = block.expect("a block").path().join("meta.json");
            let meta = std::fs::read(path).expect("a meta.json");
            let meta: Json = serde_json::from_slice(&meta).expect("json");
            let labels = meta["thanos"]["labels"].as_object().expect("labels");
            let text = |json: &Json| json.as_str().expect("a text").to_owned();
            Labels::from_pairs(labels.iter().map(|(n, v)| (n.clone(), text(v))))
        })
        .collect::<Vec<_>>();
    all.dedup();
    assert_eq!(all.len(), 1, "all blocks have the same labels");
    let db = Db::open(DbConfig::new(to)).expect("a database");
    Arc::new(External {
        labels: all.remove(0),
        inner: LocalStore::new(Arc::new(db)),
    })
}

/// A store whose series all have some labels more.
pub(crate) struct External {
    labels: Labels,
    inner: LocalStore,
}

impl External {
    /// The matchers that are left for the store behind; `None` when no series can match.
    fn pass_on(&self, matchers: &[isobar_model::Matcher]) -> Option<Vec<isobar_model::Matcher>> {
        let (own, others): (Vec<_>, Vec<_>) =
            (matchers.iter().cloned()).partition(|it| self.labels.has(it.name()));
        let fits = own.iter().all(|it| it.matches(self.labels.get(it.name())));
        fits.then_some(others)
    }

    fn add(&self, labels: &Labels) -> Labels {
        let mut builder = LabelsBuilder::default();
        for (name, value) in labels.iter().chain(self.labels.iter()) {
            builder.set(name, value);
        }
        builder.build()
    }
}

impl Store for External {
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let Some(matchers) = self.pass_on(&request.matchers) else {
            return stream::empty().boxed();
        };
        let request = SeriesRequest {
            matchers,
            ..request
        };
        let mut all = Vec::new();
        let mut inner = self.inner.series(request);
        while let Some(batch) = inner.next().now_or_never().expect("a local store") {
            if let SeriesBatch::Series(batch) = batch.expect("series") {
                all.extend(batch);
            }
        }
        for series in &mut all {
            series.labels = self.add(&series.labels);
        }
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        stream::once(ready(Ok(SeriesBatch::Series(all)))).boxed()
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        let own: Vec<_> = self
            .labels
            .iter()
            .map(|(name, _)| name.to_owned())
            .collect();
        let names = self.inner.label_names(request);
        async move {
            let mut names = names.await?;
            names.values.extend(own);
            names.values.sort();
            names.values.dedup();
            Ok(names)
        }
        .boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        match self.labels.get(&name) {
            "" => self.inner.label_values(name, request),
            own => ready(Ok(Names {
                values: vec![own.to_owned()],
                ..Names::default()
            }))
            .boxed(),
        }
    }
}
