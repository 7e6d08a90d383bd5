//! The samples of all parts, one for each time.

use std::sync::Arc;

use isobar_model::histogram::CounterReset;

use super::{Point, Value};

/// Chains parts as Prometheus' `storage.ChainedSeriesMerge` does when it is read from its beginning
/// to its end.
///
/// Of samples with one time, that of a part that waits is taken before that of the part which gave
/// the sample before. A histogram that follows one of another part is not known to be free of a
/// reset.
pub(super) fn merge(parts: Vec<Vec<Point>>) -> Vec<Point> {
    let mut sources = parts.into_iter().map(|part| part.into_iter());
    let mut waiting = Heap::default();
    let Some(mut current) = sources.next() else {
        return Vec::new();
    };
    for mut source in sources {
        if let Some(point) = source.next() {
            waiting.push((point, source));
        }
    }
    let mut merged: Vec<Point> = Vec::new();
    let mut changed = true;
    loop {
        let last_ms = merged.last().map(|it| it.time_ms);
        let next = match current.next() {
            Some(point) if Some(point.time_ms) == last_ms => continue,
            Some(point) if waiting.first_ms().is_none_or(|first| point.time_ms < first) => point,
            next => {
                if let Some(point) = next {
                    waiting.push((point, current));
                }
                let Some((point, source)) = waiting.pop() else {
                    return merged;
                };
                current = source;
                changed = true;
                if Some(point.time_ms) == last_ms {
                    continue;
                }
                point
            }
        };
        let mut next = next;
        if let Value::Histogram(histogram) = &mut next.value
            && changed
            && histogram.hint != CounterReset::Gauge
        {
            Arc::make_mut(histogram).hint = CounterReset::Unknown;
        }
        merged.push(next);
        changed = false;
    }
}

type Waiting = (Point, std::vec::IntoIter<Point>);

/// Go's `container/heap` by time: which of equal elements comes first depends on how it is done.
#[derive(Default)]
struct Heap(Vec<Waiting>);

impl Heap {
    fn first_ms(&self) -> Option<i64> {
        self.0.first().map(|it| it.0.time_ms)
    }

    fn is_less(&self, i: usize, j: usize) -> bool {
        match (self.0.get(i), self.0.get(j)) {
            (Some(a), Some(b)) => a.0.time_ms < b.0.time_ms,
            _ => false,
        }
    }

    fn push(&mut self, source: Waiting) {
        self.0.push(source);
        let mut at = self.0.len() - 1;
        while at > 0 && self.is_less(at, (at - 1) / 2) {
            self.0.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn pop(&mut self) -> Option<Waiting> {
        let end = self.0.len().checked_sub(1)?;
        self.0.swap(0, end);
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
            self.0.swap(at, least);
            at = least;
        }
        self.0.pop()
    }
}
