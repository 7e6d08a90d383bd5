//! Native histograms: counts of observations in buckets, the zero bucket, their number and sum.
//!
//! Exponential schemas divide each power of two into `2^schema` buckets, for positive and
//! negative values apart; schema -53 has bounds of its own ("custom buckets", NHCB). What an
//! evaluator does with histograms is here: [`bounds`], [`walk`] over buckets, [`add`] and subtract,
//! [`reset`]s of counters, [`trim`] and [`text`]; [`packed`] is how many are kept. Encodings are not.
//!
//! A value holds each bucket by its index ([`Buckets`]), not in spans, so two histograms with the
//! same buckets are equal however the spans were cut. Semantics are those of Prometheus 3.14
//! (`model/histogram/float_histogram.go`).

pub mod add;
pub mod bounds;
pub mod buckets;
pub mod kahan;
pub mod packed;
mod reset;
pub mod text;
mod trim;
pub mod walk;

use std::sync::Arc;

pub use add::Added;
pub use buckets::{Buckets, Span};
pub use packed::{Layout, PackedHistograms};
pub use walk::Bucket;

use crate::sample::is_stale;

/// The finest exponential schema.
pub const SCHEMA_MAX: i32 = 8;
/// The coarsest exponential schema.
pub const SCHEMA_MIN: i32 = -4;
/// The schema of custom buckets.
pub const CUSTOM_SCHEMA: i32 = -53;
/// Formats may hold schemas from here to [`SCHEMA_RESERVED_MAX`]; those over [`SCHEMA_MAX`] are
/// made coarser when read.
pub const SCHEMA_RESERVED_MIN: i32 = -9;
/// See [`SCHEMA_RESERVED_MIN`].
pub const SCHEMA_RESERVED_MAX: i32 = 52;

/// What is known of a counter's reset between the sample before and this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CounterReset {
    /// Nothing; the buckets tell.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// It is no counter.
    Gauge,
}

/// A histogram with counts that may be fractions (Prometheus' `FloatHistogram`).
///
/// Equal when all but the hint is, floats by their bits.
#[derive(Debug, Clone, Default)]
pub struct FloatHistogram {
    /// What is known of resets.
    pub hint: CounterReset,
    /// [`SCHEMA_MIN`] to [`SCHEMA_MAX`], or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// The zero bucket reaches from minus this to this.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// The sum of all observed values, or the staleness marker.
    pub sum: f64,
    /// Buckets of positive values, and all custom ones.
    pub positive: Buckets,
    /// Buckets of negative values; by their index the absolute values rise.
    pub negative: Buckets,
    /// Upper bounds of custom buckets but the last, which has none.
    pub custom: Arc<[f64]>,
}

impl PartialEq for FloatHistogram {
    fn eq(&self, other: &Self) -> bool {
        let bits = |it: &Self| [it.count, it.sum, it.zero_count].map(f64::to_bits);
        self.schema == other.schema
            && bits(self) == bits(other)
            && self.zero_threshold == other.zero_threshold
            && self.positive == other.positive
            && self.negative == other.negative
            && (!self.is_custom() || self.custom == other.custom)
    }
}

/// What is wrong with a histogram, in Prometheus' words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// A span steps back.
    #[error(
        "span number {span} with offset {offset}: histogram has a span whose offset is negative"
    )]
    NegativeOffset {
        /// Which span, from 1 on.
        span: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans and counts do not go together.
    #[error(
        "spans need {spans} buckets, have {buckets} buckets: histogram spans specify different \
         number of buckets than provided"
    )]
    SpansMismatch {
        /// Buckets that the spans name (so far).
        spans: u64,
        /// Counts given.
        buckets: usize,
    },
    /// An index that no histogram has.
    #[error("histogram has a bucket whose index is out of range")]
    IndexRange,
    /// A schema that is not known.
    #[error(
        "histogram has an unknown schema, which must be between -9 and 52 for exponential \
         buckets, or -53 for custom buckets, got schema {0}"
    )]
    UnknownSchema(i64),
    /// Custom bounds that do not rise, or are not finite.
    #[error("histogram custom bounds must be in strictly increasing order")]
    CustomBounds,
    /// More buckets than custom bounds.
    #[error("histogram custom bounds are too few")]
    CustomTooFew,
    /// Custom buckets with negative buckets.
    #[error("custom buckets: must not have negative buckets")]
    CustomNegative,
    /// A zero bucket of no width that makes sense.
    #[error("histogram has a zero threshold of {0}")]
    ZeroThreshold(f64),
    /// Two histograms cannot be put together.
    #[error(
        "cannot apply this operation on histograms with a mix of exponential and custom bucket \
         schemas"
    )]
    Incompatible,
}

