//! Arithmetic and comparison between two vectors.
//!
//! The sides are called `one`, which has at most one element for each signature and step, and
//! `many`. Rows of `one` are kept and numbered by signature; rows of `many` stream past them. What
//! comes out is put together in a table here; [`super::join`] does without it where it can.

use std::collections::BTreeMap;

use isobar_model::labels::METRIC_NAME;
use isobar_model::{Labels, LabelsBuilder};

use super::arithmetic::{NumberOp, number_op};
use super::histogram_ops::{Operand, combine};
use super::join::JoinRows;
use super::kept::Rows;
use super::merge::Merge;
use super::names::Removal;
use super::run::Run;
use super::signature::{Signatures, match_labels};
use super::tile::{HistogramRow, RowRef, Tile, first_common, for_each, is_set};
use super::{EvalError, Late, Operator, Ready, for_each_tile};
use crate::parse::ast::{BinaryOp, Cardinality};
use crate::plan::node::{Match, Node};

/// The operator of the operation. The side `one` is evaluated here and now.
pub(super) fn build<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    op: &'r Match,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let (many, one) = match op.matching.cardinality {
        Cardinality::OneToMany => (&op.rhs, &op.lhs),
        _ => (&op.lhs, &op.rhs),
    };
    let number_op = number_op(op.op);
    if number_op.is_none() && !is_trim(op.op) {
        return Err(EvalError::Execution(
            "operator not allowed between vectors".to_owned(),
        ));
    }
    let held = run.held();
    let mut one = Rows::of(run, one)?;
    if op.skips_many && one.is_empty() {
        return Ok(Box::new(Ready::from(Tile::new(node.grid.count))));
    }
    if let Some(number_op) = number_op {
        one = match JoinRows::new(run, node, (op, number_op), many, one)? {
            Ok(rows) => return Ok(Box::new(rows)),
            Err(one) => *one,
        };
    }
    Ok(Box::new(Late::new(move || {
        join(run, node, op, (many, one), held)
    })))
}

/// The rows of the operation, put together in a table.
fn join(
    run: &Run<'_>,
    node: &Node,
    op: &Match,
    (many, one): (&Node, Rows),
    held: u64,
) -> Result<Rows, EvalError> {
    let number_op = number_op(op.op);
    let out = Merge::for_node(run, node, run.memory("a join"));
    let delayed = run.features().delayed_name_removal;
    let mut joined = Join::new(op, number_op, out, one);
    joined.drops_names |= op.return_bool && !delayed;
    for_each_tile(run, many, |tile| {
        joined.out.make_room(tile)?;
        tile.rows().for_each(|row| joined.add(row));
        Ok(())
    })?;
    let (mut rows, remarks) = joined.finish()?;
    if op.return_bool && delayed {
        rows.drop_all_names();
    }
    for (is_warning, text) in remarks {
        match is_warning {
            true => run.remarks().warn(node.rank, op.at, text),
            false => run.remarks().info(node.rank, op.at, text),
        }
    }
    run.release_to(held, rows.count())?;
    Ok(rows)
}

/// What is known of a signature.
#[derive(Default)]
struct Signature {
    /// Its rows on the side of `one`.
    rows: Vec<usize>,
    /// Steps at which a row of `many` was matched.
    matched: Vec<u64>,
    /// The rows that came out, each with the steps at which its labels were used. Empty when
    /// matching is one to one.
    used: Vec<(Labels, Vec<u64>)>,
}

struct Join<'a> {
    op: &'a Match,
    /// `None` for operators on histograms alone.
    number_op: Option<NumberOp>,
    swapped: bool,
    drops_names: bool,
    steps: usize,
    words: usize,
    one: Rows,
    numbers: Signatures<'a>,
    key: Vec<u8>,
    signatures: Vec<Signature>,
    /// Steps at which `many` has any element.
    any_many: Vec<u64>,
    out: Merge,
    /// The first step that fails, with its place in the order of checks and its error.
    failure: Option<(usize, u8, EvalError)>,
    values: Vec<f64>,
    present: Vec<u64>,
    /// The histograms among what is computed; their bits are set in `present` too.
    histograms: HistogramRow,
    /// The last remark of each step: of several Prometheus tells that one.
    remarks: BTreeMap<usize, (bool, String)>,
}

