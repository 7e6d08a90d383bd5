//! Functions over windows: each series is read once, and its row computed for all steps.

use std::sync::Arc;

use isobar_model::{Columns, Reservation, TimeRange};

use super::histogram_windows;
use super::names::{NameDrop, Removal};
use super::remarks::go_g;
use super::run::{Feed, Run};
use super::select::{SAMPLES, keep_stats, read, remove_stale};
use super::tile::{Tile, for_each};
use super::{EvalError, Operator};
use crate::functions::range::{Edges, Param, RangeArgs, RangeFn, Scratch, apply};
use crate::functions::row::Windows;
use crate::plan::node::{Node, RangeCall, WindowSource};

/// The rows of a function over windows.
pub(super) struct WindowRows<'r> {
    run: &'r Run<'r>,
    node: &'r Node,
    call: &'r RangeCall,
    params: Arc<[ParamRow; 2]>,
    input: Input<'r>,
    range: TimeRange,
    names: NameDrop,
    columns: Columns,
    scratch: Scratch,
    /// Of the columns.
    memory: Reservation,
}

/// A parameter for each step.
enum ParamRow {
    Const(f64),
    Steps(Vec<f64>),
}

impl ParamRow {
    fn as_param(&self) -> Param<'_> {
        match self {
            ParamRow::Const(value) => Param::Const(*value),
            ParamRow::Steps(values) => Param::PerStep(values),
        }
    }
}

/// Where samples come from.
enum Input<'r> {
    Select(Feed<'r>),
    Subquery {
        node: &'r Node,
        operator: Box<dyn Operator<'r> + 'r>,
        tile: Tile,
        at: usize,
    },
}

impl<'r> WindowRows<'r> {
    pub(super) fn new(
        run: &'r Run<'r>,
        node: &'r Node,
        call: &'r RangeCall,
    ) -> Result<Self, EvalError> {
        let input = match &call.source {
            WindowSource::Select(select) => Input::Select(run.open(*select)?),
            WindowSource::Subquery(inner) => Input::Subquery {
                node: inner,
                operator: super::build(run, inner)?,
                tile: Tile::default(),
                at: 0,
            },
        };
        let mut params = [ParamRow::Const(0.0), ParamRow::Const(0.0)];
        for (row, scalar) in params.iter_mut().zip(&call.params) {
            *row = match scalar {
                crate::plan::node::Scalar::Const(value) => ParamRow::Const(*value),
                _ => ParamRow::Steps(super::scalar::evaluate(run, scalar, node.grid)?),
            };
        }
        Ok(WindowRows {
            run,
            node,
            call,
            params: Arc::new(params),
            input,
            range: samples_needed(&call.windows, call.edges),
            names: NameDrop::new(Removal::of(run)),
            columns: Columns::default(),
            scratch: Scratch::default(),
            memory: run.memory(SAMPLES),
        })
    }

    /// Reads the next series into the columns and gives its labels, and whether its name goes when
    /// the query is done; `None` when there is none.
    fn next_series(&mut self) -> Result<Option<(isobar_model::Labels, bool)>, EvalError> {
        let columns = &mut self.columns;
        columns.clear();
        match &mut self.input {
            Input::Select(feed) => {
                let (range, stats) = (self.range, self.call.stats);
                let (starts, memory) = (self.call.start_times, &mut self.memory);
                feed.next(|series| {
                    read(series, range, columns, memory)?;
                    if stats {
                        keep_stats(columns);
                    }
                    match starts {
                        true => columns.level_start_times(),
                        false => columns.forget_start_times(),
                    }
                    remove_stale(columns);
                    Ok((series.labels.clone(), false))
                })
            }
            Input::Subquery {
                node,
                operator,
                tile,
                at,
            } => {
                if *at >= tile.len() {
                    self.run.check()?;
                    *at = 0;
                    if !operator.next_tile(tile)? {
                        return Ok(None);
                    }
                }
                let row = tile.row(*at);
                *at += 1;
                for_each(row.present, |step| {
                    columns.push(node.grid.time_ms(step), row.values[step]);
                });
                let histograms = row.histograms.iter();
                columns
                    .histograms
                    .extend(histograms.map(|(step, histogram)| {
                        let histogram = super::histogram_windows::of_subquery(histogram);
                        (node.grid.time_ms(*step), histogram)
                    }));
                Ok(Some((row.labels.clone(), row.drops_name)))
            }
        }
    }

