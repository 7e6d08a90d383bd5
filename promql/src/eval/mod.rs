//! Evaluates a plan over the series that a source gives.
//!
//! Each node of the plan becomes an [`Operator`] that is asked for one tile after the other. A
//! selector decodes each series once and computes its row for all steps; what stands above works
//! on rows. Labels are looked at once per series, never per step.
//!
//! In reading order: [`tile`] is what flows, [`kept`] what of it is kept; [`run`] what all operators share; [`parallel`] is
//! how several threads work on one operator; [`select`] and
//! [`range`] read series, [`replicas`] and [`coverage`] those that several collectors saw; [`map`], [`scalar`] and [`with_scalar`] compute value by value;
//! [`fold`], [`pick`] and [`count_values`] aggregate, with [`group`]; [`matching`], [`join`] and [`set`]
//! combine two vectors, with [`signature`]; [`buckets`] is `histogram_quantile` and its kin;
//! [`info`] adds the labels of info series;
//! [`reorder`] sorts, relabels, repeats; [`merge`] and [`names`] see to it that no two series
//! have the same labels; [`order`] is that of the answer; [`remarks`] are the annotations; [`measure`] tells where time goes.

pub(crate) mod arithmetic;
mod bucket_quantiles;
mod buckets;
mod count_values;
mod coverage;
mod fold;
mod group;
mod histogram_edges;
mod histogram_fold;
mod histogram_ops;
mod histogram_rates;
mod histogram_windows;
mod info;
mod join;
mod kept;
mod looked;
mod map;
mod matching;
mod measure;
mod merge;
mod names;
mod order;
mod parallel;
mod pick;
mod range;
pub(crate) mod remarks;
mod reorder;
mod replicas;
mod run;
mod scalar;
mod select;
mod set;
mod signature;
mod started;
mod tally;
mod tile;
mod with_scalar;

use std::sync::Arc;

use isobar_model::series::SeriesSource;
use isobar_model::{Columns, Labels, OverBudget, Reservation, SelectError};

use crate::limits::{CancelToken, Limit, Limits};
use crate::plan::node::{Grid, Kind, Node};
use crate::plan::{Plan, Root};
use crate::stack;
use crate::value::{MatrixSeries, Points, QueryResult, Times, Value, VectorSample};
use kept::{Leaving, Rows};
use measure::Measured;
pub use measure::{Measures, OperatorStats};
use parallel::Place;
use run::{Feed, Run};
use tile::{RowRef, Tile, for_each, grown};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The query means nothing for these series, in Prometheus' words (HTTP 422, `execution`).
    #[error("{0}")]
    Execution(String),
    /// Something that is not evaluated yet; the text names it.
    #[error("{0}")]
    Unsupported(String),
    /// A bound was reached (HTTP 422, `execution`).
    #[error("{1}")]
    LimitExceeded(Limit, String),
    /// The caller called the query off.
    #[error("query was canceled in query execution")]
    Cancelled,
    /// The query took too long.
    #[error("query timed out in query execution")]
    Timeout,
    /// The series could not be read.
    #[error("expanding series: {0}")]
    Storage(SelectError),
}

impl EvalError {
    fn too_many_samples() -> Self {
        EvalError::LimitExceeded(
            Limit::Samples,
            "query processing would load too many samples into memory in query execution"
                .to_owned(),
        )
    }

    fn same_labels() -> Self {
        EvalError::Execution("vector cannot contain metrics with the same labelset".to_owned())
    }
}

impl From<OverBudget> for EvalError {
    fn from(error: OverBudget) -> Self {
        EvalError::LimitExceeded(Limit::Memory, error.to_string())
    }
}

impl From<SelectError> for EvalError {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Unsupported(text) => EvalError::Unsupported(text),
            SelectError::LimitExceeded(text) => EvalError::LimitExceeded(Limit::Store, text),
            SelectError::Cancelled => EvalError::Cancelled,
            SelectError::Corrupt(_) | SelectError::Unavailable(_) => EvalError::Storage(error),
        }
    }
}

