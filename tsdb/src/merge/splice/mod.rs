//! Replicas of a series spliced into one, as Thanos Query does with `--deduplication.func`.
//!
//! Thanos (0.43, `pkg/dedup/iter.go`, `pkg/query/iter.go`) knows no replicas but only chunks: those
//! of all replicas stand in one list, ordered by time, which is divided so that no two chunks of
//! a part overlap ([`parts`]). A part may so hold chunks of several replicas in turn. The samples
//! of the parts are then put together by [`penalty`] or by [`chain`]. Beforehand, where a counter
//! is read, the resets of each part are made good ([`timeline`]).
//!
//! What comes out is a series that nobody collected: its samples come from one replica here and
//! from another there. That is what Thanos' users see, so it is kept to the last digit, mistakes
//! included; the default is another, see `isobar_promql::eval`.

use std::sync::Arc;

use isobar_model::series::Samples;
use isobar_model::{Columns, FloatHistogram, SelectError, SelectHints, TimeRange};

use crate::Error;
use crate::chunks::Chunk;

mod chain;
mod penalty;
mod timeline;

/// The most parts of a series that are put together; replicas that never overlap need but one.
const PARTS_MAX: usize = 256;

/// A way to make one series of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splice {
    /// Follow one part, and go over to another where it has a gap.
    Penalty,
    /// Take the samples of all parts.
    Chain,
}

/// The chunks of all replicas of a series as the samples of one.
#[derive(Debug, Clone)]
pub struct Spliced {
    parts: Vec<Vec<Chunk>>,
    splice: Splice,
    function: ReadFor,
    range: TimeRange,
}

/// For what samples are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadFor {
    /// Resets are made good: a counter only rises.
    counter: bool,
    /// A part that lags behind where another one ended is lifted to where that was.
    lift: bool,
    /// The distance of steps in milliseconds, 0 when there is but one.
    step_ms: i64,
    /// How far a step looks back, in milliseconds.
    back_ms: i64,
    /// Whether a sample exactly that old is looked at, if only to be passed over.
    closed: bool,
}

impl ReadFor {
    /// What the function right around a selector asks for. Each step looks at the samples of a
    /// range, or else at the last sample within the lookback.
    pub fn new(hints: &SelectHints, lookback_ms: i64) -> Self {
        let func = hints.func.as_str();
        let lift = matches!(func, "increase" | "rate" | "irate" | "resets");
        let is_range = hints.range_ms > 0;
        ReadFor {
            counter: lift || matches!(func, "xincrease" | "xrate"),
            lift,
            step_ms: hints.step_ms,
            back_ms: if is_range {
                hints.range_ms
            } else {
                lookback_ms
            },
            // Prometheus looks a millisecond less far for `timestamp`.
            closed: is_range || func != "timestamp",
        }
    }

    /// The times that the steps within `range` ask for: from when on, and until when.
    fn asked(self, range: TimeRange) -> impl Iterator<Item = (i64, i64)> {
        let ReadFor {
            step_ms, back_ms, ..
        } = self;
        let before_ms = if self.closed { back_ms } else { back_ms - 1 };
        let first_ms = range.min_ms.saturating_sub(1).saturating_add(back_ms);
        let next = move |at_ms: &i64| at_ms.checked_add(step_ms).filter(|_| step_ms > 0);
        std::iter::successors(Some(first_ms), next)
            .take_while(move |at_ms| *at_ms <= range.max_ms)
            .map(move |at_ms| (at_ms.saturating_sub(before_ms), at_ms))
    }
}

impl Spliced {
    /// The replicas whose chunks these are as one series. Samples outside of `range`, the times that the
    /// whole query looks at, take no part.
    pub fn new(chunks: Vec<Chunk>, splice: Splice, function: ReadFor, range: TimeRange) -> Self {
        Spliced {
            parts: parts(chunks),
            splice,
            function,
            range,
        }
    }

    /// The chunks of one series that has no replicas. Where two overlap, the later one begins
    /// when the earlier one has ended.
    pub fn single(chunks: Vec<Chunk>, function: ReadFor, range: TimeRange) -> Self {
        Spliced {
            parts: vec![in_order(chunks)],
            splice: Splice::Chain,
            function,
            range,
        }
    }

    fn points(&self, range: TimeRange) -> Result<Vec<Point>, Error> {
        if self.parts.len() > PARTS_MAX {
            return Err(Error::LimitExceeded(format!(
                "a series of more than {PARTS_MAX} overlapping replicas"
            )));
        }
        let read = |part: &Vec<Chunk>| timeline::read(part, self.function.counter, self.range);
        let mut parts = self.parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if parts.len() <= 1 {
            return Ok(parts.pop().unwrap_or_default());
        }
        Ok(match self.splice {
            Splice::Penalty => penalty::merge(&parts, self.function.lift),
            Splice::Chain => chain::merge(parts, self.function.asked(range)),
        })
    }
}

impl Samples for Spliced {
    /// A sample is held in its part, in what the parts give together, and in the columns.
    fn count_estimate(&self) -> usize {
        let chunks = self.parts.iter().flatten();
        let count = chunks.map(|it| it.sample_count().map_or(0, usize::from));
        4 * count.sum::<usize>()
    }

    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        let points = self.points(range)?;
        for point in points.into_iter().filter(|it| range.contains(it.time_ms)) {
            match point.value {
                Value::Float(value) => columns.push(point.time_ms, value),
                Value::Histogram(histogram) => columns.histograms.push((point.time_ms, histogram)),
            }
        }
        Ok(())
    }
}

/// A sample.
#[derive(Debug, Clone)]
struct Point {
    time_ms: i64,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// Chunks by their first time, then their last, then what is in them, where the greater bytes come
/// first, as in Thanos; of equal ones one stays.
fn in_order(mut chunks: Vec<Chunk>) -> Vec<Chunk> {
    let key = |chunk: &Chunk| (chunk.min_ms, chunk.max_ms, chunk.encoding as u8);
    chunks.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| b.data.cmp(&a.data)));
    chunks.dedup();
    chunks
}

/// Divides chunks into parts without overlap: each goes to the first part that has ended before
/// it begins.
fn parts(chunks: Vec<Chunk>) -> Vec<Vec<Chunk>> {
    let mut parts: Vec<Vec<Chunk>> = Vec::new();
    for chunk in in_order(chunks) {
        let ended = |part: &&mut Vec<Chunk>| part.last().is_none_or(|it| it.max_ms < chunk.min_ms);
        match parts.iter_mut().find(ended) {
            Some(part) => part.push(chunk),
            None => parts.push(vec![chunk]),
        }
    }
    parts
}

#[cfg(test)]
mod tests;
