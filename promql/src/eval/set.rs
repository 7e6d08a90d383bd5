//! `and`, `or`, `unless`.

use std::collections::BTreeSet;
use std::sync::Arc;

use isobar_model::labels::METRIC_NAME;
use isobar_model::{Labels, MatchOp, Reservation};

use super::kept::Rows;
use super::measure::Measures;
use super::merge::Merge;
use super::run::{Feed, Run};
use super::signature::Signatures;
use super::tile::{RowRef, Tile, is_set};
use super::{EvalError, Late, Operator, Ready, for_each_tile};
use crate::parse::ast::BinaryOp;
use crate::plan::node::{Kind, Names, Node, Set, Skips};

/// The operator of a set operation.
pub(super) fn build<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    set: &'r Set,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    if set.op == BinaryOp::Or {
        return Ok(Box::new(Late::new(move || union(run, node, set))));
    }
    if set.skips == Skips::Right {
        return Ok(Box::new(Late::new(move || filtered_late(run, node, set))));
    }
    let seen = Seen::of_rhs(run, set)?;
    if set.skips == Skips::Left && set.op == BinaryOp::And && seen.bits.is_empty() {
        return Ok(Box::new(Ready::from(Tile::new(node.grid.count))));
    }
    Ok(Box::new(Filtered {
        keeps_seen: set.op == BinaryOp::And,
        lhs: super::build(run, &set.lhs)?,
        rhs: Arc::new(seen),
        key: Vec::new(),
    }))
}

/// `and` and `unless` where the right side is not read before the left side has a row.
fn filtered_late(run: &Run<'_>, node: &Node, set: &Set) -> Result<Tile, EvalError> {
    let held = run.held();
    let mut rhs: Option<Seen<'_>> = None;
    let mut key = Vec::new();
    let mut kept = Tile::kept(node.grid.count, run.memory("a set operation"));
    for_each_tile(run, &set.lhs, |tile| {
        let rhs = match &mut rhs {
            Some(rhs) => rhs,
            none => none.insert(Seen::of_rhs(run, set)?),
        };
        kept.make_room(tile)?;
        for row in tile.rows() {
            kept.push_copy(row.labels.clone(), row);
            let last = kept.len() - 1;
            rhs.filter(&mut kept, last, set.op == BinaryOp::And, &mut key);
            kept.pop_if_absent();
        }
        Ok(())
    })?;
    run.release_to(held, kept.count())?;
    Ok(kept)
}

/// For each signature of a side the steps at which it has an element.
struct Seen<'a> {
    signatures: Signatures<'a>,
    words: usize,
    bits: Vec<u64>,
    key: Vec<u8>,
    memory: Reservation,
}

impl<'a> Seen<'a> {
    fn new(run: &Run<'_>, set: &'a Set, steps: usize) -> Self {
        let signatures = Signatures::new(&set.matching);
        Seen {
            signatures,
            words: steps.div_ceil(64),
            bits: Vec::new(),
            key: Vec::new(),
            memory: run.memory("a set operation"),
        }
    }

    /// Those of the right side, whose rows are not kept.
    fn of_rhs(run: &Run<'_>, set: &'a Set) -> Result<Self, EvalError> {
        let held = run.held();
        let mut seen = Seen::new(run, set, set.rhs.grid.count);
        for_each_tile(run, &set.rhs, |tile| seen.add(tile))?;
        run.release_to(held, 0)?;
        Ok(seen)
    }

    fn add(&mut self, tile: &Tile) -> Result<(), EvalError> {
        for row in tile.rows() {
            let at = self.signatures.number(row.labels, &mut self.key) * self.words;
            if self.bits.len() <= at {
                self.bits.resize(at + self.words, 0);
            }
            let seen = &mut self.bits[at..at + self.words];
            seen.iter_mut()
                .zip(&*row.any_present())
                .for_each(|(seen, bits)| *seen |= bits);
        }
        let bytes = size_of::<u64>() * self.bits.capacity() + self.signatures.bytes();
        Ok(self.memory.grow_to(bytes)?)
    }

    fn of(&self, labels: &Labels, key: &mut Vec<u8>) -> Option<&[u64]> {
        let at = self.signatures.find(labels, key)? * self.words;
        Some(&self.bits[at..at + self.words])
    }

    /// Leaves of row `i` the steps that have been seen, or those that have not.
    fn filter(&self, tile: &mut Tile, i: usize, keeps_seen: bool, key: &mut Vec<u8>) {
        let seen = self.of(tile.row(i).labels, key);
        let keeps = |step: usize| match seen {
            Some(seen) => is_set(seen, step) == keeps_seen,
            None => !keeps_seen,
        };
        tile.histograms_mut(i).retain(|it| keeps(it.0));
        let (_, row) = tile.row_mut(i);
        match seen {
            Some(seen) => row.present.iter_mut().zip(seen).for_each(|(bits, seen)| {
                *bits &= if keeps_seen { *seen } else { !*seen };
            }),
            None if keeps_seen => row.present.fill(0),
            None => {}
        }
    }
}

