//! What each operator of an evaluation took and gave, for `analyze`.
//!
//! A thread is in the [`Scope`] of one operator at a time; what it counts goes to that operator.
//! Scopes nest as operators do, and an operator's time is that of its scopes less that of the
//! scopes inside them. Times of several threads add up; waiting for each other is nobody's. When
//! nothing is measured there are no scopes, and operators are not wrapped.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use isobar_model::series::{Samples, Series};
use isobar_model::{Columns, SelectError, TimeRange};

use super::run::Feed;
use super::tile::Tile;
use super::{EvalError, Operator};
use crate::plan::Plan;

/// The measures of all operators of a plan. Clones share them; they may be read while the
/// evaluation goes on, and after it failed.
#[derive(Debug, Clone)]
pub struct Measures(Arc<[Measure]>);

/// What one operator took and gave so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorStats {
    /// Time in the operator, of all threads together and without that in those below it. The
    /// following two are parts of it.
    pub own: Duration,
    /// Time until the store gave series and their encoded samples.
    pub store: Duration,
    /// Time to decode samples.
    pub decode: Duration,
    /// Series that came out.
    pub series: u64,
    /// Samples that came out.
    pub samples: u64,
    /// Samples that were looked at, each as often as a window held it.
    pub samples_queryable: u64,
    /// Samples that were decoded.
    pub samples_read: u64,
    /// Series that the store gave.
    pub series_read: u64,
    /// Bytes of the encoded samples that were decoded, whole chunks counted.
    pub bytes_read: u64,
    /// The most samples that the query held when this operator took some.
    pub samples_peak: u64,
}

#[derive(Debug, Default)]
struct Measure {
    own_ns: AtomicU64,
    store_ns: AtomicU64,
    decode_ns: AtomicU64,
    series: AtomicU64,
    samples: AtomicU64,
    samples_queryable: AtomicU64,
    samples_read: AtomicU64,
    series_read: AtomicU64,
    bytes_read: AtomicU64,
    samples_peak: AtomicU64,
}

impl Measures {
    /// Room for the operators of `plan`.
    pub fn of(plan: &Plan) -> Self {
        Measures(
            (0..=plan.root_operator())
                .map(|_| Measure::default())
                .collect(),
        )
    }

    /// The measures of an operator, all zero when there is none of that number.
    pub fn get(&self, operator: u32) -> OperatorStats {
        let Some(it) = self.0.get(operator as usize) else {
            return OperatorStats::default();
        };
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Relaxed));
        OperatorStats {
            own: time(&it.own_ns),
            store: time(&it.store_ns),
            decode: time(&it.decode_ns),
            series: it.series.load(Relaxed),
            samples: it.samples.load(Relaxed),
            samples_queryable: it.samples_queryable.load(Relaxed),
            samples_read: it.samples_read.load(Relaxed),
            series_read: it.series_read.load(Relaxed),
            bytes_read: it.bytes_read.load(Relaxed),
            samples_peak: it.samples_peak.load(Relaxed),
        }
    }

    /// Measures what this thread does for `operator` while the scope lives.
    pub(super) fn enter(&self, operator: u32) -> Scope<'_> {
        let outer = THREAD.replace(Current {
            operator,
            inner_ns: 0,
        });
        Scope {
            measures: self,
            operator,
            outer,
            begun: Instant::now(),
        }
    }

    /// As [`Measures::enter`] for time that is nobody's.
    pub(super) fn leave(&self) -> Scope<'_> {
        self.enter(NOBODY)
    }

    /// The operator that this thread works for.
    pub(super) fn operator(&self) -> u32 {
        THREAD.get().operator
    }

    /// Counts samples for the operator that this thread works for.
    pub(super) fn count_samples(&self, read: u64, queryable: u64) {
        if let Some(it) = self.current() {
            it.samples_read.fetch_add(read, Relaxed);
            it.samples_queryable.fetch_add(queryable, Relaxed);
        }
    }

    /// Counts what comes out of `operator`.
    pub(super) fn gave(&self, operator: u32, tile: &Tile) {
        if let Some(it) = self.0.get(operator as usize) {
            it.series.fetch_add(tile.len() as u64, Relaxed);
            it.samples.fetch_add(tile.count(), Relaxed);
        }
    }

    /// Says that so many samples are held.
    pub(super) fn held(&self, samples: u64) {
        if let Some(it) = self.current() {
            it.samples_peak.fetch_max(samples, Relaxed);
        }
    }

    /// Runs `ask`, which asks the store for series, and counts those that it appends to `series`.
    pub(super) fn asking<T>(
        &self,
        series: &mut Vec<Series>,
        ask: impl FnOnce(&mut Vec<Series>) -> T,
    ) -> T {
        let before = series.len();
        let begun = Instant::now();
        let result = ask(series);
        if let Some(it) = self.current() {
            it.store_ns.fetch_add(nanos(begun), Relaxed);
            let new = series.len().saturating_sub(before);
            it.series_read.fetch_add(new as u64, Relaxed);
        }
        for one in series.iter_mut().skip(before) {
            let encoded: Box<dyn Samples> = Box::new(Columns::default());
            let encoded = std::mem::replace(&mut one.samples, encoded);
            one.samples = Box::new(MeasuredSamples::of(self, encoded));
        }
        result
    }

    fn current(&self) -> Option<&Measure> {
        self.0.get(THREAD.get().operator as usize)
    }
}

