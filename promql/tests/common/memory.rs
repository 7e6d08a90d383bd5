//! The series that a script has loaded, as a source for the evaluator.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobar_model::histogram::{CounterReset, Layout, PackedHistograms};
use isobar_model::sample::STALE_NAN;
use isobar_model::series::{self, Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, FloatHistogram, Labels, SelectError, TimeRange};
use isobar_promql::parse::series::SequenceValue;

use super::script::Load;
use super::{histogram, nhcb};

/// A sample of a series.
pub(crate) enum Sample {
    Float(f64),
    Histogram(FloatHistogram),
}

/// The samples of a series by time.
pub(crate) type Samples = BTreeMap<i64, Sample>;

/// Series in memory.
#[derive(Default)]
pub(crate) struct Memory {
    series: BTreeMap<Labels, Samples>,
    /// By series and sample, since when the sample counts.
    start_times: BTreeMap<Labels, BTreeMap<i64, i64>>,
    /// Whether histograms come packed to those who take them so.
    pub(crate) packs: bool,
}

impl Memory {
    pub(crate) fn clear(&mut self) {
        *self = Memory::default();
    }

    pub(crate) fn load(&mut self, load: &Load) {
        let mut loaded: BTreeMap<Labels, Samples> = BTreeMap::new();
        for (labels, values) in &load.series {
            let samples = loaded.entry(labels.clone()).or_default();
            for (i, value) in values.iter().enumerate() {
                let sample = match value {
                    SequenceValue::Omitted => continue,
                    SequenceValue::Float(value) => Sample::Float(*value),
                    histogram => {
                        let read = histogram::of_sequence(histogram).expect("a histogram");
                        Sample::Histogram(read.expect("a histogram").0)
                    }
                };
                samples.insert(i as i64 * load.step_ms, sample);
            }
        }
        for (labels, offsets) in &load.start_times {
            let starts = self.start_times.entry(labels.clone()).or_default();
            for (i, offset) in offsets.iter().enumerate() {
                let time = i as i64 * load.step_ms;
                starts.extend(offset.map(|offset| (time, time + offset)));
            }
        }
        let native = match load.with_nhcb {
            true => nhcb::convert(&loaded),
            false => BTreeMap::new(),
        };
        for (labels, samples) in loaded.into_iter().chain(native) {
            self.series.entry(labels).or_default().extend(samples);
        }
    }
}

/// The samples as a store gives them back, with their start times.
fn columns(samples: &Samples, starts: Option<&BTreeMap<i64, i64>>, select: &Select) -> Columns {
    let mut columns = Columns::default();
    let mut before = None;
    for (time, sample) in samples {
        let wanted = select.range.contains(*time);
        match sample {
            Sample::Float(value) => {
                // The marker says that histograms end where a series has them.
                let ends = before.is_some() && isobar_model::sample::is_stale(*value);
                if wanted && ends {
                    let stale = Arc::new(FloatHistogram::stale());
                    columns.histograms.push((*time, stale));
                } else if wanted {
                    columns.push(*time, *value);
                }
                before = None;
            }
            Sample::Histogram(value) => {
                let hint = histogram::stored_hint(value, before);
                before = Some(value);
                if wanted {
                    let value = FloatHistogram {
                        hint,
                        ..value.clone()
                    };
                    columns.histograms.push((*time, Arc::new(value)));
                }
            }
        }
    }
    if let Some(starts) = starts {
        let start = |time: &i64| starts.get(time).copied().unwrap_or(0);
        columns.start_times = columns.timestamps.iter().map(start).collect();
        let histograms = columns.histograms.iter();
        columns.histogram_start_times = histograms.map(|it| start(&it.0)).collect();
    }
    columns
}

impl SeriesSource for Memory {
    fn open(&self, _: usize, select: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let matches = |labels: &&Labels| {
            select
                .matchers
                .iter()
                .all(|m| m.matches(labels.get(m.name())))
        };
        let mut batch = Vec::new();
        for labels in self.series.keys().filter(matches) {
            let columns = columns(&self.series[labels], self.start_times.get(labels), select);
            if !columns.is_empty() || !columns.histograms.is_empty() {
                batch.push(Series {
                    labels: labels.clone(),
                    samples: match self.packs {
                        true => Box::new(Packing(columns)),
                        false => Box::new(columns),
                    },
                });
            }
        }
        Ok(Box::new(Stream(batch)))
    }
}

/// Samples that come packed where that can be.
struct Packing(Columns);

impl series::Samples for Packing {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        self.0.read(range, columns)
    }

    fn read_packed(
        &self,
        range: TimeRange,
        stats: bool,
        columns: &mut Columns,
    ) -> Result<bool, SelectError> {
        let mut all = Columns::default();
        self.0.read(range, &mut all)?;
        if all.is_empty() {
            columns.packed = pack(&all.histograms, stats);
        }
        Ok(all.is_empty())
    }

    fn count_estimate(&self) -> usize {
        self.0.count_estimate()
    }
}

fn pack(histograms: &[(i64, Arc<FloatHistogram>)], stats: bool) -> PackedHistograms {
    let mut packed = PackedHistograms::default();
    let mut run: Option<(Layout, CounterReset)> = None;
    let mut before: Option<&FloatHistogram> = None;
    for (time_ms, histogram) in histograms {
        let whole = Layout {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive: Arc::clone(histogram.positive.indexes()),
            negative: Arc::clone(histogram.negative.indexes()),
            custom: Arc::clone(&histogram.custom),
        };
        let layout = match stats {
            false => whole,
            true => Layout {
                schema: histogram.schema,
                ..Layout::default()
            },
        };
        let hint = match before {
            Some(before) if stats && histogram.hint == CounterReset::Unknown => {
                match histogram.detect_reset(before) {
                    true => CounterReset::Reset,
                    false => CounterReset::NotReset,
                }
            }
            _ => histogram.hint,
        };
        let continues = matches!(&run, Some((open, rest)) if *open == layout && *rest == hint);
        let stays = continues || histogram.is_stale() && run.is_some();
        if !stays {
            let rest = match hint {
                CounterReset::Gauge => CounterReset::Gauge,
                _ => CounterReset::NotReset,
            };
            packed.begin(layout.clone(), hint, rest);
            run = Some((layout, rest));
        }
        let stale = [0.0, 0.0, STALE_NAN];
        let zero_count = if stats { 0.0 } else { histogram.zero_count };
        let totals = match histogram.is_stale() {
            true => stale,
            false => [histogram.count, zero_count, histogram.sum],
        };
        let positive = histogram.positive.counts().iter().copied();
        let negative = histogram.negative.counts().iter().copied();
        match stats || histogram.is_stale() {
            true => packed.push(*time_ms, totals, std::iter::empty(), std::iter::empty()),
            false => packed.push(*time_ms, totals, positive, negative),
        }
        if !histogram.is_stale() {
            before = Some(histogram);
        }
    }
    packed
}

struct Stream(Vec<Series>);

impl SeriesStream for Stream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let some = !self.0.is_empty();
        batch.append(&mut self.0);
        Ok(some)
    }
}