/// Gives rows in tiles.
trait Operator<'r>: Send {
    /// Fills `tile`, which it resets, with the next rows. False when there was none left; the
    /// tile is empty then. A row has a value at one step at least.
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError>;

    /// A copy that computes the same from series that it is given ([`Feed::refill`]). `None` when
    /// there is more to a row than one series.
    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        None
    }

    /// Where the series come from, for operators that can be copied.
    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        None
    }
}

/// Evaluates `plan` over the series of `source`.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate(
    plan: &Plan,
    source: &dyn SeriesSource,
    limits: &Limits,
    cancel: &CancelToken,
) -> Result<QueryResult, EvalError> {
    evaluate_measured(plan, source, limits, cancel, None)
}

/// As [`evaluate`], and measures each operator if `measures` of the plan are given.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate_measured(
    plan: &Plan,
    source: &dyn SeriesSource,
    limits: &Limits,
    cancel: &CancelToken,
    measures: Option<&Measures>,
) -> Result<QueryResult, EvalError> {
    if plan.steps > limits.steps_max {
        return Err(EvalError::LimitExceeded(
            Limit::Steps,
            format!(
                "query has {} steps, inner steps of subqueries included, more than the limit of {}",
                plan.steps, limits.steps_max
            ),
        ));
    }
    let _own = limits.threads.enter();
    let run = Run::new(plan, source, limits, cancel, measures.cloned());
    run.check()?;
    let mut memory = run.memory("the answer");
    let value = stack::with_room_for(plan.levels, || {
        let _whole = run.measure(0);
        root_value(plan, &run, &mut memory)
    })
    .unwrap_or_else(|| {
        Err(EvalError::LimitExceeded(
            Limit::Memory,
            "no room for so deep a query".to_owned(),
        ))
    })?;
    let (stats, step_stats, remarks) = run.finish();
    Ok(QueryResult {
        value,
        warnings: remarks.finish(&plan.query),
        stats,
        step_stats,
        memory: Arc::new(memory),
    })
}

fn root_value(plan: &Plan, run: &Run<'_>, memory: &mut Reservation) -> Result<Value, EvalError> {
    let timestamp_ms = plan.grid.start_ms;
    match &plan.root {
        Root::String(text) => Ok(Value::String {
            timestamp_ms,
            value: text.clone(),
        }),
        Root::Scalar(scalar) => {
            let _scope = run.measure(plan.root_operator());
            let values = scalar::evaluate(run, scalar, plan.grid)?;
            if plan.instant {
                let value = values.first().copied().unwrap_or(f64::NAN);
                return Ok(Value::Scalar {
                    timestamp_ms,
                    value,
                });
            }
            let mut columns = Columns::default();
            for (step, value) in values.iter().enumerate() {
                columns.push(plan.grid.time_ms(step), *value);
            }
            Ok(Value::Matrix(match columns.is_empty() {
                true => Vec::new(),
                false => vec![MatrixSeries {
                    labels: Labels::empty(),
                    columns: columns.into(),
                }],
            }))
        }
        Root::Vector(node) if plan.instant => {
            let (mut samples, mut drops) = (Vec::new(), Vec::new());
            let mut outside = 0;
            for_each_tile(run, node, |tile| {
                outside += tile.bytes_outside();
                let count = grown(samples.capacity(), samples.len() + tile.len());
                memory.grow_to(outside + count * size_of::<VectorSample>())?;
                drops.extend(tile.rows().map(|row| row.drops_name));
                samples.extend(tile.rows().map(|row| VectorSample {
                    labels: row.labels.clone(),
                    timestamp_ms,
                    value: if row.has(0) { row.values[0] } else { 0.0 },
                    histogram: row.histogram(0).cloned(),
                }));
                Ok(())
            })?;
            if run.features().delayed_name_removal {
                names::nameless_samples(&mut samples, &drops)?;
            }
            Ok(Value::Vector(samples))
        }
        Root::Vector(node) | Root::Subquery(node) => matrix(run, node, memory),
        Root::Samples {
            select,
            edges,
            min_ms,
            max_ms,
        } => {
            let _scope = run.measure(plan.root_operator());
            let times = (*min_ms, *max_ms);
            select::samples(run, *select, *edges, times, memory).map(Value::Matrix)
        }
    }
}

