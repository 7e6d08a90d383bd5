//! What a tenant may write: how many series, what their labels look like, how many samples a second.
//!
//! Series that exist live on whatever the limits say; those that would be new are refused with a
//! reason of their own. The rate is a bucket of tokens per tenant: it fills with time up to the burst,
//! a request that finds it empty is refused as a whole, and what a request brings is taken out
//! afterwards, even if there is less: so nobody counts samples beforehand, and the rate holds all the
//! same.

use std::fmt;

use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

use super::incoming::RejectReason;
use super::index::Index;
use super::memory::HeadMemory;
use super::tenants::TenantId;

/// Limits of each tenant, and of their number. Zero stands for no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tenants. One that has written once is remembered as long as the process runs, and who sends
    /// may name any.
    pub tenants: u64,
    /// Series in the head.
    pub series_per_tenant: u64,
    /// Series in the head with the same metric name.
    pub series_per_metric: u64,
    /// Labels of a series, the metric name counted.
    pub labels_per_series: u64,
    /// Bytes of a label's name.
    pub label_name_bytes: u64,
    /// Bytes of a label's value.
    pub label_value_bytes: u64,
    /// Samples a second.
    pub samples_per_second: u64,
    /// Samples at once, after a time without any; at least those of a second.
    pub samples_burst: u64,
}

/// More than what anybody has who does not do it by mistake.
impl Default for Limits {
    fn default() -> Self {
        Limits {
            tenants: 10_000,
            series_per_tenant: 10_000_000,
            series_per_metric: 2_000_000,
            labels_per_series: 128,
            label_name_bytes: 1024,
            label_value_bytes: 64 << 10,
            samples_per_second: 5_000_000,
            samples_burst: 50_000_000,
        }
    }
}

impl Limits {
    /// No limit at all.
    pub fn none() -> Self {
        Limits {
            tenants: 0,
            series_per_tenant: 0,
            series_per_metric: 0,
            labels_per_series: 0,
            label_name_bytes: 0,
            label_value_bytes: 0,
            samples_per_second: 0,
            samples_burst: 0,
        }
    }
}

/// A limit that refuses series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesLimit {
    /// [`Limits::series_per_tenant`]
    Tenant(u64),
    /// [`Limits::series_per_metric`]
    Metric(u64),
    /// [`Limits::labels_per_series`]
    Labels(u64),
    /// [`Limits::label_name_bytes`]
    NameBytes(u64),
    /// [`Limits::label_value_bytes`]
    ValueBytes(u64),
    /// The bytes of the head, of all tenants.
    Memory(u64),
}

impl fmt::Display for SeriesLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeriesLimit::Tenant(limit) => {
                write!(
                    f,
                    "limit reached: the tenant has {limit} series or more, new ones are refused"
                )
            }
            SeriesLimit::Metric(limit) => {
                write!(
                    f,
                    "limit reached: the metric has {limit} series or more, new ones are refused"
                )
            }
            SeriesLimit::Labels(limit) => {
                write!(f, "limit exceeded: the series has more than {limit} labels")
            }
            SeriesLimit::NameBytes(limit) => {
                write!(
                    f,
                    "limit exceeded: a label name has more than {limit} bytes"
                )
            }
            SeriesLimit::ValueBytes(limit) => {
                write!(
                    f,
                    "limit exceeded: a label value has more than {limit} bytes"
                )
            }
            SeriesLimit::Memory(limit) => {
                write!(
                    f,
                    "limit reached: the head takes {limit} bytes of memory or more, new series are refused"
                )
            }
        }
    }
}

fn exceeds(count: usize, limit: u64) -> bool {
    limit > 0 && count as u64 > limit
}

/// Whether one more is one too many.
pub(super) fn reached(count: u64, limit: u64) -> bool {
    limit > 0 && count >= limit
}

/// Decides about the new series of a request, while the index is locked.
pub(super) struct Gate<'a> {
    limits: &'a Limits,
    memory: &'a HeadMemory,
    tenant: TenantId,
    /// Series of the tenant, those that were let in counted.
    of_tenant: u64,
    /// As `of_tenant`, of the metric that was asked for last: requests bring metrics in runs.
    of_metric: Option<(String, u64)>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(
        limits: &'a Limits,
        memory: &'a HeadMemory,
        tenant: TenantId,
        index: &Index,
    ) -> Self {
        Gate {
            limits,
            memory,
            tenant,
            of_tenant: index.series_count(Some(tenant)),
            of_metric: None,
        }
    }

    /// Lets a series in that is entered into the index next, or says why not.
    pub(super) fn admit(&mut self, index: &Index, labels: &Labels) -> Result<(), RejectReason> {
        let limits = self.limits;
        let refuse = |limit| Err(RejectReason::SeriesLimit(limit));
        if exceeds(labels.len(), limits.labels_per_series) {
            return refuse(SeriesLimit::Labels(limits.labels_per_series));
        }
        for (name, value) in labels.iter() {
            if exceeds(name.len(), limits.label_name_bytes) {
                return refuse(SeriesLimit::NameBytes(limits.label_name_bytes));
            }
            if exceeds(value.len(), limits.label_value_bytes) {
                return refuse(SeriesLimit::ValueBytes(limits.label_value_bytes));
            }
        }
        if reached(self.of_tenant, limits.series_per_tenant) {
            return refuse(SeriesLimit::Tenant(limits.series_per_tenant));
        }
        if limits.series_per_metric > 0 {
            let metric = labels.metric_name();
            let of_metric = match &mut self.of_metric {
                Some((name, count)) if name == metric => count,
                other => {
                    let count = index.series_count_of(self.tenant, METRIC_NAME, metric);
                    &mut other.insert((metric.to_owned(), count)).1
                }
            };
            if reached(*of_metric, limits.series_per_metric) {
                return refuse(SeriesLimit::Metric(limits.series_per_metric));
            }
            *of_metric += 1;
        }
        self.memory.note_index(index.heap_bytes());
        if let Some(limit) = self.memory.limit().filter(|it| self.memory.bytes() >= *it) {
            return refuse(SeriesLimit::Memory(limit));
        }
        self.memory.note_new();
        self.of_tenant += 1;
        Ok(())
    }
}

