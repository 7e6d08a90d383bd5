//! Functions over windows: each series is read once, and its row computed for all steps.

use std::sync::Arc;

use isobar_model::{Columns, Labels, Reservation, TimeRange};

use super::coverage::Measure;
use super::histogram_windows;
use super::looked;
use super::names::{NameDrop, Removal};
use super::remarks::go_g;
use super::replicas::Replicas;
use super::run::{Feed, Run};
use super::select::{Needed, SAMPLES, read, remove_stale};
use super::tile::{HistogramRow, Tile, for_each};
use super::{EvalError, Operator};
use crate::functions::range::{Edges, Param, RangeArgs, RangeFn, Scratch, apply};
use crate::functions::row::{Row, Windows};
use crate::plan::node::{Node, RangeCall, WindowSource};

/// The rows of a function over windows.
pub(super) struct WindowRows<'r> {
    what: Calculation<'r>,
    input: Input<'r>,
    range: TimeRange,
    names: NameDrop,
    columns: Columns,
    replicas: Replicas,
    scratch: Scratch,
    /// Of the columns and replicas.
    memory: Reservation,
}

/// What is computed from a series.
#[derive(Clone)]
struct Calculation<'r> {
    run: &'r Run<'r>,
    node: &'r Node,
    call: &'r RangeCall,
    params: Arc<[ParamRow; 2]>,
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
            what: Calculation {
                run,
                node,
                call,
                params: Arc::new(params),
            },
            input,
            range: samples_needed(&call.windows, call.edges),
            names: NameDrop::new(Removal::of(run)),
            columns: Columns::default(),
            replicas: Replicas::new(run),
            scratch: Scratch::default(),
            memory: run.memory(SAMPLES),
        })
    }

    /// Reads the next series into the columns and gives its labels, and whether its name goes when
    /// the query is done; `None` when there is none.
    fn next_series(&mut self) -> Result<Option<(Labels, bool)>, EvalError> {
        let columns = &mut self.columns;
        columns.clear();
        match &mut self.input {
            Input::Select(feed) => {
                let (range, call) = (self.range, self.what.call);
                let (replicas, memory) = (&mut self.replicas, &mut self.memory);
                let is_rate = matches!(
                    call.func,
                    RangeFn::Rate | RangeFn::Increase | RangeFn::Delta
                );
                let packs = is_rate && call.edges == Edges::Plain && !call.start_times;
                feed.next(|series| {
                    let samples = series.samples.as_ref();
                    let windows = &call.windows;
                    let needed = Needed {
                        range,
                        stats: call.stats,
                        packed: packs && samples.replicas().is_empty(),
                    };
                    replicas.read(
                        samples,
                        columns,
                        windows,
                        Measure::All,
                        |samples, columns| {
                            read(samples, needed, columns, memory)?;
                            match call.start_times {
                                true => columns.level_start_times(),
                                false => columns.forget_start_times(),
                            }
                            remove_stale(columns);
                            Ok(())
                        },
                    )?;
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
                    self.what.run.check()?;
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
}

impl Calculation<'_> {
    /// Fills the row of a series from the samples in `columns`; gives the steps with histograms,
    /// and whether there is any result.
    #[inline]
    fn compute(
        &self,
        labels: &Labels,
        columns: &Columns,
        scratch: &mut Scratch,
        row: &mut Row<'_>,
    ) -> Result<(HistogramRow, bool), EvalError> {
        let (func, windows, edges) = (self.call.func, &self.call.windows, self.call.edges);
        let args = RangeArgs {
            params: [self.params[0].as_param(), self.params[1].as_param()],
            edges,
            first_step_ms: self.node.grid.start_ms,
            step_ms: self.node.grid.step_ms,
        };
        let notes = apply(func, columns, windows, &args, row, scratch)
            .map_err(|error| EvalError::Execution(error.to_string()))?;
        for q in &notes.invalid_quantiles {
            let text = format!("quantile value should be between 0 and 1, got {}", go_g(*q));
            self.run
                .remarks()
                .warn(self.node.rank, self.call.first_at, text);
        }
        let (rank, at, name) = (self.node.rank, self.call.range_at, labels.metric_name());
        let mut histograms = HistogramRow::new();
        let mut any_result = notes.any_result;
        if columns.has_histograms() {
            let mut remarks = Vec::new();
            histograms =
                histogram_windows::apply(func, columns, windows, edges, name, row, &mut remarks);
            for (is_warning, text) in remarks {
                match is_warning {
                    true => self.run.remarks().warn(rank, at, text),
                    false => self.run.remarks().info(rank, at, text),
                }
            }
            any_result = !histograms.is_empty() || row.has_any();
        }
        if any_result {
            // Windows that hold histograms besides have no result, and then nothing to remark.
            let is_set = |step: &&usize| row.get(**step).is_some();
            let overlaps = notes.overlapping.iter().filter(is_set).count() as u64;
            if overlaps > 0 {
                self.run.remarks().overlaps(rank, at, name, overlaps);
            }
            if func.wants_counter_name() && row.has_any() {
                self.remark_name(labels);
            }
        }
        Ok((histograms, any_result))
    }

    fn remark_name(&self, labels: &Labels) {
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
        tile.reset(self.what.node.grid.count);
        let Calculation {
            run, call, node, ..
        } = self.what;
        let mut tally = run.tally(call.counting, node.grid.count);
        while !tile.is_full() {
            let Some((labels, drops_name)) = self.next_series()? else {
                break;
            };
            let count = self.columns.sample_count();
            let count = (count + self.replicas.others_len()) as u64;
            tally.read += count;
            if count == 0 {
                continue;
            }
            looked::count(&mut tally, &self.columns, call);
            let mut row = tile.push(Labels::empty());
            let (what, columns, scratch) = (&self.what, &self.columns, &mut self.scratch);
            let (histograms, any_result) = if self.replicas.is_single() {
                what.compute(&labels, columns, scratch, &mut row)?
            } else {
                let beyond = call.edges != Edges::Plain;
                let shape = (&call.windows, Measure::All, beyond);
                let each = |columns: &Columns, row: &mut Row<'_>| {
                    Ok(what.compute(&labels, columns, scratch, row)?.0)
                };
                let histograms = self.replicas.join(columns, shape, &mut row, each)?;
                let any_result = !histograms.is_empty() || row.has_any();
                (histograms, any_result)
            };
            if !any_result {
                tile.pop_if_absent();
                continue;
            }
            let last = tile.len() - 1;
            if !histograms.is_empty() {
                *tile.histograms_mut(last) = histograms;
            }
            tile.set_drops_name(last, drops_name);
            let (into, _) = tile.row_mut(last);
            *into = labels;
        }
        // `absent_over_time` looks at no labels.
        if !call.func.keeps_metric_name() && call.func != RangeFn::Absent {
            self.names.drop_all(tile)?;
        }
        run.count(tally);
        run.hold(tile.count())?;
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
            Input::Select(_) => Input::Select(Feed::empty(self.what.run)),
            Input::Subquery { node, operator, .. } => Input::Subquery {
                node,
                operator: operator.fork()?,
                tile: Tile::default(),
                at: 0,
            },
        };
        Some(Box::new(WindowRows {
            what: self.what.clone(),
            input,
            range: self.range,
            names: self.names.clone(),
            columns: Columns::default(),
            replicas: Replicas::new(self.what.run),
            scratch: Scratch::default(),
            memory: self.what.run.memory(SAMPLES),
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
