//! Counts what is in a block: what `promtool tsdb analyze --extended` shows, and how many bytes each
//! section takes.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use isobar_model::Columns;
use ulid::Ulid;

use crate::Error;
use crate::block::BlockReader;
use crate::chunks::{Chunk, Encoding};
use crate::index::SeriesEntry;

/// Something that is counted for each label, pair or metric name: the largest first, and of equal
/// counts in the order of the texts.
pub type Ranking = Vec<(String, u64)>;

/// What is in a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// The block.
    pub ulid: Ulid,
    /// From its first time to its end, in milliseconds.
    pub duration_ms: u64,
    /// The number of series that its `meta.json` says.
    pub series: u64,
    /// The number of samples that are in its chunks; downsampled ones are not counted.
    pub samples: u64,
    /// The number of different label names.
    pub label_names: u64,
    /// The number of label pairs of all series.
    pub postings_entries: u64,
    /// For each label pair how many series it has, each of which counts as far as it does not cover the
    /// block's time.
    pub churning_pairs: Ranking,
    /// As `churning_pairs`, for label names.
    pub churning_names: Ranking,
    /// For each label pair how many series have it.
    pub common_pairs: Ranking,
    /// For each label name the length of its values in bytes.
    pub value_bytes: Ranking,
    /// For each label name the number of its values.
    pub cardinality: Ranking,
    /// For each metric name the number of its series.
    pub metric_series: Ranking,
    /// The chunks of floats.
    pub floats: ChunkSizes,
    /// The chunks of histograms.
    pub histograms: ChunkSizes,
    /// Downsampled chunks, which are counted only.
    pub aggregates: u64,
    /// What the parts of the block take, in bytes, in the order in which they lie.
    pub section_bytes: Vec<(&'static str, u64)>,
}

/// How large chunks are, a number for each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkSizes {
    /// Samples.
    pub samples: Vec<u64>,
    /// Bytes of the encoded samples.
    pub bytes: Vec<u64>,
    /// Buckets of all samples; none for floats.
    pub buckets: Vec<u64>,
}

/// Counts what is in a block. What was deleted counts, since it is still there.
///
/// # Errors
/// [`Error::Corrupt`] when the block cannot be read.
pub fn stats(block: &Arc<BlockReader>) -> Result<Stats, Error> {
    let meta = block.meta();
    let index = block.index();
    let duration_ms = meta
        .end_ms
        .saturating_sub(meta.min_ms)
        .max(0)
        .cast_unsigned();
    let mut stats = Stats {
        ulid: meta.ulid,
        duration_ms,
        series: meta.stats.num_series,
        section_bytes: index.section_bytes()?,
        ..Stats::default()
    };
    stats
        .section_bytes
        .push(("chunks", block.chunks().size_bytes()));

    // Symbols of pairs, with how much of the time their series do not cover and how many they are.
    let mut pairs: HashMap<(u32, u32), (u64, u64)> = HashMap::new();
    let mut names: HashMap<u32, u64> = HashMap::new();
    let mut entry = SeriesEntry::default();
    let mut columns = Columns::default();
    for series in index.all_postings()?.into_vec() {
        index.series(series, &mut entry)?;
        let covered_ms = match (entry.chunks.first(), entry.chunks.last()) {
            (Some(first), Some(last)) => last.max_ms.wrapping_sub(first.min_ms).cast_unsigned(),
            _ => 0,
        };
        let uncovered_ms = duration_ms.wrapping_sub(covered_ms);
        for (name, value) in &entry.labels {
            let (uncovered, count) = pairs.entry((*name, *value)).or_default();
            *uncovered = uncovered.wrapping_add(uncovered_ms);
            *count += 1;
            let of_name = names.entry(*name).or_default();
            *of_name = of_name.wrapping_add(uncovered_ms);
            stats.postings_entries += 1;
        }
        for chunk in &entry.chunks {
            let (encoding, data) = block.chunks().chunk(chunk.reference)?;
            let (min_ms, max_ms) = (chunk.min_ms, chunk.max_ms);
            let chunk = Chunk {
                encoding,
                min_ms,
                max_ms,
                data,
            };
            stats.count(&chunk, &mut columns)?;
        }
    }
    let share = |uncovered_ms: u64| (uncovered_ms as f64 / duration_ms as f64) as u64;
    for ((name, value), (uncovered_ms, count)) in pairs {
        let pair = format!("{}={}", index.symbol(name)?, index.symbol(value)?);
        stats
            .churning_pairs
            .push((pair.clone(), share(uncovered_ms)));
        stats.common_pairs.push((pair, count));
    }
    for (name, uncovered_ms) in names {
        let name = index.symbol(name)?.to_owned();
        stats.churning_names.push((name, share(uncovered_ms)));
    }
    stats.labels(block)?;
    stats.rank();
    Ok(stats)
}

impl Stats {
    fn count(&mut self, chunk: &Chunk, columns: &mut Columns) -> Result<(), Error> {
        let sizes = match chunk.encoding {
            Encoding::Aggregate => {
                self.aggregates += 1;
                return Ok(());
            }
            Encoding::Xor | Encoding::Xor2 => &mut self.floats,
            _ => {
                columns.clear();
                chunk.decode_as_is(columns)?;
                let buckets = columns.histograms.iter();
                let buckets = buckets.map(|(_, it)| it.positive.len() + it.negative.len());
                let buckets: usize = buckets.sum();
                self.histograms.buckets.push(buckets as u64);
                &mut self.histograms
            }
        };
        let samples = u64::from(chunk.sample_count()?);
        sizes.samples.push(samples);
        sizes.bytes.push(chunk.data.len() as u64);
        self.samples += samples;
        Ok(())
    }

