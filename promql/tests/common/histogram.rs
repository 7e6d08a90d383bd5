//! Native histograms as scripts write them: `{{schema:1 count:3 buckets:[1 2]}}`.

use isobar_model::FloatHistogram;
use isobar_model::histogram::{Buckets, CounterReset, Span};
use isobar_promql::parse::series::SequenceValue;

/// A histogram, and whether the text gives its hint.
pub(crate) fn read(text: &str) -> Result<(FloatHistogram, bool), String> {
    let mut histogram = FloatHistogram::default();
    let (mut buckets, mut negative) = (Vec::new(), Vec::new());
    let (mut offset, mut negative_offset) = (0, 0);
    let mut has_hint = false;
    let mut rest = text.trim();
    while let Some((key, tail)) = rest.split_once(':') {
        let end = match tail.starts_with('[') {
            true => tail.find(']').ok_or("no end of list")? + 1,
            false => tail.find(' ').unwrap_or(tail.len()),
        };
        let (value, tail) = tail.split_at(end);
        rest = tail.trim_start();
        let number = || value.parse::<f64>().map_err(|e| format!("{value}: {e}"));
        let integer = || value.parse::<i32>().map_err(|e| format!("{value}: {e}"));
        let list = || -> Result<Vec<f64>, String> {
            let items = value.trim_matches(['[', ']']).split_whitespace();
            items
                .map(|it| it.parse().map_err(|e| format!("{it}: {e}")))
                .collect()
        };
        match key.trim() {
            "schema" => histogram.schema = integer()?,
            "count" => histogram.count = number()?,
            "sum" => histogram.sum = number()?,
            "z_bucket" => histogram.zero_count = number()?,
            "z_bucket_w" => histogram.zero_threshold = number()?,
            "custom_values" => histogram.custom = list()?.into(),
            "buckets" => buckets = list()?,
            "n_buckets" => negative = list()?,
            "offset" => offset = integer()?,
            "n_offset" => negative_offset = integer()?,
            "counter_reset_hint" => {
                has_hint = true;
                histogram.hint = match value {
                    "reset" => CounterReset::Reset,
                    "not_reset" => CounterReset::NotReset,
                    "gauge" => CounterReset::Gauge,
                    _ => CounterReset::Unknown,
                };
            }
            other => return Err(format!("unknown key {other}")),
        }
    }
    let side = |offset, counts: Vec<f64>| {
        let length = counts.len() as u32;
        Buckets::from_spans([Span { offset, length }], counts).map_err(|e| e.to_string())
    };
    histogram.positive = side(offset, buckets)?;
    histogram.negative = side(negative_offset, negative)?;
    Ok((histogram, has_hint))
}

/// The histogram of a sequence, and whether its hint is given.
pub(crate) fn of_sequence(value: &SequenceValue) -> Result<Option<(FloatHistogram, bool)>, String> {
    let SequenceValue::Histogram { base, step, steps } = value else {
        return Ok(None);
    };
    let (mut histogram, has_hint) = read(base)?;
    if let Some((sign, step)) = step {
        let (step, _) = read(step)?;
        for _ in 0..*steps {
            let added = match sign {
                '-' => histogram.sub(&step),
                _ => histogram.add(&step),
            };
            added.map_err(|e| e.to_string())?;
        }
    }
    Ok(Some((histogram, has_hint)))
}

/// The hint with which a store gives `now` back when `before` is the sample before it.
pub(crate) fn stored_hint(now: &FloatHistogram, before: Option<&FloatHistogram>) -> CounterReset {
    if now.hint == CounterReset::Gauge {
        return CounterReset::Gauge;
    }
    let follows = before.is_some_and(|before| {
        let unhinted = FloatHistogram {
            hint: CounterReset::Unknown,
            ..now.clone()
        };
        before.hint != CounterReset::Gauge
            && now.hint != CounterReset::Reset
            && !before.is_stale()
            && now.schema == before.schema
            && now.zero_threshold == before.zero_threshold
            && now.custom == before.custom
            && !unhinted.detect_reset(before)
    });
    match follows {
        true => CounterReset::NotReset,
        false => CounterReset::Unknown,
    }
}
