//! Functions of one native histogram, with Prometheus' answers.

use isobar_model::FloatHistogram;
use isobar_model::go_math::{exp2, log2};
use isobar_model::histogram::Bucket;

use super::sum::kahan_inc;

/// A function of a histogram that gives a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistogramFn {
    /// `histogram_count`
    Count,
    /// `histogram_sum`
    Sum,
    /// `histogram_avg`
    Avg,
    /// `histogram_stddev`
    Stddev,
    /// `histogram_stdvar`
    Stdvar,
}

impl HistogramFn {
    /// The function of that name in queries.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "histogram_count" => HistogramFn::Count,
            "histogram_sum" => HistogramFn::Sum,
            "histogram_avg" => HistogramFn::Avg,
            "histogram_stddev" => HistogramFn::Stddev,
            "histogram_stdvar" => HistogramFn::Stdvar,
            _ => return None,
        })
    }

    /// Its value.
    pub fn eval(self, histogram: &FloatHistogram) -> f64 {
        match self {
            HistogramFn::Count => histogram.count,
            HistogramFn::Sum => histogram.sum,
            HistogramFn::Avg => histogram.sum / histogram.count,
            HistogramFn::Stddev => variance(histogram).sqrt(),
            HistogramFn::Stdvar => variance(histogram),
        }
    }
}

/// All observations of a bucket count as its middle: on the scale of its schema, and zero for a
/// bucket around zero.
fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut carry) = (0.0, 0.0);
    for bucket in histogram.all_buckets().filter(|it| it.count != 0.0) {
        let middle = if histogram.is_custom() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let mean = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -mean } else { mean }
        };
        let delta = middle - mean;
        (sum, carry) = kahan_inc(bucket.count * delta * delta, sum, carry);
    }
    (sum + carry) / histogram.count
}

/// What there is to say of a quantile or fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanNote {
    /// Observations that are no numbers make the result none.
    Result,
    /// They make the result larger.
    Skew,
    /// They are left out of the fraction.
    Excluded,
}

impl NanNote {
    /// In Prometheus' words.
    pub fn text(self) -> &'static str {
        match self {
            NanNote::Result => "input to histogram_quantile has NaN observations, result is NaN",
            NanNote::Skew => {
                "input to histogram_quantile has NaN observations, result is skewed higher"
            }
            NanNote::Excluded => {
                "input to histogram_fraction has NaN observations, which are excluded from all \
                 fractions"
            }
        }
    }
}

/// Narrows a bucket around zero to the side that has observations.
fn narrow(histogram: &FloatHistogram, bucket: &mut Bucket) {
    match (histogram.negative.is_empty(), histogram.positive.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// `histogram_quantile` of a native histogram.
pub fn quantile(q: f64, histogram: &FloatHistogram) -> (f64, Option<NanNote>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // Observations that are no numbers are in the count, but in no bucket.
    let has_nan = histogram.sum.is_nan();
    let upwards = has_nan || q < 0.5;
    let mut rank = histogram.count * if upwards { q } else { 1.0 - q };
    let mut buckets: Box<dyn Iterator<Item = Bucket>> = match upwards {
        true => Box::new(histogram.all_buckets()),
        false => Box::new(histogram.all_buckets().rev()),
    };
    let mut count = 0.0;
    let mut last = None;
    for bucket in buckets.by_ref() {
        last = Some(bucket);
        if bucket.count != 0.0 {
            count += bucket.count;
            if count >= rank {
                break;
            }
        }
    }
    let mut bucket = last.unwrap_or(Bucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: false,
        upper_inclusive: false,
        count: 0.0,
    });
    let custom = histogram.is_custom();
    if !custom && bucket.lower < 0.0 && bucket.upper > 0.0 {
        narrow(histogram, &mut bucket);
    } else if custom && bucket.lower == f64::NEG_INFINITY {
        if bucket.upper <= 0.0 {
            return (bucket.upper, None);
        }
        bucket.lower = 0.0;
    } else if custom && bucket.upper == f64::INFINITY {
        return (bucket.lower, None);
    }
    if count > histogram.count {
        count = histogram.count;
    }
    if count < rank {
        return match has_nan {
            true => (f64::NAN, Some(NanNote::Result)),
            false => (bucket.upper, None),
        };
    }
    if upwards {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let mut note = None;
    if has_nan {
        // Prometheus goes on with the last bucket that it has looked at.
        for next in buckets {
            count += next.count;
            bucket = next;
        }
        if count < histogram.count {
            note = Some(NanNote::Skew);
        }
    }
    let fraction = rank / bucket.count;
    if custom || bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        return (
            bucket.lower + (bucket.upper - bucket.lower) * fraction,
            note,
        );
    }
    let (lower, upper) = (log2(bucket.lower.abs()), log2(bucket.upper.abs()));
    let value = if bucket.lower > 0.0 {
        exp2(lower + (upper - lower) * fraction)
    } else {
        -exp2(upper + (lower - upper) * (1.0 - fraction))
    };
    (value, note)
}

/// `histogram_fraction` of a native histogram.
pub fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> (f64, Option<NanNote>) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let custom = histogram.is_custom();
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut buckets = histogram.all_buckets();
    for mut bucket in buckets.by_ref() {
        count += bucket.count;
        let around_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if around_zero {
            narrow(histogram, &mut bucket);
        }
        let within = |value: f64| {
            let linear = custom || around_zero;
            if linear && bucket.lower == f64::NEG_INFINITY {
                return bucket.count;
            }
            rank + bucket.count * bucket.fraction_below(value, linear)
        };
        let place = |found: &mut Option<f64>, value: f64| {
            if found.is_none() && bucket.lower >= value {
                *found = Some(rank);
            }
        };
        place(&mut lower_rank, lower);
        place(&mut upper_rank, upper);
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        if lower_rank.is_none() && bucket.lower < lower && bucket.upper > lower {
            lower_rank = Some(within(lower));
        }
        if upper_rank.is_none() && bucket.lower < upper && bucket.upper > upper {
            upper_rank = Some(within(upper));
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    let mut note = None;
    if histogram.sum.is_nan() {
        count += buckets.map(|bucket| bucket.count).sum::<f64>();
        if count < histogram.count {
            note = Some(NanNote::Excluded);
        }
    } else {
        count = histogram.count;
    }
    let capped = |rank: Option<f64>| match rank {
        Some(rank) if rank > count => count,
        Some(rank) => rank,
        None => count,
    };
    (
        (capped(upper_rank) - capped(lower_rank)) / histogram.count,
        note,
    )
}
