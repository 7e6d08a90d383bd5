//! Sums and differences of histograms.
//!
//! The schema of the result is the coarser one, the zero bucket the wider one; custom bounds that
//! differ are reduced to those that both have.

use std::sync::Arc;

use super::bounds::exponential;
use super::kahan::add_kahan;
use super::{Buckets, CounterReset, FloatHistogram, HistogramError};

/// What there is to say about a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// One side says that the counter was reset, the other that it was not.
    pub reset_collision: bool,
    /// The custom bounds differed.
    pub bounds_reconciled: bool,
}

impl FloatHistogram {
    /// Adds `other`.
    ///
    /// # Errors
    /// [`HistogramError::Incompatible`] when only one has custom buckets.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Added, HistogramError> {
        self.add_signed(other, 1.0)
    }

    /// Subtracts `other`. The hint is what it would be for a sum.
    ///
    /// # Errors
    /// As [`FloatHistogram::add`].
    pub fn sub(&mut self, other: &FloatHistogram) -> Result<Added, HistogramError> {
        self.add_signed(other, -1.0)
    }

    fn add_signed(&mut self, other: &Self, sign: f64) -> Result<Added, HistogramError> {
        let mut added = self.begin_adding(other)?;
        if !self.is_custom() {
            let (zero_count, _) = self.reconcile_zero_buckets(other, None);
            self.zero_count += zero_count * sign;
        }
        self.count += other.count * sign;
        self.sum += other.sum * sign;
        if self.is_custom() {
            if self.custom == other.custom {
                self.positive.add(&other.positive, 0, sign);
            } else {
                added.bounds_reconciled = true;
                let bounds = common_bounds(&self.custom, &other.custom);
                let parts = [
                    (&self.positive, None, &*self.custom, 1.0),
                    (&other.positive, None, &*other.custom, sign),
                ];
                (self.positive, _) = Buckets::on_bounds(parts, &bounds);
                self.custom = bounds;
            }
            return Ok(added);
        }
        self.reduce_to(other.schema);
        let by = other.schema.abs_diff(self.schema);
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let sides = [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ];
        for (own, others) in sides {
            let coarse;
            let others = if by > 0 {
                coarse = others.coarser(by);
                &coarse
            } else {
                others
            };
            own.add(others, within_zero(others, schema, threshold), sign);
        }
        Ok(added)
    }

    /// Adds `other`, with what rounding loses going to `carry`: the compensation that the calls
    /// before gave, `None` at first. It has the buckets of `self`.
    ///
    /// # Errors
    /// As [`FloatHistogram::add`].
    pub fn add_with(
        &mut self,
        other: &FloatHistogram,
        carry: &mut Option<FloatHistogram>,
    ) -> Result<Added, HistogramError> {
        let mut added = self.begin_adding(other)?;
        let carry = carry.get_or_insert_with(|| self.zero_carry());
        if !self.is_custom() {
            let (zero_count, lost) = self.reconcile_zero_buckets(other, Some(carry));
            let sum = add_kahan(zero_count, (self.zero_count, carry.zero_count));
            (self.zero_count, carry.zero_count) = add_kahan(lost, sum);
        }
        (self.count, carry.count) = add_kahan(other.count, (self.count, carry.count));
        (self.sum, carry.sum) = add_kahan(other.sum, (self.sum, carry.sum));
        if self.is_custom() {
            if self.custom == other.custom {
                self.positive
                    .add_with(&mut carry.positive, &other.positive, None, 0);
            } else {
                added.bounds_reconciled = true;
                let bounds = common_bounds(&self.custom, &other.custom);
                let parts = [
                    (&self.positive, Some(&carry.positive), &*self.custom, 1.0),
                    (&other.positive, None, &*other.custom, 1.0),
                ];
                (self.positive, carry.positive) = Buckets::on_bounds(parts, &bounds);
                carry.custom = Arc::clone(&bounds);
                self.custom = bounds;
            }
            return Ok(added);
        }
        self.add_sides_with(other, carry);
        carry.schema = self.schema;
        carry.zero_threshold = self.zero_threshold;
        Ok(added)
    }

    fn add_sides_with(&mut self, other: &Self, carry: &mut Self) {
        let own_by = self.schema.saturating_sub(other.schema).max(0) as u32;
        let other_by = other.schema.saturating_sub(self.schema).max(0) as u32;
        self.schema = self.schema.min(other.schema);
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let sides = [
            (&mut self.positive, &mut carry.positive, &other.positive),
            (&mut self.negative, &mut carry.negative, &other.negative),
        ];
        for (own, carry, others) in sides {
            if own_by > 0 {
                (*own, *carry) = own.coarser_with(carry, own_by);
            }
            if other_by == 0 {
                let from = within_zero(others, schema, threshold);
                own.add_with(carry, others, None, from);
                continue;
            }
            let (coarse, lost) = others.coarser_with(&others.zeros(), other_by);
            let from = within_zero(&coarse, schema, threshold);
            own.add_with(carry, &coarse, Some(&lost), from);
        }
    }

    fn zero_carry(&self) -> Self {
        FloatHistogram {
            hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive: self.positive.zeros(),
            negative: self.negative.zeros(),
            custom: Arc::clone(&self.custom),
            ..FloatHistogram::default()
        }
    }

    fn begin_adding(&mut self, other: &Self) -> Result<Added, HistogramError> {
        if self.is_custom() != other.is_custom() {
            return Err(HistogramError::Incompatible);
        }
        let reset_collision = match (self.hint, other.hint) {
            (CounterReset::Gauge, _) | (_, CounterReset::Gauge) => {
                self.hint = CounterReset::Gauge;
                false
            }
            (own, other) if own == other => false,
            (CounterReset::Unknown, _) => false,
            (_, CounterReset::Unknown) => {
                self.hint = CounterReset::Unknown;
                false
            }
            _ => {
                self.hint = CounterReset::Unknown;
                true
            }
        };
        Ok(Added {
            reset_collision,
            bounds_reconciled: false,
        })
    }

    /// Widens the zero bucket (and that of `carry`) until it is one that both may have, and gives
    /// the count of the other's then, with what rounding lost of it.
    fn reconcile_zero_buckets(&mut self, other: &Self, mut carry: Option<&mut Self>) -> (f64, f64) {
        let (mut count, mut threshold, mut lost) = (other.zero_count, other.zero_threshold, 0.0);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold, lost) = other.zero_count_within(self.zero_threshold, None);
            }
            if threshold > self.zero_threshold {
                let widened = self.zero_count_within(threshold, carry.as_deref());
                (self.zero_count, self.zero_threshold) = (widened.0, widened.1);
                if let Some(carry) = carry.as_deref_mut() {
                    carry.zero_count = widened.2;
                }
                self.empty_within_zero(carry.as_deref_mut());
            }
        }
        (count, lost)
    }

    /// What the zero bucket would hold if it reached to `threshold`, which is at least what it is;
    /// to where it has to reach so as not to end within a bucket that is not empty; and what
    /// rounding lost.
    pub(super) fn zero_count_within(
        &self,
        mut threshold: f64,
        carry: Option<&Self>,
    ) -> (f64, f64, f64) {
        let mut lost = carry.map_or(0.0, |carry| carry.zero_count);
        if threshold <= self.zero_threshold {
            return (self.zero_count, self.zero_threshold, lost);
        }
        let lost_at = |counts: Option<&[f64]>, at: usize| counts.and_then(|it| it.get(at)).copied();
        let positive_lost = carry.map(|carry| carry.positive.counts());
        let negative_lost = carry.map(|carry| carry.negative.counts());
        'widened: loop {
            let mut count = self.zero_count;
            for (at, bucket) in self.positive_buckets().enumerate() {
                if bucket.lower >= threshold {
                    break;
                }
                (count, lost) = add_kahan(bucket.count, (count, lost));
                if let Some(more) = lost_at(positive_lost, at) {
                    (count, lost) = add_kahan(more, (count, lost));
                }
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for (at, bucket) in self.negative_buckets().enumerate() {
                if bucket.upper <= -threshold {
                    break;
                }
                (count, lost) = add_kahan(bucket.count, (count, lost));
                if let Some(more) = lost_at(negative_lost, at) {
                    (count, lost) = add_kahan(more, (count, lost));
                }
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        // The positive side has to be looked at again.
                        threshold = -bucket.lower;
                        continue 'widened;
                    }
                    break;
                }
            }
            return (count, threshold, lost);
        }
    }

    /// Drops the buckets that the zero bucket covers, and empty ones.
    fn empty_within_zero(&mut self, carry: Option<&mut Self>) {
        let threshold = self.zero_threshold;
        let positive = self.positive_buckets();
        let positive = positive.take_while(|it| it.lower < threshold).count();
        let negative = self.negative_buckets();
        let negative = negative.take_while(|it| it.upper > -threshold).count();
        let empty = |it: &mut Self| {
            it.positive.counts_mut()[..positive].fill(0.0);
            it.negative.counts_mut()[..negative].fill(0.0);
        };
        empty(self);
        match carry {
            Some(carry) => {
                empty(carry);
                self.positive.compact_with(&mut carry.positive);
                self.negative.compact_with(&mut carry.negative);
            }
            None => self.compact(),
        }
    }
}

/// How many of the first buckets lie within a zero bucket of this width.
pub(super) fn within_zero(buckets: &Buckets, schema: i32, threshold: f64) -> usize {
    let within = |it: &(i32, f64)| exponential(it.0.into(), schema) <= threshold;
    buckets.iter().take_while(within).count()
}

/// The bounds that both have.
fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    let mut rest = b.iter().peekable();
    let common = a.iter().copied().filter(|bound| {
        while rest.next_if(|it| *it < bound).is_some() {}
        rest.peek().is_some_and(|it| *it == bound)
    });
    common.collect()
}
