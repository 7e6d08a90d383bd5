//! Which requests may begin: as many as their memory allows. One that may need much waits until there is
//! room for it beside the others, so that several large ones run one after the other and do not fail
//! together; a small one goes on at once, for large ones never have all of the memory.
//!
//! What a request needs is not known before it runs, so its reservations still decide: this only keeps the
//! number of those small that compete for the last bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::StoreError;

/// The unit in which requests wait for memory, in bytes.
const UNIT_BYTES: u64 = 64 << 10;
/// Large requests together have this much of the memory, of four parts.
const LARGE_PARTS: u64 = 3;
/// What is expected to need less than this part of the memory is small.
const SMALL_PART: u64 = 64;
/// So long a large request waits for the others.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The memory of large requests.
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    units: u32,
    small_bytes: u64,
}

impl Gate {
    /// For requests that share `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / 4 * LARGE_PARTS / UNIT_BYTES).unwrap_or(u32::MAX);
        let units = units.clamp(1, 1 << 28);
        Gate {
            permits: Arc::new(Semaphore::new(units as usize)),
            units,
            small_bytes: bytes / SMALL_PART,
        }
    }

    /// Waits until a request may begin that needs at most `most` bytes. Only when others are in its way
    /// is `closer` asked how many it is really going to need. What is given is held as long as the
    /// request runs.
    ///
    /// # Errors
    /// When others have the memory for too long.
    pub(super) async fn admit(
        &self,
        runtime: &Handle,
        most: u64,
        closer: impl FnOnce() -> u64,
    ) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        let units = |bytes: u64| {
            let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
            units.clamp(1, self.units)
        };
        if most <= self.small_bytes {
            return Ok(None);
        }
        let permits = Arc::clone(&self.permits);
        if let Ok(permit) = permits.try_acquire_many_owned(units(most)) {
            return Ok(Some(permit));
        }
        let needed = closer().min(most);
        if needed <= self.small_bytes {
            return Ok(None);
        }
        let turn = Arc::clone(&self.permits).acquire_many_owned(units(needed));
        // Whoever polls this need not be a task of a runtime, and only those have timers.
        let turn = runtime.spawn(tokio::time::timeout(WAIT_MAX, turn)).await;
        match turn {
            Ok(Ok(Ok(permit))) => Ok(Some(permit)),
            Ok(Err(_late)) => Err(StoreError::LimitExceeded(format!(
                "other requests to the store gateway have held its memory for {} s",
                WAIT_MAX.as_secs()
            ))),
            Ok(Ok(Err(_))) | Err(_) => Err(StoreError::Unavailable("shutting down".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_ones_wait_for_each_other_and_small_ones_for_nobody() {
        let gate = Gate::new(64 << 20);
        let runtime = Handle::current();
        let never = || panic!("nobody is in the way");
        let first = gate.admit(&runtime, 30 << 20, never).await.unwrap();
        assert!(first.is_some());
        assert!(
            gate.admit(&runtime, 1 << 20, never)
                .await
                .unwrap()
                .is_none()
        );
        let small = gate.admit(&runtime, 30 << 20, || 1000).await.unwrap();
        assert!(small.is_none());
        let mut waiting = std::pin::pin!(gate.admit(&runtime, 30 << 20, || 20 << 20));
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(waiting.await.unwrap().is_some());
        // One that is larger than all there is is alone.
        assert!(
            gate.admit(&runtime, 1 << 40, never)
                .await
                .unwrap()
                .is_some()
        );
    }
}
