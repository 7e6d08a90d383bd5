//! Any bytes decode to a request or to an error; what decodes can be read to the end.
//!
//! Run with `cargo +nightly fuzz run remote_write` in `proto/`.
#![no_main]

use isobar_proto::remote;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let Ok(request) = remote::decode(message) else { return };
    for series in &request.series {
        let mut seen = 0;
        series.samples(|_, _| seen += 1);
        assert_eq!(seen, series.sample_count, "samples() gives what decode() counted");
        let mut seen = 0;
        series.histograms(|sample| {
            seen += 1;
            let Ok(histogram) = sample.histogram else { return };
            assert!(histogram.checked().is_ok(), "what is not refused is a histogram");
        });
        assert_eq!(seen, series.histogram_count);
        let mut seen = 0;
        series.exemplars(|_| seen += 1);
        assert_eq!(seen, series.exemplar_count);
        remote::describe_labels(series.encoded_labels());
        if let Ok(labels) = series.labels() {
            let pairs: Vec<_> = labels.iter().collect();
            assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "sorted and unique");
            assert!(pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
        }
    }
});