impl<'a> Join<'a> {
    fn new(op: &'a Match, number_op: Option<NumberOp>, out: Merge, one: Rows) -> Self {
        let steps = one.steps();
        let mut numbers = Signatures::new(&op.matching);
        let mut key = Vec::new();
        let mut signatures: Vec<Signature> = Vec::new();
        let words = steps.div_ceil(64);
        for (i, row) in one.rows().enumerate() {
            let number = numbers.number(row.labels, &mut key);
            if number == signatures.len() {
                signatures.push(Signature {
                    matched: vec![0; words],
                    ..Signature::default()
                });
            }
            signatures[number].rows.push(i);
        }
        let arithmetic = matches!(number_op, Some(NumberOp::Arithmetic(_)));
        Join {
            op,
            number_op,
            swapped: op.matching.cardinality == Cardinality::OneToMany,
            drops_names: arithmetic,
            steps,
            words,
            one,
            numbers,
            signatures,
            key,
            any_many: vec![0; words],
            out,
            failure: None,
            values: vec![0.0; steps],
            present: vec![0; words],
            histograms: HistogramRow::new(),
            remarks: BTreeMap::new(),
        }
    }

    fn fail(&mut self, step: usize, order: u8, error: EvalError) {
        if self
            .failure
            .as_ref()
            .is_none_or(|(s, o, _)| (step, order) < (*s, *o))
        {
            self.failure = Some((step, order, error));
        }
    }

    /// Joins a row of `many` with the rows of `one` that have its signature.
    fn add(&mut self, many: RowRef<'_>) {
        let many_any = many.any_present();
        self.any_many
            .iter_mut()
            .zip(&*many_any)
            .for_each(|(any, bits)| *any |= bits);
        let fills = self.fill_one().is_some() || self.fill_many().is_some();
        let number = match self.numbers.find(many.labels, &mut self.key) {
            Some(number) => number,
            None if fills => {
                let number = self.numbers.number(many.labels, &mut self.key);
                let matched = vec![0; self.words];
                self.signatures.push(Signature {
                    matched,
                    ..Signature::default()
                });
                number
            }
            None => return,
        };
        let mut missing = many_any.to_vec();
        for i in 0..self.signatures[number].rows.len() {
            let at = self.signatures[number].rows[i];
            let one = self.one.row(at);
            let one_any = one.any_present();
            self.present.clear();
            self.present
                .extend(many_any.iter().zip(&*one_any).map(|(m, o)| m & o));
            missing
                .iter_mut()
                .zip(&*one_any)
                .for_each(|(missing, bits)| *missing &= !bits);
            if self.present.iter().all(|word| *word == 0) {
                continue;
            }
            let labels = self.result_labels(many.labels, one.labels);
            compute(
                self.number_op,
                self.swapped,
                many.values,
                one.values,
                &mut self.values,
            );
            mix(
                self.op,
                many,
                one,
                (&mut self.present, &mut self.values),
                &mut self.histograms,
                &mut self.remarks,
            );
            self.emit(number, &labels);
        }
        if let Some(fill) = self.fill_one()
            && missing.iter().any(|word| *word != 0)
        {
            self.present.copy_from_slice(&missing);
            let one = match_labels(&self.op.matching, many.labels);
            let labels = self.result_labels(many.labels, &one);
            let filled = vec![fill; self.steps];
            compute(
                self.number_op,
                self.swapped,
                many.values,
                &filled,
                &mut self.values,
            );
            let filled = RowRef {
                labels: &one,
                drops_name: false,
                values: &filled,
                present: &[],
                histograms: &[],
            };
            mix(
                self.op,
                many,
                filled,
                (&mut self.present, &mut self.values),
                &mut self.histograms,
                &mut self.remarks,
            );
            self.emit(number, &labels);
        }
    }

    /// What stands in for a missing element of `one`. Prometheus takes `fill_right` for it, also
    /// when `one` is the left side.
    fn fill_one(&self) -> Option<f64> {
        self.op.matching.fill_right
    }

    /// What stands in for a missing element of `many`.
    fn fill_many(&self) -> Option<f64> {
        self.op.matching.fill_left
    }

