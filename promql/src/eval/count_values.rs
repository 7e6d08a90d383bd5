//! `count_values`: how often each value occurs in a group.

use hashbrown::HashMap;
use isobar_model::LabelsBuilder;
use isobar_model::labels::METRIC_NAME;

use super::group::Groups;
use super::merge::Merge;
use super::run::Run;
use super::tile::{Tile, for_each};
use super::{EvalError, for_each_tile};
use crate::plan::node::{CountValues, Node};

/// What occurs: the bits of a value, or a histogram as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Occurring {
    Value(u64),
    Histogram(String),
}

/// The rows of the aggregation.
pub(super) fn evaluate(run: &Run<'_>, node: &Node, op: &CountValues) -> Result<Tile, EvalError> {
    let held = run.held();
    let steps = node.grid.count;
    // The label that takes the value is no part of the group that a series brings.
    let grouping: Vec<String> = match op.without {
        true => op.grouping.iter().chain([&op.label]).cloned().collect(),
        false => op
            .grouping
            .iter()
            .filter(|label| **label != op.label)
            .cloned()
            .collect(),
    };
    let writes = !(op.without && (op.grouping.contains(&op.label) || op.label == METRIC_NAME));
    let mut groups = Groups::new(&grouping, op.without);
    let mut places: HashMap<(usize, Occurring), Vec<f64>> = HashMap::new();
    let mut order = Vec::new();
    let mut memory = run.memory("count_values");
    for_each_tile(run, &op.input, |tile| {
        let mut count = |group: usize, what: Occurring, step: usize| {
            let key = (group, what);
            let counts = places.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                vec![0.0; steps]
            });
            counts[step] += 1.0;
        };
        for row in tile.rows() {
            let (group, _) = groups.find(row.labels);
            for_each(row.present, |step| {
                let value = row.values[step];
                // All NaNs print the same.
                let bits = if value.is_nan() {
                    f64::NAN.to_bits()
                } else {
                    value.to_bits()
                };
                count(group, Occurring::Value(if writes { bits } else { 0 }), step);
            });
            for (step, histogram) in row.histograms {
                let what = match writes {
                    true => Occurring::Histogram(histogram.to_string()),
                    false => Occurring::Value(0),
                };
                count(group, what, *step);
            }
        }
        Ok(memory.grow_to(places.len() * (8 * steps + size_of::<(usize, Occurring)>() * 2))?)
    })?;
    let mut merge = Merge::new(steps, run.memory("count_values"));
    merge.reserve_rows(order.len())?;
    for key in order {
        let Some(counts) = places.get(&key) else {
            continue;
        };
        let mut labels = LabelsBuilder::new(&groups.labels()[key.0]);
        if writes {
            let text = match key.1 {
                Occurring::Value(bits) => value_text(f64::from_bits(bits)),
                Occurring::Histogram(text) => text,
            };
            labels.set(&op.label, &text);
        }
        let mut row = merge.row(&labels.build());
        for (step, count) in counts.iter().enumerate() {
            if *count > 0.0 {
                row.set(step, *count);
            }
        }
    }
    let rows = merge.finish();
    run.release_to(held, rows.count())?;
    Ok(rows)
}

/// A value as Go's `strconv.FormatFloat(value, 'f', -1, 64)` prints it.
fn value_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}
