//! Writing the log: appenders push records into a shared buffer, one thread writes and syncs.
//!
//! The thread takes all that is in the buffer as soon as the disk is free, so writers that come
//! while it is busy share the next sync (group commit). When the disk fails, everyone who waits is
//! told, new writes are refused, and the thread keeps what it could not write and tries again
//! every second, in a fresh segment and before anything newer: the order of the log never changes.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::Error;
use crate::db::event::{Event, Events};
use crate::db::files::{remove_file, sync_dir};
use crate::db::{OnDurable, describe};
use crate::disk::OutFile;
use crate::head::incoming::CommitTicket;

use super::record::Kind;
use super::segment::{FrameWriter, PAYLOAD_BYTES_MAX, random_nonce};

/// A segment is closed when the next batch would make it larger than this.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;
/// The most bytes that wait to be written; appends are refused beyond.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Behind the records stand zeros that later ones replace: then a sync writes data only, not the file's
/// length and place on the disk too, which takes a third of the time off it. There are as many zeros
/// as there are records, within these bounds.
const ZEROS_BYTES_MIN: u64 = 4 << 10;
const ZEROS_BYTES_MAX: u64 = 256 << 10;
/// How long to wait before a failed write is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const CLOSED: &str = "the database is closed";

/// When a write counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When it is on disk. The default.
    Always,
    /// When it is handed to the operating system, which is told to put it on disk this often.
    /// A crash of the machine, but not of the process, loses what came since.
    Interval(Duration),
}

/// The log's writing end.
pub(crate) struct Log {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// The thread has done something.
    done: Condvar,
    events: Events,
}

#[derive(Default)]
struct State {
    /// Records as `kind <1b> │ len <4b, little-endian> │ payload`.
    pending: Vec<u8>,
    /// Bytes that were ever pushed, and how many of them are durable.
    pushed: u64,
    durable: u64,
    failure: Option<Arc<str>>,
    waiters: Vec<(u64, OnDurable)>,
    rotate: bool,
    closing: bool,
    /// Whether the thread is gone: what was pushed after its last batch stays unwritten.
    ended: bool,
    /// The number of the segment being written.
    segment: u64,
}

impl State {
    /// Why what is not durable yet may never be.
    fn cause(&self) -> Option<&str> {
        self.failure.as_deref().or(self.ended.then_some(CLOSED))
    }
}

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}"))
}

impl Log {
    /// Starts writing at a new segment `number`.
    ///
    /// # Errors
    /// When the segment cannot be created.
    pub(crate) fn start(
        dir: &Path,
        number: u64,
        sync: Sync,
        events: Events,
    ) -> Result<Self, Error> {
        let segment = Segment::create(dir, number)?;
        let state = Mutex::new(State {
            segment: number,
            ..State::default()
        });
        let (work, done) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared {
            state,
            work,
            done,
            events,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            dir: dir.to_owned(),
            sync,
            number,
            segment: Some(segment),
            batch: Vec::new(),
            frames: Vec::new(),
            unsynced_since: None,
        };
        let thread = std::thread::Builder::new()
            .name("isobar-wal".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| Error::io("start the writer of", dir, e))?;
        Ok(Log {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Refuses when a write could not become durable at present.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the cause.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        let state = self.shared.state.lock();
        if let Some(cause) = state.cause() {
            return Err(Error::Unavailable(cause.to_owned()));
        }
        if state.pending.len() > PENDING_BYTES_MAX {
            let text = format!(
                "the write-ahead log is {} bytes behind",
                state.pending.len()
            );
            return Err(Error::Unavailable(text));
        }
        Ok(())
    }

    /// Puts a record at the end of the log.
    pub(crate) fn push(&self, kind: Kind, payload: &[u8]) {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "appenders split what is larger"
        );
        let mut state = self.shared.state.lock();
        let idle = state.pending.is_empty();
        state.pending.push(kind as u8);
        state
            .pending
            .extend_from_slice(&(payload.len() as u32).to_le_bytes());
        state.pending.extend_from_slice(payload);
        state.pushed += 5 + payload.len() as u64;
        drop(state);
        if idle {
            self.shared.work.notify_one();
        }
    }

    /// Stands for all that was pushed until now.
    pub(crate) fn ticket(&self) -> CommitTicket {
        CommitTicket(self.shared.state.lock().pushed)
    }

    /// Blocks until all that the ticket stands for is durable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it could not be written.
    pub(crate) fn wait(&self, ticket: CommitTicket) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        loop {
            if state.durable >= ticket.0 {
                return Ok(());
            }
            if let Some(cause) = state.cause() {
                return Err(Error::Unavailable(cause.to_owned()));
            }
            self.shared.done.wait(&mut state);
        }
    }

