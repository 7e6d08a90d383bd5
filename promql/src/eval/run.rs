//! What all operators of one evaluation share: the source, the bounds, the remarks, the counters.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use isobar_model::SelectError;
use isobar_model::series::{Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Budget, Reservation};

use super::EvalError;
use super::kept::Rows;
use super::measure::{Measures, Scope};
use super::remarks::Remarks;
use super::tally::Tally;
use crate::features::Features;
use crate::limits::{CancelReason, CancelToken, Limit, Limits};
use crate::plan::counting::Counting;
use crate::plan::node::{Kind, Node};
use crate::plan::{Plan, Root};
use crate::value::{QueryStats, StepStats};

/// One evaluation of a plan.
pub(crate) struct Run<'a> {
    root: &'a Root,
    selects: &'a [Select],
    readers: &'a [u32],
    source: &'a dyn SeriesSource,
    limits: &'a Limits,
    cancel: &'a CancelToken,
    levels: usize,
    features: Features,
    memory: Arc<Budget>,
    /// What the selects hold that are read more than once.
    shared_memory: Mutex<Reservation>,
    remarks: Mutex<Remarks>,
    shared: Vec<OnceLock<Arc<Vec<Series>>>>,
    held: AtomicU64,
    peak: AtomicU64,
    queryable: AtomicU64,
    read: AtomicU64,
    new: AtomicU64,
    series: AtomicU64,
    countings: &'a [Counting],
    /// What is computed once, and its rows once they are.
    shared_nodes: &'a [Node],
    shared_rows: Vec<OnceLock<Arc<Rows>>>,
    /// What each step costs, if that is asked for.
    step_stats: Option<Mutex<StepStats>>,
    measures: Option<Measures>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        source: &'a dyn SeriesSource,
        limits: &'a Limits,
        cancel: &'a CancelToken,
        measures: Option<Measures>,
    ) -> Self {
        let memory = limits.query_memory();
        Run {
            root: &plan.root,
            shared_memory: Mutex::new(memory.reservation("a selector that is read more than once")),
            memory,
            selects: &plan.selects,
            readers: &plan.readers,
            source,
            limits,
            cancel,
            levels: plan.levels,
            features: plan.features,
            remarks: Mutex::default(),
            shared: plan.selects.iter().map(|_| OnceLock::new()).collect(),
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            queryable: AtomicU64::new(0),
            read: AtomicU64::new(0),
            new: AtomicU64::new(0),
            series: AtomicU64::new(0),
            countings: &plan.countings,
            shared_nodes: &plan.shared,
            shared_rows: plan.shared.iter().map(|_| OnceLock::new()).collect(),
            step_stats: plan
                .step_stats
                .then(|| Mutex::new(StepStats::of(plan.grid))),
            measures,
        }
    }

    /// Whether the rows of `node` are those of the answer but for their labels and signs.
    pub(crate) fn answers(&self, node: &Node) -> bool {
        let mut at = match self.root {
            Root::Vector(root) | Root::Subquery(root) => root,
            Root::String(_) | Root::Scalar(_) | Root::Samples { .. } => return false,
        };
        loop {
            if std::ptr::eq(at, node) {
                return true;
            }
            at = match &at.kind {
                Kind::Negate(input) => input,
                Kind::Relabel(op) => &op.input,
                _ => return false,
            };
        }
    }

    /// The bounds.
    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// How deep the expression nests.
    pub(crate) fn levels(&self) -> usize {
        self.levels
    }

    /// A select of the plan.
    pub(crate) fn select(&self, index: usize) -> &'a Select {
        &self.selects[index]
    }

    /// The parts of the language that are on.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Where operators are measured, if they are.
    pub(crate) fn measures(&self) -> Option<&Measures> {
        self.measures.as_ref()
    }

    /// Measures what this thread does for `operator` while the scope lives.
    pub(crate) fn measure(&self, operator: u32) -> Option<Scope<'_>> {
        self.measures.as_ref().map(|it| it.enter(operator))
    }

    /// Where remarks go.
    pub(crate) fn remarks(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the query was called off.
    pub(crate) fn check(&self) -> Result<(), EvalError> {
        match self.cancel.reason() {
            None => Ok(()),
            Some(CancelReason::Cancelled) => Err(EvalError::Cancelled),
            Some(CancelReason::Timeout) => Err(EvalError::Timeout),
        }
    }

    /// Counts samples that are now held; fails when they are too many.
    pub(crate) fn hold(&self, samples: u64) -> Result<(), EvalError> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed) + samples;
        self.peak.fetch_max(held, Ordering::Relaxed);
        if let Some(measures) = &self.measures {
            measures.held(held);
        }
        if held > self.limits.samples_max {
            return Err(EvalError::too_many_samples());
        }
        Ok(())
    }

    /// An empty reservation of the query's memory for `who`.
    pub(crate) fn memory(&self, who: &'static str) -> Reservation {
        self.memory.reservation(who)
    }

    /// The number of samples held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Says that of the samples held since `before` only `kept` are left.
    pub(crate) fn release_to(&self, before: u64, kept: u64) -> Result<(), EvalError> {
        self.held.store(before, Ordering::Relaxed);
        self.hold(kept)
    }

    /// A tally for a selector of so many steps.
    pub(in crate::eval) fn tally(&self, counting: usize, steps: usize) -> Tally<'a> {
        Tally::new(&self.countings[counting], steps, self.step_stats.is_some())
    }

    /// Counts what is in a tally.
    pub(in crate::eval) fn count(&self, tally: Tally<'_>) {
        let read = tally.read;
        let (queryable, new) = match &self.step_stats {
            None => tally.finish(None),
            Some(steps) => tally.finish(Some(
                &mut steps.lock().unwrap_or_else(PoisonError::into_inner),
            )),
        };
        self.count_samples(read, queryable, new);
    }

    /// Counts samples of a select that stands alone: all are looked at once.
    pub(crate) fn count_alone(&self, samples: u64, weighed: u64) {
        if let Some(steps) = &self.step_stats {
            let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
            let StepStats { queryable, new, .. } = &mut *steps;
            for counts in [queryable, new] {
                counts.iter_mut().take(1).for_each(|it| *it += weighed);
            }
        }
        self.count_samples(samples, weighed, weighed);
    }

    /// Counts samples decoded, samples looked at, and those of them that no step before looked at.
    fn count_samples(&self, read: u64, queryable: u64, new: u64) {
        self.new.fetch_add(new, Ordering::Relaxed);
        self.read.fetch_add(read, Ordering::Relaxed);
        self.queryable.fetch_add(queryable, Ordering::Relaxed);
        if let Some(measures) = &self.measures {
            measures.count_samples(read, queryable);
        }
    }

    /// Opens a select.
    pub(crate) fn open(&self, index: usize) -> Result<Feed<'_>, EvalError> {
        if self.readers[index] <= 1 {
            let stream = self.open_stream(index)?;
            return Ok(Feed {
                run: self,
                stream: Some(stream),
                ready: Morsel::default(),
                read: VecDeque::new(),
                operator: self.operator(),
            });
        }
        if self.shared[index].get().is_none() {
            let (mut all, mut counted, mut bytes) = (Vec::new(), 0, 0);
            let before = {
                let memory = self
                    .shared_memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                memory.bytes() as usize
            };
            let mut stream = self.open_stream(index)?;
            while self.next_batch(&mut *stream, &mut all)? {
                self.check()?;
                self.check_series(all.len() as u64)?;
                bytes += batch_bytes(&*stream, &all[counted..]);
                counted = all.len();
                let mut memory = self
                    .shared_memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                memory.grow_to(before + bytes)?;
            }
            self.remarks().add_from_store(stream.take_warnings());
            self.count_series(all.len() as u64)?;
            // Selects are opened by one thread alone, so nobody else can have set it.
            let _set = self.shared[index].set(Arc::new(all));
        }
        let series = self.shared[index].get().cloned().unwrap_or_default();
        let all = 0..series.len();
        Ok(Feed {
            run: self,
            stream: None,
            ready: Morsel::Shared(series, all),
            read: VecDeque::new(),
            operator: self.operator(),
        })
    }

    /// A node that is read at several places.
    pub(in crate::eval) fn shared_node(&self, slot: usize) -> &'a Node {
        &self.shared_nodes[slot]
    }

    /// The rows of such a node, computed when they are first asked for.
    pub(in crate::eval) fn shared_rows(&self, slot: usize) -> Result<Arc<Rows>, EvalError> {
        if let Some(rows) = self.shared_rows[slot].get() {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(Rows::of(self, self.shared_node(slot))?);
        Ok(Arc::clone(self.shared_rows[slot].get_or_init(|| rows)))
    }

    /// The operator that this thread works for, when operators are measured.
    fn operator(&self) -> u32 {
        self.measures.as_ref().map_or(0, Measures::operator)
    }

    fn open_stream(&self, index: usize) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let open = || self.source.open(index, &self.selects[index]);
        match &self.measures {
            Some(measures) => measures.asking(&mut Vec::new(), |_| open()),
            None => open(),
        }
    }

    fn next_batch(
        &self,
        stream: &mut dyn SeriesStream,
        batch: &mut Vec<Series>,
    ) -> Result<bool, SelectError> {
        match &self.measures {
            Some(measures) => measures.asking(batch, |batch| stream.next_batch(batch)),
            None => stream.next_batch(batch),
        }
    }

    fn count_series(&self, count: u64) -> Result<(), EvalError> {
        let series = self.series.fetch_add(count, Ordering::Relaxed) + count;
        self.check_series(series)
    }

    fn check_series(&self, series: u64) -> Result<(), EvalError> {
        if series > self.limits.series_max {
            return Err(EvalError::LimitExceeded(
                Limit::Series,
                format!("query selects more than {} series", self.limits.series_max),
            ));
        }
        Ok(())
    }

    /// The counters and the remarks.
    pub(crate) fn finish(self) -> (QueryStats, Option<StepStats>, Remarks) {
        let stats = QueryStats {
            samples_queryable: self.queryable.into_inner(),
            samples_read: self.read.into_inner(),
            samples_new: self.new.into_inner(),
            samples_peak: self.peak.into_inner(),
            bytes_peak: self.memory.peak(),
            series: self.series.into_inner(),
        };
        let step_stats = self.step_stats.map(Mutex::into_inner);
        (
            stats,
            step_stats.map(|it| it.unwrap_or_else(PoisonError::into_inner)),
            self.remarks
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// The series of a select, one after the other.
pub(crate) struct Feed<'r> {
    run: &'r Run<'r>,
    /// Gives more; `None` when there is no more.
    stream: Option<Box<dyn SeriesStream + 'r>>,
    ready: Morsel,
    /// What was read already and follows on that.
    read: VecDeque<Morsel>,
    /// The operator that reads it, when operators are measured.
    operator: u32,
}

/// What the series that a stream has just given take: their chunks too, where these are in memory.
fn batch_bytes(stream: &dyn SeriesStream, batch: &[Series]) -> usize {
    let size = |series: &Series| {
        let chunks = series.samples.count_estimate() / 120 + 1;
        size_of::<Series>() + series.labels.as_bytes().len() + 64 * chunks
    };
    stream.heap_bytes() + batch.iter().map(size).sum::<usize>()
}

/// Some series of a select, one after the other.
pub(crate) enum Morsel {
    /// Series of one batch; what its parts hold together goes with the last of them.
    Own(std::vec::IntoIter<Series>, Option<Arc<Reservation>>),
    /// Those with the numbers of the range, of a select that is read more than once.
    Shared(Arc<Vec<Series>>, Range<usize>),
}

impl Default for Morsel {
    fn default() -> Self {
        Morsel::Own(Vec::new().into_iter(), None)
    }
}

impl Morsel {
    /// Takes the first series off, but no more of them than cost about `cost`, the cost of a
    /// series being its samples and `steps`.
    fn split_off(&mut self, cost: usize, steps: usize) -> Morsel {
        let mut taken = 0;
        let mut take = |series: &Series| {
            taken += series.samples.count_estimate() + steps;
            taken < cost
        };
        match self {
            Morsel::Own(all, memory) => {
                let mut own = Vec::new();
                for series in all.by_ref() {
                    let more = take(&series);
                    own.push(series);
                    if !more {
                        break;
                    }
                }
                Morsel::Own(own.into_iter(), memory.clone())
            }
            Morsel::Shared(series, left) => {
                let start = left.start;
                while left.next().is_some_and(|at| take(&series[at])) {}
                Morsel::Shared(Arc::clone(series), start..left.start)
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Morsel::Own(all, _) => all.len() == 0,
            Morsel::Shared(_, left) => left.is_empty(),
        }
    }
}

impl<'r> Feed<'r> {
    /// One without series, to be given some.
    pub(crate) fn empty(run: &'r Run<'r>) -> Self {
        Feed {
            run,
            stream: None,
            ready: Morsel::default(),
            read: VecDeque::new(),
            operator: run.operator(),
        }
    }

    /// Takes the place of what was left.
    pub(crate) fn refill(&mut self, morsel: Morsel) {
        self.stream = None;
        self.read.clear();
        self.ready = morsel;
    }

    /// Takes off series that cost about `cost`, see [`Morsel`]; the cost is exceeded by the last.
    /// `None` when there is none left.
    pub(crate) fn take(&mut self, cost: usize, steps: usize) -> Result<Option<Morsel>, EvalError> {
        while self.ready.is_empty() {
            if !self.refresh()? {
                return Ok(None);
            }
        }
        Ok(Some(self.ready.split_off(cost, steps)))
    }

    /// Takes off all series of the next batch, in parts as [`Feed::take`]. None when there is none
    /// left.
    pub(crate) fn take_batch(
        &mut self,
        cost: usize,
        steps: usize,
    ) -> Result<Vec<Morsel>, EvalError> {
        let mut morsels = Vec::new();
        if let Some(first) = self.take(cost, steps)? {
            morsels.push(first);
            while !self.ready.is_empty() {
                morsels.push(self.ready.split_off(cost, steps));
            }
        }
        Ok(morsels)
    }

    /// Puts back what was taken off, in the same order; nothing else was taken since.
    pub(crate) fn give_back(&mut self, morsels: impl IntoIterator<Item = Morsel>) {
        let rest = std::mem::take(&mut self.ready);
        self.read.extend(morsels.into_iter().chain([rest]));
    }

    /// Whether there is no series left for sure.
    pub(crate) fn is_empty(&self) -> bool {
        self.stream.is_none() && self.ready.is_empty() && self.read.is_empty()
    }

    /// Calls `visit` with the next series; gives `None` when there is none left.
    pub(crate) fn next<T>(
        &mut self,
        visit: impl FnOnce(&Series) -> Result<T, EvalError>,
    ) -> Result<Option<T>, EvalError> {
        loop {
            match &mut self.ready {
                Morsel::Own(all, _) => {
                    if let Some(series) = all.next() {
                        return visit(&series).map(Some);
                    }
                }
                Morsel::Shared(all, left) => {
                    if let Some(at) = left.next() {
                        return visit(&all[at]).map(Some);
                    }
                }
            }
            if !self.refresh()? {
                return Ok(None);
            }
        }
    }

    /// Makes the next series ready, once none is, maybe none; false when there is no more.
    fn refresh(&mut self) -> Result<bool, EvalError> {
        self.ready = Morsel::default();
        if let Some(read) = self.read.pop_front() {
            self.ready = read;
            return Ok(true);
        }
        let Some(open) = &mut self.stream else {
            return Ok(false);
        };
        self.run.check()?;
        // When several threads share the series, those around the operator deal them out.
        let _scope = self.run.measure(self.operator);
        let mut batch = Vec::new();
        let more = self.run.next_batch(&mut **open, &mut batch)?;
        self.run.count_series(batch.len() as u64)?;
        let bytes = batch_bytes(&**open, &batch);
        if !more {
            self.run.remarks().add_from_store(open.take_warnings());
            self.stream = None;
        }
        let mut memory = self.run.memory("a batch of series");
        memory.grow_to(bytes)?;
        self.ready = Morsel::Own(batch.into_iter(), Some(Arc::new(memory)));
        Ok(true)
    }
}
