//! What the endpoint counts.

use axum::http::StatusCode;
use isobar_model::Tenant;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::request::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    tenant: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

pub(super) struct Metrics {
    samples: Family<TenantLabel, Counter>,
    duplicates: Family<TenantLabel, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    refused: Family<CodeLabel, Counter>,
    too_fast: Family<TenantLabel, Counter>,
    histograms: Family<TenantLabel, Counter>,
    exemplars: Family<TenantLabel, Counter>,
    exemplars_dropped: Family<ReasonLabels, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            samples: Family::default(),
            duplicates: Family::default(),
            rejected: Family::default(),
            refused: Family::default(),
            too_fast: Family::default(),
            histograms: Family::default(),
            exemplars: Family::default(),
            exemplars_dropped: Family::default(),
        };
        registry.register(
            "isobar_ingest_samples",
            "Samples stored by remote write",
            metrics.samples.clone(),
        );
        registry.register(
            "isobar_ingest_duplicate_samples",
            "Samples that were there already with the same value",
            metrics.duplicates.clone(),
        );
        registry.register(
            "isobar_ingest_rejected_samples",
            "Samples, or series with bad labels, that were refused",
            metrics.rejected.clone(),
        );
        registry.register(
            "isobar_ingest_refused_requests",
            "Write requests answered with an error, by status",
            metrics.refused.clone(),
        );
        registry.register(
            "isobar_ingest_rate_limited_requests",
            "Write requests refused because their tenant writes more samples a second than it may",
            metrics.too_fast.clone(),
        );
        registry.register(
            "isobar_ingest_histograms",
            "Native histograms that came by remote write, those that were refused included",
            metrics.histograms.clone(),
        );
        registry.register(
            "isobar_ingest_exemplars",
            "Exemplars stored by remote write",
            metrics.exemplars.clone(),
        );
        registry.register(
            "isobar_ingest_dropped_exemplars",
            "Exemplars that were not stored, by reason",
            metrics.exemplars_dropped.clone(),
        );
        metrics
    }

    pub(super) fn stored(&self, outcome: &Outcome) {
        let tenant = TenantLabel {
            tenant: outcome.tenant.to_string(),
        };
        // A tenant that writes nothing may not exist, and anybody can name one.
        if outcome.appended > 0 {
            self.samples.get_or_create(&tenant).inc_by(outcome.appended);
        }
        if outcome.duplicates > 0 {
            self.duplicates
                .get_or_create(&tenant)
                .inc_by(outcome.duplicates);
        }
        if outcome.histograms > 0 {
            self.histograms
                .get_or_create(&tenant)
                .inc_by(outcome.histograms as u64);
        }
        self.stored_exemplars(outcome, &tenant);
        let reject = |reason, count| {
            let labels = ReasonLabels {
                tenant: tenant.tenant.clone(),
                reason,
            };
            self.rejected.get_or_create(&labels).inc_by(count);
        };
        outcome
            .rejected
            .counts()
            .for_each(|(reason, count)| reject(reason, count));
    }

    fn stored_exemplars(&self, outcome: &Outcome, tenant: &TenantLabel) {
        let counts = outcome.exemplars;
        if counts.appended > 0 {
            self.exemplars.get_or_create(tenant).inc_by(counts.appended);
        }
        let dropped = [
            ("out_of_order", counts.out_of_order),
            ("too_far_in_future", counts.in_future),
            ("labels_too_long", counts.too_long),
            ("disabled", counts.disabled),
            ("bad_labels", outcome.exemplars_bad),
        ];
        for (reason, count) in dropped.into_iter().filter(|(_, count)| *count > 0) {
            let labels = ReasonLabels {
                tenant: tenant.tenant.clone(),
                reason,
            };
            self.exemplars_dropped.get_or_create(&labels).inc_by(count);
        }
    }

    pub(super) fn too_fast(&self, tenant: &Tenant) {
        let tenant = TenantLabel {
            tenant: tenant.to_string(),
        };
        self.too_fast.get_or_create(&tenant).inc();
    }

    pub(super) fn refused(&self, status: StatusCode) {
        self.refused
            .get_or_create(&CodeLabel {
                code: status.as_u16(),
            })
            .inc();
    }
}
