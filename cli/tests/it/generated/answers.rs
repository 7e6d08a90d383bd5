//! Compares the answers of two engines.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Largest relative difference of two floats.
const TOLERANCE: f64 = 1e-12;

/// How two answers differ, in words that kinds of differences can be counted by, and what exactly.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) kind: &'static str,
    pub(super) detail: String,
}

fn difference(
    kind: &'static str,
    ours: impl ToString,
    theirs: impl ToString,
) -> Option<Difference> {
    let cut = |text: String| text.chars().take(400).collect::<String>();
    Some(Difference {
        kind,
        detail: format!(
            "isobar {}\n    peer   {}",
            cut(ours.to_string()),
            cut(theirs.to_string())
        ),
    })
}

/// What differs between the samples that the engines counted, in all and at each step. Isobar may
/// read less where two vectors meet: nothing of one side when the other is empty, and not what the
/// other side's matchers exclude.
fn statistics(query: &str, ours: &Value, theirs: &Value) -> Option<Difference> {
    const OPERATORS: [&str; 15] = [
        " + ", " - ", " * ", " / ", " % ", " ^ ", " == ", " != ", " > ", " < ", " >= ", " <= ",
        " and ", " unless ", " atan2 ",
    ];
    // Without start times Isobar does not read what they would be told by.
    if query.contains("start_timestamp") {
        return None;
    }
    let spaced = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let spaced = spaced.to_lowercase();
    let may_be_less = OPERATORS.iter().any(|operator| spaced.contains(operator));
    for counter in [
        "totalQueryableSamples",
        "samplesRead",
        "totalQueryableSamplesPerStep",
        "samplesReadPerStep",
    ] {
        let count = |answer: &Value| answer["data"]["stats"]["samples"][counter].clone();
        let (ours, theirs) = (count(ours), count(theirs));
        let by_step = |counts: &Value| -> Vec<(String, u64)> {
            let steps = counts.as_array().into_iter().flatten();
            let step = |it: &Value| (it[0].to_string(), it[1].as_u64().unwrap_or_default());
            steps.map(step).collect()
        };
        let (a, b) = (by_step(&ours), by_step(&theirs));
        let less = a.len() == b.len()
            && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1 <= b.1)
            && ours.as_u64() <= theirs.as_u64();
        if ours != theirs && !(may_be_less && less) {
            return difference(
                "statistics",
                format!("{counter} {ours}"),
                format!("{counter} {theirs}"),
            );
        }
    }
    None
}

/// What differs between two answers to `query`; `modern` when the peer has annotations.
/// `largest` is the largest magnitude among the samples that the query may read.
pub(super) fn compare(
    query: &str,
    ours: &Value,
    theirs: &Value,
    modern: bool,
    largest: f64,
) -> Option<Difference> {
    if theirs.is_string() {
        // It could not write its answer.
        return None;
    }
    if ours["status"] != theirs["status"] {
        if brief(theirs).contains("runtime error") {
            // It fell over.
            return None;
        }
        if brief(ours).contains("is not evaluated yet") {
            return difference("not evaluated yet", brief(ours), brief(theirs));
        }
        return difference("status", brief(ours), brief(theirs));
    }
    if ours["errorType"] != theirs["errorType"] {
        return difference("type of error", brief(ours), brief(theirs));
    }
    if theirs["status"] == "error" {
        let text = theirs["error"].as_str().unwrap_or_default();
        if !modern || ours["error"] == theirs["error"] {
            return None;
        }
        return match text.contains("parse error") {
            true => difference("text of a parse error", &ours["error"], &theirs["error"]),
            // Which of several things wrong comes first, and which of several series are named.
            false if std::env::var_os("ISOBAR_GENERATED_ERRORS").is_none() => None,
            false => difference("text of an error", &ours["error"], &theirs["error"]),
        };
    }
    if theirs["data"].get("resultType").is_none() {
        let same = ours["data"] == theirs["data"];
        return (!same).then(|| difference("print or tree", &ours["data"], &theirs["data"]))?;
    }
    if ours["data"]["resultType"] != theirs["data"]["resultType"] {
        return difference("type of result", brief(ours), brief(theirs));
    }
    if modern {
        for (kind, list) in [("warnings", "warnings"), ("infos", "infos")] {
            let (a, b) = (texts(&ours[list]), texts(&theirs[list]));
            // Of many, Prometheus tells any ten.
            let omitted = |list: &BTreeSet<String>| -> Option<String> {
                list.iter().find(|text| text.ends_with("omitted")).cloned()
            };
            if a != b && (omitted(&a).is_none() || omitted(&a) != omitted(&b)) {
                return difference(kind, format!("{a:?}"), format!("{b:?}"));
            }
        }
    }
    if let Some(found) = statistics(query, ours, theirs) {
        return Some(found);
    }
    let slack = if sums(query) {
        TOLERANCE * largest
    } else {
        0.0
    };
    let free = ["topk", "bottomk", "limitk"]
        .iter()
        .any(|op| query.starts_with(op));
    let (a, b) = (&ours["data"]["result"], &theirs["data"]["result"]);
    // Sorting by labels leaves nothing free.
    let same_series = by_metric(a).keys().eq(by_metric(b).keys());
    // Of some dozen on, missing labels are sorted anyhow.
    let few = metrics(a).len() <= 12;
    if query.starts_with("sort_by_label") && few && same_series && metrics(a) != metrics(b) {
        return difference("order", a, b);
    }
    if ours["data"]["resultType"] == "scalar" {
        return points(
            &Value::Array(vec![a.clone()]),
            &Value::Array(vec![b.clone()]),
            slack,
        );
    }
    if free {
        by_time(a, b, query.starts_with("limitk"), slack)
    } else {
        series(a, b, slack)
    }
}

