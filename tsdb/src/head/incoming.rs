//! What a write brings and what becomes of it.

use std::fmt;
use std::sync::Arc;

use isobar_model::{FloatHistogram, Labels};

pub use super::limits::SeriesLimit;
pub use crate::chunks::histogram::Counts;

/// How many rejected series or samples are kept with their text; the rest is only counted.
pub const REJECTIONS_KEPT_MAX: usize = 10;

/// One series of a write request, its labels still in the sender's encoding.
pub trait IncomingSeries {
    /// The labels as they stand encoded in the request. Equal bytes mean equal labels; different
    /// bytes may mean equal labels too.
    fn encoded_labels(&self) -> &[u8];

    /// Parses, checks and sorts the labels. Called on first sight of these bytes, and to name the
    /// series when something of it is rejected.
    ///
    /// # Errors
    /// The reason why these labels are refused, as text for the sender.
    fn labels(&self) -> Result<Labels, String>;

    /// Calls `each` with the time in unix milliseconds and the value of every sample, in the
    /// order sent.
    fn samples(&self, each: impl FnMut(i64, f64));

    /// Whether there are native histograms. Asked for every series, so it has to be quick.
    fn has_histograms(&self) -> bool {
        false
    }

    /// Calls `each` with the time in unix milliseconds of every native histogram, in the order
    /// sent, and with the histogram, or the reason why it is none, as text for the sender.
    fn histograms(&self, each: impl FnMut(i64, Result<IncomingHistogram, String>)) {
        let _none = each;
    }
}

/// A native histogram on its way in.
#[derive(Debug, Clone)]
pub struct IncomingHistogram {
    /// The histogram, which has passed [`FloatHistogram::checked`].
    pub histogram: Arc<FloatHistogram>,
    /// Whether the sender counts in integers.
    pub counts: Counts,
}

/// The outcome of a write: good samples are stored even when others are rejected.
#[derive(Debug)]
pub struct Append {
    /// Samples that are new.
    pub appended: u64,
    /// Samples that were there already with the same bits: a success for the sender.
    pub duplicates: u64,
    /// What was refused.
    pub rejected: Rejections,
    /// What to wait for before the write is acknowledged.
    pub ticket: CommitTicket,
}

/// A position in the log. A write is durable when all that stands before its ticket is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitTicket(pub(crate) u64);

/// Why a series or a sample was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectReason {
    /// Older than the newest sample of its series, where no late samples are taken.
    OutOfOrder,
    /// A different value for a time that the series has already.
    DuplicateTimestamp,
    /// Older than what the head of this tenant still takes.
    OutOfBounds,
    /// More than ten minutes ahead of the clock.
    TooFarInFuture,
    /// The labels of the whole series are refused, with the reason.
    BadLabels(String),
    /// A histogram contradicts itself, with the reason.
    BadHistogram(String),
    /// Late by more than the window for late samples.
    TooOld,
    /// The whole series is new, and a limit of its tenant stands in the way.
    SeriesLimit(SeriesLimit),
}

impl RejectReason {
    const KINDS: usize = 13;

    fn kind(&self) -> usize {
        match self {
            RejectReason::OutOfOrder => 0,
            RejectReason::DuplicateTimestamp => 1,
            RejectReason::OutOfBounds => 2,
            RejectReason::TooFarInFuture => 3,
            RejectReason::BadLabels(_) => 4,
            RejectReason::BadHistogram(_) => 5,
            RejectReason::TooOld => 6,
            RejectReason::SeriesLimit(SeriesLimit::Tenant(_)) => 7,
            RejectReason::SeriesLimit(SeriesLimit::Metric(_)) => 8,
            RejectReason::SeriesLimit(SeriesLimit::Labels(_)) => 9,
            RejectReason::SeriesLimit(SeriesLimit::NameBytes(_)) => 10,
            RejectReason::SeriesLimit(SeriesLimit::ValueBytes(_)) => 11,
            RejectReason::SeriesLimit(SeriesLimit::Memory(_)) => 12,
        }
    }

    /// A short fixed word for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        KIND_NAMES[self.kind()]
    }
}