    /// Puts the computed values out under `labels`, at the steps of `self.present`.
    fn emit(&mut self, number: usize, labels: &Labels) {
        let one_to_one = self.op.matching.cardinality == Cardinality::OneToOne;
        let signature = &mut self.signatures[number];
        let clash = if one_to_one {
            first_common(&signature.matched, &self.present)
        } else {
            let used = signature.used.iter_mut().find(|(used, _)| used == labels);
            match used {
                Some((_, steps)) => {
                    let clash = first_common(steps, &self.present);
                    steps
                        .iter_mut()
                        .zip(&self.present)
                        .for_each(|(s, bits)| *s |= bits);
                    clash
                }
                None => {
                    signature.used.push((labels.clone(), self.present.clone()));
                    None
                }
            }
        };
        signature
            .matched
            .iter_mut()
            .zip(&self.present)
            .for_each(|(m, bits)| *m |= bits);
        if let Some(step) = clash {
            let text = if one_to_one {
                "multiple matches for labels: many-to-one matching must be explicit \
                 (group_left/group_right)"
            } else {
                "multiple matches for labels: grouping labels must ensure unique matches"
            };
            self.fail(step, 1, EvalError::Execution(text.to_owned()));
            return;
        }
        if let Some(NumberOp::Compare(_)) = self.number_op {
            self.filter();
        }
        if self.present.iter().all(|word| *word == 0) {
            return;
        }
        let before = self.out.get(labels);
        let before = before.map(|row| row.any_present().into_owned());
        let twice = before.and_then(|before| first_common(&before, &self.present));
        for (step, _) in &self.histograms {
            self.present[step / 64] &= !(1 << (step % 64));
        }
        let row = RowRef {
            labels,
            drops_name: false,
            values: &self.values,
            present: &self.present,
            histograms: &self.histograms,
        };
        if let Err(error) = self.out.add(labels, row) {
            self.fail(twice.unwrap_or(0), 2, error);
        }
    }

    /// After a comparison, NaN-boxed by [`compute`] as the value or "does not hold".
    fn filter(&mut self) {
        if self.op.return_bool {
            for_each(&self.present, |step| {
                let holds = self.values[step].to_bits() != NOT_HOLDING;
                self.values[step] = f64::from(u8::from(holds));
            });
            return;
        }
        for step in 0..self.steps {
            if self.values[step].to_bits() == NOT_HOLDING {
                self.present[step / 64] &= !(1 << (step % 64));
            }
        }
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = &self.op.matching;
        let mut labels = if self.drops_names {
            Removal::Metadata.apply(many)
        } else {
            many.clone()
        };
        if matching.cardinality == Cardinality::OneToOne {
            labels = labels.filter(|name| {
                let named = matching.labels.iter().any(|label| label == name);
                if matching.on { named } else { !named }
            });
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = LabelsBuilder::new(&labels);
        for name in &matching.include {
            builder.set(name, one.get(name));
        }
        builder.build()
    }

    /// Rows of `one` that met no row of `many`, where `many` is to be filled.
    fn fill_unmatched(&mut self) {
        let Some(fill) = self.fill_many() else { return };
        for number in 0..self.signatures.len() {
            for i in 0..self.signatures[number].rows.len() {
                let at = self.signatures[number].rows[i];
                let matched = &self.signatures[number].matched;
                let one = self.one.row(at);
                self.present.clear();
                self.present.extend(
                    one.any_present()
                        .iter()
                        .zip(matched)
                        .map(|(bits, m)| bits & !m),
                );
                if self.present.iter().all(|word| *word == 0) {
                    continue;
                }
                let many = match_labels(&self.op.matching, one.labels);
                let labels = self.result_labels(&many, one.labels);
                let filled = vec![fill; self.steps];
                compute(
                    self.number_op,
                    self.swapped,
                    &filled,
                    one.values,
                    &mut self.values,
                );
                let filled = RowRef {
                    labels: &many,
                    drops_name: false,
                    values: &filled,
                    present: &[],
                    histograms: &[],
                };
                mix(
                    self.op,
                    filled,
                    one,
                    (&mut self.present, &mut self.values),
                    &mut self.histograms,
                    &mut self.remarks,
                );
                self.emit(number, &labels);
            }
        }
    }

    /// Fails when `one` has two elements of one signature at a step at which it matters.
    fn check_one(&mut self) {
        let matters = self.any_many.clone();
        let all = self.fill_one().is_some() || self.fill_many().is_some();
        let mut failures = Vec::new();
        for signature in self.signatures.iter().filter(|s| s.rows.len() > 1) {
            let mut seen = vec![0u64; self.words];
            for row in &signature.rows {
                let row_ref = self.one.row(*row);
                let present = row_ref.any_present();
                let twice: Vec<u64> = seen
                    .iter()
                    .zip(&*present)
                    .map(|(s, bits)| s & bits)
                    .collect();
                if let Some(step) = first_common(&twice, if all { &twice } else { &matters }) {
                    let earlier = signature
                        .rows
                        .iter()
                        .find(|r| is_set(&self.one.row(**r).any_present(), step));
                    failures.push((step, *row, earlier.copied().unwrap_or(*row)));
                }
                seen.iter_mut()
                    .zip(&*present)
                    .for_each(|(s, bits)| *s |= bits);
            }
        }
        if let Some((step, row, earlier)) = failures.into_iter().min() {
            let error = self.duplicate(row, earlier);
            self.fail(step, 0, error);
        }
    }

    fn duplicate(&self, row: usize, earlier: usize) -> EvalError {
        let labels = self.one.row(row).labels;
        let mut pair = [labels.to_string(), self.one.row(earlier).labels.to_string()];
        pair.sort_unstable();
        let matching = &self.op.matching;
        // In the text the name counts among what is matched unless it is ignored by name.
        let group = labels.filter(|name| {
            let named = matching.labels.iter().any(|label| label == name);
            if matching.on {
                named
            } else {
                !named && name != METRIC_NAME
            }
        });
        let side = if self.swapped { "left" } else { "right" };
        EvalError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the \
             operation: [{}, {}];many-to-many matching not allowed: matching labels must be \
             unique on one side",
            pair[0], pair[1]
        ))
    }

    fn finish(mut self) -> Result<(Rows, impl Iterator<Item = (bool, String)>), EvalError> {
        self.fill_unmatched();
        self.check_one();
        match self.failure {
            Some((_, _, error)) => Err(error),
            None => Ok((self.out.finish(), self.remarks.into_values())),
        }
    }
}

