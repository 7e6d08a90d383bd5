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
    let mut places: HashMap<(usize, u64), Vec<f64>> = HashMap::new();
    let mut order = Vec::new();
    for_each_tile(run, &op.input, |tile| {
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
                let key = (group, if writes { bits } else { 0 });
                let counts = places.entry(key).or_insert_with(|| {
                    order.push(key);
                    vec![0.0; steps]
                });
                counts[step] += 1.0;
            });
        }
        run.check_cells(places.len() * steps)
    })?;
    let mut merge = Merge::new(steps);
    for key in order {
        let Some(counts) = places.get(&key) else {
            continue;
        };
        let mut labels = LabelsBuilder::new(&groups.labels()[key.0]);
        if writes {
            labels.set(&op.label, &value_text(f64::from_bits(key.1)));
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
