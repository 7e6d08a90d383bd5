//! Quantiles: of plain values, and of the buckets of classic histograms.
//!
//! A classic histogram is a set of counters, one per upper bound (label `le`), each counting all
//! observations up to its bound. Arithmetic and special cases follow Prometheus 3.14's
//! `promql/quantile.go`.

use std::cmp::Ordering;

/// Differences between neighbouring buckets that are smaller than this, relatively, are taken
/// for rounding.
const SMALL_DELTA_TOLERANCE: f64 = 1e-12;

/// Whether `q` is a quantile; if not, Prometheus warns "quantile value should be between 0 and 1".
pub fn is_valid_quantile(q: f64) -> bool {
    (0.0..=1.0).contains(&q)
}

/// The `q`-quantile of `values`, which are reordered. NaN values count as less than all others.
/// NaN when there is no value or `q` is NaN, -Inf when `q < 0`, +Inf when `q > 1`.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if let Some(answer) = without_values(q, values.len()) {
        return answer;
    }
    let rank = Rank::new(q, values.len());
    let (_, lower, above) = values.select_nth_unstable_by(rank.lower, nan_first);
    let lower = *lower;
    let upper = if rank.upper == rank.lower {
        lower
    } else {
        above.iter().copied().min_by(nan_first).unwrap_or(lower)
    };
    rank.between(lower, upper)
}

/// As [`quantile`], of values that are in the order of [`nan_first`] already.
pub fn quantile_sorted(q: f64, values: &[f64]) -> f64 {
    if let Some(answer) = without_values(q, values.len()) {
        return answer;
    }
    let rank = Rank::new(q, values.len());
    rank.between(values[rank.lower], values[rank.upper])
}

/// The order in which quantiles see values: NaN first, then ascending.
pub fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

fn without_values(q: f64, count: usize) -> Option<f64> {
    if count == 0 || q.is_nan() {
        Some(f64::NAN)
    } else if q < 0.0 {
        Some(f64::NEG_INFINITY)
    } else if q > 1.0 {
        Some(f64::INFINITY)
    } else {
        None
    }
}

/// Where a quantile lies between two of the sorted values.
struct Rank {
    lower: usize,
    upper: usize,
    weight: f64,
}

impl Rank {
    fn new(q: f64, count: usize) -> Rank {
        let rank = q * (count - 1) as f64;
        let lower = (rank.floor() as usize).min(count - 1);
        Rank {
            lower,
            upper: (lower + 1).min(count - 1),
            weight: rank - rank.floor(),
        }
    }

    fn between(&self, lower: f64, upper: f64) -> f64 {
        lower * (1.0 - self.weight) + upper * self.weight
    }
}

/// One bucket of a classic histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The value of `le`.
    pub upper_bound: f64,
    /// Observations up to the bound.
    pub count: f64,
}

/// Says that counts fell from one bucket to the next and were lifted. Prometheus tells it in an
/// info annotation, with the least of the bounds and the greatest of the others over all samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForcedMonotonicity {
    /// The least upper bound whose count was lifted.
    pub min_bucket: f64,
    /// The greatest upper bound whose count was lifted.
    pub max_bucket: f64,
    /// The greatest lift.
    pub max_diff: f64,
}

/// What [`bucket_quantile`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketQuantile {
    /// The quantile.
    pub value: f64,
    /// Set when the counts had to be lifted.
    pub forced_monotonicity: Option<ForcedMonotonicity>,
}

/// The value of a label `le`, read as Go's `strconv.ParseFloat` reads it; `None` when it is none
/// (Prometheus then warns "bucket label "le" is missing or has a malformed value").
pub fn parse_upper_bound(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.to_ascii_lowercase().as_str() {
        "inf" | "infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "inf" | "infinity" => return Some(f64::INFINITY),
        "nan" if unsigned.len() == text.len() => return Some(f64::NAN),
        "nan" => return None,
        hex if hex.starts_with("0x") => {
            let value = parse_hex(&hex[2..])?;
            return Some(if text.starts_with('-') { -value } else { value });
        }
        _ => {}
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Reads `digits[.digits]p[sign]digits`, the digits hexadecimal but for those of the exponent.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let mut exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() + fraction.len() > 13 {
        return None;
    }
    let digits = format!("{whole}{fraction}").replace('_', "");
    let mantissa = u64::from_str_radix(&digits, 16).ok()?;
    exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()? * 4)?;
    Some(mantissa as f64 * 2f64.powi(exponent)).filter(|value| value.is_finite())
}

