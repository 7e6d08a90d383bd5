//! What rearranges rows: `sort`, relabelling, `absent`, `vector`, values held over all steps.

use std::cmp::Ordering;

use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

use super::kept::Rows;
use super::merge::Merge;
use super::run::{Feed, Run};
use super::tile::{self, Tile, full_word};
use super::{EvalError, Late, Operator, collect, for_each_tile, scalar};
use crate::functions::labels::{natural_order, precedes};
use crate::functions::range::RangeFn;
use crate::plan::node::{Change, Grid, Kind, Node, Relabel, Scalar, Sort};

/// 1 with `labels` at the steps at which the input has no value.
pub(super) fn absent(run: &Run<'_>, input: &Node, labels: &Labels) -> Result<Tile, EvalError> {
    let steps = input.grid.count;
    let held = run.held();
    let mut seen = vec![0u64; steps.div_ceil(64)];
    for_each_tile(run, input, |tile| {
        for row in tile.rows() {
            seen.iter_mut()
                .zip(&*row.any_present())
                .for_each(|(seen, bits)| *seen |= bits);
        }
        Ok(())
    })?;
    for (word, bits) in seen.iter_mut().enumerate() {
        *bits = !*bits & full_word(steps, word);
    }
    let mut rows = Tile::new(steps);
    rows.push_row(labels.clone(), &vec![1.0; steps], &seen);
    // `absent_over_time` drops names, of which it has none; but a type may be among the labels.
    if matches!(&input.kind, Kind::Range(call) if call.func == RangeFn::Absent)
        && run.features().delayed_name_removal
    {
        rows.drop_all_names();
    }
    run.release_to(held, rows.count())?;
    Ok(rows)
}

/// A number as a vector without labels.
pub(super) fn from_scalar(run: &Run<'_>, scalar: &Scalar, grid: Grid) -> Result<Tile, EvalError> {
    let values = scalar::evaluate(run, scalar, grid)?;
    let mut rows = Tile::new(grid.count);
    let row = rows.push(Labels::empty());
    row.values.copy_from_slice(&values);
    tile::fill(row.present, grid.count);
    run.hold(grid.count as u64)?;
    Ok(rows)
}

/// Repeats what the input gives at its only step.
pub(super) struct HoldRows<'r> {
    input: Box<dyn Operator<'r> + 'r>,
    run: &'r Run<'r>,
    steps: usize,
    held: Tile,
    at: usize,
}

impl<'r> HoldRows<'r> {
    pub(super) fn new(
        run: &'r Run<'r>,
        node: &'r Node,
        input: &'r Node,
    ) -> Result<Self, EvalError> {
        let steps = node.grid.count;
        Ok(HoldRows {
            input: super::build(run, input)?,
            run,
            steps,
            held: Tile::default(),
            at: 0,
        })
    }
}

impl<'r> Operator<'r> for HoldRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        tile.reset(self.steps);
        while !tile.is_full() {
            if self.at >= self.held.len() {
                self.at = 0;
                if !self.input.next_tile(&mut self.held)? {
                    self.held.reset(1);
                    break;
                }
            }
            let held = self.held.row(self.at);
            self.at += 1;
            let row = tile.push(held.labels.clone());
            if held.has(0) {
                row.values.fill(held.values[0]);
                tile::fill(row.present, self.steps);
            }
            let at = tile.len() - 1;
            tile.set_drops_name(at, held.drops_name);
            if let Some(histogram) = held.histogram(0) {
                let steps = 0..self.steps;
                *tile.histograms_mut(at) = steps.map(|step| (step, histogram.clone())).collect();
            }
        }
        self.run.hold(tile.count())?;
        Ok(!tile.is_empty())
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.input.feed()
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        Some(Box::new(HoldRows {
            input: self.input.fork()?,
            run: self.run,
            steps: self.steps,
            held: Tile::default(),
            at: 0,
        }))
    }
}