    fn remark_name(&self, labels: &isobar_model::Labels) {
        let name = labels.metric_name();
        if name.is_empty() {
            return;
        }
        let quoted_name = super::remarks::quoted(name);
        let text = if self.run.features().type_and_unit_labels {
            let kind = labels.get("__type__");
            if matches!(kind, "counter" | "histogram") {
                return;
            }
            format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \
                 \"histogram\", got {}: {quoted_name}",
                super::remarks::quoted(kind)
            )
        } else {
            let counts = ["_total", "_sum", "_count", "_bucket"];
            if counts.iter().any(|suffix| name.ends_with(suffix)) {
                return;
            }
            format!(
                "metric might not be a counter, name does not end in \
                 _total/_sum/_count/_bucket: {quoted_name}"
            )
        };
        let (rank, at) = (self.node.rank, self.call.range_at);
        self.run.remarks().info(rank, at, text);
    }
}

impl<'r> Operator<'r> for WindowRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        tile.reset(self.node.grid.count);
        let (mut read, mut queryable) = (0, 0);
        let func = self.call.func;
        while !tile.is_full() {
            let Some((labels, drops_name)) = self.next_series()? else {
                break;
            };
            read += (self.columns.len() + self.columns.histograms.len()) as u64;
            if self.columns.is_empty() && self.columns.histograms.is_empty() {
                continue;
            }
            let has_histograms = !self.columns.histograms.is_empty();
            queryable += samples_in_windows(&self.columns.timestamps, &self.call.windows);
            let args = RangeArgs {
                params: [self.params[0].as_param(), self.params[1].as_param()],
                edges: self.call.edges,
                first_step_ms: self.node.grid.start_ms,
                step_ms: self.node.grid.step_ms,
            };
            let mut row = tile.push(isobar_model::Labels::empty());
            let windows = &self.call.windows;
            let notes = apply(
                func,
                &self.columns,
                windows,
                &args,
                &mut row,
                &mut self.scratch,
            )
            .map_err(|error| EvalError::Execution(error.to_string()))?;
            for q in &notes.invalid_quantiles {
                let text = format!("quantile value should be between 0 and 1, got {}", go_g(*q));
                self.run
                    .remarks()
                    .warn(self.node.rank, self.call.first_at, text);
            }
            if has_histograms {
                let mut remarks = Vec::new();
                let histograms = histogram_windows::apply(
                    func,
                    &self.columns,
                    windows,
                    self.call.edges,
                    labels.metric_name(),
                    &mut row,
                    &mut remarks,
                );
                *tile.histograms_mut(tile.len() - 1) = histograms;
                for (is_warning, text) in remarks {
                    let (rank, at) = (self.node.rank, self.call.range_at);
                    match is_warning {
                        true => self.run.remarks().warn(rank, at, text),
                        false => self.run.remarks().info(rank, at, text),
                    }
                }
                if !tile.pop_if_absent() {
                    continue;
                }
            } else if !notes.any_result {
                tile.pop_if_absent();
                continue;
            }
            let floats = tile.row(tile.len() - 1).present;
            // Windows that hold histograms besides have no result, and then nothing to remark.
            let is_set = |step: &&usize| floats[**step / 64] >> (**step % 64) & 1 == 1;
            let overlaps = notes.overlapping.iter().filter(is_set).count() as u64;
            if overlaps > 0 {
                let (rank, at) = (self.node.rank, self.call.range_at);
                let name = labels.metric_name();
                self.run.remarks().overlaps(rank, at, name, overlaps);
            }
            if func.wants_counter_name() && floats.iter().any(|word| *word != 0) {
                self.remark_name(&labels);
            }
            let last = tile.len() - 1;
            tile.set_drops_name(last, drops_name);
            let (into, _) = tile.row_mut(last);
            *into = labels;
        }
        // `absent_over_time` looks at no labels.
        if !func.keeps_metric_name() && func != RangeFn::Absent {
            self.names.drop_all(tile)?;
        }
        self.run.count_samples(read, queryable);
        self.run.hold(tile.count())?;
        Ok(!tile.is_empty())
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        match &mut self.input {
            Input::Select(feed) => Some(feed),
            Input::Subquery { operator, .. } => operator.feed(),
        }
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        let input = match &self.input {
            Input::Select(_) => Input::Select(Feed::empty(self.run)),
            Input::Subquery { node, operator, .. } => Input::Subquery {
                node,
                operator: operator.fork()?,
                tile: Tile::default(),
                at: 0,
            },
        };
        Some(Box::new(WindowRows {
            params: Arc::clone(&self.params),
            input,
            names: self.names.clone(),
            columns: Columns::default(),
            scratch: Scratch::default(),
            memory: self.run.memory(SAMPLES),
            ..*self
        }))
    }
}

