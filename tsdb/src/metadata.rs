//! What senders say about their metrics: type, help and unit, of each tenant. Bounded; in the log
//! and in snapshots like samples.

use std::collections::BTreeMap;

use isobar_model::Tenant;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::wal::log::Log;
use crate::wal::record::{Kind, MetadataEncoder};

/// Most metrics, of all tenants together, that metadata is kept for.
const METRICS_MAX: usize = 200_000;
/// Most different descriptions kept for one metric.
const PER_METRIC_MAX: usize = 16;
/// Records are ended near this size.
const RECORD_BYTES: usize = 256 << 10;

/// One description of a metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset`, `unknown`.
    pub kind: String,
    /// What the metric tells.
    pub help: String,
    /// The unit, often `""`.
    pub unit: String,
}

/// What became of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Described {
    /// It is what was said last.
    Known,
    /// It is new, or was said before something else was.
    New,
    /// It was not kept: too many metrics have some.
    Full,
}

type ByMetric = BTreeMap<String, Vec<Metadata>>;

/// The descriptions of all metrics, the newest of each first.
#[derive(Debug, Default)]
pub struct MetadataMap {
    tenants: RwLock<BTreeMap<Tenant, ByMetric>>,
}

impl MetadataMap {
    /// Adds a description.
    pub fn insert(&self, tenant: &Tenant, metric: &str, metadata: Metadata) -> Described {
        self.insert_with(tenant, metric, metadata, |_| {})
    }

    /// Adds a description and pushes it into the log.
    pub(crate) fn append(
        &self,
        log: &Log,
        tenant: &Tenant,
        metric: &str,
        metadata: Metadata,
    ) -> Described {
        // Pushed while it is locked, so that the log has the same order.
        self.insert_with(tenant, metric, metadata, |metadata| {
            let mut record = MetadataEncoder::new(tenant);
            record.put(metric, metadata);
            log.push(Kind::Metadata, record.as_bytes());
        })
    }

    fn insert_with(
        &self,
        tenant: &Tenant,
        metric: &str,
        metadata: Metadata,
        taken: impl FnOnce(&Metadata),
    ) -> Described {
        let known = |all: &ByMetric| all.get(metric).and_then(|all| all.first()) == Some(&metadata);
        if self.tenants.read().get(tenant).is_some_and(known) {
            return Described::Known;
        }
        let mut tenants = self.tenants.write();
        let metrics: usize = tenants.values().map(BTreeMap::len).sum();
        let of_tenant = tenants.entry(tenant.clone()).or_default();
        if metrics >= METRICS_MAX && !of_tenant.contains_key(metric) {
            return Described::Full;
        }
        taken(&metadata);
        let known = of_tenant.entry(metric.to_owned()).or_default();
        known.retain(|one| *one != metadata);
        known.insert(0, metadata);
        known.truncate(PER_METRIC_MAX);
        Described::New
    }

    /// Up to `limit` metrics of a tenant or of all, in name order, with up to `limit_per_metric`
    /// descriptions each, or the one metric asked for. A bound of `None` is none.
    pub fn list(
        &self,
        tenant: Option<&Tenant>,
        metric: Option<&str>,
        limit: Option<usize>,
        limit_per_metric: Option<usize>,
    ) -> Vec<(String, Vec<Metadata>)> {
        let limit = limit.unwrap_or(usize::MAX);
        let tenants = self.tenants.read();
        let mut listed = ByMetric::new();
        for (name, of_tenant) in tenants.iter() {
            if tenant.is_some_and(|tenant| tenant != name) {
                continue;
            }
            let wanted: &mut dyn Iterator<Item = (&String, &Vec<Metadata>)> = match metric {
                Some(metric) => &mut of_tenant.get_key_value(metric).into_iter(),
                // No metric behind these is among the first of all tenants.
                None => &mut of_tenant.iter().take(limit),
            };
            for (metric, all) in wanted {
                let known = listed.entry(metric.clone()).or_default();
                for one in all {
                    if !known.contains(one) {
                        known.push(one.clone());
                    }
                }
            }
        }
        let cut = listed.into_iter().take(limit).map(|(name, mut all)| {
            all.truncate(limit_per_metric.unwrap_or(usize::MAX));
            (name, all)
        });
        cut.collect()
    }

    /// The number of metrics with a description, counted for each tenant.
    pub fn len(&self) -> usize {
        self.tenants.read().values().map(BTreeMap::len).sum()
    }

    /// Whether no metric has a description.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payloads of records from which all comes back.
    pub(crate) fn snapshot(&self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for (tenant, of_tenant) in self.tenants.read().iter() {
            let mut record = MetadataEncoder::new(tenant);
            for (metric, all) in of_tenant {
                all.iter().rev().for_each(|one| record.put(metric, one));
                if record.as_bytes().len() >= RECORD_BYTES {
                    let full = std::mem::replace(&mut record, MetadataEncoder::new(tenant));
                    payloads.push(full.into_bytes());
                }
            }
            payloads.push(record.into_bytes());
        }
        payloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_description_first_and_once() {
        let map = MetadataMap::default();
        let (a, b) = (Tenant::new("a").unwrap(), Tenant::new("b").unwrap());
        let describe = |help: &str| Metadata {
            kind: "counter".into(),
            help: help.into(),
            unit: String::new(),
        };
        assert_eq!(map.insert(&a, "m", describe("old")), Described::New);
        assert_eq!(map.insert(&a, "m", describe("new")), Described::New);
        assert_eq!(map.insert(&a, "m", describe("old")), Described::New);
        assert_eq!(map.insert(&a, "m", describe("old")), Described::Known);
        map.insert(&a, "n", describe("x"));
        map.insert(&b, "m", describe("b"));
        map.insert(&b, "m", describe("new"));
        let helps = |tenant: Option<&Tenant>| -> Vec<String> {
            let listed = map.list(tenant, Some("m"), None, None);
            listed[0].1.iter().map(|m| m.help.clone()).collect()
        };
        assert_eq!(helps(Some(&a)), ["old", "new"]);
        assert_eq!(helps(None), ["old", "new", "b"]);
        assert_eq!(map.list(None, None, Some(1), Some(1)).len(), 1);
        assert_eq!(map.len(), 3);
    }
}