    /// Calls `done` when all that the ticket stands for is durable or cannot be written.
    pub(crate) fn when_durable(&self, ticket: CommitTicket, done: OnDurable) {
        let mut state = self.shared.state.lock();
        let result = if state.durable >= ticket.0 {
            Ok(())
        } else if let Some(cause) = state.cause() {
            Err(Error::Unavailable(cause.to_owned()))
        } else {
            state.waiters.push((ticket.0, done));
            return;
        };
        drop(state);
        done(result);
    }

    /// Closes the segment. All that was pushed before stands in segments before the one whose
    /// number is returned.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written.
    pub(crate) fn rotate(&self) -> Result<u64, Error> {
        let mut state = self.shared.state.lock();
        state.rotate = true;
        self.shared.work.notify_one();
        loop {
            if let Some(cause) = state.cause() {
                return Err(Error::Unavailable(cause.to_owned()));
            }
            if !state.rotate {
                return Ok(state.segment);
            }
            self.shared.done.wait(&mut state);
        }
    }

    /// Writes what is left and ends the thread. Further calls do nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the rest could not be written.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let Some(thread) = self.thread.lock().take() else {
            return Ok(());
        };
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
        if thread.join().is_err() {
            return Err(Error::Unavailable(
                "the writer of the log has panicked".to_owned(),
            ));
        }
        match &self.shared.state.lock().failure {
            Some(cause) => Err(Error::Unavailable(cause.to_string())),
            None => Ok(()),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            (self.shared.events)(Event::WalUnavailable {
                cause: e.to_string(),
            });
        }
    }
}

/// What the writing thread owns.
struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    sync: Sync,
    number: u64,
    segment: Option<Segment>,
    /// What is being written, as in [`State::pending`].
    batch: Vec<u8>,
    frames: Vec<u8>,
    unsynced_since: Option<Instant>,
}

/// What the thread woke up for.
struct Job {
    /// [`State::pushed`] when the batch was taken.
    end: u64,
    rotate: bool,
    closing: bool,
}

impl Writer {
    /// Until the log is closed.
    fn run(mut self) {
        loop {
            let job = self.next_job();
            if let Err(error) = self.write(&job)
                && !self.survive(&job, error)
            {
                return;
            }
            self.report_success(&job);
            self.batch.clear();
            if job.closing {
                return;
            }
        }
    }

    fn next_job(&mut self) -> Job {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        while state.pending.is_empty() && !state.rotate && !state.closing {
            match (self.sync, self.unsynced_since) {
                (Sync::Interval(every), Some(since)) => {
                    if shared
                        .work
                        .wait_until(&mut state, since + every)
                        .timed_out()
                    {
                        break;
                    }
                }
                _ => shared.work.wait(&mut state),
            }
        }
        std::mem::swap(&mut state.pending, &mut self.batch);
        Job {
            end: state.pushed,
            rotate: state.rotate,
            closing: state.closing,
        }
    }

