//! Rows by label set: rows of the same labels become one when their steps do not overlap.

use hashbrown::HashMap;
use isobar_model::Labels;

use super::EvalError;
use super::tile::{Tile, first_common};
use crate::functions::row::Row;

/// Collects rows of which no two have the same labels.
pub(super) struct Merge {
    rows: Tile,
    index: HashMap<Labels, usize>,
}

impl Merge {
    pub(super) fn new(steps: usize) -> Self {
        Merge {
            rows: Tile::new(steps),
            index: HashMap::new(),
        }
    }

    /// The number of cells laid out.
    pub(super) fn cells(&self) -> usize {
        self.rows.len() * self.rows.steps()
    }

    /// The row of `labels`, to be filled; it may hold values already.
    pub(super) fn row(&mut self, labels: &Labels) -> Row<'_> {
        match self.index.get(labels) {
            Some(at) => self.rows.row_mut(*at).1,
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
    pub(super) fn add(
        &mut self,
        labels: &Labels,
        values: &[f64],
        present: &[u64],
    ) -> Result<(), EvalError> {
        let Some(at) = self.index.get(labels) else {
            self.index.insert(labels.clone(), self.rows.len());
            self.rows.push_row(labels.clone(), values, present);
            return Ok(());
        };
        let (_, row) = self.rows.row_mut(*at);
        if first_common(row.present, present).is_some() {
            return Err(EvalError::same_labels());
        }
        super::tile::for_each(present, |step| row.values[step] = values[step]);
        row.present
            .iter_mut()
            .zip(present)
            .for_each(|(into, bits)| *into |= bits);
        Ok(())
    }

    /// The rows that have a value, in the order in which their labels first came.
    pub(super) fn finish(mut self) -> Tile {
        self.rows.retain_present();
        self.rows
    }
}
