//! The buckets of one side of a histogram: which there are, and how much is in each.

use std::sync::Arc;

use super::HistogramError;
use super::kahan::add_kahan;

/// Buckets by ascending index with their counts. Empty ones may be among them.
///
/// The indexes are shared: the samples of a chunk have the same ones.
#[derive(Debug, Clone, Default)]
pub struct Buckets {
    indexes: Arc<[i32]>,
    counts: Vec<f64>,
}

/// Equal when the same buckets are there and the bits of their counts are the same.
impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        let bits = |counts: &[f64]| counts.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
        self.same_layout(other) && bits(&self.counts) == bits(&other.counts)
    }
}

/// A run of buckets as the formats write them: the gap to the run before it (for the first the
/// index of its first bucket), and the number of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Buckets left out since the last run, or the first index.
    pub offset: i32,
    /// The number of buckets.
    pub length: u32,
}

/// The indexes that spans name.
///
/// # Errors
/// [`HistogramError::NegativeOffset`] for a step back, [`HistogramError::SpansMismatch`] when there
/// are more than `count_max` buckets, [`HistogramError::IndexRange`] for an index that no
/// histogram has.
pub fn layout(
    spans: impl IntoIterator<Item = Span>,
    count_max: usize,
) -> Result<Vec<i32>, HistogramError> {
    let mut indexes = Vec::new();
    let mut next = 0_i64;
    for (at, span) in spans.into_iter().enumerate() {
        if at > 0 && span.offset < 0 {
            return Err(HistogramError::NegativeOffset {
                span: at + 1,
                offset: span.offset,
            });
        }
        next += i64::from(span.offset);
        let wanted = indexes.len() as u64 + u64::from(span.length);
        if wanted > count_max as u64 {
            return Err(HistogramError::SpansMismatch {
                spans: wanted,
                buckets: count_max,
            });
        }
        let end = next + i64::from(span.length);
        // One short of the type's ends, so that the bucket before and behind has an index too.
        let (Ok(first), Ok(last)) = (i32::try_from(next - 1), i32::try_from(end + 1)) else {
            return Err(HistogramError::IndexRange);
        };
        indexes.extend(first + 1..last - 1);
        next = end;
    }
    Ok(indexes)
}

impl Buckets {
    /// Buckets whose indexes are laid out already (see [`layout`]); `None` when there is not one
    /// count for each of them. The indexes must rise.
    pub fn of_layout(indexes: Arc<[i32]>, counts: Vec<f64>) -> Option<Self> {
        debug_assert!(indexes.is_sorted());
        (indexes.len() == counts.len()).then_some(Buckets { indexes, counts })
    }

    /// Buckets as formats write them.
    ///
    /// # Errors
    /// As [`layout`], and when there are not as many counts as buckets.
    pub fn from_spans(
        spans: impl IntoIterator<Item = Span>,
        counts: Vec<f64>,
    ) -> Result<Self, HistogramError> {
        let indexes = layout(spans, counts.len())?;
        let (spans, buckets) = (indexes.len() as u64, counts.len());
        Buckets::of_layout(indexes.into(), counts)
            .ok_or(HistogramError::SpansMismatch { spans, buckets })
    }

    pub(super) fn of_pairs(pairs: impl IntoIterator<Item = (i32, f64)>) -> Self {
        let (indexes, counts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        Buckets {
            indexes: indexes.into(),
            counts,
        }
    }

    /// The number of buckets, empty ones included.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Index and count of each bucket in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + ExactSizeIterator + '_ {
        self.indexes
            .iter()
            .copied()
            .zip(self.counts.iter().copied())
    }

    /// The counts, to be changed.
    pub(super) fn counts_mut(&mut self) -> &mut [f64] {
        &mut self.counts
    }

    /// The counts.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// The indexes.
    pub fn indexes(&self) -> &Arc<[i32]> {
        &self.indexes
    }