/// Whether a result may depend on the order in which numbers were added.
pub(super) fn sums(query: &str) -> bool {
    ["sum", "avg", "std", "deriv", "predict_linear"]
        .iter()
        .any(|name| query.contains(name))
}

fn brief(answer: &Value) -> String {
    match answer["error"].as_str() {
        Some(error) => format!("{}: {error}", answer["errorType"]),
        None => answer["data"].to_string(),
    }
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn by_metric(result: &Value) -> BTreeMap<String, &Value> {
    result
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (rounded(&one["metric"]), one))
        .collect()
}

/// Labels as text. `count_values` puts floats into them, which may differ as other floats may.
fn rounded(metric: &Value) -> String {
    let mut labels: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in metric.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let text = match text.parse::<f64>() {
            Ok(number) if name == "value" => format!("{number:.11e}"),
            _ => text.to_owned(),
        };
        labels.insert(name, text);
    }
    format!("{labels:?}")
}

/// The label sets in the order of the answer.
fn metrics(result: &Value) -> Vec<&Value> {
    let series = result.as_array().into_iter().flatten();
    series.map(|one| &one["metric"]).collect()
}

fn series(ours: &Value, theirs: &Value, slack: f64) -> Option<Difference> {
    let (a, b) = (by_metric(ours), by_metric(theirs));
    if !a.keys().eq(b.keys()) {
        let only = |x: &BTreeMap<String, &Value>, y: &BTreeMap<String, &Value>| {
            let more: Vec<String> = x
                .iter()
                .filter(|(k, _)| !y.contains_key(*k))
                .map(|(_, v)| v.to_string())
                .collect();
            format!("{} series, alone with {}", x.len(), more.join(" "))
        };
        return difference("which series", only(&a, &b), only(&b, &a));
    }
    a.iter().find_map(|(metric, x)| {
        let y = b[metric];
        let found = if x.get("value").is_some() {
            points(
                &Value::Array(vec![x["value"].clone()]),
                &Value::Array(vec![y["value"].clone()]),
                slack,
            )
        } else if x.get("values").is_some() {
            points(&x["values"], &y["values"], slack)
        } else {
            None
        };
        found.or_else(|| {
            ["histogram", "histograms"]
                .iter()
                .find(|field| !alike(&x[**field], &y[**field], slack))
                .and_then(|field| difference("histograms", &x[*field], &y[*field]))
        })
    })
}

/// Whether two native histograms, or lists of them, are the same but for last digits.
fn alike(ours: &Value, theirs: &Value, slack: f64) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| alike(x, y, slack))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, x)| alike(x, &theirs[k], slack))
        }
        _ => same(ours, theirs, slack),
    }
}

fn points(ours: &Value, theirs: &Value, slack: f64) -> Option<Difference> {
    let (Some(a), Some(b)) = (ours.as_array(), theirs.as_array()) else {
        return difference("shape", ours, theirs);
    };
    if !a
        .iter()
        .map(|p| p[0].to_string())
        .eq(b.iter().map(|p| p[0].to_string()))
    {
        return difference("times", ours, theirs);
    }
    a.iter()
        .zip(b)
        .find(|(x, y)| !same(&x[1], &y[1], slack))
        .and_then(|(x, y)| difference("values", x, y))
}

fn same(ours: &Value, theirs: &Value, slack: f64) -> bool {
    if ours == theirs {
        return true;
    }
    let number = |v: &Value| v.as_str().and_then(|text| text.parse::<f64>().ok());
    match (number(ours), number(theirs)) {
        (Some(x), Some(y)) => (x - y).abs() <= (TOLERANCE * x.abs().max(y.abs())).max(slack),
        _ => false,
    }
}

/// Only how many values there are at each time, and which, since the series are free.
fn by_time(ours: &Value, theirs: &Value, any_value: bool, slack: f64) -> Option<Difference> {
    let (a, b) = (values_by_time(ours), values_by_time(theirs));
    let alike = a.len() == b.len()
        && a.iter().zip(&b).all(|((t, x), (u, y))| {
            t == u
                && x.len() == y.len()
                && (any_value
                    || x.iter()
                        .zip(y)
                        .all(|(v, w)| same(&v.to_string().into(), &w.to_string().into(), slack)))
        });
    if alike {
        None
    } else {
        difference("picked values", format!("{a:?}"), format!("{b:?}"))
    }
}

fn values_by_time(result: &Value) -> BTreeMap<String, Vec<f64>> {
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for one in result.as_array().into_iter().flatten() {
        let single = one.get("value").into_iter();
        let many = one["values"].as_array().into_iter().flatten();
        for point in single.chain(many) {
            let value = point[1].as_str().and_then(|text| text.parse().ok());
            found
                .entry(point[0].to_string())
                .or_default()
                .push(value.unwrap_or(f64::NAN));
        }
    }
    found
        .values_mut()
        .for_each(|values| values.sort_by(f64::total_cmp));
    found
}
