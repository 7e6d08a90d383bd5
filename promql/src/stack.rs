//! Stack for expressions that nest deep.
//!
//! Planning and evaluating recurse over the expression, and the parser lets it have thousands of
//! levels: a sum of as many terms is one. Such expressions are rare; they get a thread of their
//! own with a stack that fits them, all others stay on the caller's.

use std::thread;

/// Up to here the caller's stack is enough: half a MiB of it is used at worst.
const LEVELS_SHALLOW: usize = 24;
/// What a level takes at most, measured without optimisation and doubled.
const BYTES_PER_LEVEL: usize = 40 * 1024;

/// Runs `work` on a stack that fits an expression of `levels` levels. `None` when the system has
/// no room for another stack.
pub(crate) fn with_room_for<T: Send>(levels: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    if levels <= LEVELS_SHALLOW {
        return Some(work());
    }
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("deep-query".to_owned())
            .stack_size(bytes_for(levels));
        let thread = builder.spawn_scoped(scope, work).ok()?;
        match thread.join() {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A stack that fits an expression of `levels` levels, in bytes.
pub(crate) fn bytes_for(levels: usize) -> usize {
    levels.max(LEVELS_SHALLOW).saturating_mul(BYTES_PER_LEVEL)
}
