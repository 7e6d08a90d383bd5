//! Whether an answer is the recorded one.
//!
//! Series are compared as sets, values to 1e-9 relative or 1e-12 of the largest of their series
//! (sums may be taken in another order), remarks as sets. Errors agree in their type, and in
//! their text where the parser speaks. Which of several tied series `topk` and `bottomk` take is
//! free, so only the values count there.

use std::collections::BTreeMap;

use isobar_model::Labels;
use isobar_promql::value::{QueryResult, Value};
use serde_json::Value as Json;

use super::Refusal;

/// Samples by series; times in milliseconds.
type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;

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
            Samples::from([(Labels::empty(), vec![(*timestamp_ms, *value)])]),
        ),
        Value::String { .. } => ("string", Samples::new()),
        Value::Vector(samples) => {
            let series = |s: &isobar_promql::value::VectorSample| {
                (s.labels.clone(), vec![(s.timestamp_ms, s.value)])
            };
            ("vector", samples.iter().map(series).collect())
        }
        Value::Matrix(series) => {
            let samples = |s: &isobar_promql::value::MatrixSeries| {
                let columns = s.columns.timestamps.iter().zip(&s.columns.values);
                (s.labels.clone(), columns.map(|(t, v)| (*t, *v)).collect())
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
        if series.get("histogram").is_some() || series.get("histograms").is_some() {
            return Err("histograms recorded: none of ours".to_owned());
        }
        let metric = series["metric"].as_object().ok_or("no metric: recorded")?;
        let labels = metric
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str().unwrap_or_default()));
        let samples = match series["values"].as_array() {
            Some(values) => values.iter().map(sample).collect(),
            None => vec![sample(&series["value"])],
        };
        all.insert(Labels::from_pairs(labels), samples);
    }
    Ok(all)
}

fn sample(pair: &Json) -> (i64, f64) {
    let seconds = pair[0].as_f64().expect("a time");
    let value = pair[1]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a value");
    ((seconds * 1000.0).round() as i64, value)
}

fn sorted_values(samples: &Samples) -> Vec<(i64, u64)> {
    let bits = |value: f64| if value.is_nan() { 0 } else { value.to_bits() };
    let mut all: Vec<(i64, u64)> = samples
        .values()
        .flatten()
        .map(|(t, v)| (*t, bits(*v)))
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
        let finite = want.iter().map(|(_, v)| v.abs()).filter(|v| v.is_finite());
        let slack = finite.fold(0.0, f64::max) * 1e-12;
        for (want, got) in want.iter().zip(got) {
            if want.0 != got.0 || !close(want.1, got.1, slack) {
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