/// Tokens of a tenant.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Thousandths of samples; below zero when more came than there was.
    tokens: i64,
    /// When it was filled last, unix milliseconds; nothing before the first time.
    filled_ms: Option<i64>,
}

impl Bucket {
    /// Whether a request may come in. If not, in how many milliseconds the next may.
    pub(crate) fn check(&mut self, limits: &Limits, now_ms: i64) -> Result<(), u64> {
        if limits.samples_per_second == 0 {
            return Ok(());
        }
        let rate = i64::try_from(limits.samples_per_second).unwrap_or(i64::MAX);
        let burst = limits.samples_burst.max(limits.samples_per_second);
        let full = i64::try_from(burst)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        self.tokens = match self.filled_ms {
            None => full,
            Some(filled_ms) => {
                // A clock that goes back gives nothing.
                let passed_ms = now_ms.saturating_sub(filled_ms).max(0);
                self.tokens
                    .saturating_add(passed_ms.saturating_mul(rate))
                    .min(full)
            }
        };
        self.filled_ms = Some(self.filled_ms.map_or(now_ms, |it| it.max(now_ms)));
        match self.tokens > 0 {
            true => Ok(()),
            false => {
                Err((self.tokens.unsigned_abs() / limits.samples_per_second).saturating_add(1))
            }
        }
    }

    /// Takes out what a request brought.
    pub(crate) fn take(&mut self, samples: u64) {
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(samples.saturating_mul(1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_whatever_requests_bring() {
        let limits = Limits {
            samples_per_second: 100,
            samples_burst: 250,
            ..Limits::none()
        };
        let mut bucket = Bucket::default();
        for (now_ms, samples, expected) in [
            (0, 200, Ok(())),
            (0, 150, Ok(())),
            // 100 too many.
            (0, 1, Err(1001)),
            (999, 1, Err(2)),
            (1_001, 1, Ok(())),
            (500, 1, Err(10)),
            (1_100, 1, Ok(())),
            (1_000_000, 250, Ok(())),
            (1_000_000, 1, Err(1)),
        ] {
            let checked = bucket.check(&limits, now_ms);
            assert_eq!(checked, expected, "{now_ms} {bucket:?}");
            if checked.is_ok() {
                bucket.take(samples);
            }
        }
        let mut free = Bucket::default();
        free.take(u64::MAX);
        assert_eq!(free.check(&Limits::none(), 0), Ok(()));
    }

    #[test]
    fn new_series_are_let_in_up_to_the_limits() {
        let limits = Limits {
            series_per_tenant: 4,
            series_per_metric: 2,
            labels_per_series: 3,
            label_name_bytes: 8,
            label_value_bytes: 5,
            ..Limits::none()
        };
        let (mut index, tenant) = (Index::default(), TenantId(1));
        let memory = HeadMemory::default();
        let mut next = 0;
        let mut ask = |pairs: &[(&str, &str)]| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            let mut gate = Gate::new(&limits, &memory, tenant, &index);
            let told = gate.admit(&index, &labels).map_err(|why| why.to_string());
            if told.is_ok() {
                index.insert(next, tenant, &labels);
                next += 1;
            }
            told.err().unwrap_or_default()
        };
        let name = METRIC_NAME;
        assert_eq!(ask(&[(name, "a"), ("s", "1")]), "");
        assert_eq!(ask(&[(name, "a"), ("s", "2")]), "");
        assert_eq!(
            ask(&[(name, "a"), ("s", "3")]),
            "limit reached: the metric has 2 series or more, new ones are refused"
        );
        assert_eq!(
            ask(&[(name, "b"), ("s", "1"), ("t", "1"), ("u", "1")]),
            "limit exceeded: the series has more than 3 labels"
        );
        assert_eq!(
            ask(&[(name, "b"), ("s", "123456")]),
            "limit exceeded: a label value has more than 5 bytes"
        );
        assert_eq!(
            ask(&[(name, "b"), ("long_name", "1")]),
            "limit exceeded: a label name has more than 8 bytes"
        );
        assert_eq!(ask(&[(name, "b")]), "");
        assert_eq!(ask(&[(name, "c")]), "");
        assert_eq!(
            ask(&[(name, "d")]),
            "limit reached: the tenant has 4 series or more, new ones are refused"
        );
        let other = Gate::new(&limits, &memory, TenantId(0), &index)
            .admit(&index, &Labels::from_pairs([(name, "a"), ("s", "3")]));
        assert_eq!(other, Ok(()), "another tenant");
    }
}
