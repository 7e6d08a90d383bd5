//! Histograms of several chunks as those of one series.

use std::sync::Arc;

use isobar_model::Columns;
use isobar_model::histogram::CounterReset;

use crate::chunks::{StartedHistogram, append_histograms, take_histograms};

/// Brings what was decoded of several chunks into time order, one sample for each time: floats
/// from index `floats_from` on, which are in order, and histograms from `from` on, of which those
/// of each chunk are in order and end where `ends` says.
///
/// Where two chunks interleave, a sample that follows one of another chunk is not known to be
/// free of a reset. Where a float and a histogram have the same time, the float stays.
pub(super) fn settle(floats_from: usize, from: usize, ends: &[usize], columns: &mut Columns) {
    let histograms = columns.histograms.get(from..).unwrap_or_default();
    if !histograms
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.0 < b.0))
    {
        let decoded = take_histograms(from, columns);
        let mut samples: Vec<_> = decoded
            .into_iter()
            .enumerate()
            .map(|(at, sample)| (ends.partition_point(|end| *end <= from + at), sample))
            .collect();
        samples.sort_by_key(|(_, (sample, _))| sample.0);
        samples.dedup_by_key(|(_, (sample, _))| sample.0);
        let mut before = None;
        let samples = samples.into_iter().map(|(chunk, (mut sample, start_ms))| {
            let follows = before.is_none_or(|before| before == chunk);
            before = Some(chunk);
            if !follows && sample.1.hint != CounterReset::Gauge {
                Arc::make_mut(&mut sample.1).hint = CounterReset::Unknown;
            }
            (sample, start_ms)
        });
        append_histograms(samples, columns);
    }
    if floats_from < columns.len() {
        let later = take_histograms(from, columns);
        let times = columns.timestamps.get(floats_from..).unwrap_or_default();
        let is_alone = |it: &StartedHistogram| times.binary_search(&it.0.0).is_err();
        let kept: Vec<_> = later.into_iter().filter(is_alone).collect();
        append_histograms(kept, columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobar_model::FloatHistogram;

    #[test]
    fn interleaved_chunks_forget_their_hints() {
        let sample = |time: i64, count: f64| {
            let hint = CounterReset::NotReset;
            (
                time,
                Arc::new(FloatHistogram {
                    hint,
                    count,
                    ..FloatHistogram::default()
                }),
            )
        };
        let mut columns = Columns::default();
        columns.push(40, 1.0);
        columns.histograms = vec![
            sample(5, 0.0),
            sample(10, 1.0),
            sample(20, 1.0),
            sample(40, 1.0),
            sample(15, 2.0),
            sample(20, 2.0),
            sample(30, 2.0),
        ];
        settle(0, 1, &[4, 7], &mut columns);
        let got: Vec<_> = columns
            .histograms
            .iter()
            .map(|it| (it.0, it.1.count, it.1.hint == CounterReset::Unknown))
            .collect();
        let want = [
            (5, 0.0, false),
            (10, 1.0, false),
            (15, 2.0, true),
            (20, 1.0, true),
            (30, 2.0, true),
        ];
        assert_eq!(got, want);
    }
}