/// The bits of the NaN by which [`compute`] says that a comparison does not hold. It comes out
/// of no arithmetic and is no marker of Prometheus'.
pub(super) const NOT_HOLDING: u64 = 0x7ff8_0b5e_55ed_0001;

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

/// Computes the steps of `present` at which a side has a histogram, over what is computed of
/// numbers. Where there is no result the bit of the step is cleared; a comparison that does not
/// hold is written as [`compute`] writes it.
pub(super) fn mix(
    op: &Match,
    many: RowRef<'_>,
    one: RowRef<'_>,
    (present, values): (&mut [u64], &mut [f64]),
    histograms: &mut HistogramRow,
    remarks: &mut BTreeMap<usize, (bool, String)>,
) {
    histograms.clear();
    if many.histograms.is_empty() && one.histograms.is_empty() && !is_trim(op.op) {
        return;
    }
    let swapped = op.matching.cardinality == Cardinality::OneToMany;
    let steps: Vec<usize> = (0..values.len())
        .filter(|step| is_set(present, *step))
        .collect();
    for step in steps {
        let many_side = Operand::of(&many, step);
        let one_side = Operand::of(&one, step);
        let (left, right) = match swapped {
            true => (one_side, many_side),
            false => (many_side, one_side),
        };
        let numbers = matches!((left, right), (Operand::Float(_), Operand::Float(_)));
        if numbers && !is_trim(op.op) {
            continue;
        }
        let combined = combine(op.op, left, right);
        if let Some(remark) = combined.remark {
            remarks.insert(step, remark);
        }
        match combined.result {
            None => present[step / 64] &= !(1 << (step % 64)),
            Some(_) if !combined.holds => values[step] = f64::from_bits(NOT_HOLDING),
            Some(_) if op.return_bool => values[step] = 1.0,
            Some(result) => {
                values[step] = 0.0;
                histograms.push((step, result));
            }
        }
    }
}

/// Computes all steps, those without values too. A comparison gives its left side where it holds.
pub(super) fn compute(
    op: Option<NumberOp>,
    swapped: bool,
    many: &[f64],
    one: &[f64],
    out: &mut [f64],
) {
    let (left, right) = if swapped { (one, many) } else { (many, one) };
    let pairs = left.iter().zip(right).zip(out);
    let Some(op) = op else { return };
    match op {
        NumberOp::Arithmetic(op) => pairs.for_each(|((l, r), out)| *out = op.apply(*l, *r)),
        NumberOp::Compare(op) => pairs.for_each(|((l, r), out)| {
            *out = if op.apply(*l, *r) {
                *l
            } else {
                f64::from_bits(NOT_HOLDING)
            };
        }),
    }
}
