//! The samples of chunks that follow each other, resets of counters made good on request.

use isobar_model::{Columns, TimeRange};

use super::{Point, Value};
use crate::Error;
use crate::chunks::Chunk;

/// The samples of `chunks` that lie in `range`. Where chunks overlap, the later one begins when
/// the earlier one has ended.
///
/// Of a counter, resets are made good from the first sample of the first chunk on, and no NaN is
/// left, staleness markers included (Thanos' `ApplyCounterResetsSeriesIterator`).
pub(super) fn read(chunks: &[Chunk], counter: bool, range: TimeRange) -> Result<Vec<Point>, Error> {
    let mut total = Total::default();
    let mut points: Vec<Point> = Vec::new();
    let mut last_ms = i64::MIN;
    let mut columns = Columns::default();
    let from_ms = if counter { i64::MIN } else { range.min_ms };
    for chunk in chunks {
        columns.clear();
        chunk.decode_into(TimeRange::new(from_ms, range.max_ms), &mut columns)?;
        let ended_ms = last_ms;
        let floats = columns.timestamps.iter().zip(&columns.values);
        for (time_ms, value) in floats {
            let value = match counter {
                true => total.follow(*time_ms, *value),
                false => Some(*value).filter(|_| *time_ms > ended_ms),
            };
            if let Some(value) = value {
                last_ms = *time_ms;
                points.push(Point {
                    time_ms: *time_ms,
                    value: Value::Float(value),
                });
            }
        }
        for (time_ms, histogram) in columns.histograms.drain(..) {
            if time_ms > ended_ms {
                last_ms = time_ms;
                points.push(Point {
                    time_ms,
                    value: Value::Histogram(histogram),
                });
            }
        }
    }
    points.retain(|point| point.time_ms >= range.min_ms);
    Ok(points)
}

/// A counter without its resets.
#[derive(Default)]
struct Total {
    last: Option<(i64, f64)>,
    total: f64,
}

impl Total {
    /// The total after the next sample; `None` when it counts for nothing.
    fn follow(&mut self, time_ms: i64, value: f64) -> Option<f64> {
        if value.is_nan() {
            return None;
        }
        match self.last {
            None => self.total = value,
            Some((last_ms, last)) if time_ms > last_ms => {
                self.total += if value >= last { value - last } else { value };
            }
            Some((last_ms, _)) => {
                if time_ms == last_ms {
                    self.last = Some((last_ms, value));
                }
                return None;
            }
        }
        self.last = Some((time_ms, value));
        Some(self.total)
    }
}
