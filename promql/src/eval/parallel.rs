//! Several threads on the rows of one operator.
//!
//! An operator whose rows depend on one series each can be copied ([`Operator::fork`]). The series
//! of its select are dealt out in morsels, in order and as they are read; each thread puts a
//! morsel through its own copy, and what comes out is visited by the calling thread in the order
//! of the morsels. So nothing that is visited, and no sum, depends on the number of threads.
//!
//! The calling thread works too, and never waits for a thread that has not begun: a query whose
//! budget gives it no further thread runs as it would alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use isobar_model::Reservation;

use super::measure::Measures;
use super::run::{Feed, Morsel, Run};
use super::tile::Tile;
use super::{EvalError, Operator};
use crate::limits::ThreadPermit;
use crate::stack;

/// What a morsel costs at least, in samples read and steps computed: about 100 µs.
const MORSEL_COST: usize = 32 * 1024;
/// Morsels that have to be there before a thread is started for them.
const MORSELS_MIN: usize = 3;
/// Morsels per thread that may be computed before the first of them is visited.
const AHEAD: usize = 4;

/// The rows of an operator, computed by several threads.
pub(super) struct Crew<'r> {
    run: &'r Run<'r>,
    operator: Box<dyn Operator<'r> + 'r>,
    feed: Feed<'r>,
    steps: usize,
    /// One for each thread besides the calling one, and the copies that they work with.
    helpers: Vec<(ThreadPermit, Box<dyn Operator<'r> + 'r>)>,
    /// Of the tiles that are computed and not visited yet.
    memory: Reservation,
}

/// Where an operator's rows are computed.
pub(super) enum Place<'r> {
    /// On the calling thread.
    Here(Box<dyn Operator<'r> + 'r>),
    /// On several.
    Crew(Crew<'r>),
}

/// Decides how many threads `operator` gets.
pub(super) fn place<'r>(
    run: &'r Run<'r>,
    mut operator: Box<dyn Operator<'r> + 'r>,
    steps: usize,
) -> Result<Place<'r>, EvalError> {
    if !run.limits().threads.any_free() {
        return Ok(Place::Here(operator));
    }
    let Some(mut spare) = operator.fork() else {
        return Ok(Place::Here(operator));
    };
    let Some(own) = operator.feed() else {
        return Ok(Place::Here(operator));
    };
    let mut feed = std::mem::replace(own, Feed::empty(run));
    let mut first = Vec::new();
    while first.len() < MORSELS_MIN
        && let Some(morsel) = feed.take(MORSEL_COST, steps)?
    {
        first.push(morsel);
    }
    // Of three morsels and no more, a second thread takes one.
    let helpers_max = match (first.len() < MORSELS_MIN, feed.is_empty()) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => usize::MAX,
    };
    feed.give_back(first);
    let mut memory = run.memory("several threads");
    let mut helpers = Vec::new();
    while helpers.len() < helpers_max
        && memory
            .grow_to(bytes_ahead(helpers.len() + 1, steps))
            .is_ok()
        && let Some(permit) = run.limits().threads.take()
    {
        let Some(next) = spare.fork() else { break };
        helpers.push((permit, std::mem::replace(&mut spare, next)));
    }
    if helpers.is_empty() {
        if let Some(own) = operator.feed() {
            *own = feed;
        }
        return Ok(Place::Here(operator));
    }
    memory.shrink_to(bytes_ahead(helpers.len(), steps));
    Ok(Place::Crew(Crew {
        run,
        operator,
        feed,
        steps,
        helpers,
        memory,
    }))
}

/// The bytes of the tiles that may be there before they are visited.
fn bytes_ahead(helpers: usize, steps: usize) -> usize {
    size_of::<f64>() * ahead(helpers) * (MORSEL_COST + steps)
}

