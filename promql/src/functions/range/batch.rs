//! Several windows at a time.
//!
//! A running variance is a chain of long steps each of which waits for the one before. Windows do
//! not wait for each other, so the processor works on several while each of them still sees its
//! samples one by one, with results that are the same to the last bit. Sums, whose steps are
//! short, gain nothing from it.

use super::window::{Input, Output};
use crate::functions::row::Windows;

/// How many windows go side by side.
const LANES: usize = 4;

/// Adds up the samples of each window, beginning with `A::default()`, and keeps what `finish`
/// makes of the outcome.
pub(super) fn fold<A: Copy + Default>(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    add: impl Fn(&mut A, f64),
    finish: impl Fn(A) -> f64,
) {
    let begin = |_, _: &[f64]| Some((A::default(), 0));
    fold_from(input, windows, out, begin, add, finish);
}

/// As [`fold`], beginning with what `begin` makes of a step's first few samples, whose number it
/// gives. Where it gives nothing the step has no result.
pub(super) fn fold_from<A: Copy>(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    begin: impl Fn(usize, &[f64]) -> Option<(A, usize)>,
    add: impl Fn(&mut A, f64),
    finish: impl Fn(A) -> f64,
) {
    let mut begun = input.slide(windows).filter_map(|(step, window)| {
        let values = &input.values[window];
        let (sum, taken) = begin(step, values)?;
        Some((step, sum, values.get(taken..).unwrap_or(&[])))
    });
    while let Some((step, sum, slice)) = begun.next() {
        let (mut steps, mut sums, mut slices) = ([step; LANES], [sum; LANES], [slice; LANES]);
        let mut count = 1;
        for (lane, (step, sum, slice)) in (1..LANES).zip(&mut begun) {
            (steps[lane], sums[lane], slices[lane]) = (step, sum, slice);
            count += 1;
        }
        // Lanes that are left over do the first window again.
        let sums = side_by_side(sums, slices, &add);
        for (step, sum) in steps.iter().zip(sums).take(count) {
            out.set(*step, finish(sum));
        }
    }
}

#[inline(always)]
fn side_by_side<A: Copy>(
    mut sums: [A; LANES],
    slices: [&[f64]; LANES],
    add: &impl Fn(&mut A, f64),
) -> [A; LANES] {
    let common = slices.iter().map(|slice| slice.len()).min().unwrap_or(0);
    let [a, b, c, d] = slices.map(|slice| &slice[..common]);
    for i in 0..common {
        add(&mut sums[0], a[i]);
        add(&mut sums[1], b[i]);
        add(&mut sums[2], c[i]);
        add(&mut sums[3], d[i]);
    }
    for (sum, slice) in sums.iter_mut().zip(slices) {
        slice[common..].iter().for_each(|value| add(sum, *value));
    }
    sums
}
