//! The generated code, one module for each package, as its paths expect it.

#![expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "generated; the definitions say what things are"
)]

pub(crate) mod thanos {
    include!("gen/thanos.rs");

    pub mod info {
        include!("gen/thanos.info.rs");
    }
}

pub(crate) mod hintspb {
    include!("gen/hintspb.rs");
}

pub(crate) mod prometheus {
    include!("gen/prometheus.rs");
}

pub(crate) mod prometheus_copy {
    include!("gen/prometheus_copy.rs");
}
