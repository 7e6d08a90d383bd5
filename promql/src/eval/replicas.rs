//! Series that several collectors saw: each step is computed from one of them.
//!
//! Collectors scrape at different moments and miss different scrapes. A series put together from
//! what each of them saw has samples that nobody collected in that order: a counter that one of
//! them saw before a restart and another one after it seems to fall twice, and one that lags
//! behind seems to fall where it did not. So replicas are not merged. The row of a series is
//! computed from each replica by itself, and [`super::coverage`] says from which of them each step
//! is taken. It follows that
//!
//! - a value is always one that a real replica alone gives for that window, whatever the function;
//! - no reset is ever invented, as no window looks at two replicas;
//! - a step has a value whenever some replica has one: where the chosen one has none, the first
//!   that has one is taken.
//!
//! The price: which of two good values is shown depends on the steps before, so a query that
//! begins at another time may show the other.
//!
//! All replicas are computed only where there is reason to: one without gaps is not left, and
//! then the others are not decoded. So it costs hardly more than one collector.

use isobar_model::series::Samples;
use isobar_model::{Columns, Reservation};

use super::EvalError;
use super::coverage::{Choice, Coverage, Measure, choose, is_complete};
use super::run::Run;
use super::tile::HistogramRow;
use crate::functions::row::{Row, Windows};

/// Reads the replicas of one series after the other. One for each thread.
pub(super) struct Replicas {
    /// All but the first; only `count` of them are of this series.
    others: Vec<Columns>,
    count: usize,
    choice: Choice,
    rows: Vec<ReplicaRow>,
    /// Of all of this.
    memory: Reservation,
}

/// What one replica gives for all steps.
#[derive(Default)]
struct ReplicaRow {
    is_computed: bool,
    values: Vec<f64>,
    /// Steps with a value.
    present: Vec<u64>,
    /// Steps with a value or a histogram.
    any: Vec<u64>,
    histograms: HistogramRow,
}

/// What a sample of a replica takes: itself, its time once more, and what was lost before it.
const SAMPLE_BYTES: usize = 32;
/// What a step of a replica's row takes: a value, its part of the choice, and bits.
const STEP_BYTES: usize = 16;

impl Replicas {
    pub(super) fn new(run: &Run<'_>) -> Self {
        Replicas {
            others: Vec::new(),
            count: 0,
            choice: Choice::default(),
            rows: Vec::new(),
            memory: run.memory("the replicas of a series"),
        }
    }

    /// Reads a series into `columns` by `read`: its samples, or those of its first replica, and
    /// then the other replicas as far as they are needed.
    ///
    /// # Errors
    /// Those of `read`, and when there is no memory for them.
    pub(super) fn read(
        &mut self,
        samples: &dyn Samples,
        columns: &mut Columns,
        windows: &Windows,
        measure: Measure,
        mut read: impl FnMut(&dyn Samples, &mut Columns) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        self.count = 0;
        let [first, others @ ..] = samples.replicas() else {
            return read(samples, columns);
        };
        read(first.as_ref(), columns)?;
        if is_complete(columns, windows, measure) {
            return Ok(());
        }
        let samples = samples.count_estimate().saturating_mul(SAMPLE_BYTES);
        let steps = windows
            .count
            .saturating_mul(STEP_BYTES * (1 + others.len()));
        self.memory.grow_to(samples.saturating_add(steps))?;
        if self.others.len() < others.len() {
            self.others.resize_with(others.len(), Columns::default);
        }
        for (other, columns) in others.iter().zip(&mut self.others) {
            columns.clear();
            read(other.as_ref(), columns)?;
        }
        self.count = others.len();
        Ok(())
    }

    /// Whether there is nothing to choose from: what was read is the series.
    pub(super) fn is_single(&self) -> bool {
        self.count == 0
    }

    /// The number of samples that the other replicas have.
    pub(super) fn others_len(&self) -> usize {
        let others = self.others.iter().take(self.count);
        others.map(|it| it.len() + it.histograms.len()).sum()
    }

    /// Computes the row of the series: each step from one replica. `first` is what
    /// [`Replicas::read`] read into its columns, `compute` fills the row of a replica. `beyond`
    /// says that samples outside of a window may give it a value.
    pub(super) fn join(
        &mut self,
        first: &Columns,
        (windows, measure, beyond): (&Windows, Measure, bool),
        row: &mut Row<'_>,
        mut compute: impl FnMut(&Columns, &mut Row<'_>) -> Result<HistogramRow, EvalError>,
    ) -> Result<HistogramRow, EvalError> {
        let Replicas {
            others,
            count,
            choice,
            rows,
            memory: _,
        } = self;
        let all: Vec<&Columns> = std::iter::once(first).chain(&others[..*count]).collect();
        let coverages: Vec<_> = all.iter().map(|columns| Coverage::new(columns)).collect();
        choose(&coverages, windows, measure, choice);

        if rows.len() < all.len() {
            rows.resize_with(all.len(), ReplicaRow::default);
        }
        rows.iter_mut().for_each(|row| row.is_computed = false);
        let mut ensure = |rows: &mut [ReplicaRow], i: usize| {
            rows[i].compute(row.values.len(), |row| compute(all[i], row))
        };
        for (step, chosen) in choice.replicas.iter_mut().enumerate() {
            let i = *chosen as usize;
            ensure(rows, i)?;
            if rows[i].has(step) || !(beyond || choice.others[step]) {
                continue;
            }
            for other in 0..all.len() {
                ensure(rows, other)?;
                if rows[other].has(step) {
                    *chosen = other as u32;
                    break;
                }
            }
        }
        let mut histograms = HistogramRow::new();
        for (step, chosen) in choice.replicas.iter().enumerate() {
            let from = &rows[*chosen as usize];
            if from.present[step / 64] >> (step % 64) & 1 == 1 {
                row.set(step, from.values[step]);
            }
        }
        for (i, from) in rows.iter_mut().enumerate().take(all.len()) {
            if from.is_computed {
                let own = |(step, _): &(usize, _)| choice.replicas[*step] as usize == i;
                histograms.extend(from.histograms.drain(..).filter(own));
            }
        }
        histograms.sort_by_key(|it| it.0);
        Ok(histograms)
    }
}

impl ReplicaRow {
    /// Computes the row unless that was done.
    fn compute(
        &mut self,
        steps: usize,
        fill: impl FnOnce(&mut Row<'_>) -> Result<HistogramRow, EvalError>,
    ) -> Result<(), EvalError> {
        if self.is_computed {
            return Ok(());
        }
        self.values.resize(steps, 0.0);
        self.present.clear();
        self.present.resize(steps.div_ceil(64), 0);
        let mut row = Row {
            values: &mut self.values,
            present: &mut self.present,
        };
        self.histograms = fill(&mut row)?;
        self.any.clone_from(&self.present);
        for (step, _) in &self.histograms {
            self.any[step / 64] |= 1 << (step % 64);
        }
        self.is_computed = true;
        Ok(())
    }

    fn has(&self, step: usize) -> bool {
        self.any[step / 64] >> (step % 64) & 1 == 1
    }
}
