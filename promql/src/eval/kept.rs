//! All rows of an operator, kept.
//!
//! They lie in tiles of as many rows as travel between operators. So nothing is copied when they
//! become more, and no memory is taken ahead: one tile of all rows would hold them twice while it
//! grows.

use std::sync::Arc;

use isobar_model::Reservation;

use super::tile::{RowRef, Tile, rows_max};
use super::{EvalError, Node, Operator, Run, for_each_tile};

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
    /// The rows of a node.
    ///
    /// # Errors
    /// Those of the node, and when there is no memory for its rows.
    pub(super) fn of(run: &Run<'_>, node: &Node) -> Result<Self, EvalError> {
        let steps = node.grid.count;
        let mut rows = Rows {
            steps,
            tiles: Vec::new(),
            each: rows_max(steps),
            bytes: 0,
            memory: run.memory("rows that are kept"),
        };
        for_each_tile(run, node, |tile| {
            rows.make_room(tile)?;
            tile.rows().for_each(|row| rows.push(row));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Reserves the memory that copies of all rows of `added` take. The last tile may have room
    /// for twice the rows that it holds.
    fn make_room(&mut self, added: &Tile) -> Result<(), EvalError> {
        let columns = added.len() * Tile::row_bytes(self.steps);
        let last = (self.len() + added.len()).min(self.each) * Tile::row_bytes(self.steps);
        self.bytes += columns + added.bytes_outside();
        Ok(self.memory.grow_to(self.bytes + last)?)
    }

    fn push(&mut self, row: RowRef<'_>) {
        if self.tiles.last().is_none_or(|tile| tile.len() == self.each) {
            self.tiles.push(Tile::new(self.steps));
        }
        if let Some(tile) = self.tiles.last_mut() {
            tile.push_copy(row.labels.clone(), row);
        }
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
