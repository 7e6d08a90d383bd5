//! Labels of series that were read lately, put together from symbols once. A dashboard asks for the same
//! series again and again, and this is a third of the work of a request that finds all its bytes in the
//! cache.
//!
//! As `tsdb/src/block/series_cache.rs`: two generations bounded in bytes; what is found in the old one
//! moves to the young one. Large selects neither look nor leave anything here.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};
use isobar_model::Labels;
use parking_lot::Mutex;

/// Bytes of all labels that are remembered.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// Series of a request and a block that are looked up and remembered.
pub(super) const SELECT_MAX: usize = 4096;
const SHARDS: usize = 16;
/// About what a series takes besides its labels.
const SERIES_BYTES: usize = 64;

/// The number of a block, and where the series begins in its index.
pub(super) type Key = (u64, u64);

/// Labels by series.
pub(super) struct KnownLabels {
    shards: [Mutex<Shard>; SHARDS],
    hasher: DefaultHashBuilder,
    generation_bytes: usize,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Key, Labels>,
    old: HashMap<Key, Labels>,
    young_bytes: usize,
}

impl KnownLabels {
    pub(super) fn new(bytes_max: usize) -> Self {
        KnownLabels {
            shards: Default::default(),
            hasher: DefaultHashBuilder::default(),
            generation_bytes: bytes_max / SHARDS / 2,
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        // The maps look at other bits.
        &self.shards[(self.hasher.hash_one(key) >> 20) as usize % SHARDS]
    }

    pub(super) fn get(&self, key: Key) -> Option<Labels> {
        let mut shard = self.shard(&key).lock();
        if let Some(labels) = shard.young.get(&key) {
            return Some(labels.clone());
        }
        let labels = shard.old.remove(&key)?;
        self.keep(&mut shard, key, labels.clone());
        Some(labels)
    }

    pub(super) fn insert(&self, key: Key, labels: &Labels) {
        let mut shard = self.shard(&key).lock();
        self.keep(&mut shard, key, labels.clone());
    }

    fn keep(&self, shard: &mut Shard, key: Key, labels: Labels) {
        let bytes = SERIES_BYTES + labels.as_bytes().len();
        if shard.young_bytes + bytes > self.generation_bytes {
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
        }
        shard.young_bytes += bytes;
        shard.young.insert(key, labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let known = KnownLabels::new(1 << 20);
        let labels = |n: u64| Labels::from_pairs([("n", n.to_string())]);
        for n in 0..50_000 {
            known.insert((1, n), &labels(n));
            assert_eq!(known.get((1, 0)), Some(labels(0)));
        }
        let held = (0..50_000).filter(|n| known.get((1, *n)).is_some()).count();
        assert!((1000..15_000).contains(&held), "{held}");
        assert_eq!(known.get((2, 0)), None);
    }
}