    /// Writes the batch and syncs as the mode asks.
    fn write(&mut self, job: &Job) -> Result<(), Error> {
        let full = self.segment.as_ref().is_some_and(|segment| {
            segment.writer.offset() + self.batch.len() as u64 > SEGMENT_BYTES_MAX
        });
        if full {
            self.end_segment()?;
        }
        if self.segment.is_none() {
            self.begin_segment()?;
        }
        if let Some(segment) = &mut self.segment
            && !self.batch.is_empty()
        {
            self.frames.clear();
            for (kind, payload) in records(&self.batch) {
                segment.writer.put(kind, payload, &mut self.frames);
            }
            segment.write(&self.frames)?;
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        let due = match (self.sync, self.unsynced_since) {
            (_, None) => false,
            (Sync::Always, Some(_)) => true,
            (Sync::Interval(every), Some(since)) => job.closing || since.elapsed() >= every,
        };
        if due {
            self.sync_segment()?;
        }
        if job.rotate || job.closing {
            self.end_segment()?;
        }
        if job.rotate {
            self.begin_segment()?;
        }
        Ok(())
    }

    fn sync_segment(&mut self) -> Result<(), Error> {
        if let Some(segment) = &mut self.segment {
            segment.sync()?;
        }
        self.unsynced_since = None;
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), Error> {
        self.sync_segment()?;
        if let Some(segment) = &self.segment {
            // Zeros that stay do no harm.
            let end = segment.writer.offset();
            segment
                .file
                .set_len(end)
                .map_err(|e| Error::io("cut", &segment.path, e))?;
        }
        self.segment = None;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), Error> {
        self.segment = Some(Segment::create(&self.dir, self.number + 1)?);
        self.number += 1;
        Ok(())
    }

    /// Tells everyone who waits, then tries again until it works. False when the log is closed
    /// before that.
    fn survive(&mut self, job: &Job, error: Error) -> bool {
        let mut error = error;
        loop {
            let cause = describe(&error);
            self.abandon_segment();
            let (waiters, news) = {
                let mut state = self.shared.state.lock();
                let news = state.failure.as_deref() != Some(&*cause);
                state.failure = Some(Arc::from(&*cause));
                state.rotate = false;
                (std::mem::take(&mut state.waiters), news)
            };
            self.shared.done.notify_all();
            for (_, done) in waiters {
                done(Err(Error::Unavailable(cause.clone())));
            }
            if news {
                (self.shared.events)(Event::WalUnavailable { cause });
            }
            let closing = {
                let mut state = self.shared.state.lock();
                let until = Instant::now() + RETRY_AFTER;
                while !state.closing && !self.shared.work.wait_until(&mut state, until).timed_out()
                {
                }
                state.closing
            };
            match self.write(&Job {
                rotate: false,
                ..*job
            }) {
                Ok(()) => {
                    (self.shared.events)(Event::WalRecovered);
                    return true;
                }
                Err(_) if closing => return false,
                Err(again) => error = again,
            }
        }
    }

    /// Leaves the segment, cut back to what is surely on disk: the batch will be written again.
    fn abandon_segment(&mut self) {
        self.unsynced_since = None;
        let Some(segment) = self.segment.take() else {
            return;
        };
        let cut = if segment.synced == 0 {
            remove_file(&segment.path)
        } else {
            let cut = segment.file.set_len(segment.synced);
            cut.map_err(|e| Error::io("cut", &segment.path, e))
        };
        if let Err(e) = cut {
            // Records that stay behind are read twice, which changes nothing.
            (self.shared.events)(Event::WalLeftover {
                cause: describe(&e),
            });
        }
    }

    fn report_success(&self, job: &Job) {
        let ready = {
            let mut state = self.shared.state.lock();
            state.durable = state.durable.max(job.end);
            state.failure = None;
            state.segment = self.number;
            if job.rotate {
                state.rotate = false;
            }
            let durable = state.durable;
            let waiters = std::mem::take(&mut state.waiters);
            let (ready, rest) = waiters.into_iter().partition(|(end, _)| *end <= durable);
            state.waiters = rest;
            ready
        };
        let _: &Vec<(u64, OnDurable)> = &ready;
        self.shared.done.notify_all();
        for (_, done) in ready {
            done(Ok(()));
        }
    }
}

/// However the thread ends, nobody waits for it any longer.
impl Drop for Writer {
    fn drop(&mut self) {
        let waiters = {
            let mut state = self.shared.state.lock();
            state.ended = true;
            std::mem::take(&mut state.waiters)
        };
        self.shared.done.notify_all();
        for (_, done) in waiters {
            done(Err(Error::Unavailable(CLOSED.to_owned())));
        }
    }
}

/// Kind and payload of each record of a batch.
fn records(mut batch: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, l0, l1, l2, l3], rest) = batch.split_first_chunk()?;
        let (payload, rest) = rest.split_at(u32::from_le_bytes([l0, l1, l2, l3]) as usize);
        batch = rest;
        Some((kind, payload))
    })
}

/// A segment that is open for writing.
struct Segment {
    path: PathBuf,
    file: OutFile,
    writer: FrameWriter,
    /// How much of the file is surely on disk.
    synced: u64,
    /// The length of the file: records, and zeros behind them.
    len: u64,
}

impl Segment {
    fn create(dir: &Path, number: u64) -> Result<Self, Error> {
        let path = segment_path(dir, number);
        let file = OutFile::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut header = Vec::new();
        let writer = FrameWriter::begin(random_nonce(), &mut header);
        let mut segment = Segment {
            path,
            file,
            writer,
            synced: 0,
            len: 0,
        };
        let begun = segment.write(&header).and_then(|()| segment.sync());
        if let Err(e) = begun.and_then(|()| sync_dir(dir)) {
            // A leftover without records does no harm but for its name, which is needed again.
            return Err(match remove_file(&segment.path) {
                Ok(()) => e,
                Err(worse) => worse,
            });
        }
        Ok(segment)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let failed = |e| Error::io("write", &self.path, e);
        self.file.write_all(bytes).map_err(failed)?;
        let end = self.writer.offset();
        if end <= self.len {
            return Ok(());
        }
        let count = end.clamp(ZEROS_BYTES_MIN, ZEROS_BYTES_MAX);
        // Where there is no room for zeros there may be some for records.
        let zeros = self.file.write_all(&vec![0; count as usize]);
        self.len = end + zeros.map_or(0, |()| count);
        self.file.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))?;
        self.synced = self.writer.offset();
        Ok(())
    }
}
