//! What every component of Thanos says about itself: its build, and whether it is healthy and ready.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// `thanos_build_info` and `thanos_status`.
#[derive(Debug)]
pub(crate) struct ComponentCollector {
    component: &'static str,
    ready: Arc<AtomicBool>,
}

impl ComponentCollector {
    /// Of a component by the name that Thanos gives it. A process that answers is healthy.
    pub(crate) fn new(component: &'static str, ready: Arc<AtomicBool>) -> Self {
        ComponentCollector { component, ready }
    }
}

impl Collector for ComponentCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let one = ConstGauge::new(1_i64);
        let help = "A metric with a constant '1' value labeled by what was built";
        let mut build =
            encoder.encode_descriptor("thanos_build_info", help, None, one.metric_type())?;
        let labels = [
            ("branch", ""),
            ("goarch", std::env::consts::ARCH),
            ("goos", std::env::consts::OS),
            ("goversion", ""),
            ("revision", ""),
            ("tags", "isobar"),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        one.encode(build.encode_family(&labels)?)?;
        let help = "Represents status (0 indicates failure, 1 indicates success) of the component";
        let mut status =
            encoder.encode_descriptor("thanos_status", help, None, one.metric_type())?;
        let ready = i64::from(self.ready.load(Ordering::Acquire));
        for (check, value) in [("healthy", 1), ("ready", ready)] {
            let labels = [("check", check), ("component", self.component)];
            ConstGauge::new(value).encode(status.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
