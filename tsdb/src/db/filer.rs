//! A thread that moves sealed chunks to files as soon as there are many: between two rounds of
//! maintenance a fast sender may seal more than memory should hold.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::Error;
use crate::head::Head;
use crate::head::chunk_files::ChunkFiles;

use super::maintain::Agenda;

/// Chunks are moved when those that were sealed take this many bytes on the heap.
const SEALED_BYTES_MAX: usize = 8 << 20;

/// Ends the thread when it is dropped.
pub(super) struct Filer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    due: bool,
    closing: bool,
}

impl Filer {
    /// Starts the thread. It takes its turn with all else that `agenda` is locked for.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn start(
        head: &Arc<Head>,
        files: &Arc<ChunkFiles>,
        agenda: &Arc<Mutex<Agenda>>,
        dir: &Path,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (head, files, agenda) = (Arc::clone(head), Arc::clone(files), Arc::clone(agenda));
        let waiting = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("isobar-filer".to_owned())
            .spawn(move || {
                while waiting.wait() {
                    let _turn = agenda.lock();
                    // What cannot be written stays where it is. Maintenance looks at all chunks,
                    // comes upon the same error, and tells.
                    let _told_later = head.file_sealed(&files);
                }
            })
            .map_err(|e| Error::io("start the filing thread of", dir, e))?;
        Ok(Filer {
            shared,
            thread: Some(thread),
        })
    }

    /// To be called after each append: wakes the thread when there is enough to do.
    #[inline]
    pub(super) fn note(&self, head: &Head) {
        if head.sealed_bytes() >= SEALED_BYTES_MAX {
            self.shared.wake();
        }
    }
}

impl Drop for Filer {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened; chunks stay on the heap.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    #[cold]
    fn wake(&self) {
        let mut state = self.state.lock();
        if !state.due {
            state.due = true;
            self.wake.notify_one();
        }
    }

    /// Waits until there is something to do; false when it is over.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.due && !state.closing {
            self.wake.wait(&mut state);
        }
        state.due = false;
        !state.closing
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use isobar_model::{Labels, Tenant};

    use crate::db::{Db, DbConfig};
    use crate::head::incoming::IncomingSeries;

    struct One {
        labels: Labels,
        samples: Vec<(i64, f64)>,
    }

    impl IncomingSeries for One {
        fn encoded_labels(&self) -> &[u8] {
            self.labels.as_bytes()
        }

        fn labels(&self) -> Result<Labels, String> {
            Ok(self.labels.clone())
        }

        fn samples(&self, mut each: impl FnMut(i64, f64)) {
            self.samples.iter().for_each(|(t, value)| each(*t, *value));
        }
    }

    #[test]
    fn chunks_leave_the_heap_without_maintenance() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(DbConfig::new(dir.path())).unwrap();
        let numbers = |name: usize| {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", &*name.to_string())]);
            // Values without anything in common: eight bytes each.
            let mut bits = name as u64 + 1;
            let samples = (0..121).map(|i| {
                bits = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) | 1;
                (i * 1000, bits as f64)
            });
            One {
                labels,
                samples: samples.collect(),
            }
        };
        let series: Vec<One> = (0..10_000).map(numbers).collect();
        db.append(&Tenant::default(), &series).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let files = || std::fs::read_dir(db.chunk_files.dir()).unwrap().count();
        while (files() == 0 || db.head.sealed_bytes() > 0) && Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(files() > 0);
        // Whoever takes the turn next finds nothing left.
        assert_eq!(db.file_chunks().unwrap(), 0);
    }
}