/// The operator of `sort` and its kin, which order the result of one moment only.
pub(super) fn sort<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    sort: &'r Sort,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    if !node.grid.single {
        let text = "sort is ineffective for range queries since results are always ordered by \
                    labels";
        run.remarks().warn(node.rank, sort.at, text.to_owned());
        let input = super::build(run, &sort.input)?;
        return Ok(match sort.labels {
            None => Box::new(FloatRows { input }),
            Some(_) => input,
        });
    }
    Ok(Box::new(Late::new(move || sorted(run, sort))))
}

/// The input without its histograms.
struct FloatRows<'r> {
    input: Box<dyn Operator<'r> + 'r>,
}

impl<'r> Operator<'r> for FloatRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        while self.input.next_tile(tile)? {
            tile.drop_histograms();
            if !tile.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.input.feed()
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        let input = self.input.fork()?;
        Some(Box::new(FloatRows { input }))
    }
}

fn sorted(run: &Run<'_>, sort: &Sort) -> Result<Tile, EvalError> {
    let mut rows = collect(run, &sort.input)?;
    if sort.labels.is_none() {
        rows.drop_histograms();
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    match &sort.labels {
        None => order.sort_by(|a, b| {
            let value = |i: usize| rows.row(i).values[0];
            by_value(value(*a), value(*b), sort.descending)
        }),
        Some(names) if order.len() <= INSERTED_MAX => {
            let labels = |i: usize| rows.row(i).labels;
            for end in 1..order.len() {
                let mut at = end;
                while at > 0
                    && stands_before(
                        names,
                        labels(order[at]),
                        labels(order[at - 1]),
                        sort.descending,
                    )
                {
                    order.swap(at, at - 1);
                    at -= 1;
                }
            }
        }
        Some(names) => order.sort_by(|a, b| {
            let order = by_labels(names, rows.row(*a).labels, rows.row(*b).labels);
            match sort.descending {
                true => order.reverse(),
                false => order,
            }
        }),
    }
    let mut sorted = Tile::kept(rows.steps(), run.memory("sorting"));
    sorted.make_room(&rows)?;
    for i in order {
        let row = rows.row(i);
        sorted.push_copy(row.labels.clone(), row);
    }
    Ok(sorted)
}

/// Up to so many elements Go sorts by insertion, which gives its answer also where what Prometheus
/// compares by is no order ([`precedes`]). Beyond it we have an order.
const INSERTED_MAX: usize = 12;

fn stands_before(names: &[String], a: &Labels, b: &Labels, descending: bool) -> bool {
    let values = names.iter().map(|name| (a.get(name), b.get(name)));
    for (a, b) in values {
        if a != b {
            return precedes(a, b) != descending;
        }
    }
    match descending {
        true => a > b,
        false => a < b,
    }
}

/// NaN comes last either way.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        }
    }
}

fn by_labels(names: &[String], a: &Labels, b: &Labels) -> Ordering {
    names
        .iter()
        .map(|name| natural_order(a.get(name), b.get(name)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.cmp(b))
}

/// `label_replace` and `label_join`.
pub(super) fn relabel(run: &Run<'_>, node: &Node, op: &Relabel) -> Result<Rows, EvalError> {
    let mut merge = Merge::by_series(op.input.grid.count, run.memory("relabelling"));
    for_each_tile(run, &op.input, |tile| {
        merge.make_room(tile)?;
        for mut row in tile.rows() {
            let changed = match &op.change {
                Change::Replace(replace) => replace.apply(row.labels),
                Change::Join(join) => Some(join.apply(row.labels)),
            };
            // A name that was written is there to stay.
            row.drops_name &= changed.is_none() || op.change.target() != METRIC_NAME;
            let labels = changed.as_ref().unwrap_or(row.labels);
            merge.add(labels, row)?;
        }
        Ok(())
    })?;
    Ok(merge.finish_for(run, node))
}
