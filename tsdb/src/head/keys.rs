//! The keys of a shard: which series the labels of a request belong to.
//!
//! An open table with linear probing. Unlike others it lets one [`Keys::touch`] the memory that a
//! search will need, so that the searches of a request wait for memory together and not one after
//! the other; with a hundred thousand series that waiting is most of what a search takes.

use super::shard::Key;

/// A slot without a key.
const FREE: u32 = u32::MAX;
const SLOTS_MIN: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    id: u32,
}

const FREE_SLOT: Slot = Slot {
    key: Key { high: 0, low: 0 },
    id: FREE,
};

/// Ids by key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// A power of two of them, or none; at most four in five have a key.
    slots: Vec<Slot>,
    len: usize,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// Where the search for a key begins. Keys are hashes, so their bits are as good as random.
    #[inline]
    fn place(&self, key: Key) -> usize {
        key.low as usize & self.slots.len().wrapping_sub(1)
    }

    /// Reads what a search for the key reads first.
    #[inline]
    pub(super) fn touch(&self, key: Key) -> u32 {
        self.slots.get(self.place(key)).map_or(0, |slot| slot.id)
    }

    /// The id that the key leads to.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let mut place = self.place(key);
        loop {
            let slot = self.slots.get(place)?;
            if slot.key == key && slot.id != FREE {
                return Some(slot.id);
            }
            if slot.id == FREE {
                return None;
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    /// Enters a key that is not there. `id` is none that [`super::shard::IDS_END`] excludes.
    pub(super) fn insert(&mut self, key: Key, id: u32) {
        debug_assert!(id != FREE, "ids are smaller");
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.put(Slot { key, id });
        self.len += 1;
    }

    /// Drops the keys that lead to ids which are not wanted, and the room that they took.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        let kept = self.slots.iter().filter(|slot| slot.id != FREE);
        let kept: Vec<Slot> = kept.filter(|slot| wanted(slot.id)).copied().collect();
        if kept.len() == self.len {
            return;
        }
        let mut slots = SLOTS_MIN;
        while kept.len() * 5 > slots * 4 {
            slots *= 2;
        }
        self.len = kept.len();
        self.slots = vec![FREE_SLOT; slots];
        kept.into_iter().for_each(|slot| self.put(slot));
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![FREE_SLOT; slots]);
        let kept = old.into_iter().filter(|slot| slot.id != FREE);
        kept.for_each(|slot| self.put(slot));
    }

    /// Puts a slot in the first free place. There is one.
    fn put(&mut self, slot: Slot) {
        let mut place = self.place(slot.key);
        while let Some(taken) = self.slots.get(place)
            && taken.id != FREE
        {
            place = (place + 1) & (self.slots.len() - 1);
        }
        if let Some(free) = self.slots.get_mut(place) {
            *free = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Against a map, with keys of which many want the same place.
    #[test]
    fn keys_are_found_until_they_are_dropped() {
        let mut keys = Keys::default();
        let mut model = HashMap::new();
        let key = |n: u64| Key {
            high: n,
            low: n % 7 * 1000 + n % 3,
        };
        assert_eq!((keys.find(key(1)), keys.touch(key(1))), (None, 0));
        for n in 0..2000 {
            keys.insert(key(n), (n as u32) << 1);
            model.insert(n, (n as u32) << 1);
            if n % 500 == 499 {
                keys.retain(|id| id % 3 != 0);
                model.retain(|_, id| *id % 3 != 0);
            }
        }
        assert_eq!(keys.len(), model.len());
        for n in 0..2100 {
            assert_eq!(keys.find(key(n)), model.get(&n).copied(), "{n}");
        }
        keys.retain(|_| false);
        assert_eq!((keys.len(), keys.slots.len()), (0, SLOTS_MIN));
    }
}
