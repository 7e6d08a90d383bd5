//! Whether an answer is the recorded one.
//!
//! Series are compared as sets, values to 1e-9 relative or 1e-12 of the largest of their series
//! (sums may be taken in another order), remarks as sets. Errors agree in their type, and in
//! their text where the parser speaks. Which of several tied series `topk` and `bottomk` take is
//! free, so only the values count there.

use std::collections::BTreeMap;

use isobar_model::{FloatHistogram, Labels};
use isobar_promql::value::{QueryResult, Value};
use serde_json::Value as Json;

use super::Refusal;

/// Samples by series; times in milliseconds.
///
/// A sample is a number, or of a histogram its count, its sum and of each bucket rule, bounds and
/// count.
type Samples = BTreeMap<Labels, Vec<(i64, Vec<f64>)>>;

/// Says why `ours` is not the recorded answer.
pub(crate) fn compare(recorded: &Json, ours: Result<QueryResult, Refusal>) -> Result<(), String> {
    let answer = &recorded["answer"];
    let result = match ours {
        Ok(result) => result,
        Err((kind, text)) => {
            let same_text = kind != "bad_data" || answer["error"] == text.as_str();
            if answer["errorType"] == kind && same_text {
                return Ok(());
            }
            return Err(format!("{kind}: {text}, recorded is {}", answer["error"]));
        }
    };
    if answer["status"] != "success" {
        return Err(format!(
            "an answer instead of an error: {}",
            answer["error"]
        ));
    }
    let data = &answer["data"];
    let (kind, got) = ours_by_series(&result.value);
    if data["resultType"] != kind {
        return Err(format!("another type: {kind}"));
    }
    if let Value::String { value, .. } = &result.value
        && data["result"][1] != value.as_str()
    {
        return Err(format!("another string: {value}"));
    }
    let want = recorded_by_series(kind, &data["result"])?;
    let query = recorded["params"]["query"].as_str().unwrap_or_default();
    let ties = query.contains("topk") || query.contains("bottomk");
    if !(ties && sorted_values(&want) == sorted_values(&got)) {
        same_samples(&want, &got)?;
    }
    same_remarks(&answer["warnings"], result.warnings.warnings())?;
    same_remarks(&answer["infos"], result.warnings.infos())
}

fn ours_by_series(value: &Value) -> (&'static str, Samples) {
    match value {
        Value::Scalar {
            timestamp_ms,
            value,
        } => (
            "scalar",
            Samples::from([(Labels::empty(), vec![(*timestamp_ms, vec![*value])])]),
        ),
        Value::String { .. } => ("string", Samples::new()),
        Value::Vector(samples) => {
            let series = |s: &isobar_promql::value::VectorSample| {
                let numbers = match &s.histogram {
                    Some(histogram) => histogram_numbers(histogram),
                    None => vec![s.value],
                };
                (s.labels.clone(), vec![(s.timestamp_ms, numbers)])
            };
            ("vector", samples.iter().map(series).collect())
        }
        Value::Matrix(series) => {
            let samples = |s: &isobar_promql::value::MatrixSeries| {
                let columns = s.columns.timestamps.iter().zip(&s.columns.values);
                let floats = columns.map(|(t, v)| (*t, vec![*v]));
                let histograms = s.columns.histograms.iter();
                let histograms = histograms.map(|(t, h)| (*t, histogram_numbers(h)));
                (s.labels.clone(), floats.chain(histograms).collect())
            };
            ("matrix", series.iter().map(samples).collect())
        }
    }
}

fn recorded_by_series(kind: &str, result: &Json) -> Result<Samples, String> {
    match kind {
        "string" => return Ok(Samples::new()),
        "scalar" => return Ok(Samples::from([(Labels::empty(), vec![sample(result)])])),
        _ => {}
    }
    let mut all = Samples::new();
    for series in result.as_array().ok_or("no result: recorded")? {
        let metric = series["metric"].as_object().ok_or("no metric: recorded")?;
        let labels = metric
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str().unwrap_or_default()));
        let mut samples = Vec::new();
        for (one, many) in [("value", "values"), ("histogram", "histograms")] {
            samples.extend(series.get(one).map(sample));
            let all = series.get(many).and_then(Json::as_array);
            samples.extend(all.into_iter().flatten().map(sample));
        }
        all.insert(Labels::from_pairs(labels), samples);
    }
    Ok(all)
}

