//! Samples that say since when they count, on their way into an evaluation.

use isobar_model::Columns;
use isobar_model::sample::{STALE_NAN, is_stale};

/// Takes the staleness markers out, and what is known of their start times.
pub(super) fn remove_stale(columns: &mut Columns) {
    columns.level_start_times();
    let mut kept = 0;
    for i in 0..columns.len() {
        if !is_stale(columns.values[i]) {
            columns.timestamps[kept] = columns.timestamps[i];
            columns.values[kept] = columns.values[i];
            if let Some(start_ms) = columns.start_times.get(i).copied() {
                columns.start_times[kept] = start_ms;
            }
            kept += 1;
        }
    }
    columns.timestamps.truncate(kept);
    columns.values.truncate(kept);
    columns.start_times.truncate(kept);
    let mut is_live = columns.histograms.iter().map(|it| !it.1.is_stale());
    // A column that is empty is not asked.
    columns
        .histogram_start_times
        .retain(|_| is_live.next().unwrap_or(false));
    columns.histograms.retain(|it| !it.1.is_stale());
}

/// Makes the start time of each sample its value, in unix seconds, 0 where it is not known.
/// Histograms become floats, and staleness markers stay.
pub(super) fn into_values(columns: &mut Columns) {
    let starts = std::mem::take(&mut columns.start_times);
    let seconds = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0) as f64 / 1000.0;
    for (i, value) in columns.values.iter_mut().enumerate() {
        if !is_stale(*value) {
            *value = seconds(&starts, i);
        }
    }
    let starts = std::mem::take(&mut columns.histogram_start_times);
    if columns.histograms.is_empty() {
        return;
    }
    for (i, (time_ms, histogram)) in columns.histograms.drain(..).enumerate() {
        columns.timestamps.push(time_ms);
        columns.values.push(match histogram.is_stale() {
            true => STALE_NAN,
            false => seconds(&starts, i),
        });
    }
    let times = columns.timestamps.drain(..);
    let mut samples: Vec<(i64, f64)> = times.zip(columns.values.drain(..)).collect();
    samples.sort_by_key(|sample| sample.0);
    for (time_ms, value) in samples {
        columns.push(time_ms, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isobar_model::FloatHistogram;

    use super::*;

    fn columns() -> Columns {
        let histogram = |stale: bool| {
            Arc::new(match stale {
                true => FloatHistogram::stale(),
                false => FloatHistogram::default(),
            })
        };
        Columns {
            timestamps: vec![10, 20, 30],
            values: vec![1.0, STALE_NAN, 3.0],
            histograms: vec![
                (15, histogram(false)),
                (25, histogram(true)),
                (35, histogram(false)),
            ],
            start_times: vec![5, 15],
            histogram_start_times: vec![6, 16, 26],
            ..Columns::default()
        }
    }

    #[test]
    fn markers_take_their_start_times_along() {
        let mut columns = columns();
        remove_stale(&mut columns);
        assert_eq!(columns.timestamps, [10, 30]);
        assert_eq!(columns.start_times, [5, 0]);
        assert_eq!(columns.histograms.len(), 2);
        assert_eq!(columns.histogram_start_times, [6, 26]);
    }

    #[test]
    fn start_times_as_values() {
        let mut columns = columns();
        into_values(&mut columns);
        assert_eq!(columns.timestamps, [10, 15, 20, 25, 30, 35]);
        let values: Vec<_> = columns.values.iter().map(|it| it * 1000.0).collect();
        assert!(is_stale(columns.values[2]) && is_stale(columns.values[3]));
        assert_eq!(
            [values[0], values[1], values[4], values[5]],
            [5.0, 6.0, 0.0, 26.0]
        );
        assert!(columns.histograms.is_empty() && !columns.has_start_times());
    }
}
