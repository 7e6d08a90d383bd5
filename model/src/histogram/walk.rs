//! Buckets with their bounds, one after the other.

use super::bounds::upper_bound;
use super::{CUSTOM_SCHEMA, FloatHistogram};
use crate::go_math;

/// A bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to it.
    pub upper_inclusive: bool,
    /// The observations in it.
    pub count: f64,
}

impl Bucket {
    fn positive(histogram: &FloatHistogram, index: i32, count: f64) -> Self {
        let bound = |index| upper_bound(index, histogram.schema, &histogram.custom);
        let (lower, upper) = (bound(i64::from(index) - 1), bound(index.into()));
        let custom = histogram.schema == CUSTOM_SCHEMA;
        Bucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count,
        }
    }

    fn negative(histogram: &FloatHistogram, index: i32, count: f64) -> Self {
        let bound = |index| -upper_bound(index, histogram.schema, &[]);
        let (lower, upper) = (bound(index.into()), bound(i64::from(index) - 1));
        Bucket {
            lower,
            upper,
            lower_inclusive: lower < 0.0,
            upper_inclusive: upper > 0.0,
            count,
        }
    }

    /// The part of the bucket's width at or below `value`, which lies between its finite bounds:
    /// on a straight line, or on a logarithmic scale.
    pub fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let log = |it: f64| go_math::log2(it.abs());
        let (lower, upper, value_log) = (log(self.lower), log(self.upper), log(value));
        if value > 0.0 {
            (value_log - lower) / (upper - lower)
        } else {
            1.0 - ((value_log - upper) / (lower - upper))
        }
    }
}

impl FloatHistogram {
    /// The buckets of positive values (all custom ones), upwards.
    pub fn positive_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let buckets = self.positive.iter();
        buckets.map(|(index, count)| Bucket::positive(self, index, count))
    }

    /// The buckets of negative values, from zero downwards.
    pub fn negative_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let buckets = self.negative.iter();
        buckets.map(|(index, count)| Bucket::negative(self, index, count))
    }

    /// The bucket around zero.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets upwards; the zero bucket when it is not empty. Buckets that reach into the
    /// zero bucket begin where it ends.
    pub fn all_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let threshold = self.zero_threshold;
        let negative = self.negative_buckets().rev();
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        let clip = move |mut bucket: Bucket| {
            if bucket.upper < 0.0 && bucket.upper > -threshold {
                bucket.upper = -threshold;
            } else if bucket.lower > 0.0 && bucket.lower < threshold {
                bucket.lower = threshold;
            }
            bucket
        };
        let positive = self.positive_buckets().map(clip);
        negative.map(clip).chain(zero).chain(positive)
    }
}