    fn labels(&mut self, block: &BlockReader) -> Result<(), Error> {
        let index = block.index();
        for name in index.label_names() {
            let (mut values, mut bytes) = (0, 0);
            for value in index.label_values(name, "")? {
                let (value, offset) = value?;
                values += 1;
                bytes += value.len() as u64;
                if name == "__name__" {
                    let series = index.postings_at(offset)?.len() as u64;
                    self.metric_series.push((value.to_owned(), series));
                }
            }
            self.value_bytes.push((name.to_owned(), bytes));
            self.cardinality.push((name.to_owned(), values));
        }
        self.label_names = self.cardinality.len() as u64;
        Ok(())
    }

    fn rank(&mut self) {
        for ranking in [
            &mut self.churning_pairs,
            &mut self.churning_names,
            &mut self.common_pairs,
            &mut self.value_bytes,
            &mut self.cardinality,
            &mut self.metric_series,
        ] {
            ranking.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        }
    }

    /// The bytes of chunks and index that a sample takes; nothing when there is none.
    pub fn bytes_per_sample(&self) -> Option<f64> {
        let bytes: u64 = self.section_bytes.iter().map(|it| it.1).sum();
        (self.samples > 0).then(|| bytes as f64 / self.samples as f64)
    }

    /// What `promtool tsdb analyze --extended --limit` prints, followed by the sizes.
    pub fn text(&self, limit: usize) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.print(limit, &mut text);
        text
    }

    fn print(&self, limit: usize, out: &mut String) -> fmt::Result {
        writeln!(out, "Block ID: {}", self.ulid)?;
        writeln!(out, "Duration: {}", GoDuration(self.duration_ms))?;
        writeln!(out, "Total Series: {}", self.series)?;
        writeln!(out, "Label names: {}", self.label_names)?;
        writeln!(
            out,
            "Postings (unique label pairs): {}",
            self.common_pairs.len()
        )?;
        writeln!(
            out,
            "Postings entries (total label pairs): {}",
            self.postings_entries
        )?;
        for (title, ranking) in [
            (
                "Label pairs most involved in churning",
                &self.churning_pairs,
            ),
            (
                "Label names most involved in churning",
                &self.churning_names,
            ),
            ("Most common label pairs", &self.common_pairs),
            (
                "Label names with highest cumulative label value length",
                &self.value_bytes,
            ),
            ("Highest cardinality labels", &self.cardinality),
            ("Highest cardinality metric names", &self.metric_series),
        ] {
            writeln!(out, "\n{title}:")?;
            for (what, count) in ranking.iter().take(limit) {
                writeln!(out, "{count} {what}")?;
            }
        }
        out.push_str("\nCompaction analysis:\n\n");
        let chunks = self.floats.samples.len() + self.histograms.samples.len();
        let chunks = chunks as u64 + self.aggregates;
        let (floats, histograms) = (&self.floats, &self.histograms);
        distribution(out, "samples per float chunk", &floats.samples, chunks)?;
        distribution(out, "bytes per float chunk", &floats.bytes, chunks)?;
        distribution(
            out,
            "samples per histogram chunk",
            &histograms.samples,
            chunks,
        )?;
        distribution(out, "bytes per histogram chunk", &histograms.bytes, chunks)?;
        distribution(
            out,
            "buckets per histogram chunk",
            &histograms.buckets,
            chunks,
        )?;
        out.push_str("Bytes:\n");
        for (section, bytes) in &self.section_bytes {
            writeln!(out, "{bytes} {section}")?;
        }
        if let Some(bytes) = self.bytes_per_sample() {
            writeln!(out, "{bytes:.3} per sample")?;
        }
        Ok(())
    }
}

/// How often numbers lie in ranges of one width, as promtool draws it.
fn distribution(out: &mut String, title: &str, numbers: &[u64], total: u64) -> fmt::Result {
    let (Some(min), Some(max)) = (numbers.iter().min(), numbers.iter().max()) else {
        return writeln!(out, "{title}: N/A\n");
    };
    let mut step = 10;
    while step < (max - min) / 10 && step <= 10_000 {
        step *= 10;
    }
    let start = min - min % step;
    let end = max - max % step + step;
    let mut counts = vec![0u64; ((end - start) / step + 1) as usize];
    for number in numbers {
        if let Some(count) = counts.get_mut(((number - start) / step) as usize) {
            *count += 1;
        }
    }
    let average = numbers.iter().sum::<u64>() / numbers.len() as u64;
    writeln!(out, "{title} (min/avg/max): {min}/{average}/{max}")?;
    let digits = |number: u64| number.to_string().len();
    let most = counts.iter().copied().max().unwrap_or(0);
    let (left, right, wide) = (digits(end), digits(end + step), digits(most));
    for (at, count) in (0..).zip(&counts) {
        let bar = "#".repeat((100 * count / total.max(1)) as usize);
        let (from, to) = (at * step + start + 1, (at + 1) * step + start);
        writeln!(out, "[{from:left$}, {to:right$}]: {count:wide$} {bar}")?;
    }
    writeln!(out)
}

/// A time in milliseconds as Go prints durations.
struct GoDuration(u64);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GoDuration(ms) = *self;
        if ms == 0 {
            return f.write_str("0s");
        }
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let (seconds, rest) = (ms / 1000 % 60, ms % 1000);
        let rest = format!(".{rest:03}");
        write!(
            f,
            "{seconds}{}s",
            rest.trim_end_matches('0').trim_end_matches('.')
        )
    }
}