/// The `q`-quantile of a classic histogram, linear within a bucket. `buckets` may stand in any
/// order; they are sorted, buckets of one bound are merged, and falling counts are lifted.
///
/// What is asked of the same buckets next finds them as they were left: merged and lifted, and
/// behind them, as many as were merged away, the last ones once more as they stood before. So
/// `histogram_quantiles` of buckets with a bound in two spellings (`1` and `1.0`) has the second
/// quantile from counts that are partly counted twice. Prometheus 3.14 answers that, since it
/// merges in place and keeps the longer slice.
///
/// NaN when `q` is NaN, when there is no bucket +Inf, fewer than two buckets or no observation;
/// -Inf when `q < 0`, +Inf when `q > 1`.
pub fn bucket_quantile(q: f64, buckets: &mut [Bucket]) -> BucketQuantile {
    buckets.sort_by(by_bound);
    let plain = |value| BucketQuantile {
        value,
        forced_monotonicity: None,
    };
    if q.is_nan() || buckets.is_empty() {
        return plain(f64::NAN);
    }
    if q < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return plain(f64::INFINITY);
    }
    if !ends_in_infinity(buckets) {
        return plain(f64::NAN);
    }
    let buckets = coalesce(buckets);
    let forced_monotonicity = ensure_monotonic(buckets);
    BucketQuantile {
        value: quantile_of_monotonic(q, buckets),
        forced_monotonicity,
    }
}

fn quantile_of_monotonic(q: f64, buckets: &[Bucket]) -> f64 {
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * observations;
    let at = search(last, |i| buckets[i].count >= rank);
    if at == last {
        return buckets[last - 1].upper_bound;
    }
    let end = buckets[at].upper_bound;
    if at == 0 && end <= 0.0 {
        return end;
    }
    let mut start = 0.0;
    let mut count = buckets[at].count;
    if at > 0 {
        start = buckets[at - 1].upper_bound;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    start + (end - start) * (rank / count)
}

/// The fraction of a classic histogram's observations between `lower` and `upper`, linear within
/// a bucket. `buckets` may stand in any order and are sorted and merged.
///
/// NaN when a bound is NaN, when there is no bucket +Inf or no observation; 0 when
/// `lower >= upper`.
pub fn bucket_fraction(lower: f64, upper: f64, buckets: &mut [Bucket]) -> f64 {
    buckets.sort_by(by_bound);
    if buckets.is_empty() || !ends_in_infinity(buckets) {
        return f64::NAN;
    }
    let buckets = coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |value| match rank_in(buckets, value) {
        Some(rank) if rank <= count || rank.is_nan() => rank,
        _ => count,
    };
    (rank_of(upper) - rank_of(lower)) / count
}

/// How many observations lie below `value`; `None` when it is +Inf or beyond all buckets.
fn rank_in(buckets: &[Bucket], value: f64) -> Option<f64> {
    let mut lower = if buckets[0].upper_bound <= 0.0 {
        f64::NEG_INFINITY
    } else {
        0.0
    };
    let mut rank = 0.0;
    for bucket in buckets {
        if lower >= value {
            return Some(rank);
        }
        if bucket.upper_bound > value {
            // A bucket of infinite width gives nothing to interpolate.
            return Some(if lower == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + (bucket.count - rank) * (value - lower) / (bucket.upper_bound - lower)
            });
        }
        rank = bucket.count;
        lower = bucket.upper_bound;
    }
    None
}

