//! All rows of an operator, kept.
//!
//! They lie in tiles of as many rows as travel between operators. So nothing is copied when they
//! become more, and no memory is taken ahead: one tile of all rows would hold them twice while it
//! grows.

use std::sync::Arc;

use isobar_model::{Labels, Reservation};

use super::tile::{HistogramRow, RowRef, Tile, rows_max};
use super::{EvalError, Node, Operator, Run, for_each_tile};
use crate::functions::row::Row;

/// Rows that are kept.
pub(crate) struct Rows {
    steps: usize,
    /// All but the last one hold `each` rows.
    tiles: Vec<Tile>,
    each: usize,
    /// The bytes of the rows.
    bytes: usize,
    memory: Reservation,
}

impl Rows {
    /// None yet, of so many steps; `memory` is to hold them.
    pub(super) fn new(steps: usize, memory: Reservation) -> Self {
        Rows {
            steps,
            tiles: Vec::new(),
            each: rows_max(steps),
            bytes: 0,
            memory,
        }
    }

    /// The rows of a node.
    ///
    /// # Errors
    /// Those of the node, and when there is no memory for its rows.
    pub(super) fn of(run: &Run<'_>, node: &Node) -> Result<Self, EvalError> {
        let mut rows = Rows::new(node.grid.count, run.memory("rows that are kept"));
        for_each_tile(run, node, |tile| {
            rows.make_room(tile)?;
            tile.rows()
                .for_each(|row| rows.push_copy(row.labels.clone(), row));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Reserves the memory that copies of all rows of `added` take.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(super) fn make_room(&mut self, added: &Tile) -> Result<(), EvalError> {
        self.reserve_rows(added.len(), added.bytes_outside())
    }

    /// Reserves memory for so many more rows, with `outside` bytes of labels and histograms.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(super) fn reserve_rows(&mut self, rows: usize, outside: usize) -> Result<(), EvalError> {
        let each = Tile::row_bytes(self.steps);
        // The last tile may have room for twice the rows that it holds.
        let last = (self.len() + rows).min(self.each) * each;
        self.bytes += rows * each + outside;
        Ok(self.memory.grow_to(self.bytes + last)?)
    }

    /// The tile that takes the next row.
    fn last_tile(&mut self) -> &mut Tile {
        let is_full = self.tiles.last().is_none_or(|tile| tile.len() == self.each);
        if is_full {
            self.tiles.push(Tile::new(self.steps));
        }
        let last = self.tiles.len() - 1;
        &mut self.tiles[last]
    }

    /// Adds a copy of a row under other labels.
    pub(super) fn push_copy(&mut self, labels: Labels, row: RowRef<'_>) {
        self.last_tile().push_copy(labels, row);
    }

    /// Adds a row without any value and gives it to be filled.
    pub(super) fn push(&mut self, labels: Labels) -> Row<'_> {
        self.last_tile().push(labels)
    }

    /// Row `i`, to be changed.
    pub(super) fn row_mut(&mut self, i: usize) -> Row<'_> {
        self.tiles[i / self.each].row_mut(i % self.each).1
    }

    /// The histograms of row `i`, to be changed.
    pub(super) fn histograms_mut(&mut self, i: usize) -> &mut HistogramRow {
        self.tiles[i / self.each].histograms_mut(i % self.each)
    }

    /// Says whether the name of row `i` goes when the query is done.
    pub(super) fn set_drops_name(&mut self, i: usize, drops: bool) {
        self.tiles[i / self.each].set_drops_name(i % self.each, drops);
    }

    /// Says that all names go when the query is done.
    pub(super) fn drop_all_names(&mut self) {
        self.tiles.iter_mut().for_each(Tile::drop_all_names);
    }

    /// The number of values that are present, histograms by their size.
    pub(super) fn count(&self) -> u64 {
        self.tiles.iter().map(Tile::count).sum()
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        let last = self.tiles.last().map_or(0, Tile::len);
        self.tiles.len().saturating_sub(1) * self.each + last
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    /// The number of steps.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Row `i`.
    pub(super) fn row(&self, i: usize) -> RowRef<'_> {
        self.tiles[i / self.each].row(i % self.each)
    }

    /// All rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        self.tiles.iter().flat_map(Tile::rows)
    }

    /// Whether there is any histogram.
    pub(super) fn has_histograms(&self) -> bool {
        self.tiles.iter().any(Tile::has_histograms)
    }
}

/// Rows on their way out. Each tile is gone when it is handed on, so that what is made of them
/// takes their place in memory.
pub(super) struct Leaving {
    tiles: std::vec::IntoIter<Tile>,
    memory: Reservation,
}

impl From<Rows> for Leaving {
    fn from(rows: Rows) -> Self {
        Leaving {
            tiles: rows.tiles.into_iter(),
            memory: rows.memory,
        }
    }
}

impl Leaving {
    /// Puts the next rows that have a value in the place of `tile`'s; false when there is none.
    pub(super) fn next_tile(&mut self, tile: &mut Tile) -> bool {
        for mut next in self.tiles.by_ref() {
            let held = usize::try_from(self.memory.bytes()).unwrap_or(usize::MAX);
            self.memory.shrink_to(held.saturating_sub(next.bytes()));
            next.retain_present();
            if !next.is_empty() {
                *tile = next;
                return true;
            }
        }
        false
    }
}

/// The rows of what is computed once for several places.
pub(super) struct SharedRows<'r> {
    run: &'r Run<'r>,
    slot: usize,
    rows: Option<Arc<Rows>>,
    /// The next tile.
    at: usize,
}

impl<'r> SharedRows<'r> {
    pub(super) fn new(run: &'r Run<'r>, slot: usize) -> Self {
        SharedRows {
            run,
            slot,
            rows: None,
            at: 0,
        }
    }
}

impl<'r> Operator<'r> for SharedRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => none.insert(self.run.shared_rows(self.slot)?),
        };
        tile.reset(rows.steps);
        if let Some(kept) = rows.tiles.get(self.at) {
            let kept = kept.rows();
            kept.for_each(|row| tile.push_copy(row.labels.clone(), row));
            self.at += 1;
        }
        Ok(!tile.is_empty())
    }
}
