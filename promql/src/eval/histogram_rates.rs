//! `rate`, `increase` and `delta` over native histograms.
//!
//! What depends on pairs of samples alone, above all resets, is found out once for a series
//! ([`Rates::new`]). A window then looks at its first and last sample and at those between which
//! there was a reset, not at all of its samples.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use isobar_model::FloatHistogram;
use isobar_model::histogram::{CUSTOM_SCHEMA, CounterReset, PackedHistograms};

use super::histogram_windows::{
    Point, Remarks, mixed_schemas, not_a, reconciled, seconds_of_range, slide,
};
use super::tile::HistogramRow;
use crate::functions::range::RangeFn;
use crate::functions::range::started::Started;
use crate::functions::row::Windows;

/// Histograms in order of time.
pub(super) trait Histograms {
    fn time_ms(&self, at: usize) -> i64;
    fn hint(&self, at: usize) -> CounterReset;
    fn schema(&self, at: usize) -> i32;
    fn count(&self, at: usize) -> f64;
    fn get(&self, at: usize) -> Cow<'_, FloatHistogram>;
    fn len(&self) -> usize;

    /// The samples that may have another schema or hint than the one before, or are not known to be
    /// free of a reset, apart from what start times tell.
    fn borders(&self) -> Vec<usize>;

    /// Sample `last` less sample `first`, where that takes no more than subtracting numbers.
    fn difference(&self, _first: usize, _last: usize) -> Option<FloatHistogram> {
        None
    }
}

impl Histograms for &[Point] {
    fn time_ms(&self, at: usize) -> i64 {
        self[at].0
    }

    fn hint(&self, at: usize) -> CounterReset {
        self[at].1.hint
    }

    fn schema(&self, at: usize) -> i32 {
        self[at].1.schema
    }

    fn count(&self, at: usize) -> f64 {
        self[at].1.count
    }

    fn get(&self, at: usize) -> Cow<'_, FloatHistogram> {
        Cow::Borrowed(&self[at].1)
    }

    fn len(&self) -> usize {
        <[Point]>::len(self)
    }

    fn borders(&self) -> Vec<usize> {
        (0..<[Point]>::len(self)).collect()
    }
}

impl Histograms for &PackedHistograms {
    fn time_ms(&self, at: usize) -> i64 {
        self.times()[at]
    }

    fn hint(&self, at: usize) -> CounterReset {
        PackedHistograms::hint(self, at)
    }

    fn schema(&self, at: usize) -> i32 {
        PackedHistograms::schema(self, at)
    }

    fn count(&self, at: usize) -> f64 {
        PackedHistograms::count(self, at)
    }

    fn get(&self, at: usize) -> Cow<'_, FloatHistogram> {
        Cow::Owned(PackedHistograms::get(self, at))
    }

    fn len(&self) -> usize {
        PackedHistograms::len(self)
    }

    fn borders(&self) -> Vec<usize> {
        PackedHistograms::borders(self)
    }

    fn difference(&self, first: usize, last: usize) -> Option<FloatHistogram> {
        PackedHistograms::difference(self, first, last)
    }
}

/// A series of histograms and what is to be computed of its windows.
pub(super) struct Rates<'a, H> {
    all: H,
    /// Since when they count; may end early.
    start_times: &'a [i64],
    func: RangeFn,
    range_ms: i64,
    name: &'a str,
    /// The samples since the one before which the counter was reset.
    resets: Vec<usize>,
    /// Those that have another schema than the one before, or of which only one is a gauge.
    changes: Vec<usize>,
    /// Those that count from before the one before, without being the same counter.
    overlaps: Vec<usize>,
}

/// The rows of packed histograms, without floats among them.
pub(super) fn apply(
    func: RangeFn,
    packed: &PackedHistograms,
    windows: &Windows,
    name: &str,
    remarks: &mut Remarks,
) -> HistogramRow {
    let rates = Rates::new(packed, &[], func, windows.range_ms, name);
    let mut result = HistogramRow::new();
    let times = packed.times();
    let mut range = 0..0;
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms - windows.range_ms;
        slide(&mut range, times.len(), start_ms, end_ms, |i| times[i]);
        if range.is_empty() {
            continue;
        }
        if let Some(histogram) = rates.window(range.clone(), (start_ms, end_ms), remarks) {
            result.push((step, Arc::new(histogram)));
        }
    }
    result
}

