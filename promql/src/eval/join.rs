//! Arithmetic and comparison between two vectors as a stream.
//!
//! Mostly each series of the side `many` (see [`matching`]) meets at most one series of `one`, and
//! what comes out keeps the labels that tell it from the others. Then nothing has to be remembered
//! of the rows that streamed past: each result depends on one series of `many` and on the rows of
//! `one`, which are all there. All other cases are left to [`matching`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arithmetic::NumberOp;
use super::kept::Rows;
use super::matching::{NOT_HOLDING, compute, mix};
use super::names::{NameDrop, Removal};
use super::run::{Feed, Run};
use super::signature::Signatures;
use super::tile::{HistogramRow, Tile};
use super::{EvalError, Operator};
use crate::parse::ast::Cardinality;
use crate::plan::node::{Match, Names, Node};

/// The rows of `one` by the signature that each of them alone has.
pub(super) struct One<'r> {
    rows: Rows,
    signatures: Signatures<'r>,
}

impl<'r> One<'r> {
    /// Gives the rows back where two have the same signature.
    fn new(op: &'r Match, rows: Rows) -> Result<Self, Box<Rows>> {
        let mut signatures = Signatures::new(&op.matching);
        let mut key = Vec::new();
        let alone = (0..rows.len()).all(|i| signatures.number(rows.row(i).labels, &mut key) == i);
        match alone {
            true => Ok(One { rows, signatures }),
            false => Err(Box::new(rows)),
        }
    }
}

/// The rows of such an operation.
pub(super) struct JoinRows<'r> {
    run: &'r Run<'r>,
    node: &'r Node,
    op: &'r Match,
    number_op: NumberOp,
    many: Box<dyn Operator<'r> + 'r>,
    one: Arc<One<'r>>,
    names: Option<NameDrop>,
    input: Tile,
    key: Vec<u8>,
    histograms: HistogramRow,
}

/// Whether the rows of `many` need not know of each other.
fn streams(run: &Run<'_>, op: &Match, many: &Node, one: &Rows) -> bool {
    let matching = &op.matching;
    let alone = match matching.cardinality {
        // By all labels but the name.
        Cardinality::OneToOne => !matching.on && matching.labels.is_empty(),
        _ => matching.include.is_empty(),
    };
    alone
        && many.names != Names::Any
        && matching.fill_left.is_none()
        && matching.fill_right.is_none()
        && !one.has_histograms()
        && !run.features().delayed_name_removal
}

impl<'r> JoinRows<'r> {
    /// The operator over `many` and all rows of `one`; the rows back where they cannot stream.
    pub(super) fn new(
        run: &'r Run<'r>,
        node: &'r Node,
        (op, number_op): (&'r Match, NumberOp),
        many: &'r Node,
        one: Rows,
    ) -> Result<Result<Self, Box<Rows>>, EvalError> {
        if !streams(run, op, many, &one) {
            return Ok(Err(Box::new(one)));
        }
        let one = match One::new(op, one) {
            Ok(one) => one,
            Err(one) => return Ok(Err(one)),
        };
        let drops = op.return_bool || matches!(number_op, NumberOp::Arithmetic(_));
        Ok(Ok(JoinRows {
            run,
            node,
            op,
            number_op,
            many: super::build(run, many)?,
            one: Arc::new(one),
            names: drops.then(|| NameDrop::new(Removal::Metadata)),
            input: Tile::default(),
            key: Vec::new(),
            histograms: HistogramRow::new(),
        }))
    }

    /// Adds what row `i` of the input and its row of `one` make.
    fn join(&mut self, i: usize, tile: &mut Tile) {
        let many = self.input.row(i);
        let Some(at) = self.one.signatures.find(many.labels, &mut self.key) else {
            return;
        };
        let one = self.one.rows.row(at);
        let swapped = self.op.matching.cardinality == Cardinality::OneToMany;
        let row = tile.push(many.labels.clone());
        compute(
            Some(self.number_op),
            swapped,
            many.values,
            one.values,
            row.values,
        );
        let many_any = many.any_present();
        let both = many_any.iter().zip(one.present);
        row.present
            .iter_mut()
            .zip(both)
            .for_each(|(bits, (m, o))| *bits = m & o);
        if !many.histograms.is_empty() {
            let mut remarks = BTreeMap::new();
            let cells = (&mut *row.present, &mut *row.values);
            mix(
                self.op,
                many,
                one,
                cells,
                &mut self.histograms,
                &mut remarks,
            );
            self.remark(remarks);
        }
        if let NumberOp::Compare(_) = self.number_op {
            filter(self.op.return_bool, row.values, row.present);
        }
        if !self.histograms.is_empty() {
            for (step, _) in &self.histograms {
                row.present[step / 64] &= !(1 << (step % 64));
            }
            let last = tile.len() - 1;
            tile.histograms_mut(last).append(&mut self.histograms);
        }
        tile.pop_if_absent();
    }

    fn remark(&self, remarks: BTreeMap<usize, (bool, String)>) {
        for (is_warning, text) in remarks.into_values() {
            match is_warning {
                true => self.run.remarks().warn(self.node.rank, self.op.at, text),
                false => self.run.remarks().info(self.node.rank, self.op.at, text),
            }
        }
    }
}

/// Takes away what does not hold, or says for each value whether it holds.
fn filter(return_bool: bool, values: &mut [f64], present: &mut [u64]) {
    for (word, bits) in present.iter_mut().enumerate() {
        let cells = values.iter_mut().skip(word * 64).take(64);
        for (bit, value) in cells.enumerate() {
            let holds = value.to_bits() != NOT_HOLDING;
            if return_bool {
                *value = f64::from(u8::from(holds));
            } else {
                *bits &= !(u64::from(!holds) << bit);
            }
        }
    }
}

impl<'r> Operator<'r> for JoinRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let steps = self.node.grid.count;
        loop {
            tile.reset(steps);
            if !self.many.next_tile(&mut self.input)? {
                return Ok(false);
            }
            for i in 0..self.input.len() {
                self.join(i, tile);
            }
            if let Some(names) = &mut self.names {
                names.drop_all(tile)?;
            }
            if !tile.is_empty() {
                return Ok(true);
            }
        }
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.many.feed()
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        Some(Box::new(JoinRows {
            many: self.many.fork()?,
            one: Arc::clone(&self.one),
            names: self.names.clone(),
            input: Tile::default(),
            key: Vec::new(),
            histograms: HistogramRow::new(),
            ..*self
        }))
    }
}
