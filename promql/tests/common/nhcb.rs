//! Classic histograms as native ones with custom buckets, as `load_with_nhcb` makes them.

use std::collections::BTreeMap;

use isobar_model::histogram::{Buckets, CUSTOM_SCHEMA, Span};
use isobar_model::sample::is_stale;
use isobar_model::{FloatHistogram, Labels, LabelsBuilder};

use super::memory::{Sample, Samples};

/// What is known of a histogram at one time.
#[derive(Default)]
struct Parts {
    /// Upper bounds with what lies below.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The native histograms of classic ones.
pub(crate) fn convert(classic: &BTreeMap<Labels, Samples>) -> BTreeMap<Labels, Samples> {
    let mut parts: BTreeMap<Labels, BTreeMap<i64, Parts>> = BTreeMap::new();
    for (labels, samples) in classic {
        let name = labels.get("__name__");
        let ends = ["_bucket", "_count", "_sum"];
        let Some((base, end)) = ends
            .iter()
            .find_map(|end| Some((name.strip_suffix(end)?, *end)))
        else {
            continue;
        };
        let bound = labels.get("le").parse::<f64>().ok();
        if end == "_bucket" && bound.is_none_or(f64::is_nan) {
            continue;
        }
        let native = LabelsBuilder::new(labels)
            .set("__name__", base)
            .remove("le")
            .clone()
            .build();
        let times = parts.entry(native).or_default();
        for (time, sample) in samples {
            let Sample::Float(value) = sample else {
                continue;
            };
            if is_stale(*value) {
                continue;
            }
            let parts = times.entry(*time).or_default();
            match (end, bound) {
                ("_bucket", Some(bound)) => parts.buckets.push((bound, *value)),
                ("_count", _) => parts.count = Some(*value),
                _ => parts.sum = *value,
            }
        }
    }
    let natives = parts.into_iter().map(|(labels, times)| {
        let samples = times
            .into_iter()
            .filter_map(|(time, parts)| Some((time, Sample::Histogram(native(parts)?))));
        (labels, samples.collect())
    });
    natives.collect()
}

fn native(mut parts: Parts) -> Option<FloatHistogram> {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    if parts
        .buckets
        .last()
        .is_none_or(|last| last.0 != f64::INFINITY)
    {
        let last = parts.buckets.last().map_or(0.0, |it| it.1);
        parts
            .buckets
            .push((f64::INFINITY, parts.count.unwrap_or(last)));
    }
    let mut below = 0.0;
    let mut counts = Vec::new();
    for (_, cumulative) in &parts.buckets {
        if *cumulative < below {
            return None;
        }
        counts.push(cumulative - below);
        below = *cumulative;
    }
    if parts.count.is_some_and(|count| count != below) {
        return None;
    }
    let bounds = parts
        .buckets
        .iter()
        .map(|it| it.0)
        .filter(|it| it.is_finite());
    let span = Span {
        offset: 0,
        length: counts.len() as u32,
    };
    let mut histogram = FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: below,
        sum: parts.sum,
        positive: Buckets::from_spans([span], counts).ok()?,
        custom: bounds.collect(),
        ..FloatHistogram::default()
    };
    histogram.compact();
    Some(histogram)
}
