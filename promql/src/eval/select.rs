//! Instant selectors: the last sample that each step sees.

use std::sync::Arc;

use isobar_model::histogram::{CounterReset, PackedHistograms};
use isobar_model::sample::is_stale;
use isobar_model::series::Samples;
use isobar_model::{Columns, FloatHistogram, Labels, Reservation, TimeRange};

use super::coverage::Measure;
use super::histogram_edges::interpolate;
use super::histogram_windows::{Remarks, mixed, mixed_schemas};
use super::names::{NameDrop, Removal};
use super::replicas::Replicas;
use super::run::{Feed, Run};
use super::tile::{self, HistogramRow, Tile};
use super::{EvalError, Operator};
use crate::functions::range::{Edges, extended};
use crate::functions::row::{Row, Windows};
use crate::plan::node::{Grid, InstantSelect};
use crate::value::MatrixSeries;

/// What is shown of the samples that a selector sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Their values.
    Value,
    /// Their times, for `timestamp`.
    Time,
    /// Since when they count, for `start_timestamp`.
    StartTime,
}

/// The rows of an instant selector, or of a function of samples' times around one.
pub(super) struct InstantRows<'r> {
    run: &'r Run<'r>,
    rank: u32,
    feed: Feed<'r>,
    select: InstantSelect,
    grid: Grid,
    shown: Shown,
    /// Set unless the values themselves are shown.
    names: Option<NameDrop>,
    columns: Columns,
    replicas: Replicas,
    /// Of the columns.
    memory: Reservation,
}

/// Who reserves memory for samples that are read.
pub(super) const SAMPLES: &str = "reading a series";

impl<'r> InstantRows<'r> {
    pub(super) fn new(
        run: &'r Run<'r>,
        rank: u32,
        select: InstantSelect,
        grid: Grid,
        shown: Shown,
    ) -> Result<Self, EvalError> {
        Ok(InstantRows {
            run,
            rank,
            feed: run.open(select.select)?,
            select,
            grid,
            shown,
            names: (shown != Shown::Value).then(|| NameDrop::new(Removal::of(run))),
            columns: Columns::default(),
            replicas: Replicas::new(run),
            memory: run.memory(SAMPLES),
        })
    }
}

impl<'r> Operator<'r> for InstantRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        tile.reset(self.grid.count);
        let select = &self.select;
        let range = select.samples_needed(self.grid.count);
        let (columns, memory) = (&mut self.columns, &mut self.memory);
        let (times, smoothed) = (
            self.shown == Shown::Time,
            select.smoothed && self.shown == Shown::Value,
        );
        let packed = !smoothed && self.shown != Shown::StartTime;
        let replicas = &mut self.replicas;
        let windows = Windows {
            first_end_ms: select.first_ms,
            step_ms: select.step_ms,
            count: self.grid.count,
            range_ms: select.lookback_ms,
        };
        let show = |labels: &Labels, columns: &Columns, row: &mut Row<'_>| {
            let steps = self.grid.count;
            let mut histograms = HistogramRow::new();
            if !columns.packed.is_empty() {
                look_at_packed(&columns.packed, select, times, row, &mut histograms);
            } else if columns.histograms.is_empty() {
                match (smoothed, select.step_ms) {
                    (true, _) => smooth(columns, select, steps, row),
                    (_, 0) => held(columns, select, times, steps, row),
                    _ => look(columns, select, times, steps, row),
                }
            } else if smoothed {
                let mut remarks = Remarks::new();
                smooth(columns, select, steps, row);
                let name = labels.metric_name();
                histograms = smooth_both(columns, select, steps, name, row, &mut remarks);
                for (is_warning, text) in remarks {
                    match is_warning {
                        true => self.run.remarks().warn(self.rank, select.at, text),
                        false => self.run.remarks().info(self.rank, select.at, text),
                    }
                }
            } else {
                look_at_both(columns, select, times, steps, row, &mut histograms);
            }
            histograms
        };
        let mut read = 0;
        while !tile.is_full() {
            let more = self.feed.next(|series| {
                columns.clear();
                let (labels, samples) = (&series.labels, series.samples.as_ref());
                let needed = Needed {
                    range,
                    stats: select.stats,
                    packed: packed && samples.replicas().is_empty(),
                };
                replicas.read(
                    samples,
                    columns,
                    &windows,
                    Measure::Newest,
                    |samples, columns| {
                        self::read(samples, needed, columns, memory)?;
                        if self.shown == Shown::StartTime {
                            super::started::into_values(columns);
                        }
                        if smoothed {
                            remove_stale(columns);
                        }
                        Ok(())
                    },
                )?;
                let count = columns.sample_count() + replicas.others_len();
                read += count as u64;
                if count == 0 {
                    return Ok(());
                }
                let mut row = tile.push(labels.clone());
                let histograms = if replicas.is_single() {
                    show(labels, columns, &mut row)
                } else {
                    let shape = (&windows, Measure::Newest, smoothed);
                    replicas.join(columns, shape, &mut row, |columns, row| {
                        Ok(show(labels, columns, row))
                    })?
                };
                if !histograms.is_empty() {
                    *tile.histograms_mut(tile.len() - 1) = histograms;
                }
                tile.pop_if_absent();
                Ok(())
            })?;
            if more.is_none() {
                break;
            }
        }
        if let Some(names) = &mut self.names {
            names.drop_all(tile)?;
        }
        let present = tile.count();
        let mut tally = self.run.tally(self.select.counting, self.grid.count);
        tally.read = read;
        // Prometheus does not count what is interpolated.
        if !smoothed && tally.by_step() {
            tile.rows().for_each(|row| tally.add_row(row));
        } else if !smoothed {
            (tally.queryable, tally.new) = (present, present);
        }
        self.run.count(tally);
        self.run.hold(present)?;
        Ok(!tile.is_empty())
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        Some(&mut self.feed)
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        Some(Box::new(InstantRows {
            feed: Feed::empty(self.run),
            names: self.names.clone(),
            columns: Columns::default(),
            replicas: Replicas::new(self.run),
            memory: self.run.memory(SAMPLES),
            ..*self
        }))
    }
}

