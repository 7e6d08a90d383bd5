//! Pieces of work that do not depend on each other, on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::MORSEL_COST;
use crate::eval::run::Run;

/// What `work` makes of each number below `count`, computed on as many threads as are free when
/// it costs enough. `cost` is that of one number, as that of a morsel.
pub(in crate::eval) fn scatter<T: Send>(
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