/// The rows of a node as series, sorted by labels.
fn matrix(run: &Run<'_>, node: &Node, memory: &mut Reservation) -> Result<Value, EvalError> {
    let times: Arc<[i64]> = (0..node.grid.count).map(|i| node.grid.time_ms(i)).collect();
    let (mut series, mut drops) = (Vec::new(), Vec::new());
    let mut outside = 0;
    for_each_tile(run, node, |tile| {
        outside += tile
            .rows()
            .map(|row| points_bytes(row.present))
            .sum::<usize>();
        outside += tile.bytes_outside();
        let count = grown(series.capacity(), series.len() + tile.len());
        memory.grow_to(outside + count * size_of::<MatrixSeries>())?;
        drops.extend(tile.rows().map(|row| row.drops_name));
        series.extend(tile.rows().map(|row| {
            let mut columns = points(&times, row);
            let histograms = row.histograms.iter();
            columns
                .histograms
                .extend(histograms.map(|(step, it)| (times[*step], it.clone())));
            MatrixSeries {
                labels: row.labels.clone(),
                columns,
            }
        }));
        Ok(())
    })?;
    if run.features().delayed_name_removal {
        let series = series.into_iter().zip(drops).collect();
        return names::nameless_series(series).map(Value::Matrix);
    }
    order::sort_by_labels(run, &mut series);
    Ok(Value::Matrix(series))
}

/// The bytes of the floats that [`points`] makes.
fn points_bytes(present: &[u64]) -> usize {
    let count = tile::count(present) as usize;
    match tile::only_run(present) {
        Some(_) => size_of::<f64>() * count,
        None => (size_of::<f64>() + size_of::<i64>()) * count,
    }
}

/// The floats of a row. Where they have no gap their times are among `times`, which all rows share.
fn points(times: &Arc<[i64]>, row: RowRef<'_>) -> Points {
    if let Some(steps) = tile::only_run(row.present) {
        return Points {
            timestamps: Times::shared(times, steps.clone()),
            values: row.values[steps].to_vec(),
            histograms: Vec::new(),
        };
    }
    let samples = tile::count(row.present) as usize;
    let mut columns = Columns {
        timestamps: Vec::with_capacity(samples),
        values: Vec::with_capacity(samples),
        ..Columns::default()
    };
    for_each(row.present, |step| {
        columns.push(times[step], row.values[step])
    });
    columns.into()
}

/// Calls `visit` with each tile of a node.
fn for_each_tile(
    run: &Run<'_>,
    node: &Node,
    mut visit: impl FnMut(&Tile) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    if let Some(done) = set::for_each_tile_of_union(run, node, &mut visit) {
        return done;
    }
    match parallel::place(run, build(run, node)?, node.grid.count)? {
        Place::Crew(crew) => crew.for_each(visit),
        Place::Here(mut operator) => {
            let mut tile = Tile::default();
            while operator.next_tile(&mut tile)? {
                run.check()?;
                visit(&tile)?;
            }
            Ok(())
        }
    }
}

/// All rows of a node in one tile.
fn collect(run: &Run<'_>, node: &Node) -> Result<Tile, EvalError> {
    let mut all = Tile::kept(node.grid.count, run.memory("rows that are kept"));
    for_each_tile(run, node, |tile| {
        all.make_room(tile)?;
        for row in tile.rows() {
            all.push_copy(row.labels.clone(), row);
        }
        Ok(())
    })?;
    Ok(all)
}

/// The operator of a node, measured if that is asked for.
fn build<'r>(run: &'r Run<'r>, node: &'r Node) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let Some(measures) = run.measures() else {
        return operator(run, node);
    };
    if let Kind::Shared(slot) = node.kind
        && run.shared_node(slot).rank == node.rank
    {
        // It is measured where it is computed.
        return operator(run, node);
    }
    let scope = measures.enter(node.rank);
    let input = operator(run, node)?;
    drop(scope);
    Ok(Box::new(Measured::new(measures, node.rank, input)))
}

