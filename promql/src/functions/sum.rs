//! Compensated sums and means, shared by `*_over_time` and the aggregations.
//!
//! The arithmetic is Neumaier's variant of Kahan's summation, operation by operation as in
//! Prometheus 3.14 (`util/kahansum`, `promql/engine.go`), so that results agree to the last bit.

/// Adds `inc` to the running `sum` with compensation `c`; returns the new pair.
#[inline(always)]
pub fn kahan_inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let c = if t.is_infinite() {
        0.0
    } else if sum.abs() >= inc.abs() {
        c + ((sum - t) + inc)
    } else {
        c + ((inc - t) + sum)
    };
    (t, c)
}

/// A compensated sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KahanSum {
    sum: f64,
    compensation: f64,
}

impl KahanSum {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        (self.sum, self.compensation) = kahan_inc(value, self.sum, self.compensation);
    }

    /// The sum of what was added; 0 when nothing was.
    #[inline]
    pub fn value(&self) -> f64 {
        if self.sum.is_infinite() {
            self.sum
        } else {
            self.sum + self.compensation
        }
    }
}

/// A compensated mean. It divides one sum at the end, and changes over to an incremental mean
/// from the value on with which that sum would overflow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KahanMean {
    /// The sum; after the changeover, the mean.
    sum: f64,
    compensation: f64,
    count: f64,
    incremental: bool,
}

impl KahanMean {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.sum = value;
            return;
        }
        if !self.incremental {
            let (sum, compensation) = kahan_inc(value, self.sum, self.compensation);
            if !sum.is_infinite() {
                (self.sum, self.compensation) = (sum, compensation);
                return;
            }
            self.incremental = true;
            self.sum /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let weight = (self.count - 1.0) / self.count;
        (self.sum, self.compensation) = kahan_inc(
            value / self.count,
            weight * self.sum,
            weight * self.compensation,
        );
    }

    /// The number of values added.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// The mean of what was added; NaN when nothing was.
    #[inline]
    pub fn value(&self) -> f64 {
        if self.incremental {
            self.sum + self.compensation
        } else {
            self.sum / self.count + self.compensation / self.count
        }
    }
}

/// Variance over a window of time (`stdvar_over_time`): Welford's method with compensation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KahanVariance {
    count: f64,
    mean: (f64, f64),
    aux: (f64, f64),
}

impl KahanVariance {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - (self.mean.0 + self.mean.1);
        self.mean = kahan_inc(delta / self.count, self.mean.0, self.mean.1);
        let rest = value - (self.mean.0 + self.mean.1);
        self.aux = kahan_inc(delta * rest, self.aux.0, self.aux.1);
    }

    /// The population variance of what was added; NaN when nothing was.
    pub fn value(&self) -> f64 {
        (self.aux.0 + self.aux.1) / self.count
    }
}

/// Variance over the members of a group (the aggregations `stdvar` and `stddev`): Welford's method
/// without compensation, as Prometheus has it there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Variance {
    count: f64,
    mean: f64,
    aux: f64,
}

impl Variance {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = value;
            self.aux = if value.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.aux += delta * (value - self.mean);
    }

    /// The population variance of what was added; NaN when nothing was.
    pub fn value(&self) -> f64 {
        self.aux / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = KahanSum::default();
        values.iter().for_each(|v| sum.add(*v));
        sum.value()
    }

    fn mean(values: &[f64]) -> f64 {
        let mut mean = KahanMean::default();
        values.iter().for_each(|v| mean.add(*v));
        mean.value()
    }

    #[test]
    fn sum_keeps_what_plain_addition_loses() {
        assert_eq!(sum(&[]), 0.0);
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum(&[1.0, f64::INFINITY, 2.0]), f64::INFINITY);
    }

    #[test]
    fn mean_survives_a_sum_that_overflows() {
        assert!(mean(&[]).is_nan());
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert!((mean(&[f64::MAX; 4]) / f64::MAX - 1.0).abs() < 1e-15);
        assert_eq!(mean(&[-f64::MAX, -f64::MAX]), -f64::MAX);
        assert_eq!(mean(&[5.0, 0.0, 8.0, 3.0]), 4.0);
        assert_eq!(mean(&[1.0, f64::INFINITY]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn variances() {
        let mut over_time = KahanVariance::default();
        let mut group = Variance::default();
        for value in [0.0, 8.0, 8.0, 2.0, 3.0] {
            over_time.add(value);
            group.add(value);
        }
        assert!((over_time.value() - 10.56).abs() < 1e-12);
        assert!((group.value() - 10.56).abs() < 1e-12);
        let mut infinite = Variance::default();
        infinite.add(f64::INFINITY);
        assert!(infinite.value().is_nan());
    }
}
