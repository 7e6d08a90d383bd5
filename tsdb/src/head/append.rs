//! The way in: a request's series are grouped by shard, each shard is locked once, and what the
//! head takes goes into the log under the same lock, so that both have the same order.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use isobar_model::Labels;

use crate::wal::log::Log;
use crate::wal::record::{self, HistogramsEncoder, Kind, SamplesEncoder};

use super::Head;
use super::incoming::{Append, IncomingSeries, RejectReason, Rejections};
use super::late::Epoch;
use super::limits::Gate;
use super::series::{Bounds, LateBounds, MemSeries, Outcome};
use super::shard::{IDS_END, Key, SHARDS, Shard, shard_of};
use super::tenants::TenantState;

/// A sample may be this much older than the newest of its tenant: half a block range, so that a
/// block is only cut from what nobody writes to any more (Prometheus does the same).
const AGE_MS_MAX: i64 = super::series::BLOCK_RANGE_MS / 2;
/// A sample may be this far ahead of the clock.
pub(crate) const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;
/// Records are ended near this size.
const RECORD_BYTES: usize = 1 << 20;
/// The most bytes of a series' labels.
const LABELS_BYTES_MAX: usize = 1 << 20;

/// A series of the request: where it stands there, and its key.
#[derive(Clone, Copy)]
struct Todo {
    at: u32,
    key: Key,
}

/// A series of the request whose id is known.
#[derive(Clone, Copy)]
struct Known {
    at: u32,
    id: u32,
}

/// Memory that is kept from request to request.
#[derive(Default)]
struct Scratch {
    todo: Vec<Todo>,
    sorted: Vec<Todo>,
    known: Vec<Known>,
    encoder: SamplesEncoder,
    histograms: HistogramsEncoder,
    sealed: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Head {
    /// Stores samples and pushes them into the log.
    pub(crate) fn append<S: IncomingSeries>(
        &self,
        log: &Log,
        tenant: &TenantState,
        series: &[S],
        now_ms: i64,
    ) -> Append {
        let mut scratch = SCRATCH.take();
        let newest_ms = tenant.max_ms.load(Ordering::Acquire);
        let mut batch = Batch {
            head: self,
            log,
            tenant,
            series,
            age_limit_ms: newest_ms.saturating_sub(AGE_MS_MAX),
            late_min_ms: self.late_window_ms.map(|it| newest_ms.saturating_sub(it)),
            late: LateRecords::default(),
            max_ms: now_ms.saturating_add(AHEAD_MS_MAX),
            encoder: std::mem::take(&mut scratch.encoder),
            histograms: std::mem::take(&mut scratch.histograms),
            sealed: std::mem::take(&mut scratch.sealed),
            sealed_bytes: 0,
            appended: 0,
            duplicates: 0,
            rejected: Rejections::default(),
            range: (i64::MAX, i64::MIN),
        };
        batch.run(&mut scratch);
        let Batch {
            encoder,
            histograms,
            sealed,
            sealed_bytes,
            appended,
            duplicates,
            rejected,
            ..
        } = batch;
        scratch.encoder = encoder;
        scratch.histograms = histograms;
        scratch.sealed = sealed;
        SCRATCH.replace(scratch);
        tenant.appended.fetch_add(appended, Ordering::Relaxed);
        if sealed_bytes > 0 {
            self.sealed_bytes.fetch_add(sealed_bytes, Ordering::Relaxed);
        }
        // Taken at the end, and of all that was pushed: a repeated sample may be one whose first
        // copy is not durable yet.
        Append {
            appended,
            duplicates,
            rejected,
            ticket: log.ticket(),
        }
    }
}

/// Late samples that were taken from the shard that is locked.
struct LateRecords {
    floats: SamplesEncoder,
    histograms: HistogramsEncoder,
    count: u64,
    min_ms: i64,
}

impl Default for LateRecords {
    fn default() -> Self {
        LateRecords {
            floats: SamplesEncoder::default(),
            histograms: HistogramsEncoder::default(),
            count: 0,
            min_ms: i64::MAX,
        }
    }
}

impl LateRecords {
    fn bytes(&self) -> usize {
        self.floats.as_bytes().len() + self.histograms.as_bytes().len()
    }

