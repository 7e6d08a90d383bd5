//! Deleting samples of a series: chunks that hold some of them are written anew without them.

use isobar_model::TimeRange;

use crate::Error;

use super::MemSeries;

impl MemSeries {
    /// Deletes the samples of a range, and says whether chunks of that time were there. A sample of a
    /// deleted time that comes again is a new one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk that holds some of them cannot be read; then nothing is deleted.
    pub(crate) fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        if self.open_range().is_some_and(|open| open.overlaps(&range)) {
            self.seal();
            self.seal_histograms();
        }
        let late = self.delete_late(range)?;
        Ok(self.sealed.delete(range)? | late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::series::{Bounds, Outcome};
    use isobar_model::Columns;

    const ANY: Bounds = Bounds {
        min_ms: i64::MIN,
        max_ms: i64::MAX,
        late: None,
    };

    fn times(series: &MemSeries) -> Vec<i64> {
        let mut chunks = Vec::new();
        series.chunks(TimeRange::ALL, &mut chunks);
        let mut columns = Columns::default();
        for chunk in chunks {
            let chunk = chunk.read().unwrap();
            chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
        }
        columns.timestamps
    }

    fn check(range: (i64, i64), left: impl IntoIterator<Item = i64>) {
        let mut series = MemSeries::default();
        for t in 0..300 {
            series.append(t, 1.0, ANY);
        }
        let (min_ms, max_ms) = range;
        let hit = series.delete(TimeRange::new(min_ms, max_ms)).unwrap();
        let left: Vec<i64> = left.into_iter().collect();
        assert_eq!(hit, min_ms < 300 && max_ms >= 0);
        assert_eq!(times(&series), left);
        assert_eq!(series.last_ms(), left.last().copied());
        assert_eq!(series.is_empty(), left.is_empty());
        // The series goes on.
        assert_eq!(series.append(300, 2.0, ANY), Outcome::Appended);
        assert_eq!(series.append(301, 2.0, ANY), Outcome::Appended);
    }

    #[test]
    fn samples_of_any_chunk_go() {
        check((0, 299), []);
        check((i64::MIN, i64::MAX), []);
        check((10, 19), (0..10).chain(20..300));
        check((0, 119), 120..300);
        check((100, 250), (0..100).chain(251..300));
        check((250, 1000), 0..250);
        check((300, 400), 0..300);
        check((-9, -1), 0..300);
    }

    #[test]
    fn late_samples_go_too() {
        let mut series = MemSeries::default();
        let epoch = crate::head::late::Epoch(1);
        let late = Some(crate::head::series::LateBounds { min_ms: 0, epoch });
        series.append(1000, 1.0, ANY);
        for t in (0..100).rev() {
            series.append(t, 1.0, Bounds { late, ..ANY });
        }
        // Of the buffer and of a sealed chunk.
        assert!(series.delete(TimeRange::new(10, 59)).unwrap());
        assert!(!series.delete(TimeRange::new(10, 59)).unwrap());
        assert_eq!(series.chunk_count(), 3);
        let left: Vec<i64> = (0..10).chain(60..100).chain([1000]).collect();
        let mut found = times(&series);
        found.sort_unstable();
        assert_eq!(found, left);
        assert!(series.delete(TimeRange::ALL).unwrap() && series.is_empty());
    }

    #[test]
    fn what_was_deleted_may_come_again() {
        let mut series = MemSeries::default();
        for t in 0..10 {
            series.append(t, 1.0, ANY);
        }
        series.delete(TimeRange::new(5, 9)).unwrap();
        assert_eq!(series.append(5, 7.0, ANY), Outcome::Appended);
        assert_eq!(times(&series), [0, 1, 2, 3, 4, 5]);
    }
}
