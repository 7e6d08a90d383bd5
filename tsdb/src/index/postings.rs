//! Postings: sorted lists of series, and the operations of sets on them.
//!
//! ```text
//! len <4b> │ number of series <4b> │ series <4b>… │ CRC-32C <4b>
//! ```
//!
//! Lists of the file are used where they lie. Finding a place in a list gallops: steps double
//! until they are too far, then halve, so a short list meets a long one in few steps.

use super::SeriesRef;
use crate::encoding::{DecodeError, Decoder};

/// A sorted list of series.
#[derive(Debug, Clone)]
pub enum Postings<'a> {
    /// As it lies in the file: big-endian.
    Encoded(&'a [[u8; 4]]),
    /// In memory.
    Decoded(Vec<SeriesRef>),
}

impl<'a> Postings<'a> {
    /// The list without series.
    pub const EMPTY: Postings<'static> = Postings::Encoded(&[]);

    /// Reads the list at `offset` of an index and checks it.
    pub(super) fn decode(index: &'a [u8], offset: u64) -> Result<Self, DecodeError> {
        let mut content = Decoder::new(Decoder::at(index, offset)?.section()?);
        let count = content.be32()? as usize;
        let (series, rest) = content.rest().as_chunks();
        if series.len() != count || !rest.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(Postings::Encoded(series))
    }

    /// The number of series.
    pub fn len(&self) -> usize {
        match self {
            Postings::Encoded(list) => list.len(),
            Postings::Decoded(list) => list.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The series as a list in memory.
    pub fn into_vec(self) -> Vec<SeriesRef> {
        match self {
            Postings::Encoded(list) => list.iter().map(|raw| decode(*raw)).collect(),
            Postings::Decoded(list) => list,
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<SeriesRef> {
        match self {
            Postings::Encoded(list) => list.get(at).map(|raw| decode(*raw)),
            Postings::Decoded(list) => list.get(at).copied(),
        }
    }

    /// The first place from `from` on whose series is not before `series`.
    fn seek(&self, from: usize, series: SeriesRef) -> usize {
        let before = |at: usize| self.get(at).is_some_and(|here| here < series);
        if !before(from) {
            return from;
        }
        let mut low = from;
        let mut step = 1;
        while before(low + step) {
            low += step;
            step *= 2;
        }
        // The series at `low` is before, the one at `high` is not.
        let mut high = low + step;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if before(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        high.min(self.len())
    }

    /// Whether any of `sorted` is in the list.
    pub fn intersects(&self, sorted: &[SeriesRef]) -> bool {
        if sorted.len() > self.len() {
            let mut at = 0;
            return (0..self.len()).filter_map(|i| self.get(i)).any(|series| {
                at += gallop(sorted.get(at..).unwrap_or_default(), series);
                sorted.get(at) == Some(&series)
            });
        }
        let mut at = 0;
        sorted.iter().any(|series| {
            at = self.seek(at, *series);
            self.get(at) == Some(*series)
        })
    }
}

fn decode(raw: [u8; 4]) -> SeriesRef {
    SeriesRef(u32::from_be_bytes(raw))
}

fn gallop(list: &[SeriesRef], series: SeriesRef) -> usize {
    let before = |at: usize| list.get(at).is_some_and(|here| *here < series);
    let mut reach = 1;
    while before(reach - 1) {
        reach *= 2;
    }
    let end = reach.min(list.len());
    let begin = reach / 2;
    begin
        + list
            .get(begin..end)
            .unwrap_or_default()
            .partition_point(|here| *here < series)
}

/// The series that are in all lists; in none when there is no list.
pub fn intersect(mut lists: Vec<Postings<'_>>) -> Vec<SeriesRef> {
    lists.sort_by_key(Postings::len);
    let mut lists = lists.into_iter();
    let Some(shortest) = lists.next() else {
        return Vec::new();
    };
    let mut result = shortest.into_vec();
    for list in lists {
        let mut at = 0;
        result.retain(|series| {
            at = list.seek(at, *series);
            list.get(at) == Some(*series)
        });
    }
    result
}

/// The series of `base` that are not in `list`.
pub fn subtract(base: &mut Vec<SeriesRef>, list: &Postings<'_>) {
    let mut at = 0;
    base.retain(|series| {
        at = list.seek(at, *series);
        list.get(at) != Some(*series)
    });
}

/// The series that are in any of the lists.
pub fn union<'a>(mut lists: Vec<Postings<'a>>) -> Postings<'a> {
    match lists.len() {
        0 => return Postings::EMPTY,
        1 => return lists.swap_remove(0),
        _ => {}
    }
    let mut all = Vec::with_capacity(lists.iter().map(Postings::len).sum());
    for list in lists {
        match list {
            Postings::Encoded(list) => all.extend(list.iter().map(|raw| decode(*raw))),
            Postings::Decoded(list) => all.extend(list),
        }
    }
    // The stable sort recognises the runs and merges them.
    all.sort();
    all.dedup();
    Postings::Decoded(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn list(set: &BTreeSet<u32>) -> Vec<SeriesRef> {
        set.iter().map(|series| SeriesRef(*series)).collect()
    }

    fn encoded(set: &BTreeSet<u32>) -> Vec<[u8; 4]> {
        set.iter().map(|series| series.to_be_bytes()).collect()
    }

    proptest! {
        #[test]
        fn like_sets(sets in vec(prop_oneof![btree_set(0u32..60, 0..30), btree_set(0u32..900, 0..400)], 1..5)) {
            let encoded: Vec<_> = sets.iter().map(encoded).collect();
            let lists: Vec<_> = encoded.iter().map(|list| Postings::Encoded(list)).collect();
            let any: BTreeSet<u32> = sets.iter().flatten().copied().collect();
            let all = any.iter().filter(|it| sets.iter().all(|set| set.contains(it)));
            let all: BTreeSet<u32> = all.copied().collect();
            let mut less = list(&sets[0]);
            let last = sets.len() - 1;
            subtract(&mut less, &lists[last]);
            let difference: BTreeSet<u32> = &sets[0] - &sets[last];
            prop_assert_eq!(less, list(&difference));
            let common = !sets[0].is_disjoint(&sets[last]);
            prop_assert_eq!(lists[last].intersects(&list(&sets[0])), common);
            prop_assert_eq!(union(lists.clone()).into_vec(), list(&any));
            prop_assert_eq!(intersect(lists), list(&all));
        }
    }

    #[test]
    fn no_list_has_no_series() {
        assert!(intersect(Vec::new()).is_empty());
        assert!(union(Vec::new()).is_empty());
    }
}