/// What is needed of a series.
#[derive(Clone, Copy)]
pub(super) struct Needed {
    pub(super) range: TimeRange,
    /// Counts and sums of histograms will do ([`keep_stats`]).
    pub(super) stats: bool,
    /// Histograms may come packed. Not for replicas, which are compared sample by sample.
    pub(super) packed: bool,
}

/// Reads what is needed.
pub(super) fn read(
    samples: &dyn Samples,
    needed: Needed,
    columns: &mut Columns,
    memory: &mut Reservation,
) -> Result<(), EvalError> {
    let Needed {
        range,
        stats,
        packed,
    } = needed;
    memory.grow_to(16 * samples.count_estimate())?;
    if !packed || !samples.read_packed(range, stats, columns)? {
        samples.read(range, columns)?;
        if stats {
            keep_stats(columns);
        }
    }
    if columns.has_histograms() {
        // How large they are shows when they are read.
        memory.grow_to(columns.bytes())?;
    }
    Ok(())
}

/// Sets each step to the last sample at or before it that is younger than the lookback.
fn look(columns: &Columns, select: &InstantSelect, times: bool, steps: usize, row: &mut Row<'_>) {
    let (timestamps, values) = (columns.timestamps.as_slice(), columns.values.as_slice());
    let mut next = 0;
    let mut at_ms = select.first_ms;
    for step in 0..steps {
        while next < timestamps.len() && timestamps[next] <= at_ms {
            next += 1;
        }
        if next > 0 {
            let (time, value) = (timestamps[next - 1], values[next - 1]);
            if time > at_ms - select.lookback_ms && !is_stale(value) {
                row.set(step, if times { time as f64 / 1000.0 } else { value });
            }
        }
        at_ms += select.step_ms;
    }
}

/// As [`look`] and [`held`] for a series with histograms.
fn look_at_both(
    columns: &Columns,
    select: &InstantSelect,
    times: bool,
    steps: usize,
    row: &mut Row<'_>,
    histograms: &mut HistogramRow,
) {
    let (mut float, mut histogram) = (0, 0);
    for step in 0..steps {
        let at_ms = select.first_ms + select.step_ms * step as i64;
        while columns.timestamps.get(float).is_some_and(|t| *t <= at_ms) {
            float += 1;
        }
        while columns
            .histograms
            .get(histogram)
            .is_some_and(|it| it.0 <= at_ms)
        {
            histogram += 1;
        }
        let seen = |t: i64| t > at_ms - select.lookback_ms;
        let last_float = float
            .checked_sub(1)
            .map(|i| (columns.timestamps[i], columns.values[i]));
        let last = histogram.checked_sub(1).map(|i| &columns.histograms[i]);
        let float_time = last_float.map_or(i64::MIN, |it| it.0);
        match (last, last_float) {
            (Some((time, value)), _) if *time >= float_time => {
                let live = seen(*time) && !value.is_stale();
                match times {
                    true if live => row.set(step, *time as f64 / 1000.0),
                    false if live => histograms.push((step, value.clone())),
                    _ => {}
                }
            }
            (_, Some((time, value))) if seen(time) && !is_stale(value) => {
                row.set(step, if times { time as f64 / 1000.0 } else { value });
            }
            _ => {}
        }
    }
}