/// The times of the samples that windows look at.
fn samples_needed(windows: &Windows, edges: Edges) -> TimeRange {
    let (before_ms, after_ms) = match edges {
        Edges::Plain => (0, 0),
        Edges::Anchored { lookback_ms } => (lookback_ms, 0),
        Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
    };
    let last_ms = windows.end_ms(windows.count.saturating_sub(1));
    TimeRange::new(
        windows
            .first_end_ms
            .saturating_sub(windows.range_ms - 1)
            .saturating_sub(before_ms),
        last_ms.saturating_add(after_ms),
    )
}

/// How many samples all windows hold together, each sample as often as windows hold it.
fn samples_in_windows(timestamps: &[i64], windows: &Windows) -> u64 {
    let count = windows.count as i64;
    if windows.step_ms == 0 {
        return timestamps.len() as u64 * windows.count as u64;
    }
    // Windows `i` with `t <= end(i) < t + range`.
    let holding = |t: i64| {
        let first = (t - windows.first_end_ms + windows.step_ms - 1).div_euclid(windows.step_ms);
        let end = (t + windows.range_ms - windows.first_end_ms + windows.step_ms - 1)
            .div_euclid(windows.step_ms);
        (end.clamp(0, count) - first.clamp(0, count)) as u64
    };
    if windows.range_ms % windows.step_ms != 0 {
        return timestamps.iter().map(|t| holding(*t)).sum();
    }
    // Away from the edges each sample lies in the same number of windows.
    let last_ms = windows.end_ms(windows.count - 1);
    let inner = timestamps.partition_point(|t| *t <= windows.first_end_ms - windows.step_ms);
    let outer = timestamps
        .partition_point(|t| *t <= last_ms - windows.range_ms)
        .max(inner);
    let edges = timestamps[..inner].iter().chain(&timestamps[outer..]);
    let each = (windows.range_ms / windows.step_ms) as u64;
    edges.map(|t| holding(*t)).sum::<u64>() + (outer - inner) as u64 * each
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_for_each_window() {
        for (step_ms, range_ms) in [(15, 60), (20, 30), (50, 20), (60, 60)] {
            let windows = Windows {
                first_end_ms: 100,
                step_ms,
                count: 7,
                range_ms,
            };
            let timestamps: Vec<i64> = (0..90).map(|i| i * 7).collect();
            let naive: usize = (0..7)
                .map(|i| {
                    let end = windows.end_ms(i);
                    timestamps
                        .iter()
                        .filter(|t| **t <= end && **t > end - range_ms)
                        .count()
                })
                .sum();
            assert_eq!(samples_in_windows(&timestamps, &windows), naive as u64);
        }
    }
}
