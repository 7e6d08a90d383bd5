//! Long work that nobody waits for lets go of the processor often.
//!
//! A block is cut in seconds of work, and on a machine that has no processor to spare each thread of
//! a write that is woken meanwhile waits until the system takes the processor away, three
//! milliseconds on Linux. Who gives it back by itself five thousand times a second is not noticed,
//! and pays a part in a hundred for it. A lower priority would do the same, but might leave a thread
//! without a processor that holds a lock.

use std::cell::Cell;
use std::time::{Duration, Instant};

const WORK: Duration = Duration::from_micros(200);

thread_local! {
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets others have the processor if this thread has had it for long. To be called often, with no
/// lock held.
pub(crate) fn breathe() {
    let now = Instant::now();
    let since = SINCE.get().unwrap_or(now);
    let tired = now.duration_since(since) >= WORK;
    if tired {
        std::thread::yield_now();
    }
    SINCE.set(Some(if tired { Instant::now() } else { since }));
}
