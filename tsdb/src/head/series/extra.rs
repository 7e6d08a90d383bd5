//! What few series have: kept apart, so that the others do not pay for it.

use super::histograms::OpenHistograms;
use super::late::Late;

/// The rare parts of a series.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Native histograms that are being written.
    pub(super) histograms: OpenHistograms,
    /// Samples that came late.
    pub(super) late: Late,
}

impl Extra {
    /// Whether nothing is kept here.
    pub(super) fn is_unused(&self) -> bool {
        self.late.is_empty() && !self.histograms.has_newest() && self.histograms.range().is_none()
    }

    /// The memory held outside of itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.histograms.heap_bytes() + self.late.heap_bytes()
    }
}
