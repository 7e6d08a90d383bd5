//! Sums and means of native histograms, and aggregations that meet some.

use isobar_model::histogram::{CounterReset, HistogramError};
use isobar_model::labels::METRIC_NAME;
use isobar_model::{FloatHistogram, Reservation};

use super::EvalError;
use super::histogram_windows::{Remarks, collision, reconciled};
use super::remarks::quoted;
use super::tile::{RowRef, Tile};
use crate::parse::ast::AggregateOp;

/// A sum or a mean of histograms. What rounding loses is carried along; a mean is that of the sum
/// unless the sum overflows.
pub(super) struct Fold {
    /// The sum, or the mean once the sum overflowed.
    value: FloatHistogram,
    carry: Option<FloatHistogram>,
    count: f64,
    mean: bool,
    incremental: bool,
    reset_seen: bool,
    no_reset_seen: bool,
    /// Custom bounds differed.
    pub(super) bounds_reconciled: bool,
}

impl Fold {
    pub(super) fn new(first: &FloatHistogram, mean: bool) -> Self {
        let mut fold = Fold {
            value: first.clone(),
            carry: None,
            count: 1.0,
            mean,
            incremental: false,
            reset_seen: false,
            no_reset_seen: false,
            bounds_reconciled: false,
        };
        fold.see(first);
        fold
    }

    fn see(&mut self, histogram: &FloatHistogram) {
        self.reset_seen |= histogram.hint == CounterReset::Reset;
        self.no_reset_seen |= histogram.hint == CounterReset::NotReset;
    }

    /// Whether some say that there was a reset, and some that there was none.
    pub(super) fn resets_collide(&self) -> bool {
        self.reset_seen && self.no_reset_seen
    }

    pub(super) fn add(&mut self, histogram: &FloatHistogram) -> Result<(), HistogramError> {
        self.see(histogram);
        self.count += 1.0;
        if !self.mean {
            let added = self.value.add_with(histogram, &mut self.carry)?;
            self.bounds_reconciled |= added.bounds_reconciled;
            return Ok(());
        }
        if !self.incremental {
            let (mut sum, mut carry) = (self.value.clone(), self.carry.clone());
            let added = sum.add_with(histogram, &mut carry)?;
            self.bounds_reconciled |= added.bounds_reconciled;
            if !sum.has_overflow() {
                (self.value, self.carry) = (sum, carry);
                return Ok(());
            }
            self.incremental = true;
            self.value.div(self.count - 1.0);
            if let Some(carry) = &mut self.carry {
                carry.div(self.count - 1.0);
            }
        }
        let weight = (self.count - 1.0) / self.count;
        if let Some(carry) = &mut self.carry {
            carry.mul(weight);
        }
        let mut part = histogram.clone();
        part.div(self.count);
        self.value.mul(weight);
        let added = self.value.add_with(&part, &mut self.carry)?;
        self.bounds_reconciled |= added.bounds_reconciled;
        Ok(())
    }

    /// The sum or mean.
    pub(super) fn value(self) -> FloatHistogram {
        let mut value = self.value;
        let divides = self.mean && !self.incremental;
        if divides {
            value.div(self.count);
        }
        if let Some(mut carry) = self.carry {
            if divides {
                carry.div(self.count);
            }
            // Both are of one kind, or they had not been added before.
            let _same_kind = value.add(&carry);
        }
        value
    }
}

/// The histograms of one group at one step.
struct Cell {
    /// `None` when a float came first: then there is no result.
    fold: Option<Fold>,
    /// Set when histograms did not go together: whether there had been a float before.
    failed: Option<bool>,
}

/// What an aggregation makes of histograms, beside what it makes of floats.
pub(super) struct HistogramFold {
    op: AggregateOp,
    /// For each group its steps, empty where the group has no histogram at all.
    cells: Vec<Vec<Option<Box<Cell>>>>,
    /// Bytes of the cells.
    bytes: usize,
    memory: Reservation,
    remarks: Remarks,
}

