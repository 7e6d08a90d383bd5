//! The samples of all parts, one for each time.

use std::sync::Arc;

use isobar_model::histogram::CounterReset;

use super::{Point, Value};

/// Chains parts as Prometheus' `storage.ChainedSeriesMerge` does for its engine, which asks for
/// the times `asked`: where the first of a pair lies behind what it has seen, it seeks to it, and
/// then it goes on to the second sample by sample.
///
/// Of samples with one time, that of a part that waits is taken before that of the part which gave
/// the sample before; after seeking, that of the first part. A histogram that follows one of
/// another part is not known to be free of a reset.
pub(super) fn merge(
    parts: Vec<Vec<Point>>,
    asked: impl IntoIterator<Item = (i64, i64)>,
) -> Vec<Point> {
    let mut chain = Chain {
        parts: parts.into_iter().map(Part::new).collect(),
        waiting: Vec::new(),
        current: None,
        last_ms: None,
        merged: Vec::new(),
    };
    chain.walk(asked);
    chain.merged
}

/// The samples of a part, and how far they are read.
struct Part {
    points: Vec<Point>,
    /// One more than the number of the current sample; 0 before the first.
    read: usize,
}

impl Part {
    fn new(points: Vec<Point>) -> Self {
        Part { points, read: 0 }
    }

    /// The current sample.
    fn point(&self) -> Option<&Point> {
        self.points.get(self.read.checked_sub(1)?)
    }

    fn time_ms(&self) -> Option<i64> {
        self.point().map(|it| it.time_ms)
    }

    /// Goes on by one sample; gives its time.
    fn next(&mut self) -> Option<i64> {
        self.read = self.points.len().min(self.read) + 1;
        self.time_ms()
    }

    /// Goes on to the first sample that is not before `time_ms`.
    fn seek(&mut self, time_ms: i64) -> Option<i64> {
        self.read = self.read.max(1);
        while self.time_ms().is_some_and(|it| it < time_ms) {
            self.read += 1;
        }
        self.time_ms()
    }
}

struct Chain {
    parts: Vec<Part>,
    /// Parts that wait for their turn, as Go's `container/heap` keeps them by time: which of
    /// equal ones comes first depends on how it is done.
    waiting: Vec<usize>,
    current: Option<usize>,
    last_ms: Option<i64>,
    merged: Vec<Point>,
}

impl Chain {
    fn walk(&mut self, asked: impl IntoIterator<Item = (i64, i64)>) -> Option<()> {
        for part in 1..self.parts.len() {
            if self.parts[part].next().is_some() {
                self.push(part);
            }
        }
        self.current = (!self.parts.is_empty()).then_some(0);
        self.next(true)?;
        let mut seen_ms = None;
        for (from_ms, to_ms) in asked {
            if seen_ms.is_none_or(|seen_ms| from_ms > seen_ms) {
                self.seek(from_ms)?;
                seen_ms = self.last_ms;
            }
            while seen_ms.is_none_or(|seen_ms| seen_ms < to_ms) {
                self.next(false)?;
                seen_ms = self.last_ms;
            }
        }
        Some(())
    }

    /// Takes the next sample; `None` when there is none.
    fn next(&mut self, mut changed: bool) -> Option<()> {
        let mut current = self.current?;
        loop {
            let first_ms = self
                .waiting
                .first()
                .and_then(|it| self.parts[*it].time_ms());
            match self.parts[current].next() {
                Some(time_ms) if Some(time_ms) == self.last_ms => continue,
                Some(time_ms) if first_ms.is_none_or(|first_ms| time_ms < first_ms) => break,
                Some(_) => self.push(current),
                None => {}
            }
            self.current = self.pop();
            current = self.current?;
            changed = true;
            if self.parts[current].time_ms() != self.last_ms {
                break;
            }
        }
        self.take(current, changed)
    }

    /// Takes the first sample that is not before `time_ms`, unless it was taken last.
    fn seek(&mut self, time_ms: i64) -> Option<()> {
        if self.current.is_some() && self.last_ms.is_some_and(|last_ms| last_ms >= time_ms) {
            return Some(());
        }
        self.waiting.clear();
        for part in 0..self.parts.len() {
            if self.parts[part].seek(time_ms).is_some() {
                self.push(part);
            }
        }
        self.current = self.pop();
        self.take(self.current?, true)
    }

    fn take(&mut self, current: usize, changed: bool) -> Option<()> {
        let mut point = self.parts[current].point()?.clone();
        if let Value::Histogram(histogram) = &mut point.value
            && changed
            && histogram.hint != CounterReset::Gauge
        {
            Arc::make_mut(histogram).hint = CounterReset::Unknown;
        }
        self.last_ms = Some(point.time_ms);
        self.merged.push(point);
        Some(())
    }

    fn is_less(&self, i: usize, j: usize) -> bool {
        let time_ms = |at: usize| {
            self.waiting
                .get(at)
                .and_then(|it| self.parts[*it].time_ms())
        };
        time_ms(i) < time_ms(j)
    }

    fn push(&mut self, part: usize) {
        self.waiting.push(part);
        let mut at = self.waiting.len() - 1;
        while at > 0 && self.is_less(at, (at - 1) / 2) {
            self.waiting.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let end = self.waiting.len().checked_sub(1)?;
        self.waiting.swap(0, end);
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= end {
                break;
            }
            let least = if right < end && self.is_less(right, left) {
                right
            } else {
                left
            };
            if !self.is_less(least, at) {
                break;
            }
            self.waiting.swap(at, least);
            at = least;
        }
        self.waiting.pop()
    }
}