/// The operator that a thread works for.
#[derive(Clone, Copy)]
struct Current {
    operator: u32,
    /// Time in scopes that were opened and closed inside its own.
    inner_ns: u64,
}

/// The number of no operator.
const NOBODY: u32 = u32::MAX;

thread_local! {
    static THREAD: Cell<Current> = const { Cell::new(Current { operator: NOBODY, inner_ns: 0 }) };
}

/// A time during which a thread works for an operator.
pub(crate) struct Scope<'a> {
    measures: &'a Measures,
    operator: u32,
    outer: Current,
    begun: Instant,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let passed_ns = nanos(self.begun);
        let inner_ns = THREAD.get().inner_ns;
        THREAD.set(Current {
            inner_ns: self.outer.inner_ns.saturating_add(passed_ns),
            ..self.outer
        });
        if let Some(it) = self.measures.0.get(self.operator as usize) {
            it.own_ns
                .fetch_add(passed_ns.saturating_sub(inner_ns), Relaxed);
        }
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// An operator with its scope around it.
pub(super) struct Measured<'r> {
    measures: &'r Measures,
    operator: u32,
    input: Box<dyn Operator<'r> + 'r>,
}

impl<'r> Measured<'r> {
    pub(super) fn new(
        measures: &'r Measures,
        operator: u32,
        input: Box<dyn Operator<'r> + 'r>,
    ) -> Self {
        Measured {
            measures,
            operator,
            input,
        }
    }
}

impl<'r> Operator<'r> for Measured<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let _scope = self.measures.enter(self.operator);
        let more = self.input.next_tile(tile)?;
        self.measures.gave(self.operator, tile);
        Ok(more)
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        let input = self.input.fork()?;
        Some(Box::new(Measured::new(self.measures, self.operator, input)))
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.input.feed()
    }
}

/// Samples whose decoding is measured.
struct MeasuredSamples {
    measures: Measures,
    encoded: Arc<dyn Samples>,
    /// Which of the collectors of `encoded` is meant, unless all.
    replica: Option<usize>,
    replicas: Vec<Box<dyn Samples>>,
}

impl MeasuredSamples {
    fn of(measures: &Measures, encoded: Box<dyn Samples>) -> Self {
        let encoded: Arc<dyn Samples> = Arc::from(encoded);
        let one = |replica| MeasuredSamples {
            measures: measures.clone(),
            encoded: Arc::clone(&encoded),
            replica,
            replicas: Vec::new(),
        };
        let each = (0..encoded.replicas().len()).map(|at| Box::new(one(Some(at))) as _);
        let replicas = each.collect();
        MeasuredSamples {
            replicas,
            ..one(None)
        }
    }