    /// Pushes them into the log. Called under the lock of the shard that has this epoch.
    fn push(&mut self, log: &Log, epoch: Epoch) {
        for (kind, samples) in [
            (Kind::Late, self.floats.as_bytes()),
            (Kind::LateHistograms, self.histograms.as_bytes()),
        ] {
            if !samples.is_empty() {
                let mut payload = Vec::with_capacity(samples.len() + 10);
                record::put_epoch(&mut payload, epoch.0);
                payload.extend_from_slice(samples);
                log.push(kind, &payload);
            }
        }
        self.floats.clear();
        self.histograms.clear();
    }
}

struct Batch<'a, S> {
    head: &'a Head,
    log: &'a Log,
    tenant: &'a TenantState,
    series: &'a [S],
    age_limit_ms: i64,
    max_ms: i64,
    /// The oldest late sample that is taken, if any are.
    late_min_ms: Option<i64>,
    encoder: SamplesEncoder,
    late: LateRecords,
    /// Histograms that were taken from the shard that is locked. In the log they come behind the
    /// floats of `encoder`.
    histograms: HistogramsEncoder,
    /// Series of the shard that is locked of which a chunk was sealed, and the memory of all such
    /// chunks.
    sealed: Vec<u32>,
    sealed_bytes: usize,
    appended: u64,
    duplicates: u64,
    rejected: Rejections,
    /// The oldest and newest sample taken from the shard that is locked.
    range: (i64, i64),
}

