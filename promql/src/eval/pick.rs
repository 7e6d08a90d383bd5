//! Aggregations that give some of their input series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use std::sync::Arc;

use isobar_model::{FloatHistogram, Labels};

use super::group::Groups;
use super::remarks::go_g;
use super::run::Run;
use super::tile::{Tile, for_each, grown};
use super::{EvalError, for_each_tile, scalar};
use crate::parse::ast::AggregateOp;
use crate::plan::node::{Aggregation, Node};

/// The extremes of a parameter over all steps.
pub(super) struct Extremes {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) any_nan: bool,
}

impl Extremes {
    pub(super) fn of(values: &[f64]) -> Self {
        use crate::functions::arithmetic::{go_max, go_min};
        let mut extremes = Extremes {
            min: f64::MAX,
            max: f64::MIN,
            any_nan: false,
        };
        for value in values {
            extremes.min = go_min(extremes.min, *value);
            extremes.max = go_max(extremes.max, *value);
            extremes.any_nan |= value.is_nan();
        }
        extremes
    }
}

/// From here on a number does not fit 64 bits, as Prometheus has it.
const INTEGER_MAX: f64 = 9_223_372_036_854_774_784.0;
const INTEGER_MIN: f64 = -9_223_372_036_854_775_808.0;

/// The rows of the aggregation.
pub(super) fn evaluate(
    run: &Run<'_>,
    node: &Node,
    aggregation: &Aggregation,
) -> Result<Tile, EvalError> {
    let held = run.held();
    let params = match &aggregation.param {
        Some(param) => scalar::evaluate(run, param, node.grid)?,
        None => Vec::new(),
    };
    let rows = if aggregation.op == AggregateOp::LimitRatio {
        ratio(run, node, aggregation, &params)?
    } else {
        largest(run, node, aggregation, &params)?
    };
    run.release_to(held, rows.count())?;
    Ok(rows)
}

fn refuse(text: String) -> Result<Tile, EvalError> {
    Err(EvalError::Execution(text))
}

/// An element that is kept. The greatest is the first to go.
#[derive(PartialEq)]
struct Kept {
    /// What counts: larger is better, NaN worst.
    key: f64,
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
    row: usize,
}

impl Eq for Kept {}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = match (self.key.is_nan(), other.key.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => other.key.partial_cmp(&self.key).unwrap_or(Ordering::Equal),
        };
        // Of equal elements the later goes first.
        by_key.then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The elements that are kept, for each group and step, group after group.
#[derive(Default)]
struct Best {
    heaps: Vec<BinaryHeap<Kept>>,
    /// The least of the keys that are kept, once there are as many as may be. What is no greater is
    /// not kept; most elements are turned away by this alone.
    floors: Vec<f64>,
    /// What the heaps hold.
    bytes: usize,
}

impl Best {
    /// The bytes of so many cells, what they hold included.
    fn bytes_for(&self, cells: usize) -> usize {
        size_of::<BinaryHeap<Kept>>() * grown(self.heaps.capacity(), cells)
            + size_of::<f64>() * grown(self.floors.capacity(), cells)
            + self.bytes
    }

    fn grow(&mut self, cells: usize) {
        self.heaps.resize_with(cells, BinaryHeap::new);
        self.floors.resize(cells, f64::NAN);
    }

    /// Keeps `new` among the `k` elements of a cell if it is good enough.
    fn offer(&mut self, cell: usize, k: f64, new: Kept) {
        if k < 1.0 || k.is_nan() {
            return;
        }
        let heap = &mut self.heaps[cell];
        if (heap.len() as f64) < k.trunc() {
            if heap.len() == heap.capacity() {
                // Mostly few are kept, of many groups and steps.
                let more = (k as usize).clamp(1, 4).max(heap.len());
                heap.reserve_exact(more);
                self.bytes += size_of::<Kept>() * more;
            }
            heap.push(new);
        } else if let Some(mut worst) = heap.peek_mut()
            && new < *worst
        {
            *worst = new;
        }
        if heap.len() as f64 >= k.trunc()
            && let Some(worst) = heap.peek()
        {
            self.floors[cell] = worst.key;
        }
    }
}