impl FloatHistogram {
    /// How many numbers Prometheus takes the histogram for where it counts samples: a sixteenth of
    /// its bytes there, each run of buckets being a span.
    pub fn weight_in_samples(&self) -> u64 {
        let sides = [&self.positive, &self.negative];
        let words = sides.map(|buckets| {
            let indexes = buckets.indexes();
            let gaps = indexes.windows(2).filter(|pair| pair[1] != pair[0] + 1);
            let spans = usize::from(!indexes.is_empty()) + gaps.count();
            indexes.len() + spans
        });
        let words = 21 + words[0] + words[1] + self.custom.len();
        (words as u64).div_ceil(2)
    }

    /// Whether both weigh the same for sure, which is cheap to see: samples of one chunk share
    /// their layout.
    pub fn shares_layout(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.positive.indexes(), other.positive.indexes())
            && Arc::ptr_eq(self.negative.indexes(), other.negative.indexes())
            && Arc::ptr_eq(&self.custom, &other.custom)
    }

    /// The bytes that it takes, custom bounds not counted: these are shared.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * (self.positive.counts().len() + self.negative.counts().len())
    }

    /// The staleness marker among histograms.
    pub fn stale() -> Self {
        FloatHistogram {
            sum: crate::sample::STALE_NAN,
            ..FloatHistogram::default()
        }
    }

    /// Whether this is the staleness marker.
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Whether the buckets have bounds of their own.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Checks what the other operations rely on, and makes a schema finer than [`SCHEMA_MAX`]
    /// coarser. Counts may be anything.
    ///
    /// # Errors
    /// See [`HistogramError`].
    pub fn checked(mut self) -> Result<Self, HistogramError> {
        if self.is_custom() {
            check_custom(&self.custom, &self.positive)?;
            if !self.negative.is_empty() {
                return Err(HistogramError::CustomNegative);
            }
            (self.zero_count, self.zero_threshold) = (0.0, 0.0);
            return Ok(self);
        }
        if !(SCHEMA_RESERVED_MIN..=SCHEMA_RESERVED_MAX).contains(&self.schema) {
            return Err(HistogramError::UnknownSchema(self.schema.into()));
        }
        if self.zero_threshold.is_nan() || self.zero_threshold < 0.0 {
            return Err(HistogramError::ZeroThreshold(self.zero_threshold));
        }
        self.reduce_to(SCHEMA_MAX);
        Ok(self)
    }

    /// Makes the histogram one of a coarser schema; nothing happens when it is coarser already or
    /// has custom buckets.
    pub fn reduce_to(&mut self, schema: i32) {
        if self.is_custom() || schema >= self.schema {
            return;
        }
        let by = self.schema.abs_diff(schema);
        self.positive = self.positive.coarser(by);
        self.negative = self.negative.coarser(by);
        self.schema = schema;
    }

    /// A copy of a coarser schema, the hint forgotten if the schema is another.
    #[must_use]
    pub fn copy_to_schema(&self, schema: i32) -> Self {
        let mut copy = self.clone();
        if schema != copy.schema {
            copy.hint = CounterReset::Unknown;
            copy.reduce_to(schema);
        }
        copy
    }

    /// Multiplies all counts and the sum. A negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        let counts = self.positive.counts_mut().iter_mut();
        counts
            .chain(self.negative.counts_mut())
            .for_each(|count| *count *= factor);
        if factor < 0.0 {
            self.hint = CounterReset::Gauge;
        }
    }

    /// Divides all counts and the sum. Dividing by zero drops the buckets; a negative divisor
    /// makes a gauge.
    pub fn div(&mut self, divisor: f64) {
        self.zero_count /= divisor;
        self.count /= divisor;
        self.sum /= divisor;
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
            return;
        }
        let counts = self.positive.counts_mut().iter_mut();
        counts
            .chain(self.negative.counts_mut())
            .for_each(|count| *count /= divisor);
        if divisor < 0.0 {
            self.hint = CounterReset::Gauge;
        }
    }

    /// Drops the empty buckets.
    pub fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// Whether a count, the sum or a bound is infinite.
    pub fn has_overflow(&self) -> bool {
        let totals = [self.zero_count, self.count, self.sum];
        let counts = self.positive.counts().iter().chain(self.negative.counts());
        let mut all = totals.iter().chain(counts).chain(self.custom.iter());
        all.any(|it| it.is_infinite())
    }

    /// The size that Prometheus counts for limits on samples: bytes of the value.
    pub fn size(&self) -> usize {
        // Spans as Prometheus would hold them are at most as many as buckets.
        168 + 8 * (self.positive.len() + self.negative.len() + self.custom.len())
    }
}

fn check_custom(bounds: &[f64], buckets: &Buckets) -> Result<(), HistogramError> {
    let finite = bounds.iter().all(|it| !it.is_nan() && *it != f64::INFINITY);
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !finite || !rising {
        return Err(HistogramError::CustomBounds);
    }
    let ends = [buckets.iter().next(), buckets.iter().next_back()];
    for (index, _) in ends.into_iter().flatten() {
        if usize::try_from(index).is_ok_and(|index| index <= bounds.len()) {
            continue;
        }
        return Err(HistogramError::CustomTooFew);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
