//! The kinds of metrics.

/// In the order of `MetricMetadata.MetricType` of remote write (Prometheus `prompb/types.proto`), which
/// is that of the metadata records of Prometheus' log, too (`tsdb/record/record.go`).
const KINDS: [&str; 8] = [
    "unknown",
    "counter",
    "gauge",
    "histogram",
    "gaugehistogram",
    "summary",
    "info",
    "stateset",
];

/// The kind with the number `code`, as `/api/v1/metadata` calls it; numbers that stand for none are
/// `unknown`.
pub fn name(code: u64) -> &'static str {
    let name = usize::try_from(code).ok().and_then(|code| KINDS.get(code));
    name.unwrap_or(&KINDS[0])
}

/// The number of the kind `name`; that of `unknown` when it is none.
pub fn code(name: &str) -> u64 {
    KINDS.iter().position(|it| *it == name).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        let names: Vec<&str> = [0, 1, 7, 8, u64::MAX].map(name).to_vec();
        assert_eq!(
            names,
            ["unknown", "counter", "stateset", "unknown", "unknown"]
        );
    }
}
