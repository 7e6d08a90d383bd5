//! What senders say about their metrics: type, help and unit. Kept in memory, bounded.

use std::collections::BTreeMap;

use parking_lot::RwLock;

/// Most metrics that metadata is kept for.
const METRICS_MAX: usize = 200_000;
/// Most different descriptions kept for one metric.
const PER_METRIC_MAX: usize = 16;

/// One description of a metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset`, `unknown`.
    pub kind: String,
    /// What the metric tells.
    pub help: String,
    /// The unit, often `""`.
    pub unit: String,
}

/// The descriptions of all metrics. Shared by who takes samples in and who answers queries.
#[derive(Debug, Default)]
pub struct MetadataStore {
    metrics: RwLock<BTreeMap<String, Vec<Metadata>>>,
}

impl MetadataStore {
    /// Adds a description; false when a bound is reached and it was not kept. The newest
    /// description of a metric stands first.
    pub fn insert(&self, metric: &str, metadata: Metadata) -> bool {
        if self
            .metrics
            .read()
            .get(metric)
            .is_some_and(|known| known.first() == Some(&metadata))
        {
            return true;
        }
        let mut metrics = self.metrics.write();
        if !metrics.contains_key(metric) {
            if metrics.len() >= METRICS_MAX {
                return false;
            }
            metrics.insert(metric.to_owned(), vec![metadata]);
            return true;
        }
        let Some(known) = metrics.get_mut(metric) else {
            return false;
        };
        known.retain(|one| *one != metadata);
        known.insert(0, metadata);
        known.truncate(PER_METRIC_MAX);
        true
    }

    /// Up to `limit` metrics in name order with up to `limit_per_metric` descriptions each, or
    /// the one metric asked for. A bound of `None` is none.
    pub fn list(
        &self,
        metric: Option<&str>,
        limit: Option<usize>,
        limit_per_metric: Option<usize>,
    ) -> Vec<(String, Vec<Metadata>)> {
        let metrics = self.metrics.read();
        let cut = |(name, all): (&String, &Vec<Metadata>)| {
            let count = limit_per_metric.unwrap_or(usize::MAX).min(all.len());
            (name.clone(), all[..count].to_vec())
        };
        match metric {
            Some(name) => metrics.get_key_value(name).map(cut).into_iter().collect(),
            None => metrics
                .iter()
                .take(limit.unwrap_or(usize::MAX))
                .map(cut)
                .collect(),
        }
    }

    /// The number of metrics with a description.
    pub fn len(&self) -> usize {
        self.metrics.read().len()
    }

    /// Whether no metric has a description.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_description_first_and_once() {
        let store = MetadataStore::default();
        let describe = |help: &str| Metadata {
            kind: "counter".into(),
            help: help.into(),
            unit: String::new(),
        };
        store.insert("m", describe("old"));
        store.insert("m", describe("new"));
        store.insert("m", describe("old"));
        store.insert("n", describe("x"));
        let helps: Vec<_> = store.list(Some("m"), None, None)[0]
            .1
            .iter()
            .map(|m| m.help.clone())
            .collect();
        assert_eq!(helps, ["old", "new"]);
        assert_eq!(store.list(None, Some(1), Some(1)).len(), 1);
    }
}