impl<S: IncomingSeries> Batch<'_, S> {
    fn run(&mut self, scratch: &mut Scratch) {
        let tenant = self.head.hasher.tenant(self.tenant.name.as_str());
        scratch.todo.clear();
        scratch
            .todo
            .extend(self.series.iter().zip(0..).map(|(series, at)| Todo {
                at,
                key: self.head.hasher.key(tenant, series.encoded_labels()),
            }));
        let ends = group(&scratch.todo, &mut scratch.sorted, |todo| todo.key.shard());

        let mut elsewhere: Vec<Known> = Vec::new();
        let mut unknown: Vec<Todo> = Vec::new();
        let mut start = 0;
        for (shard, end) in ends.into_iter().enumerate() {
            let group = &scratch.sorted[start..end];
            start = end;
            if group.is_empty() {
                continue;
            }
            let mut locked = self.head.shards[shard].lock();
            // First touch the keys of all, then find all, then touch all series, then append, so that
            // the processor overlaps the waits for memory of many series.
            let keys = group.iter().map(|todo| locked.touch(todo.key));
            std::hint::black_box(keys.fold(0, |all, id| all ^ id));
            scratch.known.clear();
            for todo in group {
                match locked.find(todo.key) {
                    Some(id) if shard_of(id) == shard => {
                        scratch.known.push(Known { at: todo.at, id });
                    }
                    Some(id) => elsewhere.push(Known { at: todo.at, id }),
                    None => unknown.push(*todo),
                }
            }
            let known = scratch
                .known
                .iter()
                .filter_map(|known| locked.get(known.id));
            std::hint::black_box(known.fold(0, |all, series| all ^ series.touch()));
            let bounds = self.bounds(locked.epoch);
            for known in &scratch.known {
                if let Some(series) = locked.get_mut(known.id) {
                    self.append_series(series, *known, bounds);
                } else {
                    unknown.extend(group.iter().find(|todo| todo.at == known.at));
                }
            }
            self.end_shard(&mut locked);
        }
        // Ends after the first round, unless a series is dropped between its making and its first
        // sample, which takes a truncation of the head.
        while !elsewhere.is_empty() || !unknown.is_empty() {
            self.register(&unknown, &mut elsewhere);
            unknown.clear();
            self.append_known(&mut elsewhere, &scratch.todo, &mut unknown);
        }
    }

    /// The times that are taken. Asked for under the lock of a shard: a block is cut by raising
    /// the limit first and then locking each shard.
    fn bounds(&self, epoch: Epoch) -> Bounds {
        let min_valid_ms = self.tenant.min_valid_ms.load(Ordering::Acquire);
        Bounds {
            min_ms: min_valid_ms.max(self.age_limit_ms),
            max_ms: self.max_ms,
            late: self.late_min_ms.map(|min_ms| LateBounds { min_ms, epoch }),
        }
    }

    fn append_known(&mut self, known: &mut Vec<Known>, todo: &[Todo], unknown: &mut Vec<Todo>) {
        known.sort_by_key(|known| shard_of(known.id));
        for group in known.chunk_by(|a, b| shard_of(a.id) == shard_of(b.id)) {
            let Some(first) = group.first() else { continue };
            let mut shard = self.head.shards[shard_of(first.id)].lock();
            let bounds = self.bounds(shard.epoch);
            for known in group {
                match shard.get_mut(known.id) {
                    Some(series) => self.append_series(series, *known, bounds),
                    None => unknown.extend(todo.get(known.at as usize)),
                }
            }
            self.end_shard(&mut shard);
        }
        known.clear();
    }

    #[inline]
    fn append_series(&mut self, series: &mut MemSeries, known: Known, bounds: Bounds) {
        let incoming = &self.series[known.at as usize];
        let sealed_before = series.sealed_count();
        if !self.histograms.as_bytes().is_empty() && series.ends_in_histogram() {
            // Its floats must not come before its histograms in the log.
            self.push_records();
        }
        incoming.samples(
            |timestamp_ms, value| match series.append(timestamp_ms, value, bounds) {
                Outcome::Appended => {
                    self.appended += 1;
                    self.range.0 = self.range.0.min(timestamp_ms);
                    self.range.1 = self.range.1.max(timestamp_ms);
                    self.encoder.put(known.id, timestamp_ms, value);
                    if self.encoder.as_bytes().len() >= RECORD_BYTES {
                        self.log.push(Kind::Samples, self.encoder.as_bytes());
                        self.encoder.clear();
                    }
                }
                Outcome::AppendedLate => {
                    self.late.floats.put(known.id, timestamp_ms, value);
                    self.took_late(timestamp_ms, bounds);
                }
                Outcome::Duplicate => self.duplicates += 1,
                Outcome::Rejected(reason) => {
                    let text = || incoming.labels().map(|l| l.to_string()).unwrap_or_default();
                    self.rejected.add(reason, Some((timestamp_ms, value)), text);
                }
            },
        );
        if incoming.has_histograms() {
            self.append_histograms(series, known, bounds);
        }
        if series.sealed_count() > sealed_before {
            self.sealed.push(known.id);
            self.sealed_bytes += series.sealed_bytes_since(sealed_before);
        }
    }

    fn append_histograms(&mut self, series: &mut MemSeries, known: Known, bounds: Bounds) {
        let incoming = &self.series[known.at as usize];
        incoming.histograms(|timestamp_ms, sample| {
            let outcome = match sample {
                Ok(it) => {
                    let histogram = Arc::clone(&it.histogram);
                    let outcome =
                        series.append_histogram(timestamp_ms, histogram, it.counts, bounds);
                    let encoder = match outcome {
                        Outcome::Appended => Some(&mut self.histograms),
                        Outcome::AppendedLate => Some(&mut self.late.histograms),
                        _ => None,
                    };
                    if let Some(encoder) = encoder {
                        encoder.put(known.id, timestamp_ms, &it.histogram, it.counts);
                    }
                    outcome
                }
                Err(why) => Outcome::Rejected(RejectReason::BadHistogram(why)),
            };
            match outcome {
                Outcome::Appended => {
                    self.appended += 1;
                    self.range.0 = self.range.0.min(timestamp_ms);
                    self.range.1 = self.range.1.max(timestamp_ms);
                    if self.histograms.as_bytes().len() >= RECORD_BYTES {
                        self.push_records();
                    }
                }
                Outcome::AppendedLate => self.took_late(timestamp_ms, bounds),
                Outcome::Duplicate => self.duplicates += 1,
                Outcome::Rejected(reason) => {
                    let text = || incoming.labels().map(|l| l.to_string()).unwrap_or_default();
                    self.rejected.add_histogram(reason, timestamp_ms, text);
                }
            }
        });
    }

    #[cold]
    fn took_late(&mut self, timestamp_ms: i64, bounds: Bounds) {
        self.appended += 1;
        self.late.count += 1;
        self.late.min_ms = self.late.min_ms.min(timestamp_ms);
        self.range.0 = self.range.0.min(timestamp_ms);
        self.range.1 = self.range.1.max(timestamp_ms);
        if self.late.bytes() >= RECORD_BYTES
            && let Some(late) = bounds.late
        {
            self.late.push(self.log, late.epoch);
        }
    }

    /// Pushes what was taken into the log, floats before histograms.
    fn push_records(&mut self) {
        if !self.encoder.as_bytes().is_empty() {
            self.log.push(Kind::Samples, self.encoder.as_bytes());
            self.encoder.clear();
        }
        if !self.histograms.as_bytes().is_empty() {
            self.log.push(Kind::Histograms, self.histograms.as_bytes());
            self.histograms.clear();
        }
    }

    /// Hands over what was taken while a shard was locked. Called before it is unlocked, so that
    /// who locks it next sees log and times as the shard is.
    fn end_shard(&mut self, shard: &mut Shard) {
        self.push_records();
        shard.sealed.append(&mut self.sealed);
        if self.late.count > 0 {
            self.late.push(self.log, shard.epoch);
            self.tenant.note_late(self.late.min_ms, self.late.count);
            (self.late.min_ms, self.late.count) = (i64::MAX, 0);
        }
        let (min_ms, max_ms) = std::mem::replace(&mut self.range, (i64::MAX, i64::MIN));
        self.tenant.widen(min_ms, max_ms);
    }

    /// Refuses a series that is not known and has no sample in bounds: it would take memory for
    /// nothing. False when it has one.
    fn refuse_out_of_bounds(&mut self, todo: Todo, labels: &Labels) -> bool {
        let bounds = self.bounds(Epoch::default());
        let incoming = &self.series[todo.at as usize];
        let mut wanted = false;
        let late_ms = bounds.late.map_or(i64::MAX, |late| late.min_ms);
        let min_ms = bounds.min_ms.min(late_ms);
        let in_bounds = |t: i64| min_ms <= t && t <= bounds.max_ms;
        incoming.samples(|t, _| wanted |= in_bounds(t));
        incoming.histograms(|t, sample| wanted |= sample.is_ok() && in_bounds(t));
        if wanted {
            return false;
        }
        let reason = |t: i64| match (t > bounds.max_ms, bounds.late) {
            (true, _) => RejectReason::TooFarInFuture,
            (false, Some(_)) => RejectReason::TooOld,
            (false, None) => RejectReason::OutOfBounds,
        };
        let text = || labels.to_string();
        incoming.samples(|t, value| self.rejected.add(reason(t), Some((t, value)), text));
        incoming.histograms(|t, sample| {
            let bad = sample.err().map(RejectReason::BadHistogram);
            self.rejected
                .add_histogram(bad.unwrap_or_else(|| reason(t)), t, text);
        });
        true
    }

    /// Finds series by their parsed labels, or makes them, and remembers their keys.
    fn register(&mut self, unknown: &[Todo], known: &mut Vec<Known>) {
        if unknown.is_empty() {
            return;
        }
        let mut parsed: Vec<(Todo, Labels)> = Vec::with_capacity(unknown.len());
        for todo in unknown {
            match self.series[todo.at as usize].labels() {
                Ok(labels) if labels.as_bytes().len() > LABELS_BYTES_MAX => {
                    let len = labels.as_bytes().len();
                    let why = format!("labels have {len} bytes, more than {LABELS_BYTES_MAX}");
                    self.rejected
                        .add(RejectReason::BadLabels(why), None, String::new);
                }
                Ok(labels) => parsed.push((*todo, labels)),
                Err(why) => self
                    .rejected
                    .add(RejectReason::BadLabels(why), None, String::new),
            }
        }
        let head = self.head;
        let mut catalog = head.catalog.write();
        let mut gate = Gate::new(&head.limits, &head.memory, self.tenant.id, &catalog.index);
        let mut payload = Vec::new();
        let mut made = Vec::new();
        let mut keys = Vec::new();
        for (todo, labels) in parsed {
            let id = match catalog.index.find(self.tenant.id, &labels) {
                Some(id) => id,
                None if self.refuse_out_of_bounds(todo, &labels) => continue,
                None => {
                    if let Err(reason) = gate.admit(&catalog.index, &labels) {
                        self.rejected.add(reason, None, || labels.to_string());
                        continue;
                    }
                    let Some(id) = catalog.ids.take(todo.key.shard()) else {
                        let why = format!("the head is full: it holds {IDS_END} series at most");
                        let reason = RejectReason::BadLabels(why);
                        self.rejected.add(reason, None, || labels.to_string());
                        continue;
                    };
                    catalog.index.insert(id, self.tenant.id, &labels);
                    if payload.is_empty() {
                        record::put_series_tenant(&mut payload, self.tenant.name.as_str());
                    }
                    record::put_series(&mut payload, id, &labels);
                    made.push(id);
                    if payload.len() >= RECORD_BYTES {
                        self.log.push(Kind::Series, &payload);
                        payload.clear();
                    }
                    id
                }
            };
            known.push(Known { at: todo.at, id });
            keys.push((todo.key, id));
        }
        if !payload.is_empty() {
            self.log.push(Kind::Series, &payload);
        }
        // Only now can samples of the new series come into the log: behind their labels.
        for id in made {
            self.head.shards[shard_of(id)].lock().get_or_add(id);
        }
        for (key, id) in keys {
            self.head.shards[key.shard()].lock().add_key(key, id);
        }
    }
}

/// Sorts by shard, keeping the order within each; gives the end of each shard's group.
fn group(todo: &[Todo], sorted: &mut Vec<Todo>, shard: impl Fn(&Todo) -> usize) -> [usize; SHARDS] {
    let mut ends = [0; SHARDS];
    todo.iter().for_each(|todo| ends[shard(todo)] += 1);
    let mut at = [0; SHARDS];
    let mut sum = 0;
    for (end, at) in ends.iter_mut().zip(&mut at) {
        *at = sum;
        sum += *end;
        *end = sum;
    }
    sorted.clear();
    sorted.extend_from_slice(todo);
    for todo in todo {
        let place = &mut at[shard(todo)];
        sorted[*place] = *todo;
        *place += 1;
    }
    ends
}
