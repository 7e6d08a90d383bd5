//! Exemplars: the newest few of each tenant in memory, all that were there when a block was cut
//! beside that block.
//!
//! Those in memory are bounded in number; the one that came first makes room for the next. They are
//! in the log and in snapshots like samples. A block's lie in a file of their own in its directory
//! ([`file`]), which Prometheus and Thanos do not look at. What is taken and what is refused is as
//! in Prometheus (`tsdb/exemplar.go`), without a window for late ones.

pub(crate) mod file;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use isobar_model::{Exemplar, Labels, Matcher, Tenant, TimeRange};
use parking_lot::Mutex;

use crate::wal::log::Log;
use crate::wal::record::{ExemplarsEncoder, Kind};

/// Records are ended near this size.
const RECORD_BYTES: usize = 256 << 10;

/// What became of exemplars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExemplarCounts {
    /// Stored.
    pub appended: u64,
    /// There already: a success for the sender.
    pub duplicates: u64,
    /// Older than the newest of their series.
    pub out_of_order: u64,
    /// More than ten minutes ahead of the clock.
    pub in_future: u64,
    /// With labels that are too long ([`isobar_model::exemplar::LABELS_CHARS_MAX`]).
    pub too_long: u64,
    /// Not kept because none are.
    pub disabled: u64,
}

/// What is in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExemplarStats {
    /// Exemplars of all tenants.
    pub exemplars: u64,
    /// Series that have some.
    pub series: u64,
    /// The memory that they take, in bytes, about.
    pub bytes: u64,
    /// The most of a tenant that are kept.
    pub exemplars_max: u64,
    /// Stored since the process started.
    pub appended: u64,
    /// Refused since the process started because the newest of their series is newer.
    pub out_of_order: u64,
}

/// The exemplars of a series, oldest first.
pub type SeriesExemplars = (Labels, Vec<Exemplar>);

/// Why an exemplar was not stored.
enum Refusal {
    Duplicate,
    OutOfOrder,
    TooLong,
}

/// The exemplars in memory, of all tenants.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    /// The most of a tenant; 0 keeps none.
    max: usize,
    tenants: Mutex<BTreeMap<Tenant, Ring>>,
    appended: AtomicU64,
    out_of_order: AtomicU64,
}

impl Exemplars {
    /// Room for `max` exemplars of each tenant.
    pub(crate) fn new(max: usize) -> Self {
        Exemplars {
            max,
            ..Exemplars::default()
        }
    }

    /// Stores exemplars up to a time and pushes them into the log.
    pub(crate) fn append(
        &self,
        log: &Log,
        tenant: &Tenant,
        max_ms: i64,
        exemplars: impl IntoIterator<Item = (Labels, Exemplar)>,
    ) -> ExemplarCounts {
        let mut counts = ExemplarCounts::default();
        if self.max == 0 {
            counts.disabled = exemplars.into_iter().count() as u64;
            return counts;
        }
        let mut record = ExemplarsEncoder::new(tenant);
        // Locked until all is pushed, so that the log has the same order.
        let mut tenants = self.tenants.lock();
        let ring = tenants.entry(tenant.clone()).or_default();
        for (labels, exemplar) in exemplars {
            if exemplar.timestamp_ms > max_ms {
                counts.in_future += 1;
                continue;
            }
            match ring.add(&labels, &exemplar, self.max) {
                Ok(()) => {
                    counts.appended += 1;
                    record.put(&labels, &exemplar);
                }
                Err(Refusal::Duplicate) => counts.duplicates += 1,
                Err(Refusal::OutOfOrder) => counts.out_of_order += 1,
                Err(Refusal::TooLong) => counts.too_long += 1,
            }
            if record.as_bytes().len() >= RECORD_BYTES {
                log.push(Kind::Exemplars, record.as_bytes());
                record = ExemplarsEncoder::new(tenant);
            }
        }
        if !record.is_empty() {
            log.push(Kind::Exemplars, record.as_bytes());
        }
        self.appended.fetch_add(counts.appended, Atomic::Relaxed);
        self.out_of_order
            .fetch_add(counts.out_of_order, Atomic::Relaxed);
        counts
    }

    /// Puts back an exemplar from the log. What is there already stays as it is.
    pub(crate) fn restore(&self, tenant: &Tenant, labels: &Labels, exemplar: &Exemplar) {
        if self.max > 0 {
            let mut tenants = self.tenants.lock();
            let ring = tenants.entry(tenant.clone()).or_default();
            let _known = ring.add(labels, exemplar, self.max);
        }
    }

