//! What is remembered of series that were read from blocks: their labels, which are put together
//! from symbols, and places in their list of chunks ([`Fence`]), which is long in a block of many
//! hours. A dashboard asks for the same series again and again.
//!
//! The bytes are bounded over all blocks that share a cache. It has two generations: what is found
//! in the old one moves to the young one, and when the young one has grown to half of the bound it
//! becomes the old one, whose series are forgotten. Large selects neither look nor leave anything
//! here ([`SELECT_MAX`]), or they would push all others out.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashMap};
use isobar_model::{Labels, TimeRange};
use parking_lot::Mutex;

use crate::index::{Fence, SeriesRef};

/// Bytes of all that is remembered unless less is asked for; more is of little use.
pub const BYTES_MAX: usize = 16 << 20;
/// Parts with a lock each.
const SHARDS: usize = 16;
/// Selects of more series than this read each of them as if for the first time.
pub(crate) const SELECT_MAX: usize = 4096;
/// About what a series takes besides its labels and fences.
const SERIES_BYTES: usize = 96;

/// The memory of some blocks for their series.
#[derive(Debug)]
pub struct SeriesCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: DefaultHashBuilder,
    blocks: AtomicU64,
    /// The most that a generation of a shard may take.
    generation_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    series: HashMap<Key, Known>,
    bytes: usize,
}

/// A series of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// What [`SeriesCache::next_block`] gave.
    pub(crate) block: u64,
    pub(crate) series: SeriesRef,
}

/// What is known of a series.
pub(crate) struct Found {
    pub(crate) labels: Labels,
    /// Where to begin with its chunks.
    pub(crate) fence: Fence,
    /// The last fence that is known.
    pub(crate) last: Fence,
}

#[derive(Debug)]
struct Known {
    labels: Labels,
    /// In their order, at least one.
    fences: Vec<Fence>,
}

impl Known {
    fn bytes(&self) -> usize {
        SERIES_BYTES + self.labels.as_bytes().len() + self.fences.capacity() * size_of::<Fence>()
    }
}

impl Default for SeriesCache {
    fn default() -> Self {
        SeriesCache::new(BYTES_MAX)
    }
}

impl SeriesCache {
    /// A cache of about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        SeriesCache {
            shards: Default::default(),
            hasher: DefaultHashBuilder::default(),
            blocks: AtomicU64::new(0),
            generation_bytes: bytes_max / SHARDS / 2,
        }
    }

    /// A number for one more block.
    pub(crate) fn next_block(&self) -> u64 {
        self.blocks.fetch_add(1, Ordering::Relaxed)
    }

    /// About the bytes that are held.
    pub fn heap_bytes(&self) -> usize {
        let shard = |it: &Mutex<Shard>| {
            let shard = it.lock();
            shard.young.bytes + shard.old.bytes
        };
        self.shards.iter().map(shard).sum()
    }

    /// What is known of a series that is to be read over `range`.
    pub(crate) fn find(&self, key: Key, range: TimeRange) -> Option<Found> {
        let mut shard = self.shard(key).lock();
        if !shard.young.series.contains_key(&key) {
            let known = shard.old.series.remove(&key)?;
            shard.old.bytes -= known.bytes();
            self.insert(&mut shard, key, known);
        }
        let known = shard.young.series.get(&key)?;
        Some(Found {
            fence: Fence::before(&known.fences, range)?,
            last: *known.fences.last()?,
            labels: known.labels.clone(),
        })
    }

    /// Remembers the labels of a series, and fences: the first ones, or some more.
    pub(crate) fn learn(&self, key: Key, labels: &Labels, fences: &[Fence]) {
        let mut shard = self.shard(key).lock();
        let mut all = Vec::new();
        if let Some(known) = shard.young.series.remove(&key) {
            shard.young.bytes -= known.bytes();
            all = known.fences;
        }
        // Another thread may have learnt some of them meanwhile.
        let last = all.last().copied();
        let new = |it: &&Fence| last.is_none_or(|last| it.is_behind(&last));
        all.extend(fences.iter().filter(new));
        all.shrink_to_fit();
        let labels = labels.clone();
        let known = Known {
            labels,
            fences: all,
        };
        self.insert(&mut shard, key, known);
    }

    fn insert(&self, shard: &mut Shard, key: Key, known: Known) {
        let bytes = known.bytes();
        if shard.young.bytes + bytes > self.generation_bytes {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.bytes += bytes;
        shard.young.series.insert(key, known);
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        // The maps look at other bits.
        &self.shards[(self.hasher.hash_one(key) >> 20) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: TimeRange = TimeRange::ALL;

    fn key(series: u32) -> Key {
        Key {
            block: 7,
            series: SeriesRef(series),
        }
    }

    fn labels(series: u32) -> Labels {
        Labels::from_pairs([("series", series.to_string())])
    }

    #[test]
    fn what_is_used_stays_and_the_bytes_are_bounded() {
        let cache = SeriesCache::new(1 << 20);
        let fence = Fence::default();
        for series in 0..100_000 {
            cache.learn(key(series), &labels(series), &[fence]);
            assert!(cache.heap_bytes() <= 1 << 20);
            let first = cache.find(key(0), ALL).map(|found| found.labels);
            assert_eq!(first, Some(labels(0)));
        }
        assert!(cache.heap_bytes() > 1 << 18);
        assert!(cache.find(key(1), ALL).is_none());
        let other = Key { block: 8, ..key(0) };
        assert!(cache.find(other, ALL).is_none());
    }
}
