//! Sums that keep what rounding loses (Kahan, with Neumaier's swap), as Prometheus makes them
//! (`util/kahansum`).

/// Adds `value` to a sum and its carry.
#[inline(always)]
pub fn add_kahan(value: f64, (sum, carry): (f64, f64)) -> (f64, f64) {
    let total = sum + value;
    // Written as choices between values, so that loops over buckets can be vectorised.
    let larger = sum.abs() >= value.abs();
    let (large, small) = if larger { (sum, value) } else { (value, sum) };
    let carry = carry + ((large - total) + small);
    (total, if total.is_infinite() { 0.0 } else { carry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive() {
        let sum = [1.0, 1e100, 1.0, -1e100]
            .into_iter()
            .fold((0.0, 0.0), |sum, value| add_kahan(value, sum));
        assert_eq!(sum.0 + sum.1, 2.0);
        assert_eq!(add_kahan(f64::MAX, (f64::MAX, 3.0)), (f64::INFINITY, 0.0));
    }
}