    fn encoded(&self) -> &dyn Samples {
        match self.replica.and_then(|at| self.encoded.replicas().get(at)) {
            Some(replica) => &**replica,
            None => &*self.encoded,
        }
    }
}

impl Samples for MeasuredSamples {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        let begun = Instant::now();
        let encoded = self.encoded();
        let result = encoded.read(range, columns);
        if let Some(it) = self.measures.current() {
            it.decode_ns.fetch_add(nanos(begun), Relaxed);
            it.bytes_read.fetch_add(encoded.encoded_bytes(), Relaxed);
        }
        result
    }

    fn count_estimate(&self) -> usize {
        self.encoded().count_estimate()
    }

    fn encoded_bytes(&self) -> u64 {
        self.encoded().encoded_bytes()
    }

    fn replicas(&self) -> &[Box<dyn Samples>] {
        &self.replicas
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::Labels;

    use super::*;
    use crate::eval::evaluate_measured;
    use crate::eval::testing::Memory;
    use crate::limits::{CancelToken, Limits, Threads};
    use crate::parse::parse_expr;
    use crate::plan::{PlanParams, plan};

    const SERIES: u64 = 2_000;
    const SAMPLES: u64 = 60;

    fn measured(query: &str, threads: usize) -> Vec<OperatorStats> {
        let series = (0..SERIES).map(|i| {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:05}"))]);
            let mut columns = Columns::default();
            (0..SAMPLES).for_each(|at| columns.push(at as i64 * 15_000, at as f64));
            (labels, columns)
        });
        let memory = Memory(series.collect());
        let expr = parse_expr(query).expect(query);
        let params = PlanParams {
            query,
            start_ms: 0,
            end_ms: 885_000,
            step_ms: 15_000,
            ..PlanParams::default()
        };
        let plan = plan(&expr, &params).expect(query);
        let measures = Measures::of(&plan);
        let limits = Limits {
            threads: Threads::new(threads),
            ..Limits::default()
        };
        let cancel = CancelToken::default();
        let result = evaluate_measured(&plan, &memory, &limits, &cancel, Some(&measures));
        let stats = result.expect(query).stats;
        let all: Vec<_> = (0..=plan.operators).map(|at| measures.get(at)).collect();
        let sum = |of: fn(&OperatorStats) -> u64| all.iter().map(of).sum::<u64>();
        assert_eq!(sum(|it| it.samples_read), stats.samples_read, "{query}");
        assert_eq!(sum(|it| it.samples_queryable), stats.samples_queryable);
        assert_eq!(sum(|it| it.series_read), stats.series);
        all
    }

    #[test]
    fn counts_do_not_depend_on_the_number_of_threads() {
        for query in [
            "sum(rate(m[1m]))",
            "abs(m) > 3",
            "m + m",
            "max_over_time(abs(m)[1m:15s])",
        ] {
            let counts = |threads| {
                let all = measured(query, threads).into_iter();
                let counts = all.map(|it| (it.series, it.samples, it.samples_read, it.series_read));
                counts.collect::<Vec<_>>()
            };
            let alone = counts(1);
            assert_eq!(alone, counts(2), "{query}");
            assert_eq!(alone, counts(4), "{query}");
        }
    }

    #[test]
    fn time_is_where_it_was_spent() {
        for threads in [1, 3] {
            let all = measured("sum(rate(m[1m]))", threads);
            let [root, windows, sum] = &all[..] else {
                panic!("three operators: {all:?}");
            };
            assert_eq!((windows.series, sum.series), (SERIES, 1));
            assert!(
                windows.own > sum.own / 2 && windows.own > root.own,
                "{all:?}"
            );
            assert!(windows.store + windows.decode <= windows.own, "{windows:?}");
        }
    }
}