    /// The payloads of records from which all comes back, oldest first.
    pub(crate) fn snapshot(&self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for (tenant, ring) in self.tenants.lock().iter() {
            let mut record = ExemplarsEncoder::new(tenant);
            ring.in_order(|labels, exemplar| {
                record.put(labels, exemplar);
                if record.as_bytes().len() >= RECORD_BYTES {
                    let full = std::mem::replace(&mut record, ExemplarsEncoder::new(tenant));
                    payloads.push(full.into_bytes());
                }
            });
            if !record.is_empty() {
                payloads.push(record.into_bytes());
            }
        }
        payloads
    }

    /// The exemplars of a tenant in a range as a block keeps them; `None` when there are none.
    pub(crate) fn for_block(&self, tenant: &Tenant, range: TimeRange) -> Option<Vec<u8>> {
        let tenants = self.tenants.lock();
        let mut record = ExemplarsEncoder::new(tenant);
        tenants.get(tenant)?.in_order(|labels, exemplar| {
            if range.contains(exemplar.timestamp_ms) {
                record.put(labels, exemplar);
            }
        });
        (!record.is_empty()).then(|| file::encode(record.as_bytes()))
    }

    /// Adds to `found` those in the range whose series match one of the selectors.
    pub(crate) fn select(
        &self,
        tenant: Option<&Tenant>,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        found: &mut Found,
    ) {
        let tenants = self.tenants.lock();
        let wanted = tenants
            .iter()
            .filter(|(name, _)| tenant.is_none_or(|tenant| tenant == *name));
        for (labels, exemplars) in wanted.flat_map(|(_, ring)| &ring.series) {
            if matches_any(selectors, labels) {
                let inside = exemplars
                    .iter()
                    .filter(|it| range.contains(it.timestamp_ms));
                inside.for_each(|exemplar| found.add(labels, exemplar.clone()));
            }
        }
    }

    /// What is in memory.
    pub(crate) fn stats(&self) -> ExemplarStats {
        let mut stats = ExemplarStats {
            exemplars_max: self.max as u64,
            appended: self.appended.load(Atomic::Relaxed),
            out_of_order: self.out_of_order.load(Atomic::Relaxed),
            ..ExemplarStats::default()
        };
        for ring in self.tenants.lock().values() {
            stats.exemplars += ring.order.len() as u64;
            stats.series += ring.series.len() as u64;
            stats.bytes += ring.bytes as u64;
        }
        stats
    }
}

/// Whether a series matches all matchers of one of the selectors.
pub(crate) fn matches_any(selectors: &[Vec<Matcher>], labels: &Labels) -> bool {
    selectors.iter().any(|matchers| {
        matchers
            .iter()
            .all(|matcher| matcher.matches(labels.get(matcher.name())))
    })
}

/// What was found in memory and beside blocks; what is in several places is there once.
#[derive(Debug, Default)]
pub(crate) struct Found(BTreeMap<Labels, Vec<Exemplar>>);

impl Found {
    pub(crate) fn add(&mut self, labels: &Labels, exemplar: Exemplar) {
        match self.0.get_mut(labels) {
            Some(known) => known.push(exemplar),
            None => drop(self.0.insert(labels.clone(), vec![exemplar])),
        }
    }

    /// By labels, the exemplars of each series by time.
    pub(crate) fn finish(self) -> Vec<SeriesExemplars> {
        let sorted = self.0.into_iter().map(|(labels, mut exemplars)| {
            exemplars.sort_by(compare);
            exemplars.dedup();
            (labels, exemplars)
        });
        sorted.collect()
    }
}

fn compare(a: &Exemplar, b: &Exemplar) -> Ordering {
    let times = a.timestamp_ms.cmp(&b.timestamp_ms);
    times
        .then(a.value.total_cmp(&b.value))
        .then_with(|| a.labels.cmp(&b.labels))
}

/// The exemplars of a tenant.
#[derive(Debug, Default)]
struct Ring {
    /// The exemplars of each series in the order in which they came, which is that of their times.
    series: HashMap<Labels, VecDeque<Exemplar>>,
    /// The series of each exemplar in the order in which they came.
    order: VecDeque<Labels>,
    bytes: usize,
}

impl Ring {
    fn add(&mut self, labels: &Labels, exemplar: &Exemplar, max: usize) -> Result<(), Refusal> {
        if exemplar.is_too_long() {
            return Err(Refusal::TooLong);
        }
        if let Some(known) = self.series.get(labels) {
            check_order(known, exemplar)?;
        }
        while self.order.len() >= max.max(1) {
            self.drop_oldest();
        }
        let labels = match self.series.get_key_value(labels) {
            Some((known, _)) => known.clone(),
            None => {
                self.bytes += series_bytes(labels);
                labels.clone()
            }
        };
        self.bytes += exemplar_bytes(exemplar);
        self.order.push_back(labels.clone());
        self.series
            .entry(labels)
            .or_default()
            .push_back(exemplar.clone());
        Ok(())
    }

