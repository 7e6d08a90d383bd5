//! Remarks on a query: Prometheus' annotations, with the place in the query where they arose.
//!
//! Two remarks of the same text are one; of their places the one that Prometheus would have met
//! last is told (see [`crate::plan::node::Node::rank`]).

use hashbrown::HashMap;
use isobar_model::Warnings;
use isobar_model::labels::write_quoted;

use crate::functions::calendar::DatePart;

/// The remarks raised so far.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    by_text: HashMap<String, Remark>,
    /// What stores said; these have no place in the query.
    stores: Warnings,
}

#[derive(Debug)]
struct Remark {
    is_warning: bool,
    /// Offset in the query.
    at: usize,
    rank: u32,
    lifted: Option<Lifted>,
    /// How many windows held samples that overlap; 0 for other remarks.
    overlaps: u64,
}

/// What `histogram_quantile` tells of bucket counts that fell and were lifted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lifted {
    /// The first and the last time.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    /// The least and the greatest bound.
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    /// The greatest lift.
    pub(crate) max_diff: f64,
    /// How often, less one, as Prometheus counts it.
    pub(crate) repeats: i64,
}

impl Lifted {
    /// Takes `other` in, as Prometheus merges a new annotation into one that it has.
    pub(crate) fn merge(&mut self, other: &Lifted) {
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.min_bucket = if other.min_bucket < self.min_bucket {
            other.min_bucket
        } else {
            self.min_bucket
        };
        self.max_bucket = if other.max_bucket > self.max_bucket {
            other.max_bucket
        } else {
            self.max_bucket
        };
        self.max_diff = if other.max_diff > self.max_diff {
            other.max_diff
        } else {
            self.max_diff
        };
        self.repeats = self.repeats.wrapping_add(other.repeats.wrapping_add(1));
    }

    /// Merges the remark with itself. Prometheus does so at each step after the first, since two
    /// of its collections hold the same object; the count that it tells doubles each time.
    pub(crate) fn merge_with_itself(&mut self) {
        self.repeats = self.repeats.wrapping_mul(2).wrapping_add(1);
    }
}

impl Remarks {
    /// Raises a warning. `at` is an offset in the query.
    pub(crate) fn warn(&mut self, rank: u32, at: usize, text: String) {
        let overlaps = u64::from(text.starts_with(OVERLAP));
        self.add(
            text,
            Remark {
                is_warning: true,
                at,
                rank,
                lifted: None,
                overlaps,
            },
        );
    }

    /// Raises an info.
    pub(crate) fn info(&mut self, rank: u32, at: usize, text: String) {
        self.add(
            text,
            Remark {
                is_warning: false,
                at,
                rank,
                lifted: None,
                overlaps: 0,
            },
        );
    }

    /// Raises the info about bucket counts that fell.
    pub(crate) fn lifted(&mut self, rank: u32, at: usize, name: &str, lifted: Lifted) {
        let text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/\
                    #histogram_quantile)";
        let remark = Remark {
            is_warning: false,
            at,
            rank,
            lifted: Some(lifted),
            overlaps: 0,
        };
        self.add(for_metric(text.to_owned(), name), remark);
    }

    /// Raises the warning that start times of samples lie before samples ahead of them, in
    /// `windows` windows of a series of metric `name`.
    pub(crate) fn overlaps(&mut self, rank: u32, at: usize, name: &str, windows: u64) {
        let remark = Remark {
            is_warning: true,
            at,
            rank,
            lifted: None,
            overlaps: windows,
        };
        self.add(overlap(name), remark);
    }

    /// Takes over what a store said.
    pub(crate) fn add_from_store(&mut self, warnings: Warnings) {
        self.stores.merge(warnings);
    }

    fn add(&mut self, text: String, remark: Remark) {
        match self.by_text.get_mut(&text) {
            None => {
                self.by_text.insert(text, remark);
            }
            Some(known) => {
                // The kinds that are merged keep the place where they were first seen.
                let mut moves = remark.rank >= known.rank;
                if remark.overlaps > 0 {
                    known.overlaps += remark.overlaps;
                    moves = remark.rank < known.rank;
                }
                if let (Some(lifted), Some(new)) = (&mut known.lifted, &remark.lifted) {
                    lifted.merge(new);
                    moves = remark.rank < known.rank;
                }
                if moves {
                    known.rank = remark.rank;
                    known.at = remark.at;
                }
            }
        }
    }