const KIND_NAMES: [&str; RejectReason::KINDS] = [
    "out_of_order",
    "duplicate_timestamp",
    "out_of_bounds",
    "too_far_in_future",
    "bad_labels",
    "bad_histogram",
    "too_old",
    "series_per_tenant",
    "series_per_metric",
    "label_count",
    "label_name_length",
    "label_value_length",
    "memory",
];

/// The texts that senders know from Prometheus, so that they treat them alike.
impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectReason::OutOfOrder => f.write_str("out of order sample"),
            RejectReason::DuplicateTimestamp => f.write_str("duplicate sample for timestamp"),
            RejectReason::OutOfBounds => f.write_str("out of bounds"),
            RejectReason::TooOld => f.write_str("too old sample"),
            RejectReason::TooFarInFuture => {
                f.write_str("out of bounds: sample is too far in the future")
            }
            RejectReason::BadLabels(why) | RejectReason::BadHistogram(why) => f.write_str(why),
            RejectReason::SeriesLimit(limit) => limit.fmt(f),
        }
    }
}

/// One thing that was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// The series as text; empty when its labels cannot be read.
    pub series: String,
    /// The sample's time in unix milliseconds and its value, which histograms do not have; `None`
    /// when all of the series is refused.
    pub sample: Option<(i64, Option<f64>)>,
    /// Why.
    pub reason: RejectReason,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match self.sample {
            Some((timestamp_ms, Some(value))) => {
                write!(f, ": timestamp {timestamp_ms} value {value}")?;
            }
            Some((timestamp_ms, None)) => write!(f, ": timestamp {timestamp_ms} histogram")?,
            None => {}
        }
        if !self.series.is_empty() {
            write!(f, ": series {}", self.series)?;
        }
        Ok(())
    }
}

/// All that a write had refused: counted by reason, the first few in full.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rejections {
    first: Vec<Rejection>,
    counts: [u64; RejectReason::KINDS],
}

impl Rejections {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// How many samples were refused, or series where the labels were bad.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first [`REJECTIONS_KEPT_MAX`] refusals.
    pub fn first(&self) -> &[Rejection] {
        &self.first
    }

    /// The counts by reason, as [`RejectReason::as_str`] names them, zeros left out.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        KIND_NAMES
            .iter()
            .copied()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
    }

    /// Counts a refusal, and keeps it while there is room; `series` is asked for its text only then.
    pub fn add(
        &mut self,
        reason: RejectReason,
        sample: Option<(i64, f64)>,
        series: impl FnOnce() -> String,
    ) {
        let sample = sample.map(|(timestamp_ms, value)| (timestamp_ms, Some(value)));
        self.keep(reason, sample, series);
    }

    /// As [`Rejections::add`], for a native histogram.
    pub fn add_histogram(
        &mut self,
        reason: RejectReason,
        timestamp_ms: i64,
        series: impl FnOnce() -> String,
    ) {
        self.keep(reason, Some((timestamp_ms, None)), series);
    }

    fn keep(
        &mut self,
        reason: RejectReason,
        sample: Option<(i64, Option<f64>)>,
        series: impl FnOnce() -> String,
    ) {
        self.counts[reason.kind()] += 1;
        if self.first.len() < REJECTIONS_KEPT_MAX {
            self.first.push(Rejection {
                series: series(),
                sample,
                reason,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_and_counts_all() {
        let mut rejections = Rejections::default();
        assert!(rejections.is_empty());
        for t in 0..20 {
            rejections.add(RejectReason::DuplicateTimestamp, Some((t, 1.5)), || {
                "{a=\"b\"}".into()
            });
        }
        rejections.add(RejectReason::BadLabels("no name".into()), None, String::new);
        assert_eq!(rejections.total(), 21);
        assert_eq!(rejections.first().len(), REJECTIONS_KEPT_MAX);
        assert_eq!(
            rejections.first()[3].to_string(),
            r#"duplicate sample for timestamp: timestamp 3 value 1.5: series {a="b"}"#
        );
        assert_eq!(
            rejections.counts().collect::<Vec<_>>(),
            [("duplicate_timestamp", 20), ("bad_labels", 1)]
        );
    }
}
