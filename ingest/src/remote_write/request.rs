//! From a body to stored samples: decompress, decode, append.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;

use isobar_model::{Labels, Tenant};
use isobar_proto::remote::{self, TimeSeries};
use isobar_proto::wire::WireError;
use isobar_store::metadata::{Described, Metadata, MetadataStore};
use isobar_tsdb::Error;
use isobar_tsdb::db::Db;
use isobar_tsdb::exemplars::ExemplarCounts;
use isobar_tsdb::head::incoming::{
    CommitTicket, Counts, IncomingHistogram, IncomingSeries, Rejections,
};

/// How many refusals an answer spells out; the rest is counted.
const COMPLAINTS_MAX: usize = 5;

thread_local! {
    /// Holds the decompressed request, so that a thread allocates for its largest one only.
    static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The memory that a thread keeps between requests.
const DECODED_KEPT_BYTES_MAX: usize = 8 << 20;

/// What became of a request that could be read.
pub(super) struct Outcome {
    pub(super) tenant: Tenant,
    pub(super) appended: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: Rejections,
    /// Histograms sent, stored or not.
    pub(super) histograms: usize,
    pub(super) exemplars: ExemplarCounts,
    /// Exemplars whose labels, or those of their series, cannot be read.
    pub(super) exemplars_bad: u64,
    /// What to wait for; `None` when there was nothing to store.
    pub(super) ticket: Option<CommitTicket>,
    /// What the sender is told, when something was refused.
    pub(super) complaint: Option<String>,
}

/// Why nothing of a request was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// In the words of Prometheus, which senders may know.
    #[error("s2: corrupt input")]
    Snappy,
    #[error("request has {bytes} bytes when decompressed, more than the {max} that are taken")]
    TooLarge { bytes: usize, max: usize },
    #[error("decode prometheus.WriteRequest: {0}")]
    Message(#[from] WireError),
    #[error(transparent)]
    Store(#[from] Error),
}

impl IncomingSeries for Incoming<'_> {
    fn encoded_labels(&self) -> &[u8] {
        self.0.encoded_labels()
    }

    fn labels(&self) -> Result<Labels, String> {
        self.0.labels().map_err(|why| {
            let series = remote::describe_labels(self.0.encoded_labels());
            format!("{why}: series {series}")
        })
    }

    fn samples(&self, each: impl FnMut(i64, f64)) {
        self.0.samples(each);
    }

    fn has_histograms(&self) -> bool {
        self.0.histogram_count > 0
    }

    fn histograms(&self, mut each: impl FnMut(i64, Result<IncomingHistogram, String>)) {
        self.0.histograms(|sample| {
            let counts = match sample.float_counts {
                true => Counts::Float,
                false => Counts::Integer,
            };
            let histogram = sample.histogram.map(|histogram| IncomingHistogram {
                histogram: Arc::new(histogram),
                counts,
            });
            each(sample.timestamp_ms, histogram);
        });
    }
}

/// A series of the request as the head takes it.
#[repr(transparent)]
struct Incoming<'a>(TimeSeries<'a>);

/// Stores what a snappy-compressed body holds.
pub(super) fn store(
    db: &Db,
    metadata: &MetadataStore,
    tenant: &Tenant,
    body: &[u8],
    decoded_bytes_max: usize,
) -> Result<Outcome, RequestError> {
    DECODED.with_borrow_mut(|decoded| {
        let message = decompress(body, decoded, decoded_bytes_max)?;
        let outcome = store_message(db, metadata, tenant, message);
        if decoded.len() > DECODED_KEPT_BYTES_MAX {
            *decoded = Vec::new();
        }
        outcome
    })
}

fn decompress<'a>(
    body: &[u8],
    decoded: &'a mut Vec<u8>,
    max: usize,
) -> Result<&'a [u8], RequestError> {
    let bytes = snap::raw::decompress_len(body).map_err(|_| RequestError::Snappy)?;
    if body.is_empty() {
        return Err(RequestError::Snappy);
    }
    if bytes > max {
        return Err(RequestError::TooLarge { bytes, max });
    }
    if decoded.len() < bytes {
        decoded.resize(bytes, 0);
    }
    let written = snap::raw::Decoder::new()
        .decompress(body, &mut decoded[..bytes])
        .map_err(|_| RequestError::Snappy)?;
    Ok(&decoded[..written])
}

fn store_message(
    db: &Db,
    metadata: &MetadataStore,
    tenant: &Tenant,
    message: &[u8],
) -> Result<Outcome, RequestError> {
    let request = remote::decode(message)?;
    let mut described = false;
    for one in &request.metadata {
        let description = Metadata {
            kind: one.kind.to_owned(),
            help: one.help.to_owned(),
            unit: one.unit.to_owned(),
        };
        match metadata.insert(tenant, one.metric, description)? {
            Described::Known => {}
            Described::New => described = true,
            Described::Full => tracing::debug!(
                metric = one.metric,
                "metadata not kept: too many metrics have some"
            ),
        }
    }
    let series: Vec<Incoming<'_>> = request.series.into_iter().map(Incoming).collect();
    let mut outcome = Outcome {
        tenant: tenant.clone(),
        appended: 0,
        duplicates: 0,
        rejected: Rejections::default(),
        histograms: series.iter().map(|s| s.0.histogram_count).sum(),
        exemplars: ExemplarCounts::default(),
        exemplars_bad: 0,
        ticket: described.then(|| db.ticket()),
        complaint: None,
    };
    if series.is_empty() {
        return Ok(outcome);
    }
    if series.iter().any(|s| s.0.exemplar_count > 0) {
        store_exemplars(db, tenant, &series, &mut outcome)?;
    }
    let append = db.append(tenant, &series)?;
    outcome.appended = append.appended;
    outcome.duplicates = append.duplicates;
    outcome.complaint = complain(&append.rejected);
    outcome.rejected = append.rejected;
    outcome.ticket = Some(append.ticket);
    Ok(outcome)
}

/// Stores the exemplars of a request. Those that are refused fail nothing: as in Prometheus they are
/// only counted.
fn store_exemplars(
    db: &Db,
    tenant: &Tenant,
    series: &[Incoming<'_>],
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let mut exemplars = Vec::new();
    for one in series.iter().filter(|s| s.0.exemplar_count > 0) {
        let labels = one.0.labels();
        one.0.exemplars(|exemplar| match (&labels, exemplar) {
            (Ok(labels), Ok(exemplar)) => exemplars.push((labels.clone(), exemplar)),
            _ => outcome.exemplars_bad += 1,
        });
    }
    outcome.exemplars = db.append_exemplars(tenant, exemplars)?;
    Ok(())
}

/// What the sender is told: how much was refused, and of the first few what and why.
fn complain(rejected: &Rejections) -> Option<String> {
    if rejected.is_empty() {
        return None;
    }
    let mut text = String::new();
    let mut say = |part: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _infallible = text.write_fmt(part);
    };
    say(format_args!(
        "{} samples or series refused, the others stored",
        rejected.total()
    ));
    for one in rejected.first().iter().take(COMPLAINTS_MAX) {
        say(format_args!("; {one}"));
    }
    if rejected.total() > COMPLAINTS_MAX as u64 {
        say(format_args!("; … ({} in all)", join_counts(rejected)));
    }
    Some(text)
}

fn join_counts(rejected: &Rejections) -> String {
    let counts: Vec<String> = rejected
        .counts()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    counts.join(", ")
}
