//! A sized pool of threads for work that computes: decoding, merging, evaluating, compressing.
//! Async code hands work over and waits; it computes only what takes less than that ([`here`]).
//!
//! The queue is bounded and visible. Work whose caller is gone is dropped before it starts, and a
//! panic ends the piece of work that raised it and nothing else.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Why a piece of work gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// As much work is waiting as may wait.
    #[error("too many requests are waiting for a compute thread")]
    QueueFull,
    /// The pool is shutting down.
    #[error("shutting down")]
    Closed,
    /// The work panicked; the panic was reported on standard error.
    #[error("internal error: a computation panicked")]
    Panicked,
}

type Job = Box<dyn FnOnce() + Send>;

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    queue_max: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// The pool. Dropping it lets running work end and drops what waits.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads on which at most `queue_max` pieces of work wait.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(name: &str, threads: usize, queue_max: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            queue_max,
        });
        let threads = (0..threads.max(1))
            .map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("{name}-{i}"))
                    .spawn(move || run_jobs(&shared))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Pool { shared, threads })
    }

    /// Runs `work` on the pool and waits for its result.
    ///
    /// # Errors
    /// When the queue is full, the pool is closed or the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let (give, take) = oneshot::channel();
        self.start(move || {
            if give.is_closed() {
                return;
            }
            // The caller may have left meanwhile; then nobody misses the result.
            let _gone = give.send(here(work));
        })?;
        take.await.unwrap_or(Err(ComputeError::Closed))
    }

    /// Has `work` run on the pool some time and does not wait: for work that tells its result by itself,
    /// perhaps later than it ends. What it owns is dropped when the pool is closed before. A panic
    /// has to be caught by [`here`].
    ///
    /// # Errors
    /// When the queue is full or the pool is closed.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) -> Result<(), ComputeError> {
        let job = Box::new(work);
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(ComputeError::Closed);
            }
            if queue.jobs.len() >= self.shared.queue_max {
                return Err(ComputeError::QueueFull);
            }
            queue.jobs.push_back(job);
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The number of pieces of work that wait.
    pub fn queue_len(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            queue.jobs.clear();
        }
        self.shared.wake.notify_all();
    }
}

/// Runs `work` on the thread of the caller, as the pool runs it on one of its own: for work that
/// takes less than the way to the pool and back.
///
/// # Errors
/// When the work panics.
pub fn here<T>(work: impl FnOnce() -> T) -> Result<T, ComputeError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| ComputeError::Panicked)
}

fn run_jobs(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
        };
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_refuses_and_survives_a_panic() {
        let pool = Pool::new("test", 1, 1).unwrap();
        assert_eq!(pool.run(|| 1 + 1).await, Ok(2));
        assert_eq!(
            pool.run(|| -> i32 { panic!("on purpose") }).await,
            Err(ComputeError::Panicked)
        );
        assert_eq!(pool.run(|| 3).await, Ok(3));

        let (started, begun) = oneshot::channel();
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let busy = pool.run(move || started.send(()).is_ok() && wait.recv().is_ok());
        let rest = async {
            begun.await.unwrap();
            let waiting = pool.run(|| true);
            let refused = async {
                let refused = pool.run(|| true).await;
                release.send(()).unwrap();
                refused
            };
            futures::join!(waiting, refused)
        };
        let (busy, (waiting, refused)) = futures::join!(busy, rest);
        assert_eq!(refused, Err(ComputeError::QueueFull));
        assert_eq!((busy, waiting), (Ok(true), Ok(true)));
    }
}