impl<'a, H: Histograms> Rates<'a, H> {
    pub(super) fn new(
        all: H,
        start_times: &'a [i64],
        func: RangeFn,
        range_ms: i64,
        name: &'a str,
    ) -> Self {
        let mut rates = Rates {
            all,
            start_times,
            func,
            range_ms,
            name,
            resets: Vec::new(),
            changes: Vec::new(),
            overlaps: Vec::new(),
        };
        if !rates.is_counter() {
            return rates;
        }
        let all = &rates.all;
        let gauge = |at: usize| all.hint(at) == CounterReset::Gauge;
        for at in all.borders() {
            let Some(before) = at.checked_sub(1) else {
                continue;
            };
            if all.schema(at) != all.schema(before) || gauge(at) != gauge(before) {
                rates.changes.push(at);
            }
            let is_reset = match all.hint(at) {
                CounterReset::Reset => true,
                CounterReset::NotReset => false,
                _ => all.get(at).detect_reset(&all.get(before)),
            };
            if is_reset {
                rates.resets.push(at);
            }
        }
        if !start_times.is_empty() {
            for at in 1..rates.all.len() {
                let (now, before) = (rates.started(at), rates.started(at - 1));
                if now.is_reset(before) {
                    rates.resets.push(at);
                }
                if now.overlaps(before) {
                    rates.overlaps.push(at);
                }
            }
            rates.resets.sort_unstable();
            rates.resets.dedup();
        }
        rates
    }

    fn is_counter(&self) -> bool {
        self.func != RangeFn::Delta
    }

    /// The time of a sample and since when it counts.
    fn started(&self, at: usize) -> Started {
        Started {
            time_ms: self.all.time_ms(at),
            start_ms: self.start_times.get(at).copied().unwrap_or(0),
        }
    }

    fn is_gauge(&self, at: usize) -> bool {
        self.all.hint(at) == CounterReset::Gauge
    }

    fn is_custom(&self, at: usize) -> bool {
        self.all.schema(at) == CUSTOM_SCHEMA
    }