    /// Whether both have the same buckets.
    pub(super) fn same_layout(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.indexes, &other.indexes) || self.indexes == other.indexes
    }

    /// The same buckets, all empty.
    pub(super) fn zeros(&self) -> Self {
        Buckets {
            indexes: Arc::clone(&self.indexes),
            counts: vec![0.0; self.counts.len()],
        }
    }

    /// Drops the empty buckets.
    pub(super) fn compact(&mut self) {
        if self.counts.contains(&0.0) {
            let kept = self.iter().filter(|it| it.1 != 0.0);
            let indexes = kept.map(|it| it.0).collect();
            self.counts.retain(|count| *count != 0.0);
            self.indexes = indexes;
        }
    }

    /// Drops the buckets that are empty here and in `carry`, which has the same buckets.
    pub(super) fn compact_with(&mut self, carry: &mut Self) {
        let keep: Vec<bool> = self
            .counts
            .iter()
            .zip(&carry.counts)
            .map(|(count, carry)| *count != 0.0 || *carry != 0.0)
            .collect();
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let kept = |buckets: &Buckets| {
            let pairs = buckets.iter().zip(&keep).filter(|it| *it.1);
            Buckets::of_pairs(pairs.map(|it| it.0))
        };
        (*self, *carry) = (kept(self), kept(carry));
    }

    /// The buckets of a schema that is coarser by `by`.
    pub(super) fn coarser(&self, by: u32) -> Self {
        let mut indexes: Vec<i32> = Vec::with_capacity(self.len());
        let mut counts: Vec<f64> = Vec::with_capacity(self.len());
        for (index, count) in self.iter() {
            let index = coarser_index(index, by);
            match counts.last_mut() {
                Some(last) if indexes.last() == Some(&index) => *last += count,
                _ => {
                    indexes.push(index);
                    counts.push(count);
                }
            }
        }
        Buckets {
            indexes: indexes.into(),
            counts,
        }
    }

    /// As [`Buckets::coarser`], with what rounding lost going to `carry`.
    pub(super) fn coarser_with(&self, carry: &Self, by: u32) -> (Self, Self) {
        let mut indexes: Vec<i32> = Vec::with_capacity(self.len());
        let mut sums: Vec<(f64, f64)> = Vec::with_capacity(self.len());
        for ((index, count), lost) in self.iter().zip(&carry.counts) {
            let index = coarser_index(index, by);
            match sums.last_mut() {
                Some(last) if indexes.last() == Some(&index) => {
                    *last = add_kahan(count, *last);
                    *last = add_kahan(*lost, *last);
                }
                _ => {
                    indexes.push(index);
                    sums.push((count, *lost));
                }
            }
        }
        Buckets::pair(indexes, sums)
    }

    fn pair(indexes: Vec<i32>, sums: Vec<(f64, f64)>) -> (Self, Self) {
        let indexes: Arc<[i32]> = indexes.into();
        let (counts, carries) = sums.into_iter().unzip();
        let carry = Buckets {
            indexes: Arc::clone(&indexes),
            counts: carries,
        };
        (Buckets { indexes, counts }, carry)
    }

    /// Adds the buckets of `other` from position `from` on, times `sign`.
    pub(super) fn add(&mut self, other: &Self, from: usize, sign: f64) {
        if from == 0 && self.same_layout(other) {
            for (count, more) in self.counts.iter_mut().zip(&other.counts) {
                *count += more * sign;
            }
            return;
        }
        if self.has_all(other, from) {
            let mut own = self.indexes.iter().zip(&mut self.counts);
            for (index, more) in other.iter().skip(from) {
                if let Some((_, count)) = own.find(|it| *it.0 == index) {
                    *count += more * sign;
                }
            }
            return;
        }
        let mut indexes = Vec::with_capacity(self.len() + other.len());
        let mut counts = Vec::with_capacity(self.len() + other.len());
        merge(self.iter(), other.iter().skip(from), |index, a, b| {
            let count = match (a, b) {
                (Some(a), Some(b)) => a + b * sign,
                (Some(a), None) => a,
                (None, b) => b.unwrap_or_default() * sign,
            };
            indexes.push(index);
            counts.push(count);
        });
        let indexes = indexes.into();
        *self = Buckets { indexes, counts };
    }

    /// Whether all buckets of `other` from position `from` on are here.
    fn has_all(&self, other: &Self, from: usize) -> bool {
        let mut own = self.indexes.iter();
        let others = other.indexes.iter().skip(from);
        other.len().saturating_sub(from) <= self.len()
            && others.into_iter().all(|index| {
                // What is passed over is smaller than all that follow.
                own.find(|own| *own >= index) == Some(index)
            })
    }

    /// As [`Buckets::add`], with what rounding lost going to `carry`, which has the same buckets;
    /// `lost` is what rounding has lost of `other` before, if anything.
    pub(super) fn add_with(
        &mut self,
        carry: &mut Self,
        other: &Self,
        lost: Option<&Self>,
        from: usize,
    ) {
        if lost.is_none() && from == 0 && self.same_layout(other) {
            let own = self.counts.iter_mut().zip(&mut carry.counts);
            for ((count, carry), more) in own.zip(&other.counts) {
                (*count, *carry) = add_kahan(*more, (*count, *carry));
            }
            return;
        }
        if lost.is_none() && self.has_all(other, from) {
            let own = self.counts.iter_mut().zip(&mut carry.counts);
            let mut own = self.indexes.iter().zip(own);
            for (index, more) in other.iter().skip(from) {
                if let Some((_, (count, carry))) = own.find(|it| *it.0 == index) {
                    (*count, *carry) = add_kahan(more, (*count, *carry));
                }
            }
            return;
        }
        let own = self.iter().zip(&carry.counts);
        let own = own.map(|((index, count), carry)| (index, (count, *carry)));
        let lost_at = |at: usize| lost.and_then(|lost| lost.counts.get(at)).copied();
        let more = other.iter().enumerate().skip(from);
        let more =
            more.map(|(at, (index, count))| (index, (count, lost_at(at).unwrap_or_default())));
        let mut indexes = Vec::with_capacity(self.len() + other.len());
        let mut sums = Vec::with_capacity(self.len() + other.len());
        merge(own, more, |index, a, b| {
            indexes.push(index);
            sums.push(match (a, b) {
                (Some(a), Some((count, lost))) => {
                    let sum = add_kahan(count, a);
                    if lost == 0.0 {
                        sum
                    } else {
                        add_kahan(lost, sum)
                    }
                }
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => (0.0, 0.0),
            });
        });
        (*self, *carry) = Buckets::pair(indexes, sums);
    }

    /// Spreads the buckets over others with fewer bounds; empty results are left out. Each part
    /// is the buckets, what rounding lost of them, their bounds, and the sign.
    pub(super) fn on_bounds(
        parts: [(&Self, Option<&Self>, &[f64], f64); 2],
        bounds: &[f64],
    ) -> (Self, Self) {
        let mut sums = vec![(0.0, 0.0); bounds.len() + 1];
        for (buckets, lost, own_bounds, sign) in parts {
            for (at, (index, count)) in buckets.iter().enumerate() {
                let own = usize::try_from(index).ok().and_then(|i| own_bounds.get(i));
                let into = match own {
                    Some(own) => bounds.partition_point(|bound| bound < own),
                    None => bounds.len(),
                };
                let Some(sum) = sums.get_mut(into) else {
                    continue;
                };
                *sum = add_kahan(count * sign, *sum);
                if let Some(lost) = lost.and_then(|lost| lost.counts.get(at)) {
                    *sum = add_kahan(*lost, *sum);
                }
            }
        }
        let filled = sums.into_iter().enumerate();
        let filled = filled.filter(|it| it.1 != (0.0, 0.0));
        let (indexes, sums) = filled.map(|(index, sum)| (index as i32, sum)).unzip();
        Buckets::pair(indexes, sums)
    }
}