/// As [`look`] and [`held`] for a series with nothing but histograms.
fn look_at_packed(
    packed: &PackedHistograms,
    select: &InstantSelect,
    times: bool,
    row: &mut Row<'_>,
    histograms: &mut HistogramRow,
) {
    let all = packed.times();
    let mut next = 0;
    let mut shown: Option<(usize, Arc<FloatHistogram>)> = None;
    for step in 0..row.values.len() {
        let at_ms = select.first_ms + select.step_ms * step as i64;
        while all.get(next).is_some_and(|t| *t <= at_ms) {
            next += 1;
        }
        let Some(at) = next.checked_sub(1) else {
            continue;
        };
        if all[at] <= at_ms - select.lookback_ms || packed.is_stale(at) {
            continue;
        }
        if times {
            row.set(step, all[at] as f64 / 1000.0);
            continue;
        }
        let histogram = match shown {
            Some((shown, histogram)) if shown == at => histogram,
            _ => Arc::new(packed.get(at)),
        };
        histograms.push((step, Arc::clone(&histogram)));
        shown = Some((at, histogram));
    }
}

/// Sets each step to the value that a line between the samples around it has there, or to the
/// last sample before it when none follows.
fn smooth(columns: &Columns, select: &InstantSelect, steps: usize, row: &mut Row<'_>) {
    let (timestamps, values) = (columns.timestamps.as_slice(), columns.values.as_slice());
    let mut next = 0;
    for step in 0..steps {
        let at_ms = select.first_ms + select.step_ms * step as i64;
        while next < timestamps.len() && timestamps[next] < at_ms {
            next += 1;
        }
        let near = |i: &usize| (timestamps[*i] - at_ms).abs() < select.lookback_ms;
        let after = Some(next)
            .filter(|i| *i < timestamps.len())
            .filter(|i| near(i) || timestamps[*i] == at_ms + select.lookback_ms);
        let before = next.checked_sub(1).filter(near);
        match (before, after) {
            (_, Some(after)) if timestamps[after] == at_ms => row.set(step, values[after]),
            (Some(before), Some(after)) => {
                let (from, to) = (values[before], values[after]);
                let passed = (at_ms - timestamps[before]) as f64;
                let between = (timestamps[after] - timestamps[before]) as f64;
                row.set(step, from + (to - from) * passed / between);
            }
            (Some(before), None) => row.set(step, values[before]),
            (None, _) => {}
        }
    }
}

/// Puts right what [`smooth`] gives where there are histograms: between two of them the one on the
/// line, the last where none follows, and nothing where there are floats too.
fn smooth_both(
    columns: &Columns,
    select: &InstantSelect,
    steps: usize,
    name: &str,
    row: &mut Row<'_>,
    remarks: &mut Remarks,
) -> HistogramRow {
    let mut histograms = HistogramRow::new();
    let all = columns.histograms.as_slice();
    for step in 0..steps {
        let at_ms = select.first_ms + select.step_ms * step as i64;
        let (from_ms, to_ms) = (at_ms - select.lookback_ms, at_ms + select.lookback_ms);
        let from = all.partition_point(|it| it.0 <= from_ms);
        let near = &all[from..all.partition_point(|it| it.0 <= to_ms)];
        if near.is_empty() {
            continue;
        }
        row.present[step / 64] &= !(1 << (step % 64));
        let times = &columns.timestamps;
        let floats =
            times.partition_point(|t| *t <= to_ms) - times.partition_point(|t| *t <= from_ms);
        if floats > 0 {
            remarks.push((true, mixed(name)));
            continue;
        }
        let next = near.partition_point(|it| it.0 < at_ms);
        let before = next.checked_sub(1).map(|at| &near[at]);
        match (before, near.get(next)) {
            (_, Some((time, histogram))) if *time == at_ms => {
                histograms.push((step, histogram.clone()));
            }
            (Some(before), Some(after)) if before.1.is_custom() != after.1.is_custom() => {
                remarks.push((true, mixed_schemas(name)));
            }
            (Some(before), Some(after)) => {
                let gauge = |it: &FloatHistogram| it.hint == CounterReset::Gauge;
                let is_counter = !gauge(&before.1) || !gauge(&after.1);
                match interpolate(before, after, at_ms, is_counter, remarks) {
                    Ok(histogram) => histograms.push((step, Arc::new(histogram))),
                    Err(_) => remarks.push((true, mixed_schemas(name))),
                }
            }
            (Some((_, histogram)), None) => {
                let mut histogram = histogram.clone();
                Arc::make_mut(&mut histogram).hint = CounterReset::Unknown;
                histograms.push((step, histogram));
            }
            (None, _) => {}
        }
    }
    histograms
}

