//! Label names, label values and label sets, over the HTTP API of a Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use isobar_model::{Labels, Matcher, TimeRange, Warnings};
use isobar_tsdb::SeriesChunks;

use super::client::Client;
use super::read::{Out, store_error};
use super::{PrometheusStore, complete};
use crate::StoreError;
use crate::api::{LabelsRequest, Names, SeriesBatch, SeriesRequest};
use crate::local::TRUNCATED;

/// Series in a batch.
const BATCH_SERIES: usize = 256;
/// Times beyond these, in milliseconds, are left out of requests: there is nothing there.
const TIMES_MS: std::ops::Range<i64> = -(1 << 50)..1 << 50;

type LabelSet = BTreeMap<String, String>;

impl PrometheusStore {
    /// Gives series without chunks.
    pub(super) async fn label_sets(
        self,
        request: SeriesRequest,
        matchers: Vec<Matcher>,
        out: &Out,
    ) -> Result<(), StoreError> {
        let known = self.peer.known();
        let mut params = params(&matchers, self.range(request.range));
        // Which series belong to a shard, or are one when labels are taken away, is known later.
        if request.limit > 0 && request.shard.is_none() && request.without_labels.is_empty() {
            params.push(("limit", (request.limit + 1).to_string()));
        }
        let sets: Vec<LabelSet> = self
            .peer
            .client()
            .api("/api/v1/series", &params)
            .await
            .map_err(store_error)?;
        let work = move || {
            let mut all: Vec<Labels> = sets
                .into_iter()
                .map(|set| {
                    complete(
                        Labels::from_pairs(set),
                        &known.labels,
                        &request.without_labels,
                    )
                })
                .filter(|labels| request.shard.as_ref().is_none_or(|it| it.contains(labels)))
                .collect();
            all.sort();
            all.dedup();
            let cut = request.limit > 0 && all.len() > request.limit;
            if cut {
                all.truncate(request.limit);
            }
            (all, cut)
        };
        let done = self.pool.run(work).await;
        let (all, cut) = done.map_err(|why| StoreError::Unavailable(why.to_string()))?;
        for batch in all.chunks(BATCH_SERIES) {
            let series = batch
                .iter()
                .map(|labels| SeriesChunks::mapped(labels.clone(), Vec::new()));
            if out
                .send(Ok(SeriesBatch::Series(series.collect())))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        if cut {
            let mut warnings = Warnings::default();
            warnings.warn(TRUNCATED);
            // Who is gone does not miss it.
            let _gone = out.send(Ok(SeriesBatch::Warnings(warnings))).await;
        }
        Ok(())
    }

    pub(super) async fn names(self, request: LabelsRequest) -> Result<Names, StoreError> {
        let Some(matchers) = self.matchers(&request.matchers) else {
            return Ok(Names::default());
        };
        let known = self.peer.known();
        let params = params(&matchers, self.range(request.range));
        let client = self.peer.client();
        let mut names: BTreeSet<String> = if matchers.is_empty() || known.matches_in_label_calls() {
            let names: Vec<String> = client
                .api("/api/v1/labels", &params)
                .await
                .map_err(store_error)?;
            names.into_iter().collect()
        } else {
            let sets = series(client, &params).await?;
            sets.into_iter().flat_map(LabelSet::into_keys).collect()
        };
        if !names.is_empty() {
            names.extend(known.labels.iter().map(|(name, _)| name.to_owned()));
        }
        for name in &request.without_labels {
            names.remove(name);
        }
        Ok(cut(names, request.limit))
    }

    pub(super) async fn values(
        self,
        name: String,
        request: LabelsRequest,
    ) -> Result<Names, StoreError> {
        if name.is_empty() {
            let why = "label name parameter cannot be empty";
            return Err(StoreError::Invalid(why.to_owned()));
        }
        if request.without_labels.contains(&name) {
            return Ok(Names::default());
        }
        let Some(matchers) = self.matchers(&request.matchers) else {
            return Ok(Names::default());
        };
        let known = self.peer.known();
        let mut params = params(&matchers, self.range(request.range));
        let client = self.peer.client();
        let external = known.labels.get(&name);
        let values: BTreeSet<String> = if !external.is_empty() {
            let any = matchers.is_empty() || {
                params.push(("limit", "1".to_owned()));
                !series(client, &params).await?.is_empty()
            };
            any.then(|| external.to_owned()).into_iter().collect()
        } else if matchers.is_empty() || known.matches_in_label_calls() {
            let path = Client::values_path(&name);
            let values: Vec<String> = client.api(&path, &params).await.map_err(store_error)?;
            values.into_iter().collect()
        } else {
            let sets = series(client, &params).await?;
            sets.into_iter()
                .filter_map(|mut set| set.remove(&name))
                .collect()
        };
        Ok(cut(values, request.limit))
    }
}

async fn series(client: &Client, params: &[(&str, String)]) -> Result<Vec<LabelSet>, StoreError> {
    client
        .api("/api/v1/series", params)
        .await
        .map_err(store_error)
}

fn params(matchers: &[Matcher], range: TimeRange) -> Vec<(&'static str, String)> {
    let mut params = Vec::new();
    if !matchers.is_empty() {
        params.push(("match[]", selector(matchers)));
    }
    for (name, ms) in [("start", range.min_ms), ("end", range.max_ms)] {
        if TIMES_MS.contains(&ms) {
            params.push((name, seconds(ms)));
        }
    }
    params
}

/// Unix milliseconds as the API takes times.
pub(super) fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

/// Matchers as a selector of a query. Prometheus refuses those that fit a series without any label, and all
/// its series have a name.
fn selector(matchers: &[Matcher]) -> String {
    let mut text = String::from("{");
    for (i, matcher) in matchers.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        // Writing to a text cannot go wrong.
        let _written = write!(text, "{matcher}");
    }
    if !matchers.is_empty() && matchers.iter().all(|it| it.matches("")) {
        text.push_str(", __name__!=\"\"");
    }
    text.push('}');
    text
}

fn cut(names: BTreeSet<String>, limit: usize) -> Names {
    let mut warnings = Warnings::default();
    let mut values: Vec<String> = names.into_iter().collect();
    if limit > 0 && values.len() > limit {
        values.truncate(limit);
        warnings.warn(TRUNCATED);
    }
    Names {
        values,
        warnings,
        ..Names::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_selectors() {
        assert_eq!(seconds(1_700_000_000_123), "1700000000.123");
        assert_eq!(seconds(-5), "-0.005");
        let matchers = [Matcher::equal("a", "x\"y"), Matcher::equal("b.c", "1")];
        let params = params(&matchers, TimeRange::new(i64::MIN, 1500));
        let expected = [
            ("match[]", "{a=\"x\\\"y\", \"b.c\"=\"1\"}".to_owned()),
            ("end", "1.500".to_owned()),
        ];
        assert_eq!(params, expected);
        let all = [Matcher::equal("a", "")];
        assert_eq!(selector(&all), "{a=\"\", __name__!=\"\"}");
    }
}
