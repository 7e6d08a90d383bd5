//! Where exemplars are read from: the seam between queries and what keeps exemplars.

use isobar_model::{Exemplar, Labels, Matcher, TimeRange, Warnings};

use crate::local::LocalStore;

/// Exemplars of series, with the remarks of the store.
#[derive(Debug, Default)]
pub struct ExemplarAnswer {
    /// By labels, the exemplars of each series by time.
    pub series: Vec<(Labels, Vec<Exemplar>)>,
    /// What the caller should know about their completeness.
    pub warnings: Warnings,
}

/// Anything that exemplars can be read from.
pub trait ExemplarSource: Send + Sync + 'static {
    /// The exemplars in `range` of the series that match all matchers of one of the selectors. May
    /// read files: called on the compute pool.
    fn exemplars(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> ExemplarAnswer;
}

/// The exemplars of all tenants of a database.
impl ExemplarSource for LocalStore {
    fn exemplars(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> ExemplarAnswer {
        let found = self.db().exemplars(None, selectors, range);
        let mut warnings = Warnings::default();
        for error in found.missing {
            warnings.warn(format!("exemplars are left out: {error}"));
        }
        ExemplarAnswer {
            series: found.series,
            warnings,
        }
    }
}

/// None at all.
impl ExemplarSource for () {
    fn exemplars(&self, _: &[Vec<Matcher>], _: TimeRange) -> ExemplarAnswer {
        ExemplarAnswer::default()
    }
}