    /// The result of the window that ends at `end_ms` and holds the samples `range`, which are one
    /// at least.
    pub(super) fn window(
        &self,
        range: Range<usize>,
        (start_ms, end_ms): (i64, i64),
        remarks: &mut Remarks,
    ) -> Option<FloatHistogram> {
        let all = &self.all;
        let (first, last) = (range.start, range.end - 1);
        let begin = self.started(first);
        let from_zero = self.is_counter() && begin.begins_within(start_ms);
        let alone = first == last;
        if alone && !from_zero {
            return None;
        }
        let mut result = match alone {
            true => all.get(first).into_owned(),
            false => self.difference(first, last, remarks)?,
        };
        let (first_ms, last_ms) = (all.time_ms(first), all.time_ms(last));
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let mut to_start = seconds(first_ms - start_ms);
        let mut to_end = seconds(end_ms - last_ms);
        let mut sampled = seconds(last_ms - first_ms);
        let average = match alone {
            true => 0.0,
            false => sampled / (last - first) as f64,
        };
        let threshold = average * 1.1;
        if from_zero {
            to_start = 0.0;
            sampled = seconds(last_ms - begin.start_ms);
            if !alone {
                match result.add(&all.get(first)) {
                    Err(_) => {
                        remarks.push((true, mixed_schemas(self.name)));
                        return None;
                    }
                    Ok(added) if added.bounds_reconciled => remarks.push(reconciled("addition")),
                    Ok(_) => {}
                }
            }
        } else if to_start >= threshold {
            to_start = average / 2.0;
        }
        // A counter was not below zero before its first sample.
        let first_count = all.count(first);
        if self.is_counter() && !from_zero && result.count > 0.0 && first_count >= 0.0 {
            let to_zero = sampled * (first_count / result.count);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = 1.0;
        if sampled != 0.0 {
            factor = (sampled + to_start + to_end) / sampled;
        }
        if self.func == RangeFn::Rate {
            factor /= seconds_of_range(self.range_ms);
        }
        result.mul(factor);
        Some(result)
    }

    /// The last histogram less the first, with what resets took away.
    fn difference(
        &self,
        first: usize,
        last: usize,
        remarks: &mut Remarks,
    ) -> Option<FloatHistogram> {
        let all = &self.all;
        let resets = within(&self.resets, first, last);
        let changes = within(&self.changes, first, last);
        let mut own = Remarks::new();
        if self.is_counter() && (self.is_gauge(first) || self.is_gauge(last)) {
            own.push((true, not_a("counter", self.name)));
        }
        // Behind a reset nothing of the first one counts, not even its layout.
        let anew = resets.first() == Some(&(first + 1));
        let base = if anew { first + 1 } else { first };
        let custom = self.is_custom(base);
        if self.is_custom(last) != custom {
            remarks.append(&mut own);
            remarks.push((true, mixed_schemas(self.name)));
            return None;
        }
        let mut schema = all.schema(last).min(all.schema(base));
        if !changes.is_empty() {
            // Between changes all are alike.
            let inner = changes.iter().copied().filter(|at| *at > first + 1);
            for at in std::iter::once(first + 1).chain(inner) {
                if at == last {
                    break;
                }
                if self.is_gauge(at) {
                    own.push((true, not_a("counter", self.name)));
                }
                schema = schema.min(all.schema(at));
                if self.is_custom(at) != custom {
                    remarks.push((true, mixed_schemas(self.name)));
                    return None;
                }
            }
        }
        let plain = match resets.is_empty() && changes.is_empty() {
            true => all.difference(first, last),
            false => None,
        };
        let mut result = match plain {
            Some(result) => result,
            None => match self.combine((first, last), schema, anew, resets, &mut own) {
                Some(result) => result,
                None => {
                    remarks.push((true, mixed_schemas(self.name)));
                    return None;
                }
            },
        };
        let gauges = self.is_gauge(first) && self.is_gauge(last);
        if !self.is_counter() && !gauges {
            own.push((true, not_a("gauge", self.name)));
        }
        if !within(&self.overlaps, first, last).is_empty() {
            own.push((true, super::remarks::overlap(self.name)));
        }
        remarks.append(&mut own);
        result.hint = CounterReset::Gauge;
        result.compact();
        Some(result)
    }

    /// As `difference`, for histograms that may differ in their buckets; `None` when they do not go
    /// together.
    fn combine(
        &self,
        (first, last): (usize, usize),
        schema: i32,
        anew: bool,
        resets: &[usize],
        remarks: &mut Remarks,
    ) -> Option<FloatHistogram> {
        let all = &self.all;
        let mut result = all.get(last).into_owned();
        result.reduce_to(schema);
        let before = match anew {
            false => all.get(first),
            true => {
                let second = all.get(first + 1);
                Cow::Owned(FloatHistogram {
                    schema: second.schema,
                    custom: Arc::clone(&second.custom),
                    ..FloatHistogram::default()
                })
            }
        };
        if result.sub(&before).ok()?.bounds_reconciled {
            remarks.push(reconciled("subtraction"));
        }
        for at in resets.iter().copied() {
            let lost = match at == first + 1 {
                false => all.get(at - 1),
                true => {
                    let started = self.started(at).is_reset(self.started(at - 1));
                    if !started && !all.get(at).detect_reset(&before) {
                        continue;
                    }
                    Cow::Borrowed(before.as_ref())
                }
            };
            if result.add(&lost).ok()?.bounds_reconciled {
                remarks.push(reconciled("addition"));
            }
        }
        Some(result)
    }
}

/// Those of ascending positions that lie behind `first` up to `last`.
fn within(positions: &[usize], first: usize, last: usize) -> &[usize] {
    if positions.is_empty() {
        return positions;
    }
    let from = positions.partition_point(|at| *at <= first);
    let to = positions.partition_point(|at| *at <= last);
    &positions[from..to]
}
