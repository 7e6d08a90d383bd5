//! What senders say about their metrics: type, help and unit, of each tenant. Shared by who takes
//! samples in and who answers queries; what a database keeps survives a restart.

use std::sync::Arc;

use isobar_model::Tenant;
use isobar_tsdb::Error;
use isobar_tsdb::db::Db;
pub use isobar_tsdb::metadata::{Described, Metadata, MetadataMap};

/// The descriptions of all metrics.
#[derive(Default)]
pub struct MetadataStore {
    kept: Kept,
}

enum Kept {
    InMemory(MetadataMap),
    InDb(Arc<Db>),
}

impl Default for Kept {
    fn default() -> Self {
        Kept::InMemory(MetadataMap::default())
    }
}

impl MetadataStore {
    /// Those that a database keeps; [`MetadataStore::default`] keeps them in memory only.
    pub fn of(db: Arc<Db>) -> Self {
        let kept = Kept::InDb(db);
        MetadataStore { kept }
    }

    fn map(&self) -> &MetadataMap {
        match &self.kept {
            Kept::InMemory(map) => map,
            Kept::InDb(db) => db.metadata(),
        }
    }

    /// Adds a description. The newest description of a metric stands first.
    ///
    /// # Errors
    /// When the database's log cannot be written at present.
    pub fn insert(
        &self,
        tenant: &Tenant,
        metric: &str,
        metadata: Metadata,
    ) -> Result<Described, Error> {
        match &self.kept {
            Kept::InMemory(map) => Ok(map.insert(tenant, metric, metadata)),
            Kept::InDb(db) => db.describe(tenant, metric, metadata),
        }
    }

    /// Up to `limit` metrics of all tenants in name order with up to `limit_per_metric`
    /// descriptions each, or the one metric asked for. A bound of `None` is none.
    pub fn list(
        &self,
        metric: Option<&str>,
        limit: Option<usize>,
        limit_per_metric: Option<usize>,
    ) -> Vec<(String, Vec<Metadata>)> {
        self.map().list(None, metric, limit, limit_per_metric)
    }

    /// The number of metrics with a description.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether no metric has a description.
    pub fn is_empty(&self) -> bool {
        self.map().is_empty()
    }
}
