//! Exemplars: single observations, such as the trace of one request, that stand for a sample.

use crate::Labels;

/// The most characters of all names and values of an exemplar's labels (OpenMetrics 1.0).
pub const LABELS_CHARS_MAX: usize = 128;

/// One observation.
#[derive(Debug, Clone)]
pub struct Exemplar {
    /// What it points to, such as `trace_id`.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
}

impl Exemplar {
    /// Whether the labels are longer than [`LABELS_CHARS_MAX`].
    pub fn is_too_long(&self) -> bool {
        let pairs = self.labels.iter();
        let chars = pairs.map(|(name, value)| name.chars().count() + value.chars().count());
        chars.sum::<usize>() > LABELS_CHARS_MAX
    }
}

/// Equal when labels, time and the bits of the value are.
impl PartialEq for Exemplar {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.timestamp_ms == other.timestamp_ms
            && self.value.to_bits() == other.value.to_bits()
    }
}