fn operator<'r>(run: &'r Run<'r>, node: &'r Node) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let grid: Grid = node.grid;
    Ok(match &node.kind {
        Kind::Empty => Box::new(Ready::from(Tile::new(grid.count))),
        Kind::Select(select) => Box::new(select::InstantRows::new(
            run,
            node.rank,
            *select,
            grid,
            select::Shown::Value,
        )?),
        Kind::SampleTime(select) => Box::new(select::InstantRows::new(
            run,
            node.rank,
            *select,
            grid,
            select::Shown::Time,
        )?),
        Kind::StartTime(select) => Box::new(select::InstantRows::new(
            run,
            node.rank,
            *select,
            grid,
            select::Shown::StartTime,
        )?),
        Kind::Range(call) => Box::new(range::WindowRows::new(run, node, call)?),
        Kind::Map(map) => map::build(run, node, map)?,
        Kind::WithScalar(op) => with_scalar::build(run, node, op)?,
        Kind::Negate(input) => map::negate(run, node, input)?,
        Kind::Match(op) => matching::build(run, node, op)?,
        Kind::Set(op) => set::build(run, node, op)?,
        Kind::Fold(op) => Box::new(Late::new(move || fold::evaluate(run, node, op))),
        Kind::Pick(op) => Box::new(Late::new(move || pick::evaluate(run, node, op))),
        Kind::CountValues(op) => Box::new(count_values::CountRows::new(run, node, op)),
        Kind::Absent { labels, input } => {
            Box::new(Late::new(move || reorder::absent(run, input, labels)))
        }
        Kind::FromScalar(scalar) => {
            Box::new(Late::new(move || reorder::from_scalar(run, scalar, grid)))
        }
        Kind::Hold(input) => Box::new(reorder::HoldRows::new(run, node, input)?),
        Kind::Sort(sort) => reorder::sort(run, node, sort)?,
        Kind::Relabel(op) => Box::new(Late::new(move || reorder::relabel(run, node, op))),
        Kind::Buckets(op) => Box::new(Late::new(move || buckets::evaluate(run, node, op))),
        Kind::Shared(slot) => Box::new(kept::SharedRows::new(run, *slot)),
        Kind::Info(op) => Box::new(Late::new(move || info::evaluate(run, node, op))),
    })
}

/// An operator whose rows are all there.
enum Ready {
    /// In one tile; those from a number on are left.
    Whole(Tile, usize),
    /// In several, all but the last as large as tiles are.
    Tiles(Leaving),
}

impl From<Tile> for Ready {
    fn from(rows: Tile) -> Self {
        Ready::Whole(rows, 0)
    }
}

impl From<Rows> for Ready {
    fn from(rows: Rows) -> Self {
        Ready::Tiles(rows.into())
    }
}

impl<'r> Operator<'r> for Ready {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let (rows, at) = match self {
            Ready::Whole(rows, at) => (rows, at),
            Ready::Tiles(rows) => {
                let more = rows.next_tile(tile);
                if !more {
                    tile.reset(tile.steps());
                }
                return Ok(more);
            }
        };
        tile.reset(rows.steps());
        while *at < rows.len() && !tile.is_full() {
            let row = rows.row(*at);
            if !row.is_absent() {
                tile.push_copy(row.labels.clone(), row);
            }
            *at += 1;
        }
        Ok(!tile.is_empty())
    }
}

/// An operator that computes all its rows when it is first asked.
struct Late<F> {
    compute: Option<F>,
    ready: Ready,
}

impl<R: Into<Ready>, F: FnOnce() -> Result<R, EvalError> + Send> Late<F> {
    fn new(compute: F) -> Self {
        Late {
            compute: Some(compute),
            ready: Tile::default().into(),
        }
    }
}

impl<'r, R: Into<Ready>, F: FnOnce() -> Result<R, EvalError> + Send> Operator<'r> for Late<F> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        if let Some(compute) = self.compute.take() {
            self.ready = compute()?.into();
        }
        self.ready.next_tile(tile)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
