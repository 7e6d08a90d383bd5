//! One series' values over the steps of a query: what range functions write and operators read.

/// A row of a tile: a value and a presence bit for each step.
#[derive(Debug)]
pub struct Row<'a> {
    /// A value per step; undefined where the step is absent.
    pub values: &'a mut [f64],
    /// Bit `step % 64` of word `step / 64` says whether the step has a value.
    pub present: &'a mut [u64],
}

impl Row<'_> {
    /// Gives step `step` a value.
    pub fn set(&mut self, step: usize, value: f64) {
        self.values[step] = value;
        self.present[step / 64] |= 1 << (step % 64);
    }

    /// Whether any step has a value.
    pub fn has_any(&self) -> bool {
        self.present.iter().any(|word| *word != 0)
    }

    /// The value of step `step`, if it has one.
    pub fn get(&self, step: usize) -> Option<f64> {
        (self.present[step / 64] >> (step % 64) & 1 == 1).then(|| self.values[step])
    }
}

/// The windows of a range selector over the steps of a query: window `i` holds the samples with
/// `end(i) - range_ms < t <= end(i)` where `end(i) = first_end_ms + i * step_ms` (left-open, as
/// since Prometheus 3.0). With `@`, all windows are the same and `step_ms` is 0.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// End of the first window, offset applied, in unix milliseconds.
    pub first_end_ms: i64,
    /// Distance between windows in milliseconds.
    pub step_ms: i64,
    /// The number of windows.
    pub count: usize,
    /// Length of a window in milliseconds.
    pub range_ms: i64,
}

impl Windows {
    /// The last time that belongs to window `i`.
    pub fn end_ms(&self, i: usize) -> i64 {
        self.first_end_ms + self.step_ms * i as i64
    }
}
