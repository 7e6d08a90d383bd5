//! Aggregations that come more than once in a query are computed once, as the `sum` in
//! `histogram_count(sum(rate(m[5m]))) / histogram_sum(sum(rate(m[5m])))`.
//!
//! Only what has few rows for what it reads is worth it: the rows are kept until the last one who
//! reads them is done. Of equal remarks the last place in the query is told, so what is evaluated
//! is what stands there; samples count once for each place. What keeps books of its remarks, as the
//! functions of classic histograms do, is evaluated at each place.

use std::fmt::Write;

use hashbrown::HashMap;

use super::counting::Counting;
use super::node::{BucketFunc, InstantSelect, Kind, MapFn, Node, RangeCall, Scalar, WindowSource};
use super::{Plan, Root};

/// Lets equal aggregations of `plan` share their rows.
pub(super) fn share(plan: &mut Plan) {
    let mut keys: HashMap<String, u32> = HashMap::new();
    let mut root = match &mut plan.root {
        Root::Vector(node) | Root::Subquery(node) => vec![node],
        Root::Scalar(scalar) => nodes_of(scalar),
        Root::String(_) | Root::Samples { .. } => Vec::new(),
    };
    for node in &mut root {
        visit(node, &mut |node| {
            if let Some(key) = key(node) {
                *keys.entry(key).or_default() += 1;
            }
            true
        });
    }
    keys.retain(|_, count| *count > 1);
    if keys.is_empty() {
        return;
    }
    let mut found: HashMap<String, usize> = HashMap::new();
    let mut shared: Vec<(Node, u64)> = Vec::new();
    for node in &mut root {
        visit(node, &mut |node| {
            let Some(key) = key(node).filter(|key| keys.contains_key(key)) else {
                return true;
            };
            let slot = *found.entry(key).or_insert(shared.len());
            let placeholder = Node {
                kind: Kind::Shared(slot),
                grid: node.grid,
                rank: node.rank,
                names: node.names,
            };
            let taken = std::mem::replace(node, placeholder);
            match shared.get_mut(slot) {
                None => shared.push((taken, 1)),
                Some((kept, places)) => {
                    *places += 1;
                    let mut other = taken;
                    if other.rank > kept.rank {
                        std::mem::swap(&mut other, kept);
                    }
                    for (select, _) in leaves(&mut other) {
                        plan.readers[select] -= 1;
                    }
                }
            }
            false
        });
    }
    for (mut node, places) in shared {
        for (_, counting) in leaves(&mut node) {
            let times = plan.countings[*counting].times.saturating_mul(places);
            let more = Counting {
                times,
                ..plan.countings[*counting].clone()
            };
            *counting = plan.countings.len();
            plan.countings.push(more);
        }
        plan.shared.push(node);
    }
}

/// What a node computes, without the places in the query; `None` when it is not to be shared.
fn key(node: &Node) -> Option<String> {
    let mut key = String::new();
    matches!(node.kind, Kind::Fold(_)).then(|| write_key(node, &mut key))??;
    Some(key)
}

fn write_key(node: &Node, key: &mut String) -> Option<()> {
    write!(key, "({:?} {:?} ", node.grid, node.names).ok()?;
    match &node.kind {
        Kind::Select(it) => write!(key, "{:?}", InstantSelect { at: 0, ..*it }),
        Kind::SampleTime(it) => {
            write!(key, "time {:?}", InstantSelect { at: 0, ..*it })
        }
        Kind::Range(call) => {
            let RangeCall {
                func,
                edges,
                source: WindowSource::Select(select),
                windows,
                counting,
                params,
                stats,
                start_times: false,
                range_at: _,
                first_at: _,
            } = &**call
            else {
                return None;
            };
            constant(params)?;
            write!(
                key,
                "{func:?} {edges:?} {select} {windows:?} {counting} {params:?} {stats}"
            )
        }
        Kind::Map(map) => {
            match &map.func {
                MapFn::Plain(_) | MapFn::Histogram(_) | MapFn::StepTime => {}
                MapFn::Round(to) => constant([to])?,
                MapFn::Clamp(least, most) => constant([least, most])?,
            }
            write_key(&map.input, key)?;
            write!(key, "{:?}", map.func)
        }
        Kind::Negate(input) => {
            write_key(input, key)?;
            write!(key, "-")
        }
        Kind::WithScalar(op) => {
            constant([&op.scalar])?;
            write_key(&op.input, key)?;
            let scalar = &op.scalar;
            write!(
                key,
                "{:?} {} {} {scalar:?}",
                op.op, op.return_bool, op.scalar_left
            )
        }
        Kind::Fold(op) => {
            constant(&op.param)?;
            write_key(&op.input, key)?;
            write!(
                key,
                "{:?} {:?} {:?} {}",
                op.op, op.param, op.grouping, op.without
            )
        }
        _ => return None,
    }
    .ok()?;
    key.push(')');
    Some(())
}