impl HistogramFold {
    /// `memory` is that of the sums.
    pub(super) fn new(op: AggregateOp, memory: Reservation) -> Self {
        HistogramFold {
            op,
            cells: Vec::new(),
            bytes: 0,
            memory,
            remarks: Remarks::new(),
        }
    }

    fn sums(&self) -> bool {
        matches!(self.op, AggregateOp::Sum | AggregateOp::Avg)
    }

    /// Adds the histograms of a row; `has_float` says whether a float came before at a step.
    ///
    /// # Errors
    /// When there is no memory for the sums.
    pub(super) fn add(
        &mut self,
        group: usize,
        row: RowRef<'_>,
        has_float: impl Fn(usize) -> bool,
    ) -> Result<(), EvalError> {
        if matches!(self.op, AggregateOp::Count | AggregateOp::Group) {
            return Ok(());
        }
        if !self.sums() {
            let text = format!("ignored histogram in {} aggregation", self.op.as_str());
            self.remarks.push((false, text));
            return Ok(());
        }
        let mean = self.op == AggregateOp::Avg;
        let steps = row.values.len();
        if self.cells.len() <= group {
            self.cells.resize_with(group + 1, Vec::new);
        }
        let cells = &mut self.cells[group];
        if cells.is_empty() {
            self.bytes += steps * size_of::<Option<Box<Cell>>>();
            self.memory.grow_to(self.bytes)?;
            cells.resize_with(steps, || None);
        }
        for (step, histogram) in row.histograms {
            let Some(cell) = &mut cells[*step] else {
                // The sum and what rounding lost of it.
                self.bytes += size_of::<Cell>() + 2 * histogram.bytes();
                self.memory.grow_to(self.bytes)?;
                let fold = (!has_float(*step)).then(|| Fold::new(histogram, mean));
                cells[*step] = Some(Box::new(Cell { fold, failed: None }));
                continue;
            };
            let Some(fold) = cell.fold.as_mut().filter(|_| cell.failed.is_none()) else {
                continue;
            };
            let before = fold.value.bytes();
            let added = fold.add(histogram);
            let more = fold.value.bytes().saturating_sub(before);
            if more > 0 {
                self.bytes += 2 * more;
                self.memory.grow_to(self.bytes)?;
            }
            if added.is_err() {
                cell.failed = Some(has_float(*step));
                let name = quoted(row.labels.get(METRIC_NAME));
                let text = "vector contains a mix of histograms with exponential and custom \
                            buckets schemas for metric name";
                self.remarks.push((true, format!("{text} {name}")));
            }
        }
        Ok(())
    }

    /// Puts the results into the rows of the groups, in place of numbers that are none.
    pub(super) fn finish(&mut self, rows: &mut Tile) {
        let groups = std::mem::take(&mut self.cells).into_iter().enumerate();
        let cells = groups.flat_map(|(group, steps)| {
            let steps = steps.into_iter().enumerate();
            steps.filter_map(move |(step, cell)| Some((group, step, cell?)))
        });
        for (group, step, cell) in cells {
            let (_, row) = rows.row_mut(group);
            let has_float = row.get(step).is_some();
            row.present[step / 64] &= !(1 << (step % 64));
            if cell
                .fold
                .as_ref()
                .is_some_and(|fold| fold.bounds_reconciled)
            {
                self.remarks.push(reconciled("aggregation"));
            }
            if cell.failed.unwrap_or(has_float) {
                let text = "encountered a mix of histograms and floats for aggregation";
                self.remarks.push((true, text.to_owned()));
                continue;
            }
            let Some(fold) = cell.fold.filter(|_| cell.failed.is_none()) else {
                continue;
            };
            if fold.resets_collide() {
                self.remarks.push((true, collision("aggregation")));
            }
            let mut value = fold.value();
            value.compact();
            rows.histograms_mut(group).push((step, value.into()));
        }
    }

    /// The remarks in the order in which they arose.
    pub(super) fn into_remarks(self) -> Remarks {
        self.remarks
    }
}
