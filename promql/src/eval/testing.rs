//! Series in memory for tests.

use isobar_model::series::{Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, Labels, SelectError};

/// A source that holds all its series as columns.
pub(crate) struct Memory(pub(crate) Vec<(Labels, Columns)>);

impl Memory {
    /// Series from lines such as `m{a="1"} 1 2 _ 3`: a sample every `step_ms` from 0 on, `_` for
    /// none, `s` for a staleness marker. Labels hold neither spaces nor commas in their values.
    pub(crate) fn read(text: &str, step_ms: i64) -> Self {
        let mut series: Vec<(Labels, Columns)> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(|l| line(l, step_ms))
            .collect();
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Memory(series)
    }
}

fn line(text: &str, step_ms: i64) -> (Labels, Columns) {
    let (labels, values) = text.split_once(' ').unwrap_or((text, ""));
    let (name, rest) = labels.split_once('{').unwrap_or((labels, "}"));
    let mut pairs = vec![("__name__", name)];
    for pair in rest
        .trim_end_matches('}')
        .split(',')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').expect("label");
        pairs.push((name, value.trim_matches('"')));
    }
    let mut columns = Columns::default();
    for (i, value) in values.split_whitespace().enumerate() {
        let value = match value {
            "_" => continue,
            "s" => isobar_model::sample::STALE_NAN,
            value => value.parse().expect("number"),
        };
        columns.push(i as i64 * step_ms, value);
    }
    (Labels::from_pairs(pairs), columns)
}

impl SeriesSource for Memory {
    fn open(&self, _: usize, select: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let matches = |labels: &Labels| {
            select
                .matchers
                .iter()
                .all(|m| m.matches(labels.get(m.name())))
        };
        let series = self.0.iter().filter(|(labels, _)| matches(labels));
        Ok(Box::new(MemoryStream(
            series.cloned().collect::<Vec<_>>().into_iter(),
        )))
    }
}

struct MemoryStream(std::vec::IntoIter<(Labels, Columns)>);

impl SeriesStream for MemoryStream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let before = batch.len();
        for (labels, columns) in self.0.by_ref().take(100) {
            batch.push(Series {
                labels,
                samples: Box::new(columns),
            });
        }
        Ok(batch.len() > before)
    }
}