/// The index in a schema coarser by `by` of the bucket that holds bucket `index`.
pub(super) fn coarser_index(index: i32, by: u32) -> i32 {
    ((index - 1) >> by.min(31)) + 1
}

/// Visits both inputs by index, with what each of them has there.
fn merge<T>(
    a: impl Iterator<Item = (i32, T)>,
    b: impl Iterator<Item = (i32, T)>,
    mut visit: impl FnMut(i32, Option<T>, Option<T>),
) {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    loop {
        let index = match (a.peek(), b.peek()) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(it), None) | (None, Some(it)) => it.0,
            (None, None) => return,
        };
        let left = a.next_if(|it| it.0 == index).map(|it| it.1);
        let right = b.next_if(|it| it.0 == index).map(|it| it.1);
        visit(index, left, right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(i32, f64)]) -> Buckets {
        Buckets::of_pairs(pairs.iter().copied())
    }

    #[test]
    fn spans_become_indexes() {
        let spans = |pairs: &[(i32, u32)]| -> Vec<Span> {
            let pairs = pairs.iter();
            pairs
                .map(|&(offset, length)| Span { offset, length })
                .collect()
        };
        assert_eq!(
            layout(spans(&[(-2, 2), (1, 0), (1, 2)]), 9).unwrap(),
            [-2, -1, 2, 3]
        );
        for (hostile, want) in [
            (
                spans(&[(0, 1), (-1, 1)]),
                "span number 2 with offset -1: histogram has a span whose offset is negative",
            ),
            (
                spans(&[(0, u32::MAX), (0, u32::MAX)]),
                "spans need 4294967295 buckets, have 9 buckets: histogram spans specify different number of buckets than provided",
            ),
            (
                spans(&[(i32::MAX, 2)]),
                "histogram has a bucket whose index is out of range",
            ),
            (
                spans(&[(i32::MIN, 2)]),
                "histogram has a bucket whose index is out of range",
            ),
        ] {
            assert_eq!(layout(hostile, 9).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn sums_are_those_of_a_map() {
        use std::collections::BTreeMap;
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let mut make = || -> BTreeMap<i32, f64> {
                (0..random(8))
                    .map(|_| (random(12) as i32 - 6, random(9) as f64))
                    .collect()
            };
            let (a, b) = (make(), make());
            let mut want = a.clone();
            for (index, count) in &b {
                *want.entry(*index).or_default() -= count;
            }
            let make = |it: &BTreeMap<i32, f64>| Buckets::of_pairs(it.clone());
            let mut got = make(&a);
            got.add(&make(&b), 0, -1.0);
            assert_eq!(got.iter().collect::<BTreeMap<_, _>>(), want);

            let mut sum = make(&a);
            let mut carry = sum.zeros();
            sum.add_with(&mut carry, &make(&b), None, 0);
            let mut with_lost = make(&a);
            let mut lost_carry = with_lost.zeros();
            let other = make(&b);
            with_lost.add_with(&mut lost_carry, &other, Some(&other.zeros()), 0);
            assert_eq!((&with_lost, &lost_carry), (&sum, &carry));
            let mut plain = make(&a);
            plain.add(&make(&b), 0, 1.0);
            assert_eq!(sum, plain);
            assert_eq!(carry, plain.zeros());

            let mut coarse: BTreeMap<i32, f64> = BTreeMap::new();
            for (index, count) in &a {
                *coarse.entry((index - 1).div_euclid(4) + 1).or_default() += count;
            }
            assert_eq!(
                make(&a).coarser(2).iter().collect::<BTreeMap<_, _>>(),
                coarse
            );
        }
    }

    #[test]
    fn empty_buckets_go() {
        let mut it = buckets(&[(1, 0.0), (2, 3.0), (3, 0.0), (9, -0.0)]);
        it.compact();
        assert_eq!(it, buckets(&[(2, 3.0)]));
        let mut it = buckets(&[(1, 0.0), (2, 0.0)]);
        let mut carry = buckets(&[(1, 0.0), (2, 1e-9)]);
        it.compact_with(&mut carry);
        assert_eq!((it.len(), carry), (1, buckets(&[(2, 1e-9)])));
    }
}