    /// The remarks as an answer carries them.
    pub(crate) fn finish(self, query: &str) -> Warnings {
        let mut answer = self.stores;
        let mut remarks: Vec<(String, Remark)> = self.by_text.into_iter().collect();
        // Not in the order in which they were raised: threads may have raced.
        remarks.sort_unstable_by(|(text, a), (other, b)| {
            (a.rank, a.at, text).cmp(&(b.rank, b.at, other))
        });
        for (mut text, remark) in remarks {
            if let Some(lifted) = &remark.lifted {
                text.push_str(&lifted_text(lifted));
            }
            if remark.overlaps > 1 {
                text.push_str(&format!(" ({} occurrences)", remark.overlaps));
            }
            let place = position(query, remark.at);
            if remark.is_warning {
                answer.warn(format!("PromQL warning: {text} ({place})"));
            } else {
                answer.info(format!("PromQL info: {text} ({place})"));
            }
        }
        answer
    }
}

/// The warning of [`Remarks::overlaps`].
pub(crate) fn overlap(name: &str) -> String {
    format!("{OVERLAP} {}", quoted(name))
}

const OVERLAP: &str =
    "sample has start time that overlaps with previous sample timestamp for metric";

fn lifted_text(lifted: &Lifted) -> String {
    format!(
        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        go_g(lifted.min_bucket),
        go_g(lifted.max_bucket),
        go_g2(lifted.max_diff),
        lifted.repeats.wrapping_add(1),
        rfc3339(lifted.first_ms),
        rfc3339(lifted.last_ms),
    )
}

/// Line and column of a byte offset, both from 1.
fn position(query: &str, at: usize) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..at) else {
        return "invalid position".to_owned();
    };
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = match before.iter().rposition(|byte| *byte == b'\n') {
        Some(line_break) => at - line_break,
        None => at + 1,
    };
    format!("{line}:{column}")
}

/// `text` with the name of the metric that it is about, unless that is empty.
pub(crate) fn for_metric(text: String, name: &str) -> String {
    match name {
        "" => text,
        name => format!("{text} for metric name {}", quoted(name)),
    }
}

/// `text` as Go's `%q` prints it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a string does not fail.
    let _ = write_quoted(&mut out, text);
    out
}

/// A number as Go's `%g` prints it.
pub(crate) fn go_g(value: f64) -> String {
    scientific_or_plain(value, format!("{value:e}"), 6)
}

/// A number as Go's `%.2g` prints it.
fn go_g2(value: f64) -> String {
    let text = format!("{value:.1e}");
    let trimmed = text.replacen(".0e", "e", 1);
    scientific_or_plain(value, trimmed, 2)
}

/// `text` is the number as `d.ddde±x`; it is kept so when the exponent is under -4 or at least
/// `exponent_min`.
fn scientific_or_plain(value: f64, text: String, exponent_min: i32) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= exponent_min {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let decimals = (digits - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// A time as `2006-01-02T15:04:05Z`, fractions cut off.
pub(crate) fn rfc3339(ms: i64) -> String {
    let seconds = ms / 1000;
    let part = |part: DatePart| part.of_seconds(seconds as f64) as i64;
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        part(DatePart::Year),
        part(DatePart::Month),
        part(DatePart::DayOfMonth),
        part(DatePart::Hour),
        part(DatePart::Minute),
        seconds.rem_euclid(60),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_prints_them() {
        for (value, want) in [
            (0.0, "0"),
            (2.0, "2"),
            (-1.0, "-1"),
            (std::f64::consts::PI, "3.141592653589793"),
            (1e6, "1e+06"),
            (100_000.0, "100000"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(go_g(value), want);
        }
        for (value, want) in [
            (4_700_000.0, "4.7e+06"),
            (2.34, "2.3"),
            (570.0, "5.7e+02"),
            (5.0, "5"),
            (20.0, "20"),
        ] {
            assert_eq!(go_g2(value), want);
        }
    }

    #[test]
    fn places_and_merging() {
        let mut remarks = Remarks::default();
        remarks.warn(2, 7, "b".to_owned());
        remarks.warn(1, 0, "b".to_owned());
        remarks.info(1, 3, "a".to_owned());
        let answer = remarks.finish("ab\ncdefgh");
        assert_eq!(answer.warnings(), ["PromQL warning: b (2:5)"]);
        assert_eq!(answer.infos(), ["PromQL info: a (2:1)"]);
    }

    #[test]
    fn time_and_lift() {
        assert_eq!(rfc3339(1_700_009_385_123), "2023-11-15T00:49:45Z");
    }
}