/// `topk`, `bottomk` and `limitk`.
fn largest(
    run: &Run<'_>,
    node: &Node,
    aggregation: &Aggregation,
    params: &[f64],
) -> Result<Tile, EvalError> {
    let steps = node.grid.count;
    // Prometheus evaluates the input even where the parameter makes it useless.
    let mut groups = Groups::new(&aggregation.grouping, aggregation.without);
    let mut labels: Vec<(Labels, bool)> = Vec::new();
    let mut best = Best::default();
    let sign = if aggregation.op == AggregateOp::Bottomk {
        -1.0
    } else {
        1.0
    };
    let limit = aggregation.op == AggregateOp::Limitk;
    let mut memory = run.memory("an aggregation");
    let mut ignored = false;
    for_each_tile(run, &aggregation.input, |tile| {
        for row in tile.rows() {
            let (group, new) = groups.find(row.labels);
            if new {
                memory.grow_to(best.bytes_for((group + 1) * steps))?;
                best.grow((group + 1) * steps);
            }
            let number = labels.len();
            labels.push((row.labels.clone(), row.drops_name));
            // For `limitk` the first come are the best.
            for_each(row.present, |step| {
                let value = row.values[step];
                let key = if limit { 0.0 } else { value * sign };
                // Not so when one of them is not a number.
                let too_small = key <= best.floors[group * steps + step];
                if !too_small {
                    let new = Kept {
                        key,
                        value,
                        histogram: None,
                        row: number,
                    };
                    best.offer(group * steps + step, params[step], new);
                }
            });
            if limit {
                for (step, histogram) in row.histograms {
                    let new = Kept {
                        key: 0.0,
                        value: 0.0,
                        histogram: Some(histogram.clone()),
                        row: number,
                    };
                    best.offer(group * steps + step, params[*step], new);
                }
            } else {
                ignored |= row.histograms.iter().any(|it| params[it.0] >= 1.0);
            }
        }
        let labels = size_of::<Labels>() * labels.capacity();
        Ok(memory.grow_to(best.bytes_for(0) + labels)?)
    })?;
    if ignored {
        let text = format!(
            "ignored histogram in {} aggregation",
            aggregation.op.as_str()
        );
        run.remarks().info(node.rank, aggregation.at, text);
    }
    let extremes = Extremes::of(params);
    if extremes.max < 1.0 {
        return Ok(Tile::new(steps));
    }
    if extremes.any_nan {
        return refuse("Parameter value is NaN".to_owned());
    }
    if extremes.min <= INTEGER_MIN {
        return refuse(format!(
            "Scalar value {} underflows int64",
            go_g(extremes.min)
        ));
    }
    if extremes.max >= INTEGER_MAX {
        return refuse(format!(
            "Scalar value {} overflows int64",
            go_g(extremes.max)
        ));
    }
    rows_of(run, best.heaps, &labels, steps)
}

/// The rows that were kept, group after group, and in a group the best first.
fn rows_of(
    run: &Run<'_>,
    heaps: Vec<BinaryHeap<Kept>>,
    labels: &[(Labels, bool)],
    steps: usize,
) -> Result<Tile, EvalError> {
    let mut rows = Tile::kept(steps, run.memory("an aggregation"));
    let mut places: Vec<Option<usize>> = vec![None; labels.len()];
    for (cell, heap) in heaps.into_iter().enumerate() {
        let step = cell % steps;
        for kept in heap.into_sorted_vec() {
            let place = match places[kept.row] {
                Some(place) => place,
                None => {
                    let (labels, drops_name) = &labels[kept.row];
                    rows.reserve_rows(1, labels.as_bytes().len())?;
                    rows.push(labels.clone());
                    let place = rows.len() - 1;
                    rows.set_drops_name(place, *drops_name);
                    *places[kept.row].insert(place)
                }
            };
            match kept.histogram {
                Some(histogram) => rows.histograms_mut(place).push((step, histogram)),
                None => rows.row_mut(place).1.set(step, kept.value),
            }
        }
    }
    Ok(rows)
}

/// `limit_ratio`: the series whose hash lies in that part of all hashes.
fn ratio(
    run: &Run<'_>,
    node: &Node,
    aggregation: &Aggregation,
    params: &[f64],
) -> Result<Tile, EvalError> {
    let mut rows = Tile::kept(node.grid.count, run.memory("an aggregation"));
    for_each_tile(run, &aggregation.input, |tile| {
        rows.make_room(tile)?;
        for row in tile.rows() {
            let offset = prometheus_hash(row.labels) as f64 / u64::MAX as f64;
            let takes = |step: usize| {
                let ratio = params[step].clamp(-1.0, 1.0);
                let takes = if ratio >= 0.0 {
                    offset < ratio
                } else {
                    offset >= 1.0 + ratio
                };
                takes && ratio != 0.0
            };
            let mut kept = rows.push(row.labels.clone());
            for_each(row.present, |step| {
                if takes(step) {
                    kept.set(step, row.values[step]);
                }
            });
            let histograms = row.histograms.iter().filter(|it| takes(it.0));
            let last = rows.len() - 1;
            *rows.histograms_mut(last) = histograms.cloned().collect();
            rows.set_drops_name(last, row.drops_name);
            rows.pop_if_absent();
        }
        Ok(())
    })?;
    let extremes = Extremes::of(params);
    if extremes.max == 0.0 && extremes.min == 0.0 {
        return Ok(Tile::new(node.grid.count));
    }
    if extremes.any_nan {
        return refuse("Ratio value is NaN".to_owned());
    }
    let remark = |ratio: f64, to: f64| {
        let text = format!(
            "ratio value should be between -1 and 1, got {}, capping to {}",
            go_g(ratio),
            go_g(to)
        );
        run.remarks().warn(node.rank, aggregation.param_at, text);
    };
    if extremes.max > 1.0 {
        remark(extremes.max, 1.0);
    }
    if extremes.min < -1.0 {
        remark(extremes.min, -1.0);
    }
    Ok(rows)
}

/// The hash that Prometheus gives a label set: XXH64 of its names and values, each behind its
/// length in one byte, or in 255 and three bytes, least significant first.
fn prometheus_hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(labels.as_bytes().len());
    let mut write = |text: &str| {
        let len = text.len();
        if len < 255 {
            bytes.push(len as u8);
        } else {
            bytes.push(255);
            bytes.extend_from_slice(&(len as u32).to_le_bytes()[..3]);
        }
        bytes.extend_from_slice(text.as_bytes());
    };
    for (name, value) in labels.iter() {
        write(name);
        write(value);
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0)
}