/// With `@`, all steps see the same sample.
fn held(columns: &Columns, select: &InstantSelect, times: bool, steps: usize, row: &mut Row<'_>) {
    let (Some(time), Some(value)) = (columns.timestamps.last(), columns.values.last()) else {
        return;
    };
    if *time <= select.first_ms - select.lookback_ms || is_stale(*value) {
        return;
    }
    row.values
        .fill(if times { *time as f64 / 1000.0 } else { *value });
    tile::fill(row.present, steps);
}

/// The samples of a range selector that stands alone: those with `min_ms < t <= max_ms`.
pub(super) fn samples(
    run: &Run<'_>,
    select: usize,
    edges: Edges,
    (min_ms, max_ms): (i64, i64),
    memory: &mut Reservation,
) -> Result<Vec<MatrixSeries>, EvalError> {
    let (before_ms, after_ms) = match edges {
        Edges::Plain => (0, 0),
        Edges::Anchored { lookback_ms } => (lookback_ms, 0),
        Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
    };
    let mut all = Vec::new();
    let mut bytes = 0;
    let mut feed = run.open(select)?;
    let range = TimeRange::new(
        min_ms.saturating_sub(before_ms).saturating_add(1),
        max_ms.saturating_add(after_ms),
    );
    loop {
        let more = feed.next(|series| {
            let mut columns = Columns::default();
            let mut reading = run.memory(SAMPLES);
            let needed = Needed {
                range,
                stats: false,
                packed: false,
            };
            read(series.samples.as_ref(), needed, &mut columns, &mut reading)?;
            columns.shrink_to_fit();
            bytes += columns.bytes() + size_of::<MatrixSeries>() + series.labels.as_bytes().len();
            memory.grow_to(bytes)?;
            let read = (columns.len() + columns.histograms.len()) as u64;
            columns.forget_start_times();
            remove_stale(&mut columns);
            extended::samples(&mut columns, edges, min_ms, max_ms)
                .map_err(|text| EvalError::Execution(text.to_owned()))?;
            let histograms = columns.histograms.iter().map(|it| it.1.as_ref());
            let count = columns.len() as u64 + tile::weights(histograms).sum::<u64>();
            run.count_alone(read, count);
            run.hold(count)?;
            if !columns.is_empty() || !columns.histograms.is_empty() {
                all.push(MatrixSeries {
                    labels: series.labels.clone(),
                    columns: columns.into(),
                });
            }
            Ok(())
        })?;
        if more.is_none() {
            break;
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(all)
}

/// Leaves of histograms their counts and sums, and says of each whether its counter was reset since
/// the one before it, as far as that was read: without buckets nobody else could.
pub(super) fn keep_stats(columns: &mut Columns) {
    let histograms = columns.histograms.as_mut_slice();
    // From the last one on, so that the one before each is still whole.
    for at in (0..histograms.len()).rev() {
        let (before, rest) = histograms.split_at_mut(at);
        let Some((_, histogram)) = rest.first_mut() else {
            continue;
        };
        let hint = match histogram.hint {
            CounterReset::Unknown if !histogram.is_stale() => {
                match before.iter().rev().find(|it| !it.1.is_stale()) {
                    None => CounterReset::Unknown,
                    Some((_, before)) if histogram.detect_reset(before) => CounterReset::Reset,
                    Some(_) => CounterReset::NotReset,
                }
            }
            hint => hint,
        };
        let stats = FloatHistogram {
            hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            ..FloatHistogram::default()
        };
        match Arc::get_mut(histogram) {
            Some(own) => *own = stats,
            None => *histogram = Arc::new(stats),
        }
    }
}

/// Takes the staleness markers out.
pub(super) fn remove_stale(columns: &mut Columns) {
    if columns.has_start_times() {
        return super::started::remove_stale(columns);
    }
    columns.histograms.retain(|it| !it.1.is_stale());
    columns.packed.remove_stale();
    // Looking through all without an early exit is vectorised; finding one is rare.
    if !columns
        .values
        .iter()
        .fold(false, |any, value| any | is_stale(*value))
    {
        return;
    }
    let mut kept = 0;
    for i in 0..columns.len() {
        if !is_stale(columns.values[i]) {
            columns.timestamps[kept] = columns.timestamps[i];
            columns.values[kept] = columns.values[i];
            kept += 1;
        }
    }
    columns.timestamps.truncate(kept);
    columns.values.truncate(kept);
}