/// `and` and `unless`: the left side at those steps at which the right side has, or has not, an
/// element of the same signature.
struct Filtered<'r> {
    lhs: Box<dyn Operator<'r> + 'r>,
    rhs: Arc<Seen<'r>>,
    keeps_seen: bool,
    key: Vec<u8>,
}

impl<'r> Operator<'r> for Filtered<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let keeps_seen = self.keeps_seen;
        while self.lhs.next_tile(tile)? {
            for i in 0..tile.len() {
                self.rhs.filter(tile, i, keeps_seen, &mut self.key);
            }
            tile.retain_present();
            if !tile.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.lhs.feed()
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        Some(Box::new(Filtered {
            lhs: self.lhs.fork()?,
            rhs: Arc::clone(&self.rhs),
            keeps_seen: self.keeps_seen,
            key: Vec::new(),
        }))
    }
}

/// Calls `visit` with each tile of a node when it is an `or` whose sides have no label set in
/// common, as `errors_total or requests_total`: then no row has to wait for another. `None` when
/// it is none.
pub(super) fn for_each_tile_of_union(
    run: &Run<'_>,
    node: &Node,
    visit: &mut dyn FnMut(&Tile) -> Result<(), EvalError>,
) -> Option<Result<(), EvalError>> {
    let Kind::Set(set) = &node.kind else {
        return None;
    };
    if set.op != BinaryOp::Or || run.features().delayed_name_removal {
        return None;
    }
    let (left, right) = (names_in(run, &set.lhs)?, names_in(run, &set.rhs)?);
    left.is_disjoint(&right)
        .then(|| streamed_union(run, node, set, visit))
}

fn streamed_union(
    run: &Run<'_>,
    node: &Node,
    set: &Set,
    visit: &mut dyn FnMut(&Tile) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let outer = run.measures().map(Measures::operator);
    let _scope = run.measure(node.rank);
    let mut hand_on = |tile: &Tile| {
        if let Some(measures) = run.measures() {
            measures.gave(node.rank, tile);
        }
        let _scope = outer.and_then(|outer| run.measure(outer));
        visit(tile)
    };
    let mut seen = Seen::new(run, set, node.grid.count);
    for_each_tile(run, &set.lhs, |tile| {
        seen.add(tile)?;
        hand_on(tile)
    })?;
    let (mut left, mut key) = (Tile::default(), Vec::new());
    for_each_tile(run, &set.rhs, |tile| {
        if tile
            .rows()
            .all(|row| seen.of(row.labels, &mut key).is_none())
        {
            return hand_on(tile);
        }
        left.reset(node.grid.count);
        for (i, row) in tile.rows().enumerate() {
            left.push_copy(row.labels.clone(), row);
            seen.filter(&mut left, i, false, &mut key);
        }
        left.retain_present();
        match left.is_empty() {
            true => Ok(()),
            false => hand_on(&left),
        }
    })
}

/// The metric names in a node's rows where they are known beforehand, `""` for none.
fn names_in<'a>(run: &'a Run<'_>, node: &'a Node) -> Option<BTreeSet<&'a str>> {
    if node.names == Names::None {
        return Some(BTreeSet::from([""]));
    }
    match &node.kind {
        Kind::Select(select) => {
            let matchers = &run.select(select.select).matchers;
            let name = matchers
                .iter()
                .find(|it| it.name() == METRIC_NAME && it.op() == MatchOp::Equal)?;
            Some(BTreeSet::from([name.value()]))
        }
        Kind::Set(set) => {
            let mut names = names_in(run, &set.lhs)?;
            if set.op == BinaryOp::Or {
                names.append(&mut names_in(run, &set.rhs)?);
            }
            Some(names)
        }
        _ => None,
    }
}

/// `or`: the left side, and of the right side what has a signature that the left side has not.
fn union(run: &Run<'_>, node: &Node, set: &Set) -> Result<Rows, EvalError> {
    let held = run.held();
    let mut seen = Seen::new(run, set, node.grid.count);
    let mut merge = Merge::by_step(node.grid.count, run.memory("a set operation"));
    for_each_tile(run, &set.lhs, |tile| {
        merge.make_room(tile)?;
        seen.add(tile)?;
        tile.rows().try_for_each(|row| merge.add(row.labels, row))
    })?;
    let (mut left, mut key) = (Vec::new(), Vec::new());
    for_each_tile(run, &set.rhs, |tile| {
        merge.make_room(tile)?;
        for row in tile.rows() {
            left.clear();
            left.extend_from_slice(row.present);
            let mut histograms = row.histograms.to_vec();
            if let Some(seen) = seen.of(row.labels, &mut key) {
                left.iter_mut()
                    .zip(seen)
                    .for_each(|(bits, seen)| *bits &= !seen);
                histograms.retain(|it| !is_set(seen, it.0));
            }
            let row = RowRef {
                present: &left,
                histograms: &histograms,
                ..row
            };
            if !row.is_absent() {
                merge.add(row.labels, row)?;
            }
        }
        Ok(())
    })?;
    let rows = merge.finish();
    run.release_to(held, rows.count())?;
    Ok(rows)
}
