//! Which queries are answered on the thread that asks, instead of on the compute pool.
//!
//! The way to the pool and back wakes two threads, which costs more than most queries of a
//! dashboard do. So it is remembered what a query cost: one that took little the last time is
//! answered on the spot, on a thread of the async runtime. There it may not wait, and not read many
//! more series than it did then; if it would have to, it gives up and goes to the pool after all
//! ([`crate::select::Waits`]).
//!
//! A query is known by a hash of its text, its step and the length of its range, so a dashboard that
//! moves on with time asks the same query again. The hash is seeded: nobody can make one query pass
//! for another on purpose, and by chance it does no harm but to the first try.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::Steps;

/// What a query may have taken that is answered on the spot: as long as the threads of the runtime
/// may be kept from their other work without anybody noticing.
const COST_MAX: Duration = Duration::from_micros(400);
/// Series that a query may read in addition to twice those that it read the last time.
const SERIES_MORE: usize = 16;
/// Time limits shorter than this are watched by a clock, which those on the spot are not.
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// Queries that are remembered, 8 bytes each. One takes the place of another.
const QUERIES_MAX: usize = 4096;

/// What queries cost when they were last answered.
pub(crate) struct Costs {
    places: Arc<[AtomicU64]>,
    seed: RandomState,
}

impl Default for Costs {
    fn default() -> Self {
        Costs {
            places: (0..QUERIES_MAX).map(|_| AtomicU64::new(0)).collect(),
            seed: RandomState::new(),
        }
    }
}

impl Costs {
    /// Those of `query` at `steps`.
    pub(crate) fn of(&self, query: &str, steps: Steps) -> Cost {
        let length_ms = steps.end_ms.wrapping_sub(steps.start_ms);
        let hash = self.seed.hash_one((query, length_ms, steps.step_ms));
        Cost {
            places: Arc::clone(&self.places),
            place: hash as usize % QUERIES_MAX,
            name: (hash >> 32) as u32,
        }
    }
}

/// What one query cost.
pub(crate) struct Cost {
    places: Arc<[AtomicU64]>,
    place: usize,
    name: u32,
}

/// What a place holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    name: u32,
    /// At most 65,535, which stands for any more.
    micros: u16,
    /// At most 65,535, which stands for any more.
    series: u16,
}

impl Entry {
    fn pack(self) -> u64 {
        u64::from(self.name) << 32 | u64::from(self.micros) << 16 | u64::from(self.series)
    }

    fn unpack(word: u64) -> Self {
        Entry {
            name: (word >> 32) as u32,
            micros: (word >> 16) as u16,
            series: word as u16,
        }
    }
}

impl Cost {
    /// When the query is to be answered on the spot: the most series that it may read there.
    pub(crate) fn series_max(&self) -> Option<usize> {
        let known = self.known()?;
        let small = Duration::from_micros(known.micros.into()) <= COST_MAX;
        (small && known.series < u16::MAX).then(|| 2 * usize::from(known.series) + SERIES_MORE)
    }

    /// Remembers that the query has taken `spent` and read `series` series.
    pub(crate) fn note(&self, spent: Duration, series: usize) {
        let short = |number: u128| u16::try_from(number).unwrap_or(u16::MAX);
        let micros = short(spent.as_micros());
        // Answers of one query may be written in ways that differ in cost: the dearest counts, and is
        // forgotten by and by. One thread may overwrite what another noted, which is as good.
        let before = self.known().map_or(0, |known| known.micros);
        let entry = Entry {
            name: self.name,
            micros: micros.max(before - before / 4),
            series: short(series as u128),
        };
        self.places[self.place].store(entry.pack(), Ordering::Relaxed);
    }

    /// Remembers nothing of the query.
    pub(crate) fn forget(&self) {
        self.places[self.place].store(0, Ordering::Relaxed);
    }

    fn known(&self) -> Option<Entry> {
        let word = self.places[self.place].load(Ordering::Relaxed);
        let entry = Entry::unpack(word);
        (word != 0 && entry.name == self.name).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Duration = Duration::from_micros(30);
    const LARGE: Duration = Duration::from_millis(200);

    #[test]
    fn small_ones_are_answered_on_the_spot() {
        let costs = Costs::default();
        let up = costs.of("up", Steps::instant(1000));
        assert_eq!(up.series_max(), None);
        up.note(SMALL, 3);
        assert_eq!(costs.of("up", Steps::instant(9000)).series_max(), Some(22));
        assert_eq!(costs.of("down", Steps::instant(1000)).series_max(), None);
        let range = Steps {
            start_ms: 0,
            end_ms: 1000,
            step_ms: 10,
        };
        assert_eq!(costs.of("up", range).series_max(), None);
        up.forget();
        assert_eq!(up.series_max(), None);
    }

    #[test]
    fn large_ones_are_not_until_they_have_been_small_for_a_while() {
        let costs = Costs::default();
        let up = costs.of("up", Steps::instant(0));
        up.note(LARGE, 100_000);
        assert_eq!(up.series_max(), None);
        up.note(SMALL, 1);
        assert_eq!(up.series_max(), None);
        (0..20).for_each(|_| up.note(SMALL, 1));
        assert_eq!(up.series_max(), Some(18));
    }
}