/// A histogram as numbers.
fn histogram_numbers(histogram: &FloatHistogram) -> Vec<f64> {
    let mut numbers = vec![histogram.count, histogram.sum];
    for bucket in histogram.all_buckets().filter(|it| it.count != 0.0) {
        let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => 0.0,
            (true, false) => 1.0,
            (false, false) => 2.0,
            (true, true) => 3.0,
        };
        numbers.extend([rule, bucket.lower, bucket.upper, bucket.count]);
    }
    numbers
}

fn sample(pair: &Json) -> (i64, Vec<f64>) {
    let seconds = pair[0].as_f64().expect("a time");
    let number = |json: &Json| match json.as_str() {
        Some(text) => text.parse().expect("a number"),
        None => json.as_f64().expect("a number"),
    };
    let numbers = match pair[1].as_object() {
        None => vec![number(&pair[1])],
        Some(histogram) => {
            let mut numbers = vec![number(&histogram["count"]), number(&histogram["sum"])];
            let buckets = histogram.get("buckets").and_then(Json::as_array);
            for bucket in buckets.into_iter().flatten() {
                numbers.extend(bucket.as_array().into_iter().flatten().map(number));
            }
            numbers
        }
    };
    ((seconds * 1000.0).round() as i64, numbers)
}

fn sorted_values(samples: &Samples) -> Vec<(i64, Vec<u64>)> {
    let bits = |value: &f64| if value.is_nan() { 0 } else { value.to_bits() };
    let mut all: Vec<(i64, Vec<u64>)> = samples
        .values()
        .flatten()
        .map(|(t, v)| (*t, v.iter().map(bits).collect()))
        .collect();
    all.sort_unstable();
    all
}

fn same_samples(want: &Samples, got: &Samples) -> Result<(), String> {
    if want.keys().ne(got.keys()) {
        let missing = want.keys().find(|labels| !got.contains_key(*labels));
        let extra = got.keys().find(|labels| !want.contains_key(*labels));
        return Err(format!(
            "other series: missing {missing:?}, extra {extra:?}"
        ));
    }
    for (labels, want) in want {
        let got = &got[labels];
        if want.len() != got.len() {
            return Err(format!(
                "other steps: {} of {} in {labels}",
                got.len(),
                want.len()
            ));
        }
        let numbers = want.iter().flat_map(|(_, v)| v);
        let finite = numbers.map(|v| v.abs()).filter(|v| v.is_finite());
        let slack = finite.fold(0.0, f64::max) * 1e-12;
        for (want, got) in want.iter().zip(got) {
            let numbers = want.1.len() == got.1.len();
            let mut pairs = want.1.iter().zip(&got.1);
            let agree = numbers && pairs.all(|(want, got)| close(*want, *got, slack));
            if want.0 != got.0 || !agree {
                return Err(format!(
                    "another value: {got:?}, recorded {want:?} in {labels}"
                ));
            }
        }
    }
    Ok(())
}

fn close(want: f64, got: f64, slack: f64) -> bool {
    let difference = (want - got).abs();
    want == got
        || want.is_nan() && got.is_nan()
        || difference <= 1e-9 * want.abs().max(got.abs())
        || difference <= slack
}

fn same_remarks(recorded: &Json, ours: &[String]) -> Result<(), String> {
    let empty = Vec::new();
    let recorded = recorded.as_array().unwrap_or(&empty);
    let mut want: Vec<&str> = recorded.iter().filter_map(Json::as_str).collect();
    let mut got: Vec<&str> = ours.iter().map(String::as_str).collect();
    want.sort_unstable();
    got.sort_unstable();
    if want == got {
        Ok(())
    } else {
        Err(format!("other remarks: {got:?}, recorded {want:?}"))
    }
}
