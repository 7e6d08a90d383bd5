//! A set of series ids that is small while it has few members: most label pairs of a head occur
//! in very few series, and a bitmap for each would cost more than the series themselves.

use roaring::RoaringBitmap;

/// Up to this many ids are kept as a sorted list.
const FEW_MAX: usize = 32;

/// A set of series ids.
#[derive(Debug)]
pub(crate) enum Postings {
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Postings::Few(Vec::new())
    }
}

impl Postings {
    pub(crate) fn insert(&mut self, id: u32) {
        match self {
            Postings::Many(bitmap) => {
                bitmap.insert(id);
            }
            Postings::Few(ids) => {
                let Err(at) = ids.binary_search(&id) else {
                    return;
                };
                if ids.len() < FEW_MAX {
                    ids.reserve_exact(if ids.is_empty() { 1 } else { ids.len().min(4) });
                    ids.insert(at, id);
                    return;
                }
                let mut bitmap: RoaringBitmap = ids.iter().copied().collect();
                bitmap.insert(id);
                *self = Postings::Many(Box::new(bitmap));
            }
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Postings::Many(bitmap) => {
                bitmap.remove(id);
            }
            Postings::Few(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Postings::Few(ids) => ids.len() as u64,
            Postings::Many(bitmap) => bitmap.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Postings::Few(ids) => ids.iter().copied().collect(),
            Postings::Many(bitmap) => (**bitmap).clone(),
        }
    }

    /// Adds all members to `into`.
    pub(crate) fn union_into(&self, into: &mut RoaringBitmap) {
        match self {
            Postings::Few(ids) => into.extend(ids.iter().copied()),
            Postings::Many(bitmap) => *into |= &**bitmap,
        }
    }

    /// Whether some member is in `set`.
    pub(crate) fn intersects(&self, set: &RoaringBitmap) -> bool {
        match self {
            Postings::Few(ids) => ids.iter().any(|id| set.contains(*id)),
            Postings::Many(bitmap) => !bitmap.is_disjoint(set),
        }
    }

    /// How many members are in `set`.
    pub(crate) fn intersection_len(&self, set: &RoaringBitmap) -> u64 {
        match self {
            Postings::Few(ids) => ids.iter().filter(|id| set.contains(**id)).count() as u64,
            Postings::Many(bitmap) => bitmap.intersection_len(set),
        }
    }

    /// Leaves in `set` only members of this set.
    pub(crate) fn intersect_into(&self, set: &mut RoaringBitmap) {
        match self {
            Postings::Few(_) => *set &= self.to_bitmap(),
            Postings::Many(bitmap) => *set &= &**bitmap,
        }
    }

    /// Takes all members of this set out of `set`.
    pub(crate) fn subtract_from(&self, set: &mut RoaringBitmap) {
        match self {
            Postings::Few(ids) => ids.iter().for_each(|id| {
                set.remove(*id);
            }),
            Postings::Many(bitmap) => *set -= &**bitmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_set_on_both_sides_of_the_border() {
        for count in [0u32, 1, 2, 31, 32, 33, 100] {
            let mut postings = Postings::default();
            for id in (0..count).rev().chain(0..count) {
                postings.insert(id * 3);
            }
            let expected: RoaringBitmap = (0..count).map(|id| id * 3).collect();
            assert_eq!(postings.to_bitmap(), expected);
            assert_eq!(postings.len(), u64::from(count));
            let mut evens: RoaringBitmap = (0..1000).filter(|id| id % 2 == 0).collect();
            assert_eq!(postings.intersects(&evens), count > 0);
            assert_eq!(
                postings.intersection_len(&evens),
                u64::from(count.div_ceil(2))
            );
            postings.subtract_from(&mut evens);
            assert!(!postings.intersects(&evens));
            postings.remove(0);
            assert_eq!(postings.len(), u64::from(count.saturating_sub(1)));
        }
    }
}
