//! Figures about a database: what its status page and its metrics show.

use std::sync::atomic::Ordering;

use isobar_model::Tenant;

use crate::Error;

use super::{Db, Limits, files};

/// Figures of the head, of one tenant or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadStats {
    /// Series with samples in the head.
    pub series: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Chunks of all tenants, those being written included.
    pub chunks: u64,
    /// Memory in bytes that series and chunks of all tenants take, their labels not counted.
    pub chunk_bytes: u64,
    /// Samples taken since the process started.
    pub samples_appended: u64,
    /// Those of them that came late.
    pub samples_appended_late: u64,
    /// Time of the oldest and of the newest sample in the head, unix milliseconds.
    pub range_ms: Option<(i64, i64)>,
}

/// The label pairs of the head in figures, each list with the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series for each metric name.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values for each label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of all distinct values for each label name.
    pub value_bytes_by_label: Vec<(String, u64)>,
    /// Series for each label pair, written `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

impl Db {
    /// Figures of the head, of one tenant or of all. Visits every series: for pages and scrapes,
    /// not for every request.
    pub fn head_stats(&self, tenant: Option<&Tenant>) -> HeadStats {
        let Some(id) = self.head_tenant(tenant) else {
            return HeadStats::default();
        };
        let (chunks, chunk_bytes) = self.head.chunk_count_and_bytes();
        let series = self.head.series_count(id);
        let mut stats = HeadStats {
            series,
            chunks,
            chunk_bytes,
            ..HeadStats::default()
        };
        self.head
            .for_each_pair(id, |_, _, _| stats.label_pairs += 1);
        for state in self.head.tenants().all() {
            if id.is_some_and(|id| id != state.id) {
                continue;
            }
            stats.samples_appended += state.appended.load(Ordering::Relaxed);
            stats.samples_appended_late += state.appended_late.load(Ordering::Relaxed);
            if let Some((min, max)) = state.range() {
                let (old_min, old_max) = stats.range_ms.unwrap_or((min, max));
                stats.range_ms = Some((min.min(old_min), max.max(old_max)));
            }
        }
        stats
    }

    /// The label pairs of the head in figures, at most `limit` in each list.
    pub fn cardinality(&self, tenant: Option<&Tenant>, limit: usize) -> Cardinality {
        let Some(tenant) = self.head_tenant(tenant) else {
            return Cardinality::default();
        };
        let mut values: Vec<(String, u64, u64)> = Vec::new();
        let mut by_name = std::collections::HashMap::<String, usize>::new();
        let mut pairs = Vec::new();
        self.head.for_each_pair(tenant, |name, value, count| {
            let at = match by_name.get(name) {
                Some(at) => *at,
                None => {
                    by_name.insert(name.to_owned(), values.len());
                    values.push((name.to_owned(), 0, 0));
                    values.len() - 1
                }
            };
            values[at].1 += 1;
            values[at].2 += value.len() as u64;
            pairs.push((format!("{name}={value}"), count));
        });
        let counts = values
            .iter()
            .map(|(name, count, _)| (name.clone(), *count))
            .collect();
        let bytes = values
            .into_iter()
            .map(|(name, _, bytes)| (name, bytes))
            .collect();
        let metrics = self
            .head
            .value_counts(isobar_model::labels::METRIC_NAME, tenant);
        Cardinality {
            series_by_metric: largest(metrics, limit),
            values_by_label: largest(counts, limit),
            value_bytes_by_label: largest(bytes, limit),
            series_by_pair: largest(pairs, limit),
        }
    }

    /// The memory that the head takes, labels counted, in bytes, by estimate; and from how many bytes on
    /// new series are refused, if there is a limit. Costs nothing.
    pub fn head_memory(&self) -> (u64, Option<u64>) {
        (self.head.memory_bytes(), self.head.memory_max())
    }

    /// What each tenant may write.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// The tenants that have written since the database was made, with the number of their series
    /// in the head.
    pub fn tenants(&self) -> Vec<(Tenant, u64)> {
        let tenants = self.head.tenants().all();
        tenants
            .iter()
            .map(|t| (t.name.clone(), self.head.series_count(Some(t.id))))
            .collect()
    }

    /// The bytes that the head takes on disk: the log, its snapshot, and chunks in files.
    ///
    /// # Errors
    /// When its directories cannot be read.
    pub fn wal_bytes(&self) -> Result<u64, Error> {
        Ok(files::dir_bytes(&self.wal_dir)? + files::dir_bytes(self.chunk_files.dir())?)
    }
}

fn largest(mut counts: Vec<(String, u64)>, limit: usize) -> Vec<(String, u64)> {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(limit);
    counts
}
