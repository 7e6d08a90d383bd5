//! What few series have: kept apart, so that the others do not pay for it.

use super::histograms::OpenHistograms;

/// The rare parts of a series.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Native histograms that are being written.
    pub(super) histograms: OpenHistograms,
}

impl Extra {
    /// The memory held outside of itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.histograms.heap_bytes()
    }
}
