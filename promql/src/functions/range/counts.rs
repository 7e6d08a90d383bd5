//! What needs no arithmetic on values: counts, first and last samples, changes and resets.

use super::window::{Input, Output, advance_index};
use super::{Edges, RangeFn, Scratch, started};
use crate::functions::row::Windows;

/// Functions of a window's first and last sample and of the number of its samples.
pub(super) fn simple(func: RangeFn, input: Input<'_>, windows: &Windows, out: &mut Output<'_, '_>) {
    for (step, window) in input.slide(windows) {
        let (first, last) = (window.start, window.end - 1);
        let value = match func {
            RangeFn::Count => window.len() as f64,
            RangeFn::First => input.values[first],
            RangeFn::Last => input.values[last],
            RangeFn::TsOfFirst => input.timestamps[first] as f64 / 1000.0,
            RangeFn::TsOfLast => input.timestamps[last] as f64 / 1000.0,
            _ => 1.0,
        };
        out.set(step, value);
    }
}

/// `changes` and `resets`. Where they happen is found in one scan; a window then counts by two
/// indices into that list. With `anchored` edges, a window begins with its anchor and needs a
/// sample of its own.
pub(super) fn transitions(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    edges: Edges,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let values = input.values;
    let marks = &mut scratch.indices;
    marks.clear();
    if func == RangeFn::Resets && !input.start_times.is_empty() {
        marks.extend((1..values.len()).filter(|i| started::is_reset(input, *i)));
    } else if func == RangeFn::Resets {
        marks.extend((1..values.len()).filter(|i| values[*i] < values[i - 1]));
    } else {
        let differ = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
        marks.extend((1..values.len()).filter(|i| differ(values[*i], values[i - 1])));
    }
    let lookback_ms = match edges {
        Edges::Anchored { lookback_ms } => Some(lookback_ms),
        Edges::Plain | Edges::Smoothed { .. } => None,
    };
    let (mut first_mark, mut end_mark) = (0, 0);
    for (step, window) in input.slide(windows) {
        let mut first = window.start;
        if let Some(lookback_ms) = lookback_ms {
            let start = windows.end_ms(step) - windows.range_ms;
            let anchor = first.checked_sub(1).map(|i| input.timestamps[i]);
            if anchor.is_some_and(|time| time > start.saturating_sub(lookback_ms)) {
                first -= 1;
            }
        }
        end_mark = advance_index(marks, end_mark, window.end - 1);
        first_mark = advance_index(marks, first_mark, first);
        out.set(step, end_mark.saturating_sub(first_mark) as f64);
    }
}
