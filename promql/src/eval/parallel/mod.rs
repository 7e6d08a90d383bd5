//! Several threads on the rows of one operator.
//!
//! An operator whose rows depend on one series each can be copied ([`Operator::fork`]). The series
//! of its select are dealt out in morsels, in order and as they are read; each thread puts a
//! morsel through its own copy, and what comes out is visited by the calling thread in the order
//! of the morsels. So nothing that is visited, and no sum, depends on the number of threads.
//!
//! The calling thread works too, and never waits for a thread that has not begun: a query whose
//! budget gives it no further thread runs as it would alone.

mod scatter;

pub(in crate::eval) use scatter::scatter;

use std::collections::VecDeque;
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
pub(in crate::eval) const MORSEL_COST: usize = 32 * 1024;
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
mod tests;
