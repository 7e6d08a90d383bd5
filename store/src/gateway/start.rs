//! The start of a request that reads many blocks: nothing can be given before each of them has given its
//! first series or is at its end, so those that have wait for the others before they read on, and leave them
//! requests, memory and processors.

use std::sync::Arc;

use tokio::sync::watch;

/// How many blocks have not given anything yet.
#[derive(Clone, Default)]
pub(super) struct Start(Arc<watch::Sender<usize>>);

/// A block that has not given anything yet.
pub(super) struct Beginning(Start);

impl Start {
    /// One more that is going to give something.
    pub(super) fn another(&self) -> Beginning {
        self.0.send_modify(|blocks| *blocks += 1);
        Beginning(self.clone())
    }

    /// Waits until all have given something, or ended.
    pub(super) async fn of_all(&self) {
        let mut blocks = self.0.subscribe();
        let begun = blocks.wait_for(|blocks| *blocks == 0).await;
        assert!(begun.is_ok(), "the sender is held here");
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.0.0.send_modify(|blocks| *blocks -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_begun_waits_for_the_others() {
        let start = Start::default();
        let (first, second) = (start.another(), start.another());
        let mut all = tokio_test(start.of_all());
        assert!(!all());
        drop(first);
        assert!(!all());
        drop(second);
        assert!(all());
    }

    /// Polls once at each call, and says whether it is done.
    fn tokio_test(future: impl Future<Output = ()>) -> impl FnMut() -> bool {
        use futures::FutureExt;
        let mut future = Box::pin(future.fuse());
        move || (&mut future).now_or_never().is_some()
    }
}
