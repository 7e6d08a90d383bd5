//! Rows by label set: rows of the same labels become one when their steps do not overlap.

use hashbrown::HashMap;
use isobar_model::{Labels, Reservation};

use super::EvalError;
use super::kept::Rows;
use super::run::Run;
use super::tile::{HistogramRow, RowRef, Tile, first_common, first_set};
use crate::functions::row::Row;
use crate::plan::node::Node;

/// Collects rows of which no two have the same labels. Whether the name of a row goes in the end
/// is what the first of its parts said.
pub(super) struct Merge {
    rows: Rows,
    index: HashMap<Labels, usize>,
    /// Whether "first" is by steps rather than by the order in which parts come.
    by_step: bool,
    /// Whether the same labels may come twice at a step: there are two rows of them then.
    twice: bool,
    /// Whether a float and a histogram may meet at a step.
    mixes: bool,
}

impl Merge {
    /// Rows of `steps` steps; `reservation` is to hold their memory.
    pub(super) fn new(steps: usize, reservation: Reservation) -> Self {
        Merge {
            rows: Rows::new(steps, reservation),
            index: HashMap::new(),
            by_step: false,
            twice: false,
            mixes: false,
        }
    }

    /// For what Prometheus merges series by series, not step by step: floats with floats and
    /// histograms with histograms, so that a step may have both. Only an answer shows both then;
    /// see [`Merge::finish_for`].
    pub(super) fn by_series(steps: usize, reservation: Reservation) -> Self {
        Merge {
            mixes: true,
            ..Merge::new(steps, reservation)
        }
    }

    /// For what Prometheus lets pass: with delayed name removal nobody looks at the labels of the
    /// result of one moment before the query is done.
    pub(super) fn for_node(run: &Run<'_>, node: &Node, reservation: Reservation) -> Self {
        Merge {
            twice: run.features().delayed_name_removal && node.grid.single,
            ..Merge::new(node.grid.count, reservation)
        }
    }

    /// One for which the part with the earliest step says whether the name goes.
    pub(super) fn by_step(steps: usize, reservation: Reservation) -> Self {
        Merge {
            by_step: true,
            ..Merge::new(steps, reservation)
        }
    }

    /// Reserves memory for as many rows as `added` has, see [`Rows::make_room`].
    pub(super) fn make_room(&mut self, added: &Tile) -> Result<(), EvalError> {
        self.rows.make_room(added)
    }

    /// Reserves memory for so many more rows.
    pub(super) fn reserve_rows(&mut self, rows: usize) -> Result<(), EvalError> {
        self.rows.reserve_rows(rows, 0)
    }

    /// The row of `labels`, to be filled; it may hold values already.
    pub(super) fn row(&mut self, labels: &Labels) -> Row<'_> {
        match self.index.get(labels) {
            Some(at) => self.rows.row_mut(*at),
            None => {
                self.index.insert(labels.clone(), self.rows.len());
                self.rows.push(labels.clone())
            }
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When another row of these labels has a value at the same step.
    pub(super) fn add(&mut self, labels: &Labels, added: RowRef<'_>) -> Result<(), EvalError> {
        let Some(at) = self.index.get(labels).copied() else {
            self.index.insert(labels.clone(), self.rows.len());
            self.rows.push_copy(labels.clone(), added);
            return Ok(());
        };
        let (values, present) = (added.values, added.present);
        let before = self.rows.row(at).any_present();
        let clash = match self.mixes {
            true => self.rows.row(at).meets(&added),
            false => first_common(&before, &added.any_present()).is_some(),
        };
        if clash {
            if self.twice {
                self.rows.push_copy(labels.clone(), added);
                return Ok(());
            }
            return Err(EvalError::same_labels());
        }
        if self.by_step && first_set(&added.any_present()) < first_set(&before) {
            self.rows.set_drops_name(at, added.drops_name);
        }
        self.add_histograms(at, added.histograms.iter().cloned());
        let row = self.rows.row_mut(at);
        super::tile::for_each(present, |step| row.values[step] = values[step]);
        row.present
            .iter_mut()
            .zip(present)
            .for_each(|(into, bits)| *into |= bits);
        Ok(())
    }

    /// Sets a value.
    ///
    /// # Errors
    /// When another row of these labels has a value at the same step.
    pub(super) fn set(
        &mut self,
        labels: &Labels,
        step: usize,
        value: f64,
    ) -> Result<(), EvalError> {
        let twice = self.twice;
        let mut row = self.row(labels);
        if row.get(step).is_none() {
            row.set(step, value);
            return Ok(());
        }
        if !twice {
            return Err(EvalError::same_labels());
        }
        self.rows.push(labels.clone()).set(step, value);
        Ok(())
    }

    /// The row of `labels`, if there is one.
    pub(super) fn get(&self, labels: &Labels) -> Option<RowRef<'_>> {
        self.index.get(labels).map(|at| self.rows.row(*at))
    }

    fn add_histograms(
        &mut self,
        at: usize,
        histograms: impl IntoIterator<Item = <HistogramRow as IntoIterator>::Item>,
    ) {
        let row = self.rows.histograms_mut(at);
        let before = row.len();
        row.extend(histograms);
        if before > 0 && row.len() > before {
            row.sort_by_key(|it| it.0);
        }
    }

    /// The rows of `node`. Unless they are the answer, what reads them step by step takes the float
    /// where there is a histogram too, and as Prometheus reads histograms in order and waits for
    /// the one that was passed over, it never sees another one of that row.
    pub(super) fn finish_for(mut self, run: &Run<'_>, node: &Node) -> Rows {
        if self.mixes && !run.answers(node) {
            for at in 0..self.rows.len() {
                if let Some(step) = self.rows.row(at).first_mixed() {
                    self.rows.histograms_mut(at).retain(|it| it.0 < step);
                }
            }
        }
        self.rows
    }

    /// The rows, in the order in which their labels first came.
    pub(super) fn finish(self) -> Rows {
        self.rows
    }
}
