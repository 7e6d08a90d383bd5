//! Samples from inside the process, such as its own metrics.

use isobar_model::{Labels, Sample, Tenant};
use isobar_tsdb::Error;
use isobar_tsdb::db::Db;
use isobar_tsdb::head::incoming::{Append, IncomingSeries};

/// One sample of one series.
#[derive(Debug, Clone)]
pub struct LocalSample {
    /// The series.
    pub labels: Labels,
    /// The sample.
    pub sample: Sample,
}

impl IncomingSeries for LocalSample {
    fn encoded_labels(&self) -> &[u8] {
        self.labels.as_bytes()
    }

    fn labels(&self) -> Result<Labels, String> {
        Ok(self.labels.clone())
    }

    fn samples(&self, mut each: impl FnMut(i64, f64)) {
        each(self.sample.timestamp_ms, self.sample.value);
    }
}

/// Stores samples for `tenant`. They become durable with the next group commit, for which the
/// caller need not wait.
///
/// # Errors
/// When the log cannot be written at present.
pub fn append(db: &Db, tenant: &Tenant, samples: &[LocalSample]) -> Result<Append, Error> {
    db.append(tenant, samples)
}