    fn drop_oldest(&mut self) {
        let Some(labels) = self.order.pop_front() else {
            return;
        };
        let Some(exemplars) = self.series.get_mut(&labels) else {
            return;
        };
        if let Some(exemplar) = exemplars.pop_front() {
            self.bytes = self.bytes.saturating_sub(exemplar_bytes(&exemplar));
        }
        if exemplars.is_empty() {
            self.series.remove(&labels);
            self.bytes = self.bytes.saturating_sub(series_bytes(&labels));
        }
    }

    fn in_order(&self, mut each: impl FnMut(&Labels, &Exemplar)) {
        let mut next: HashMap<&Labels, usize> = HashMap::new();
        for labels in &self.order {
            let at = next.entry(labels).or_default();
            if let Some(exemplar) = self.series.get(labels).and_then(|all| all.get(*at)) {
                each(labels, exemplar);
            }
            *at += 1;
        }
    }
}

/// Times of a series' exemplars rise; with equal times the values, with equal values the hashes of
/// the labels do: buckets of a native histogram may each have one at the same time.
fn check_order(known: &VecDeque<Exemplar>, exemplar: &Exemplar) -> Result<(), Refusal> {
    let from = known.partition_point(|it| it.timestamp_ms < exemplar.timestamp_ms);
    let mut of_time = known.iter().skip(from);
    if of_time.any(|it| it == exemplar) {
        return Err(Refusal::Duplicate);
    }
    let Some(newest) = known.back() else {
        return Ok(());
    };
    let late = match exemplar.timestamp_ms.cmp(&newest.timestamp_ms) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => {
            exemplar.value < newest.value
                || exemplar.value == newest.value
                    && exemplar.labels.hash64() < newest.labels.hash64()
        }
    };
    match late {
        true => Err(Refusal::OutOfOrder),
        false => Ok(()),
    }
}

fn exemplar_bytes(exemplar: &Exemplar) -> usize {
    size_of::<Exemplar>() + size_of::<Labels>() + exemplar.labels.as_bytes().len()
}

fn series_bytes(labels: &Labels) -> usize {
    labels.as_bytes().len() + size_of::<(Labels, VecDeque<Exemplar>)>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)])
    }

    fn exemplar(timestamp_ms: i64, value: f64, trace: &str) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            timestamp_ms,
        }
    }

    fn told(ring: &Ring) -> Vec<String> {
        let mut all = Vec::new();
        ring.in_order(|labels, it| {
            let name = labels.metric_name();
            all.push(format!("{name}@{}={}", it.timestamp_ms, it.value));
        });
        all
    }

    #[test]
    fn the_first_make_room_and_order_is_kept() {
        let mut ring = Ring::default();
        let add = |ring: &mut Ring, name: &str, it: Exemplar| match ring.add(&series(name), &it, 3)
        {
            Ok(()) => "stored",
            Err(Refusal::Duplicate) => "duplicate",
            Err(Refusal::OutOfOrder) => "out of order",
            Err(Refusal::TooLong) => "too long",
        };
        assert_eq!(add(&mut ring, "a", exemplar(10, 1.0, "x")), "stored");
        assert_eq!(add(&mut ring, "a", exemplar(10, 1.0, "x")), "duplicate");
        assert_eq!(add(&mut ring, "a", exemplar(10, 2.0, "x")), "stored");
        assert_eq!(add(&mut ring, "a", exemplar(10, 1.0, "x")), "duplicate");
        assert_eq!(add(&mut ring, "a", exemplar(10, 0.5, "x")), "out of order");
        assert_eq!(add(&mut ring, "a", exemplar(9, 9.0, "x")), "out of order");
        assert_eq!(add(&mut ring, "b", exemplar(5, 1.0, "x")), "stored");
        let long = "é".repeat(121);
        assert_eq!(add(&mut ring, "b", exemplar(6, 1.0, &long)), "too long");
        assert_eq!(told(&ring), ["a@10=1", "a@10=2", "b@5=1"]);
        let full = ring.bytes;
        assert_eq!(add(&mut ring, "b", exemplar(6, 1.0, "x")), "stored");
        assert_eq!(ring.bytes, full);
        assert_eq!(add(&mut ring, "b", exemplar(7, 1.0, "x")), "stored");
        assert_eq!(told(&ring), ["b@5=1", "b@6=1", "b@7=1"]);
        assert_eq!(ring.series.len(), 1);
    }
}
