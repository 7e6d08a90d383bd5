//! Sliding over the samples of a series: which samples lie in which window.

use std::ops::Range;

use crate::functions::row::{Row, Windows};

/// The samples of a series.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) timestamps: &'a [i64],
    pub(super) values: &'a [f64],
    /// See [`isobar_model::Columns::start_times`].
    pub(super) start_times: &'a [i64],
}

impl<'a> Input<'a> {
    /// The windows that hold samples, in order, each with its step and the indices of its
    /// samples.
    #[inline]
    pub(super) fn slide(self, windows: &Windows) -> Slide<'a> {
        Slide {
            timestamps: self.timestamps,
            windows: *windows,
            step: 0,
            from: 0,
            to: 0,
        }
    }
}

/// See [`Input::slide`].
pub(super) struct Slide<'a> {
    timestamps: &'a [i64],
    windows: Windows,
    step: usize,
    from: usize,
    to: usize,
}

impl Iterator for Slide<'_> {
    type Item = (usize, Range<usize>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        while self.step < self.windows.count {
            let step = self.step;
            self.step += 1;
            let end = self.windows.end_ms(step);
            let start = end.saturating_sub(self.windows.range_ms);
            self.to = advance(self.timestamps, self.to, end);
            self.from = advance(self.timestamps, self.from, start);
            if self.from < self.to {
                return Some((step, self.from..self.to));
            }
        }
        None
    }
}

/// The first index from `at` on whose time is later than `time`.
#[inline(always)]
pub(super) fn advance(timestamps: &[i64], mut at: usize, time: i64) -> usize {
    while at < timestamps.len() && timestamps[at] <= time {
        at += 1;
    }
    at
}

/// The first place from `at` on that holds an index greater than `index`.
#[inline(always)]
pub(super) fn advance_index(marks: &[usize], mut at: usize, index: usize) -> usize {
    while at < marks.len() && marks[at] <= index {
        at += 1;
    }
    at
}

/// Where results go.
pub(super) struct Output<'a, 'row> {
    row: &'a mut Row<'row>,
    any_result: bool,
}

impl<'a, 'row> Output<'a, 'row> {
    pub(super) fn new(row: &'a mut Row<'row>) -> Self {
        Output {
            row,
            any_result: false,
        }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, step: usize, value: f64) {
        self.row.set(step, value);
        self.any_result = true;
    }

    pub(super) fn any_result(&self) -> bool {
        self.any_result
    }
}
