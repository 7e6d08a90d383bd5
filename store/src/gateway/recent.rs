//! What was worked out lately and is likely to be wanted again. A dashboard asks for the same series again
//! and again, so the labels of series that were put together from symbols ([`KnownLabels`]), the places
//! of series that match ([`Selections`]) and the values of labels ([`KnownValues`]) are remembered: most
//! of the work of a request that finds all its bytes in the cache.
//!
//! As `tsdb/src/block/series_cache.rs`: two generations bounded in bytes; what is found in the old one
//! moves to the young one. Large selects neither look nor leave anything here.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use isobar_model::Labels;
use parking_lot::Mutex;

use super::labels::Texts;

/// Bytes of all labels that are remembered, of all selections, and of all values.
pub(super) const LABEL_BYTES_MAX: usize = 16 << 20;
pub(super) const SELECTION_BYTES_MAX: usize = 8 << 20;
pub(super) const VALUE_BYTES_MAX: usize = 8 << 20;
/// Series of a request and a block that are looked up and remembered.
pub(super) const SELECT_MAX: usize = 4096;
const SHARDS: usize = 16;
/// About what an entry takes besides its value.
const ENTRY_BYTES: usize = 64;

/// Labels of series: by the number of a block, and where the series begins in its index.
pub(super) type KnownLabels = Recent<(u64, u64), Labels>;

/// Where the series begin that match, in ascending order: by the number of a block and the matchers.
pub(super) type Selections = Recent<(u64, Arc<str>), Arc<[u64]>>;

/// The values of a label: by the number of a block and the name.
pub(super) type KnownValues = Recent<(u64, Arc<str>), Arc<Texts>>;

/// Values that were used lately, bounded in bytes.
pub(super) struct Recent<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    hasher: DefaultHashBuilder,
    generation_bytes: usize,
}

struct Shard<K, V> {
    young: HashMap<K, Entry<V>>,
    old: HashMap<K, Entry<V>>,
    young_bytes: usize,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    bytes: usize,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// About `bytes_max` bytes at most.
    pub(super) fn new(bytes_max: usize) -> Self {
        let shard = || Shard {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
        };
        Recent {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            hasher: DefaultHashBuilder::default(),
            generation_bytes: bytes_max / SHARDS / 2,
        }
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        // The maps look at other bits.
        &self.shards[(self.hasher.hash_one(key) >> 20) as usize % SHARDS]
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.young.get(key) {
            return Some(entry.value.clone());
        }
        let (key, entry) = shard.old.remove_entry(key)?;
        let value = entry.value.clone();
        self.keep(&mut shard, key, entry);
        Some(value)
    }

    /// Remembers a value that takes `bytes`.
    pub(super) fn insert(&self, key: K, value: V, bytes: usize) {
        let bytes = bytes + ENTRY_BYTES;
        let mut shard = self.shard(&key).lock();
        self.keep(&mut shard, key, Entry { value, bytes });
    }

    fn keep(&self, shard: &mut Shard<K, V>, key: K, entry: Entry<V>) {
        if shard.young_bytes + entry.bytes > self.generation_bytes {
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
        }
        shard.young_bytes += entry.bytes;
        shard.young.insert(key, entry);
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
            known.insert((1, n), labels(n), 20);
            assert_eq!(known.get(&(1, 0)), Some(labels(0)));
        }
        let held = (0..50_000)
            .filter(|n| known.get(&(1, *n)).is_some())
            .count();
        assert!((1000..15_000).contains(&held), "{held}");
        assert_eq!(known.get(&(2, 0)), None);
    }
}
