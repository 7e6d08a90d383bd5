//! Series of native histograms as remote write requests: latencies of requests, by schema 3, in 18 to
//! 20 buckets of which two come later, each series at a time of its own.

use anyhow::Context;

use crate::encode::{HistogramSample, encode_histogram, encode_labels, put_series};

/// Offsets and lengths of the spans that a series has, one after the other in its life.
const SPANS: [&[(i32, u32)]; 3] = [
    &[(-14, 12), (2, 6)],
    &[(-14, 12), (2, 7)],
    &[(-14, 12), (2, 8)],
];
/// A series gets its next bucket after so many samples, and up to twice that.
const SAMPLES_PER_LAYOUT: u64 = 100;

/// Series that travel together in one request.
pub struct HistogramBatch {
    series: Vec<Series>,
    body: Vec<u8>,
    compressed: Vec<u8>,
}

struct Series {
    labels: Vec<u8>,
    counts: Vec<u64>,
    sum: f64,
    samples: u64,
    number: u64,
    random: u64,
}

impl HistogramBatch {
    /// The series with these numbers.
    pub fn new(numbers: std::ops::Range<usize>) -> HistogramBatch {
        HistogramBatch {
            series: numbers.map(Series::new).collect(),
            body: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// The number of series in each request.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// The compressed body of the next request: a sample of each series for each of these times.
    pub fn next_request(&mut self, times_ms: &[i64]) -> anyhow::Result<&[u8]> {
        self.body.clear();
        let mut samples = Vec::new();
        for series in &mut self.series {
            samples.clear();
            for time_ms in times_ms {
                encode_histogram(&series.next(), *time_ms, &mut samples);
            }
            put_series(&series.labels, &samples, &mut self.body);
        }
        self.compressed
            .resize(snap::raw::max_compress_len(self.body.len()), 0);
        let length = snap::raw::Encoder::new()
            .compress(&self.body, &mut self.compressed)
            .context("compress a request")?;
        Ok(&self.compressed[..length])
    }
}

impl Series {
    fn new(number: usize) -> Series {
        let pod = number / 20;
        let mut labels = Vec::new();
        encode_labels(
            &[
                ("__name__", "http_request_duration_seconds".to_owned()),
                ("cluster", "eu-west-1".to_owned()),
                ("handler", format!("/api/v1/handler/{}", number % 20)),
                ("instance", format!("10.0.{}.{}:8080", pod / 256, pod % 256)),
                ("job", "api".to_owned()),
                ("namespace", format!("namespace-{}", pod % 40)),
                ("pod", format!("api-{:08x}-{pod:05}", pod * 0x9e37_79b9)),
            ],
            &mut labels,
        );
        Series {
            labels,
            counts: Vec::new(),
            sum: 0.0,
            samples: 0,
            number: number as u64,
            random: number as u64,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn next(&mut self) -> HistogramSample {
        let own = SAMPLES_PER_LAYOUT + self.number % SAMPLES_PER_LAYOUT;
        let layout = usize::try_from(self.samples / own).map_or(2, |it| it.min(2));
        let spans = SPANS[layout];
        let buckets: u32 = spans.iter().map(|span| span.1).sum();
        self.counts
            .resize(self.counts.len().max(buckets as usize), 0);
        for bucket in 0..self.counts.len() {
            // Most observations lie in the middle.
            let most = 12_u64.saturating_sub(bucket.abs_diff(8) as u64);
            let more = self.below(most + 1);
            self.counts[bucket] += more;
            self.sum += more as f64 * 0.005 * (bucket + 1) as f64;
        }
        self.samples += 1;
        let mut before = 0;
        let deltas = self.counts.iter().map(|count| {
            let count = count.cast_signed();
            count - std::mem::replace(&mut before, count)
        });
        HistogramSample {
            positive_deltas: deltas.collect(),
            count: self.counts.iter().sum(),
            sum: self.sum,
            schema: 3,
            zero_threshold: 2.938_735_877_055_719e-39,
            positive_spans: spans,
            ..HistogramSample::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rise_and_buckets_come() {
        let mut series = Series::new(7);
        let mut before = series.next();
        let mut lengths = vec![before.positive_deltas.len()];
        for _ in 0..600 {
            let next = series.next();
            assert!(next.count >= before.count && next.sum >= before.sum);
            lengths.push(next.positive_deltas.len());
            before = next;
        }
        lengths.dedup();
        assert_eq!(lengths, [18, 19, 20]);
        let mut batch = HistogramBatch::new(0..10);
        assert_eq!(batch.series(), 10);
        assert!(batch.next_request(&[0, 15_000]).unwrap().len() > 500);
    }
}