fn constant<'a>(scalars: impl IntoIterator<Item = &'a Scalar>) -> Option<()> {
    let mut scalars = scalars.into_iter();
    scalars
        .all(|it| matches!(it, Scalar::Const(_)))
        .then_some(())
}

/// The selects in a node that has a key, each with the number of how its samples count.
fn leaves(node: &mut Node) -> Vec<(usize, &mut usize)> {
    match &mut node.kind {
        Kind::Select(it) | Kind::SampleTime(it) => vec![(it.select, &mut it.counting)],
        Kind::Range(call) => match &call.source {
            WindowSource::Select(select) => vec![(*select, &mut call.counting)],
            WindowSource::Subquery(_) => Vec::new(),
        },
        Kind::Map(it) => leaves(&mut it.input),
        Kind::Negate(input) => leaves(input),
        Kind::WithScalar(it) => leaves(&mut it.input),
        Kind::Fold(it) => leaves(&mut it.input),
        _ => Vec::new(),
    }
}

/// Visits a node and, where the visit says so, what is below it, in the order of evaluation.
fn visit(node: &mut Node, visitor: &mut dyn FnMut(&mut Node) -> bool) {
    if visitor(node) {
        for input in inputs(node) {
            visit(input, visitor);
        }
    }
}

/// The nodes right below a node, those in scalars among them.
fn inputs(node: &mut Node) -> Vec<&mut Node> {
    match &mut node.kind {
        Kind::Empty
        | Kind::Select(_)
        | Kind::SampleTime(_)
        | Kind::StartTime(_)
        | Kind::Shared(_) => Vec::new(),
        Kind::Range(call) => {
            let mut all: Vec<&mut Node> = call.params.iter_mut().flat_map(nodes_of).collect();
            if let WindowSource::Subquery(node) = &mut call.source {
                all.push(node);
            }
            all
        }
        Kind::Map(map) => {
            let mut all = match &mut map.func {
                MapFn::Plain(_) | MapFn::Histogram(_) | MapFn::StepTime => Vec::new(),
                MapFn::Round(to) => nodes_of(to),
                MapFn::Clamp(least, most) => [nodes_of(least), nodes_of(most)]
                    .into_iter()
                    .flatten()
                    .collect(),
            };
            all.push(&mut map.input);
            all
        }
        Kind::WithScalar(op) => {
            let mut all = nodes_of(&mut op.scalar);
            all.push(&mut op.input);
            all
        }
        Kind::Match(op) => vec![&mut op.lhs, &mut op.rhs],
        Kind::Set(op) => vec![&mut op.lhs, &mut op.rhs],
        Kind::Fold(op) | Kind::Pick(op) => {
            let mut all: Vec<&mut Node> = op.param.iter_mut().flat_map(nodes_of).collect();
            all.push(&mut op.input);
            all
        }
        Kind::CountValues(op) => vec![&mut op.input],
        Kind::Absent { input, .. } | Kind::Negate(input) | Kind::Hold(input) => vec![&mut **input],
        Kind::FromScalar(scalar) => nodes_of(scalar),
        Kind::Sort(op) => vec![&mut op.input],
        Kind::Relabel(op) => vec![&mut op.input],
        Kind::Buckets(op) => {
            let mut all = match &mut op.func {
                BucketFunc::Quantile(q) => nodes_of(q),
                BucketFunc::Quantiles(_, all) => {
                    all.iter_mut().flat_map(|it| nodes_of(&mut it.0)).collect()
                }
                BucketFunc::Fraction(from, to) => [nodes_of(from), nodes_of(to)]
                    .into_iter()
                    .flatten()
                    .collect(),
            };
            all.push(&mut op.input);
            all
        }
        Kind::Info(op) => vec![&mut op.input],
    }
}

/// The nodes in a scalar.
fn nodes_of(scalar: &mut Scalar) -> Vec<&mut Node> {
    match scalar {
        Scalar::Const(_) | Scalar::Time | Scalar::Date(_) => Vec::new(),
        Scalar::Of(node) => vec![&mut **node],
        Scalar::Binary(_, a, b) | Scalar::MaxOf(a, b) | Scalar::MinOf(a, b) => {
            [nodes_of(a), nodes_of(b)].into_iter().flatten().collect()
        }
        Scalar::Negate(it) | Scalar::Hold(it) => nodes_of(it),
    }
}