fn by_bound(a: &Bucket, b: &Bucket) -> Ordering {
    nan_first(&a.upper_bound, &b.upper_bound)
}

fn ends_in_infinity(buckets: &[Bucket]) -> bool {
    buckets
        .last()
        .is_some_and(|bucket| bucket.upper_bound == f64::INFINITY)
}

/// Merges neighbours of one bound by adding their counts. What lies behind the buckets that are
/// returned stays as it was.
fn coalesce(buckets: &mut [Bucket]) -> &mut [Bucket] {
    let mut last = 0;
    for i in 1..buckets.len() {
        let next = buckets[i];
        if next.upper_bound == buckets[last].upper_bound {
            buckets[last].count += next.count;
        } else {
            last += 1;
            buckets[last] = next;
        }
    }
    &mut buckets[..=last]
}

/// Makes counts rise: small differences in either direction are evened out silently, falls are
/// lifted to the count before.
fn ensure_monotonic(buckets: &mut [Bucket]) -> Option<ForcedMonotonicity> {
    let mut forced: Option<ForcedMonotonicity> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let current = bucket.count;
        if current == previous {
            continue;
        }
        if almost_equal(previous, current) {
            bucket.count = previous;
        } else if current < previous {
            bucket.count = previous;
            let forced = forced.get_or_insert(ForcedMonotonicity {
                min_bucket: bucket.upper_bound,
                max_bucket: bucket.upper_bound,
                max_diff: 0.0,
            });
            forced.max_bucket = bucket.upper_bound;
            forced.max_diff = forced.max_diff.max(previous - current);
        } else {
            previous = current;
        }
    }
    forced
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA_TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA_TOLERANCE
}

