//! Who is reading: samples leave the head only when nobody reads who may not know the block that
//! they are in now.
//!
//! Whoever reads takes a pin first and the list of blocks after that. A block that is published
//! begins a new generation; readers of that generation know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Pins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    /// How many read, by the generation in which they began.
    readers: BTreeMap<u64, usize>,
}

/// Held while reading.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    generation: u64,
}

impl Pins {
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        let mut state = self.state.lock();
        let generation = state.generation;
        *state.readers.entry(generation).or_default() += 1;
        Pin {
            pins: Arc::clone(self),
            generation,
        }
    }

    /// Begins a generation: to be called when a block has been published.
    pub(crate) fn publish(&self) -> u64 {
        let mut state = self.state.lock();
        state.generation += 1;
        state.generation
    }

    /// Whether all who read began in this generation or later.
    pub(crate) fn all_since(&self, generation: u64) -> bool {
        let oldest = self.state.lock().readers.keys().next().copied();
        oldest.is_none_or(|oldest| oldest >= generation)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock();
        if let Some(count) = state.readers.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&self.generation);
            }
        }
    }
}