/// What `work` makes of each number below `count`, computed on as many threads as are free when
/// it costs enough. `cost` is that of one number, as that of a morsel.
pub(super) fn scatter<T: Send>(
    run: &Run<'_>,
    count: usize,
    cost: impl Fn(usize) -> usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let threads_max = (0..count).map(cost).sum::<usize>() / MORSEL_COST;
    let mut helpers = Vec::new();
    while helpers.len() + 1 < threads_max.min(count)
        && let Some(permit) = run.limits().threads.take()
    {
        helpers.push(permit);
    }
    if helpers.is_empty() {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take_all = || {
        let mut made = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return made;
            }
            made.push((i, work(i)));
        }
    };
    let mut all = thread::scope(|scope| {
        let helpers: Vec<_> = helpers
            .into_iter()
            .filter_map(|permit| {
                let take_all = &take_all;
                let helper = move || {
                    let _permit = permit;
                    take_all()
                };
                let builder = thread::Builder::new().name("query-helper".to_owned());
                // Without it the others do the work.
                builder.spawn_scoped(scope, helper).ok()
            })
            .collect();
        let mut all = take_all();
        for helper in helpers {
            match helper.join() {
                Ok(made) => all.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|made| made.0);
    all.into_iter().map(|made| made.1).collect()
}

/// How many morsels may be computed before the first of them is visited.
fn ahead(helpers: usize) -> usize {
    AHEAD * (helpers + 1)
}

/// What the threads share.
struct Shared<'r> {
    /// Where series come from. Of the locks, the first to be taken; whoever reads keeps nobody from
    /// the morsels that are there.
    feed: Mutex<Feed<'r>>,
    /// Taken before `progress` where both are.
    source: Mutex<Source>,
    progress: Mutex<Progress>,
    changed: Condvar,
    ahead: usize,
}

#[derive(Default)]
struct Source {
    /// The next morsels in order, and the error that ended reading.
    ready: VecDeque<Result<Morsel, EvalError>>,
    /// There is no more to read.
    read: bool,
    /// The number of the first of them.
    next: usize,
}

#[derive(Default)]
struct Progress {
    /// The number of the first morsel in `done`.
    visited: usize,
    /// What came of morsels, where it is there yet.
    done: VecDeque<Option<Result<Vec<Tile>, EvalError>>>,
    /// Tiles that were visited, for their memory.
    spare: Vec<Tile>,
    /// How many morsels there are, once that is known.
    count: Option<usize>,
    /// Nobody needs more.
    stopped: bool,
    /// A thread died.
    lost: bool,
}

impl Crew<'_> {
    /// Computes all rows and calls `visit` with each tile, in order.
    ///
    /// # Errors
    /// The first error in the order of the series, be it of a row or of `visit`.
    pub(super) fn for_each(
        self,
        mut visit: impl FnMut(&Tile) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let run = self.run;
        let steps = self.steps;
        let mut operator = self.operator;
        let _memory = self.memory;
        let shared = Shared {
            ahead: ahead(self.helpers.len()),
            feed: Mutex::new(self.feed),
            source: Mutex::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        };
        let shared = &shared;
        thread::scope(|scope| {
            let _stop = Stop(shared);
            for (permit, mut copy) in self.helpers {
                let work = move || {
                    let _permit = permit;
                    let _watch = Watch(shared);
                    while shared.wait_for_room() && shared.work(&mut *copy, steps) {}
                };
                let helper = thread::Builder::new()
                    .name("query-helper".to_owned())
                    .stack_size(stack::bytes_for(run.levels()));
                // Without it the others do the work.
                if helper.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            loop {
                match shared.next_done() {
                    Next::Tiles(tiles) => {
                        let mut tiles = tiles?;
                        for tile in &tiles {
                            run.check()?;
                            visit(tile)?;
                        }
                        shared.progress().spare.append(&mut tiles);
                    }
                    Next::End => return Ok(()),
                    Next::Nothing { may_work } => {
                        if !(may_work && shared.work(&mut *operator, steps)) {
                            let _waiting = run.measures().map(Measures::leave);
                            shared.wait_for_done()?;
                        }
                    }
                }
            }
        })
    }
}

enum Next {
    Tiles(Result<Vec<Tile>, EvalError>),
    Nothing { may_work: bool },
    End,
}

impl<'r> Shared<'r> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another morsel may be computed; false when there is no need.
    fn wait_for_room(&self) -> bool {
        let mut progress = self.progress();
        while !progress.stopped && progress.done.len() >= self.ahead {
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !progress.stopped
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads ahead when there is little to do, unless another thread is doing so; waits for that
    /// one when there is nothing.
    fn read_ahead(&self, steps: usize) {
        let (left, read) = {
            let source = self.source();
            (source.ready.len(), source.read)
        };
        if read || left >= self.ahead {
            return;
        }
        let feed = match left {
            0 => Some(self.feed.lock().unwrap_or_else(PoisonError::into_inner)),
            _ => self.feed.try_lock().ok(),
        };
        let Some(mut feed) = feed else { return };
        if left == 0 && !self.source().ready.is_empty() {
            // Another thread has read meanwhile.
            return;
        }
        let morsels = feed.take_batch(MORSEL_COST, steps);
        let mut source = self.source();
        match morsels {
            Ok(morsels) if morsels.is_empty() => source.read = true,
            Ok(morsels) => source.ready.extend(morsels.into_iter().map(Ok)),
            Err(error) => {
                source.ready.push_back(Err(error));
                source.read = true;
            }
        }
    }

    /// Takes a morsel and computes it; false when there is none left.
    fn work(&self, operator: &mut (dyn Operator<'r> + 'r), steps: usize) -> bool {
        let (number, morsel, spare) = loop {
            self.read_ahead(steps);
            let mut source = self.source();
            let mut progress = self.progress();
            if progress.count.is_some() {
                return false;
            }
            let number = source.next;
            match source.ready.pop_front() {
                Some(morsel) => {
                    source.next += 1;
                    progress.done.push_back(None);
                    if morsel.is_err() {
                        progress.count = Some(number + 1);
                    }
                    break (number, morsel, progress.spare.pop());
                }
                None if source.read => {
                    progress.count = Some(number);
                    self.changed.notify_all();
                    return false;
                }
                None => {}
            }
        };
        let tiles = morsel.and_then(|morsel| tiles_of(operator, morsel, spare.unwrap_or_default()));
        let mut progress = self.progress();
        if let Some(at) = number.checked_sub(progress.visited)
            && let Some(done) = progress.done.get_mut(at)
        {
            *done = Some(tiles);
        }
        drop(progress);
        self.changed.notify_all();
        true
    }

    /// What comes next in order.
    fn next_done(&self) -> Next {
        let mut progress = self.progress();
        if progress.count == Some(progress.visited) {
            return Next::End;
        }
        match progress.done.front_mut().and_then(Option::take) {
            Some(tiles) => {
                progress.done.pop_front();
                progress.visited += 1;
                drop(progress);
                self.changed.notify_all();
                Next::Tiles(tiles)
            }
            None => Next::Nothing {
                may_work: progress.done.len() < self.ahead,
            },
        }
    }

    /// Waits until what comes next is there.
    fn wait_for_done(&self) -> Result<(), EvalError> {
        let mut progress = self.progress();
        loop {
            let first_is_there = progress.done.front().is_some_and(Option::is_some);
            let room = progress.count.is_none() && progress.done.len() < self.ahead;
            if first_is_there || room || progress.count == Some(progress.visited) {
                return Ok(());
            }
            if progress.lost {
                return Err(EvalError::Execution(
                    "unexpected error: a thread of the evaluation panicked".to_owned(),
                ));
            }
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The tiles that `operator` makes of the series of a morsel.
fn tiles_of<'r>(
    operator: &mut (dyn Operator<'r> + 'r),
    morsel: Morsel,
    spare: Tile,
) -> Result<Vec<Tile>, EvalError> {
    let mut tiles = Vec::new();
    if let Some(feed) = operator.feed() {
        feed.refill(morsel);
        let mut tile = spare;
        while operator.next_tile(&mut tile)? {
            tiles.push(std::mem::take(&mut tile));
        }
    }
    Ok(tiles)
}

/// Ends the work of the others when the calling thread is done, also when it panics.
struct Stop<'a, 'r>(&'a Shared<'r>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        progress.stopped = true;
        let visited = progress.visited;
        // No more morsels are dealt out.
        progress.count.get_or_insert(visited);
        drop(progress);
        self.0.changed.notify_all();
    }
}

/// Tells the calling thread when a helper panics.
struct Watch<'a, 'r>(&'a Shared<'r>);

impl Drop for Watch<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.progress().lost = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::series::{Select, SeriesSource, SeriesStream};
    use isobar_model::{Columns, Labels, SelectError};

    use crate::eval::testing::Memory;
    use crate::eval::{EvalError, evaluate};
    use crate::limits::{CancelToken, Limits, Threads};
    use crate::parse::parse_expr;
    use crate::plan::{PlanParams, plan};
    use crate::value::QueryResult;

    const SERIES: usize = 3000;

    /// Numbers without a pattern, some missing, some stale, counters and gauges.
    fn memory() -> Memory {
        let mut random = 7_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let series = (0..SERIES).map(|i| {
            let labels = Labels::from_pairs([
                ("__name__", if i % 3 == 0 { "b" } else { "a" }.to_owned()),
                ("g", (i % 7).to_string()),
                ("i", i.to_string()),
            ]);
            let mut columns = Columns::default();
            for at in 0..60 {
                match next(20) {
                    0 => {}
                    1 => columns.push(at * 15_000, isobar_model::sample::STALE_NAN),
                    _ => columns.push(at * 15_000, next(1000) as f64 / 7.0),
                }
            }
            (labels, columns)
        });
        let mut series: Vec<_> = series.collect();
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Memory(series)
    }

    fn ask(
        query: &str,
        source: &dyn SeriesSource,
        threads: usize,
    ) -> Result<QueryResult, EvalError> {
        let expr = parse_expr(query).expect(query);
        let params = PlanParams {
            query,
            start_ms: 0,
            end_ms: 900_000,
            step_ms: 10_000,
            ..PlanParams::default()
        };
        let limits = Limits {
            threads: Threads::new(threads),
            ..Limits::default()
        };
        let plan = plan(&expr, &params).expect(query);
        let result = evaluate(&plan, source, &limits, &CancelToken::default());
        assert_eq!(limits.threads.free(), threads as isize, "{query}");
        result
    }

    #[test]
    fn answers_do_not_depend_on_the_number_of_threads() {
        let memory = memory();
        for query in [
            "a",
            "{g=~\".+\"}",
            "rate(a[1m])",
            "rate({g=~\"[12]\"}[1m])",
            "sum by (g) (rate(a[1m]))",
            "avg(a) + scalar(b{i=\"0\"})",
            "sum(abs(-a) * 3 > 100)",
            "stddev by (g) (a)",
            "a and on (i) (b or a > 50)",
            "max_over_time(rate(a[1m])[3m:30s])",
            "a / on (g, i) a",
            "timestamp(a)",
            "topk(3, a)",
            "sum(quantile_over_time(2, a[1m]))",
            "sum(a @ 300)",
            "sum(rate({i=~\".+\"}[1m]))",
            "quantile by (g) (0.3, a)",
            "quantile(0.9, a)",
            "histogram_quantile(0.7, label_replace(a, \"le\", \"$1\", \"g\", \"(.*)\"))",
            "a * on (i) group_left rate(a[2m])",
            "a - b",
            "a > bool b",
        ] {
            // More threads hold more at a time.
            let told = |threads| {
                let mut result = ask(query, &memory, threads).expect(query);
                result.stats.bytes_peak = 0;
                format!(
                    "{:?} {:?} {:?}",
                    result.value, result.warnings, result.stats
                )
            };
            let alone = told(1);
            for threads in [2, 3, 8] {
                let together = told(threads);
                assert!(alone == together, "{query} with {threads} threads");
            }
        }
    }

    #[test]
    fn memory_is_reserved_and_given_back() {
        let source = memory();
        let ask = |query: &str, query_memory_max: u64, threads: usize| {
            let expr = parse_expr(query).expect(query);
            let params = PlanParams {
                query,
                start_ms: 0,
                end_ms: 900_000,
                step_ms: 10_000,
                ..PlanParams::default()
            };
            let limits = Limits {
                query_memory_max,
                threads: Threads::new(threads),
                ..Limits::default()
            };
            let plan = plan(&expr, &params).expect(query);
            let result = evaluate(&plan, &source, &limits, &CancelToken::default());
            let told = match &result {
                Ok(result) => {
                    assert_eq!(limits.memory.held(), result.memory.bytes(), "{query}");
                    "enough".to_owned()
                }
                Err(error) => error.to_string(),
            };
            drop(result);
            assert_eq!(limits.memory.held(), 0, "{query}");
            told
        };
        // 3,000 rows of 91 steps take 2.2 MB, with their times twice that.
        for (query, who) in [
            ("{g=~\".+\"}", "the answer"),
            ("sum by (i) ({g=~\".+\"})", "an aggregation"),
            ("topk by (i) (1, {g=~\".+\"})", "an aggregation"),
            ("quantile(0.5, {g=~\".+\"})", "an aggregation"),
            ("count_values(\"v\", {g=~\".+\"})", "count_values"),
            ("sum(a + on (i) a)", "rows that are kept"),
            ("sum(a or b)", "a set operation"),
            (
                "sum(label_replace(a, \"x\", \"$1\", \"i\", \"(.*)\"))",
                "relabelling",
            ),
            ("sum(abs(a or b))", "a set operation"),
        ] {
            for threads in [1, 2] {
                let told = ask(query, 1 << 20, threads);
                let expected =
                    format!("the memory of one query is limited to 1.0 MiB: {who} asked for ");
                assert!(told.starts_with(&expected), "{query}: {told}");
                assert_eq!(ask(query, 1 << 30, threads), "enough");
            }
        }
        // What does not keep its input needs no more than the tiles under way.
        assert_eq!(ask("sum by (g) (rate(a[1m]))", 1 << 20, 1), "enough");
        assert_eq!(ask("sum by (g) (rate(a[1m]))", 3 << 20, 2), "enough");
    }

    /// Gives some series and then fails.
    struct Failing(Memory);

    struct FailingStream<'a>(Box<dyn SeriesStream + 'a>, usize);

    impl SeriesSource for Failing {
        fn open(
            &self,
            index: usize,
            select: &Select,
        ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
            Ok(Box::new(FailingStream(self.0.open(index, select)?, 0)))
        }
    }

    impl SeriesStream for FailingStream<'_> {
        fn next_batch(
            &mut self,
            batch: &mut Vec<isobar_model::Series>,
        ) -> Result<bool, SelectError> {
            self.1 += 1;
            match self.1 {
                15 => Err(SelectError::Unavailable("gone".to_owned())),
                _ => self.0.next_batch(batch),
            }
        }
    }

    #[test]
    fn an_error_on_the_way_ends_the_query() {
        let error = ask("sum(rate(a[1m]))", &Failing(memory()), 3).unwrap_err();
        assert_eq!(error.to_string(), "expanding series: gone");
        // Names that become the same, found by whichever thread.
        let same = Memory(
            memory()
                .0
                .into_iter()
                .flat_map(|(labels, columns)| {
                    let mut renamed: Vec<(&str, &str)> = labels.iter().collect();
                    renamed[0].1 = "c";
                    let renamed = Labels::from_pairs(renamed);
                    [(labels, columns.clone()), (renamed, columns)]
                })
                .collect(),
        );
        for threads in [1, 3] {
            let error = ask("sum(rate({i=~\".+\"}[1m]))", &same, threads).unwrap_err();
            let text = "vector cannot contain metrics with the same labelset";
            assert_eq!(error.to_string(), text);
        }
    }

    struct Panicking;

    impl isobar_model::series::Samples for Panicking {
        fn read(&self, _: isobar_model::TimeRange, _: &mut Columns) -> Result<(), SelectError> {
            panic!("on purpose");
        }

        fn count_estimate(&self) -> usize {
            100_000
        }
    }

    struct PanickingSource;

    impl SeriesSource for PanickingSource {
        fn open(&self, _: usize, _: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
            Ok(Box::new(PanickingStream(0)))
        }
    }

    struct PanickingStream(usize);

    impl SeriesStream for PanickingStream {
        fn next_batch(
            &mut self,
            batch: &mut Vec<isobar_model::Series>,
        ) -> Result<bool, SelectError> {
            self.0 += 1;
            batch.push(isobar_model::Series {
                labels: Labels::from_pairs([("i", self.0.to_string())]),
                samples: Box::new(Panicking),
            });
            Ok(self.0 < 100)
        }
    }

    #[test]
    fn a_panic_ends_the_query_and_nothing_waits() {
        let outcome = std::panic::catch_unwind(|| ask("sum(rate(a[1m]))", &PanickingSource, 3));
        assert!(outcome.is_err());
    }
}