/// The first index in `0..count` for which `holds`, assuming that it then holds for all later
/// ones; `count` when there is none. It probes as Go's `sort.Search` does, which shows where NaN
/// breaks the assumption.
fn search(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(text: &str) -> Vec<Bucket> {
        let pairs = text
            .split_whitespace()
            .filter_map(|pair| pair.split_once(':'));
        pairs
            .map(|(bound, count)| Bucket {
                upper_bound: parse_upper_bound(bound).expect("a bound"),
                count: count.parse().expect("a count"),
            })
            .collect()
    }

    fn check(q: f64, text: &str, want: f64) {
        let got = bucket_quantile(q, &mut buckets(text)).value;
        assert!(
            got == want || got.is_nan() && want.is_nan(),
            "{q} of {text}: {got}"
        );
    }

    #[test]
    fn quantiles_of_values() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (q, values, want) in [
            (0.5, vec![3.0, 1.0, 2.0], 2.0),
            (0.5, vec![4.0, 1.0, 2.0, 3.0], 2.5),
            (0.0, vec![4.0, 1.0], 1.0),
            (1.0, vec![4.0, 1.0], 4.0),
            (0.9, vec![], nan),
            (nan, vec![1.0], nan),
            (-0.1, vec![1.0], -inf),
            (1.1, vec![1.0], inf),
            (0.0, vec![1.0, nan], nan),
            (1.0, vec![1.0, nan], 1.0),
            (0.75, vec![nan, 1.0, 2.0, 3.0, nan], 2.0),
            // Infinity times a weight of zero.
            (1.0, vec![1.0, inf], nan),
        ] {
            for got in [quantile(q, &mut values.clone()), {
                let mut sorted = values.clone();
                sorted.sort_by(nan_first);
                quantile_sorted(q, &sorted)
            }] {
                assert!(
                    got == want || got.is_nan() && want.is_nan(),
                    "{q} of {values:?}: {got}"
                );
            }
        }
    }

    #[test]
    fn quantiles_of_buckets() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let positive = "+Inf:4 0.1:2 0.2:3 1e0:4";
        check(0.5, positive, 0.1);
        check(0.25, positive, 0.05);
        check(0.75, positive, 0.2);
        check(1.0, positive, 1.0);
        check(nan, positive, nan);
        check(-0.1, positive, -inf);
        check(1.01, positive, inf);
        check(0.5, "0.1:2 0.2:3", nan);
        check(0.5, "inf:3", nan);
        check(0.5, "1:0 inf:0", nan);
        check(0.9, "1:1 inf:10", 1.0);
        check(0.1, "-1:5 0:6 inf:10", -1.0);
        check(0.55, "-1:5 0:6 inf:10", -0.5);
        check(0.5, "1:2 1.0:2 2:2 inf:10", 2.0);
        check(0.5, "", nan);
    }

    #[test]
    fn falling_counts_are_lifted_and_told() {
        let mut falling = buckets("1:5 2:4 3:7 4:1 inf:9");
        let got = bucket_quantile(0.5, &mut falling);
        let told = ForcedMonotonicity {
            min_bucket: 2.0,
            max_bucket: 4.0,
            max_diff: 6.0,
        };
        assert_eq!(
            got,
            BucketQuantile {
                value: 0.9,
                forced_monotonicity: Some(told)
            }
        );
        let mut rounded = buckets("1:5 2:4.9999999999999999 inf:5.0000000000000009");
        assert_eq!(bucket_quantile(0.5, &mut rounded).forced_monotonicity, None);
    }

    #[test]
    fn a_second_quantile_finds_merged_buckets_and_what_lies_behind_them() {
        // What Prometheus 3.14 has for query 10873 of seed 2212 of the generated queries.
        let mut odd = buckets("inf:222 0.5:56 1:144 -5:16 0:54 5:72 0.1:4 0.10:10 1.0:56");
        let first = bucket_quantile(0.5, &mut odd).value;
        assert_eq!((first, odd.len()), (0.5 + 0.5 * (55.0 / 144.0), 9));
        assert_eq!(bucket_quantile(0.9, &mut odd).value, 5.0);
        // Where no bound comes twice, the quantiles do not depend on each other.
        let mut plain = buckets("1:5 2:4 3:7 inf:9");
        bucket_quantile(0.5, &mut plain);
        check(
            0.9,
            "1:5 2:4 3:7 inf:9",
            bucket_quantile(0.9, &mut plain).value,
        );
    }

    #[test]
    fn fractions_of_buckets() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (lower, upper, text, want) in [
            (-inf, inf, "1:5 inf:10", 1.0),
            (0.0, 0.5, "1:5 inf:10", 0.25),
            (0.5, 1.0, "1:5 inf:10", 0.25),
            (2.0, inf, "1:5 inf:10", 0.5),
            (2.0, 1.0, "1:5 inf:10", 0.0),
            (nan, 1.0, "1:5 inf:10", nan),
            (0.0, 1.0, "1:5", nan),
            (0.0, 1.0, "1:0 inf:0", nan),
            (-5.0, -1.0, "-1:5 0:10 inf:10", 0.0),
            (-inf, -0.5, "-1:5 0:10 inf:10", 0.75),
        ] {
            let got = bucket_fraction(lower, upper, &mut buckets(text));
            assert!(
                got == want || got.is_nan() && want.is_nan(),
                "{lower} {upper} {text}: {got}"
            );
        }
    }

    #[test]
    fn bounds_are_read_as_in_go() {
        for (text, want) in [
            ("0.5", Some(0.5)),
            ("1e3", Some(1000.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("+Inf", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("0x1p-2", Some(0.25)),
            ("0X1.8p1", Some(3.0)),
            ("", None),
            ("abc", None),
            ("1e999", None),
            ("+nan", None),
            ("1_0", None),
            (" 1", None),
            ("0x10", None),
        ] {
            assert_eq!(parse_upper_bound(text), want, "{text:?}");
        }
        assert!(parse_upper_bound("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn nan_bounds_do_no_harm() {
        for text in [
            "nan:1 inf:3",
            "nan:1 nan:2",
            "1:nan 2:3 inf:nan",
            "1:1 nan:2 inf:3",
        ] {
            bucket_quantile(0.5, &mut buckets(text));
            bucket_fraction(0.0, 1.0, &mut buckets(text));
        }
    }
}
