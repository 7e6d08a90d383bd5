//! One part followed until it has a gap.

use super::{Point, Value};

/// What a part that was not taken has to wait before the distance of samples is known.
const FIRST_WAIT_MS: i64 = 5_000;

/// Puts parts together two by two, as Thanos' `dedupSeriesIterator` does: of both, the earlier
/// sample is taken, and the part that it was not taken from must then have one that is later by
/// twice the distance of the last two samples, else it is passed over.
///
/// With `lift`, a part that is taken up below the last value is lifted to it from there on.
pub(super) fn merge(parts: &[Vec<Point>], lift: bool) -> Vec<Point> {
    let mut parts = parts.iter().map(|points| {
        Replica::One(Single {
            points,
            at: None,
            lift: lift.then_some(0.0),
        })
    });
    let Some(first) = parts.next() else {
        return Vec::new();
    };
    let mut all = parts.fold(first, |a, b| Replica::Two(Box::new(Pair::new(a, b))));
    let mut merged = Vec::new();
    while all.next().is_some() {
        merged.extend(all.sample());
    }
    merged
}

/// What a sample is; `None` where there is none left.
type Kind = Option<Sort>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Float,
    Histogram,
}

/// Two parts may be one for a third.
enum Replica<'a> {
    One(Single<'a>),
    Two(Box<Pair<'a>>),
}

/// A part.
struct Single<'a> {
    points: &'a [Point],
    at: Option<usize>,
    /// What is added to each value, when parts are lifted.
    lift: Option<f64>,
}

struct Pair<'a> {
    a: Replica<'a>,
    b: Replica<'a>,
    a_kind: Kind,
    b_kind: Kind,
    last_ms: i64,
    last_is_a: bool,
    a_waits_ms: i64,
    b_waits_ms: i64,
    uses_a: bool,
}

impl Replica<'_> {
    fn next(&mut self) -> Kind {
        match self {
            Replica::One(part) => part.next(),
            Replica::Two(pair) => pair.next(),
        }
    }

    /// Goes on to the first sample that is not earlier than `time_ms`.
    fn seek(&mut self, time_ms: i64) -> Kind {
        match self {
            Replica::One(part) => part.seek(time_ms),
            Replica::Two(pair) => pair.seek(time_ms),
        }
    }

    fn time_ms(&self) -> i64 {
        match self {
            Replica::One(part) => part.point().map_or(i64::MIN, |it| it.time_ms),
            Replica::Two(pair) if pair.uses_a => pair.a.time_ms(),
            Replica::Two(pair) => pair.b.time_ms(),
        }
    }

    fn sample(&self) -> Option<Point> {
        match self {
            Replica::One(part) => part.sample(),
            Replica::Two(pair) => pair.last().sample(),
        }
    }

    fn value(&self) -> Option<f64> {
        match self {
            Replica::One(part) => part.value(),
            Replica::Two(pair) => pair.last().value(),
        }
    }

    /// Lifts what is below `value` to it.
    fn lift_to(&mut self, value: f64) {
        match self {
            Replica::One(part) => part.lift_to(value),
            Replica::Two(pair) => pair.lift_to(value),
        }
    }
}

impl Single<'_> {
    fn point(&self) -> Option<&Point> {
        self.points.get(self.at?)
    }

    fn kind(&self) -> Kind {
        self.point().map(|point| match point.value {
            Value::Float(_) => Sort::Float,
            Value::Histogram(_) => Sort::Histogram,
        })
    }

    fn next(&mut self) -> Kind {
        self.at = Some(self.at.map_or(0, |at| at + 1));
        self.kind()
    }

    fn seek(&mut self, time_ms: i64) -> Kind {
        let from = self.at.unwrap_or(0);
        let ahead = self.points.get(from..).unwrap_or_default();
        let earlier = ahead.iter().take_while(|it| it.time_ms < time_ms).count();
        self.at = Some(from + earlier);
        self.kind()
    }

    fn value(&self) -> Option<f64> {
        match self.point()?.value {
            Value::Float(value) => Some(self.lift.map_or(value, |lift| value + lift)),
            Value::Histogram(_) => None,
        }
    }

    fn sample(&self) -> Option<Point> {
        match self.value() {
            None => self.point().cloned(),
            Some(value) => self.point().map(|point| Point {
                time_ms: point.time_ms,
                value: Value::Float(value),
            }),
        }
    }

    fn lift_to(&mut self, to: f64) {
        if let (Some(value), Some(lift)) = (self.value(), &mut self.lift)
            && to > value
        {
            *lift += to - value;
        }
    }
}

impl<'a> Pair<'a> {
    fn new(mut a: Replica<'a>, mut b: Replica<'a>) -> Self {
        let (a_kind, b_kind) = (a.next(), b.next());
        Pair {
            a,
            b,
            a_kind,
            b_kind,
            last_ms: i64::MIN,
            last_is_a: true,
            a_waits_ms: 0,
            b_waits_ms: 0,
            uses_a: true,
        }
    }

    /// The part that gave the last sample.
    fn last(&self) -> &Replica<'a> {
        match self.last_is_a {
            true => &self.a,
            false => &self.b,
        }
    }

    fn next(&mut self) -> Kind {
        let used_a = self.uses_a;
        let kind = if used_a { self.a_kind } else { self.b_kind };
        let last_value = match kind {
            Some(Sort::Float) => self.last().value(),
            _ => None,
        };
        let next = self.step();
        if self.uses_a != used_a
            && let Some(value) = last_value
        {
            self.lift_to(value);
        }
        next
    }

    fn step(&mut self) -> Kind {
        let after_ms = self.last_ms.saturating_add(1);
        if self.a_kind.is_some() {
            self.a_kind = self.a.seek(after_ms.saturating_add(self.a_waits_ms));
        }
        if self.b_kind.is_some() {
            self.b_kind = self.b.seek(after_ms.saturating_add(self.b_waits_ms));
        }
        if self.a_kind.is_none() {
            self.uses_a = false;
            if self.b_kind.is_some() {
                self.last_ms = self.b.time_ms();
                self.last_is_a = false;
                self.b_waits_ms = 0;
            }
            return self.b_kind;
        }
        if self.b_kind.is_none() {
            self.uses_a = true;
            self.last_ms = self.a.time_ms();
            self.last_is_a = true;
            self.a_waits_ms = 0;
            return self.a_kind;
        }
        let (a_ms, b_ms) = (self.a.time_ms(), self.b.time_ms());
        self.uses_a = a_ms <= b_ms;
        self.last_is_a = self.uses_a;
        let taken_ms = a_ms.min(b_ms);
        let waits_ms = match self.last_ms {
            i64::MIN => FIRST_WAIT_MS,
            last_ms => taken_ms.saturating_sub(last_ms).saturating_mul(2),
        };
        self.last_ms = taken_ms;
        if self.uses_a {
            (self.a_waits_ms, self.b_waits_ms) = (0, waits_ms);
            self.a_kind
        } else {
            (self.a_waits_ms, self.b_waits_ms) = (waits_ms, 0);
            self.b_kind
        }
    }

    fn seek(&mut self, time_ms: i64) -> Kind {
        loop {
            let (now_ms, kind) = match self.uses_a {
                true => (self.a.time_ms(), self.a_kind),
                false => (self.b.time_ms(), self.b_kind),
            };
            if now_ms >= time_ms {
                return kind;
            }
            self.next()?;
        }
    }

    fn lift_to(&mut self, value: f64) {
        if self.a_kind == Some(Sort::Float) {
            self.a.lift_to(value);
        }
        if self.b_kind == Some(Sort::Float) {
            self.b.lift_to(value);
        }
    }
}
