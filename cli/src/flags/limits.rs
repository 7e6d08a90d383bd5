//! The flags for limits of what each tenant may write, named as Mimir names its own.

use clap::Args;
use isobar_tsdb::db::Limits;

/// Limits of each tenant, and of their number.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitFlags {
    /// Most tenants; writes of what would be another are refused. 0 is no limit.
    #[arg(long = "tsdb.max-tenants", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().tenants)]
    tenants: u64,

    /// Most series of a tenant in the head; what would be new beyond is refused. 0 is no limit.
    #[arg(long = "tsdb.max-series-per-tenant", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().series_per_tenant)]
    series_per_tenant: u64,

    /// Most series of a tenant with one metric name in the head. 0 is no limit.
    #[arg(long = "tsdb.max-series-per-metric", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().series_per_metric)]
    series_per_metric: u64,

    /// Most labels of a new series, the metric name counted. 0 is no limit.
    #[arg(long = "tsdb.max-label-names-per-series", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().labels_per_series)]
    labels_per_series: u64,

    /// Most bytes of a label's name in a new series. 0 is no limit.
    #[arg(long = "tsdb.max-length-label-name", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().label_name_bytes)]
    label_name_bytes: u64,

    /// Most bytes of a label's value in a new series. 0 is no limit.
    #[arg(long = "tsdb.max-length-label-value", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().label_value_bytes)]
    label_value_bytes: u64,

    /// Most samples a second that a tenant may write; requests beyond are answered with 429. 0 is
    /// no limit.
    #[arg(long = "tsdb.ingestion-rate-limit", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().samples_per_second)]
    samples_per_second: u64,

    /// Most samples that a tenant may write at once after a quiet time.
    #[arg(long = "tsdb.ingestion-burst-size", value_name = "COUNT", help_heading = "Limits", default_value_t = Limits::default().samples_burst)]
    samples_burst: u64,
}

impl From<LimitFlags> for Limits {
    fn from(flags: LimitFlags) -> Self {
        let LimitFlags {
            tenants,
            series_per_tenant,
            series_per_metric,
            labels_per_series,
            label_name_bytes,
            label_value_bytes,
            samples_per_second,
            samples_burst,
        } = flags;
        Limits {
            tenants,
            series_per_tenant,
            series_per_metric,
            labels_per_series,
            label_name_bytes,
            label_value_bytes,
            samples_per_second,
            samples_burst,
        }
    }
}

impl LimitFlags {
    /// The flags and their values, sorted.
    pub(super) fn listed(&self) -> [(&'static str, String); 8] {
        [
            ("tsdb.ingestion-burst-size", self.samples_burst.to_string()),
            (
                "tsdb.ingestion-rate-limit",
                self.samples_per_second.to_string(),
            ),
            (
                "tsdb.max-label-names-per-series",
                self.labels_per_series.to_string(),
            ),
            (
                "tsdb.max-length-label-name",
                self.label_name_bytes.to_string(),
            ),
            (
                "tsdb.max-length-label-value",
                self.label_value_bytes.to_string(),
            ),
            (
                "tsdb.max-series-per-metric",
                self.series_per_metric.to_string(),
            ),
            (
                "tsdb.max-series-per-tenant",
                self.series_per_tenant.to_string(),
            ),
            ("tsdb.max-tenants", self.tenants.to_string()),
        ]
    }
}
