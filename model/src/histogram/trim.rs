//! Cutting off what was observed above or below a value: the operators `</` and `>/`.

use super::{Bucket, FloatHistogram};

/// What stays of a bucket that is cut: its count, and the value that stands for it in the sum.
type Kept = (f64, f64);

impl FloatHistogram {
    /// Keeps what was observed below `at`, or above it. Where a bucket is cut its observations are
    /// taken to be spread evenly, on a logarithmic scale if it is exponential; the sum is estimated
    /// then.
    pub fn trim(&mut self, at: f64, keep_below: bool) {
        let custom = self.is_custom();
        let mut totals = Totals::default();
        let positive: Vec<f64> = self
            .positive_buckets()
            .map(|bucket| totals.keep(bucket, at, keep_below, true, custom))
            .collect();
        let negative: Vec<f64> = self
            .negative_buckets()
            .map(|bucket| totals.keep(bucket, at, keep_below, false, custom))
            .collect();
        let filled = |counts: &[f64]| counts.iter().any(|count| *count != 0.0);
        let has_positive = filled(self.positive.counts());
        let has_negative = filled(self.negative.counts());
        self.positive.counts_mut().copy_from_slice(&positive);
        self.negative.counts_mut().copy_from_slice(&negative);
        if self.zero_count > 0.0 {
            let zero = self.zero_bucket();
            let lower = if has_positive && !has_negative {
                0.0
            } else {
                zero.lower
            };
            let upper = if has_negative && !has_positive {
                0.0
            } else {
                zero.upper
            };
            let (count, middle) = trim_zero(zero.count, lower, upper, at, keep_below);
            totals.changed |= self.zero_count != count;
            self.zero_count = count;
            totals.sum += middle * count;
            totals.count += count;
        }
        if totals.changed {
            self.count = totals.count;
            self.sum = totals.sum;
            self.compact();
        }
    }
}

#[derive(Default)]
struct Totals {
    count: f64,
    sum: f64,
    changed: bool,
}

impl Totals {
    /// The count that stays of a bucket.
    fn keep(
        &mut self,
        bucket: Bucket,
        at: f64,
        keep_below: bool,
        positive: bool,
        custom: bool,
    ) -> f64 {
        if bucket.count == 0.0 {
            return bucket.count;
        }
        let (whole, cut) = match keep_below {
            true => (bucket.upper <= at, bucket.lower < at),
            false => (bucket.lower >= at, bucket.upper > at),
        };
        let (count, middle) = if whole {
            (
                bucket.count,
                middle(bucket.lower, bucket.upper, positive, custom),
            )
        } else if cut {
            trim_bucket(&bucket, at, keep_below, positive, custom)
        } else {
            self.changed = true;
            return 0.0;
        };
        self.count += count;
        self.sum += middle * count;
        self.changed |= count != bucket.count;
        count
    }
}

fn trim_bucket(bucket: &Bucket, at: f64, keep_below: bool, positive: bool, custom: bool) -> Kept {
    if bucket.lower == f64::NEG_INFINITY {
        return trim_open_below(bucket, at, keep_below);
    }
    if bucket.upper == f64::INFINITY {
        // Nothing is known of how the values lie above the last bound.
        return match !keep_below && at >= bucket.lower {
            true => (bucket.count, at),
            false => (0.0, finite_or_zero(bucket.lower)),
        };
    }
    let below = if at <= bucket.lower {
        0.0
    } else if at >= bucket.upper {
        bucket.count
    } else {
        bucket.count * bucket.fraction_below(at, custom)
    };
    match keep_below {
        true => (below, middle(bucket.lower, at, positive, custom)),
        false => (
            bucket.count - below,
            middle(at, bucket.upper, positive, custom),
        ),
    }
}

/// Cuts a bucket without lower bound. If it ends above zero it is taken to begin there.
fn trim_open_below(bucket: &Bucket, at: f64, keep_below: bool) -> Kept {
    let (count, upper) = (bucket.count, bucket.upper);
    let bounded = upper != f64::INFINITY;
    if keep_below {
        return if at >= upper {
            (count, 0.0)
        } else if at > 0.0 && upper > 0.0 && bounded {
            (count * at / upper, at / 2.0)
        } else if upper <= 0.0 {
            (count, at)
        } else {
            (0.0, finite_or_zero(upper))
        };
    }
    if at <= bucket.lower {
        (count, 0.0)
    } else if at >= 0.0 && upper > at && bounded {
        (count * (1.0 - at / upper), (at + upper) / 2.0)
    } else {
        (0.0, finite_or_zero(upper))
    }
}

fn trim_zero(count: f64, lower: f64, upper: f64, at: f64, keep_below: bool) -> Kept {
    let whole = (count, (lower + upper) / 2.0);
    match (at <= lower, at >= upper) {
        (true, _) if keep_below => (0.0, 0.0),
        (true, _) => whole,
        (_, true) if keep_below => whole,
        (_, true) => (0.0, 0.0),
        _ if keep_below => (count * ((at - lower) / (upper - lower)), (lower + at) / 2.0),
        _ => (count * ((upper - at) / (upper - lower)), (at + upper) / 2.0),
    }
}

fn finite_or_zero(value: f64) -> f64 {
    if value.is_infinite() { 0.0 } else { value }
}

/// The value that stands for all between two bounds.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
