//! Prints the samples of a block as `promtool tsdb dump` does: a line for each, with labels, value and
//! time.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use isobar_model::histogram::text::GoFloat;
use isobar_model::histogram::{Bucket, FloatHistogram};
use isobar_model::{Columns, Matcher, TimeRange};

use crate::Error;
use crate::block::BlockReader;
use crate::chunks::{Chunk, Encoding};
use crate::merge::without_overlap;

/// Writes the samples of the series that match, at the times of a range, in the order of labels and
/// times. What was deleted is left out.
///
/// # Errors
/// [`Error::Corrupt`] when the block cannot be read, [`Error::Unsupported`] for downsampled chunks,
/// [`Error::Io`] when `out` takes no more.
pub fn dump(
    block: &Arc<BlockReader>,
    matchers: &[Matcher],
    range: TimeRange,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let write_error = |e| Error::io("write the dump of", block.dir(), e);
    let mut columns = Columns::default();
    for series in block.select(matchers, range)? {
        let series = series?;
        for chunk in without_overlap(series.chunks)? {
            columns.clear();
            chunk.decode_into(range, &mut columns)?;
            for (time_ms, value) in columns.timestamps.iter().zip(&columns.values) {
                writeln!(out, "{} {} {time_ms}", series.labels, GoFloat(*value))
                    .map_err(write_error)?;
            }
            let whole = counts_are_whole(&chunk);
            for (time_ms, histogram) in &columns.histograms {
                let histogram = Printed { histogram, whole };
                writeln!(out, "{} {histogram} {time_ms}", series.labels).map_err(write_error)?;
            }
        }
    }
    Ok(())
}

fn counts_are_whole(chunk: &Chunk) -> bool {
    matches!(chunk.encoding, Encoding::Histogram | Encoding::HistogramSt)
}

/// A histogram as text. Whole counts are printed in full, where those of float histograms may have an
/// exponent. (Beyond 2^53 they are rounded: they are floats here.)
struct Printed<'a> {
    histogram: &'a FloatHistogram,
    whole: bool,
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let histogram = self.histogram;
        if !self.whole {
            return write!(f, "{histogram}");
        }
        write!(
            f,
            "{{count:{}, sum:{}",
            histogram.count,
            GoFloat(histogram.sum)
        )?;
        let negative = histogram.negative_buckets().rev();
        for bucket in negative.filter(|bucket| bucket.count != 0.0) {
            bucket_text(f, &bucket)?;
        }
        if histogram.zero_count != 0.0 {
            bucket_text(f, &histogram.zero_bucket())?;
        }
        let positive = histogram.positive_buckets();
        for bucket in positive.filter(|bucket| bucket.count != 0.0) {
            bucket_text(f, &bucket)?;
        }
        f.write_str("}")
    }
}

fn bucket_text(f: &mut fmt::Formatter<'_>, bucket: &Bucket) -> fmt::Result {
    let open = if bucket.lower_inclusive { '[' } else { '(' };
    let close = if bucket.upper_inclusive { ']' } else { ')' };
    let (lower, upper) = (GoFloat(bucket.lower), GoFloat(bucket.upper));
    write!(f, ", {open}{lower},{upper}{close}:{}", bucket.count)
}
