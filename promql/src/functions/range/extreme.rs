//! Minima and maxima over windows, and when they occurred.

use super::window::{Input, Output};
use super::{RangeFn, Scratch};
use crate::functions::row::Windows;

/// `min_over_time`, `max_over_time`, `ts_of_min_over_time` and `ts_of_max_over_time`.
///
/// A queue keeps the indices of those samples that no later sample beats: its values fall (for
/// maxima), its head is the window's extreme. Each sample enters and leaves once. NaN never
/// enters: it is the answer only where a window holds nothing else.
pub(super) fn over_time(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let queue = &mut scratch.indices;
    match func {
        RangeFn::Max => slide(
            input,
            windows,
            queue,
            |new, old| new > old,
            |i, step| {
                out.set(step, input.values[i]);
            },
        ),
        RangeFn::Min => slide(
            input,
            windows,
            queue,
            |new, old| new < old,
            |i, step| {
                out.set(step, input.values[i]);
            },
        ),
        RangeFn::TsOfMax => slide(
            input,
            windows,
            queue,
            |new, old| new >= old,
            |i, step| {
                out.set(step, input.timestamps[i] as f64 / 1000.0);
            },
        ),
        _ => slide(
            input,
            windows,
            queue,
            |new, old| new <= old,
            |i, step| {
                out.set(step, input.timestamps[i] as f64 / 1000.0);
            },
        ),
    }
}

/// Calls `found` with the index of each window's extreme. `beats` says whether a later value
/// replaces an earlier one.
#[inline(always)]
fn slide(
    input: Input<'_>,
    windows: &Windows,
    queue: &mut Vec<usize>,
    beats: impl Fn(f64, f64) -> bool,
    mut found: impl FnMut(usize, usize),
) {
    queue.clear();
    let (mut head, mut next) = (0, 0);
    for (step, window) in input.slide(windows) {
        next = next.max(window.start);
        while next < window.end {
            let value = input.values[next];
            if !value.is_nan() {
                while queue.len() > head && beats(value, input.values[queue[queue.len() - 1]]) {
                    queue.pop();
                }
                queue.push(next);
            }
            next += 1;
        }
        while head < queue.len() && queue[head] < window.start {
            head += 1;
        }
        match queue.get(head) {
            Some(index) => found(*index, step),
            // Nothing but NaN: each replaced the one before.
            None => found(window.end - 1, step),
        }
    }
}
