//! What a server answered, in a form that can be compared with what another one answered.
//!
//! The order of series does not count, and numbers may differ in their last bits: servers add up in
//! different orders. Everything else counts.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Numbers of servers that compute alike differ by no more than this part of the larger one.
pub const EXACT: f64 = 1e-12;
/// Numbers that differ by no more than this part of the larger one look the same.
pub const CLOSE: f64 = 1e-9;

/// The data of an answer: for each series its points, or a set of names.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    series: BTreeMap<String, Points>,
}

/// The points of one series: time and value.
#[derive(Debug, Clone, PartialEq, Default)]
struct Points {
    floats: Vec<(f64, f64)>,
    /// All numbers of a histogram, in the order in which they stand in the answer.
    histograms: Vec<(f64, Vec<f64>)>,
}

impl Answer {
    /// Reads the body of an answer of the query, series or labels endpoints.
    pub fn parse(body: &str) -> anyhow::Result<Answer> {
        let body: Body<'_> = serde_json::from_str(body).context("the answer cannot be read")?;
        ensure!(body.status == "success", "the answer says {}", body.status);
        let mut series = BTreeMap::new();
        match body.data.context("the answer has no data")? {
            Data::Names(names) => {
                series.extend(names.iter().map(|it| (it.to_string(), Points::default())));
            }
            Data::Result(items) => {
                for item in items {
                    let (name, points) = item.read()?;
                    series.insert(name, points);
                }
            }
        }
        Ok(Answer { series })
    }

    /// The number of series or names.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The number of points in all series.
    pub fn points(&self) -> usize {
        self.series
            .values()
            .map(|it| it.floats.len() + it.histograms.len())
            .sum()
    }

    /// The value of the only point of the only series.
    pub fn single(&self) -> Option<f64> {
        match self.series.values().next().map(|it| &it.floats[..]) {
            Some([(_, value)]) if self.series.len() == 1 => Some(*value),
            _ => None,
        }
    }

    /// The first way in which `other` is not the same, or none. Numbers may differ by `tolerance`,
    /// a part of the larger one.
    pub fn difference(&self, other: &Answer, tolerance: f64) -> Option<String> {
        let lacking = |of: &Answer, it: &&String| !of.series.contains_key(*it);
        if let Some(missing) = self.series.keys().find(|it| lacking(other, it)) {
            return Some(format!("lacks {missing}"));
        }
        if let Some(more) = other.series.keys().find(|it| lacking(self, it)) {
            return Some(format!("adds {more}"));
        }
        self.series
            .iter()
            .zip(other.series.values())
            .find_map(|((name, ours), theirs)| {
                let found = first_difference(&ours.floats, &theirs.floats, |left, right| {
                    same_number(*left, *right, tolerance)
                })
                .or_else(|| {
                    first_difference(&ours.histograms, &theirs.histograms, |left, right| {
                        left.len() == right.len()
                            && left
                                .iter()
                                .zip(right)
                                .all(|(l, r)| same_number(*l, *r, tolerance))
                    })
                })?;
                Some(format!("{found} in {name}"))
            })
    }
}

fn first_difference<T: fmt::Debug>(
    ours: &[(f64, T)],
    theirs: &[(f64, T)],
    same: impl Fn(&T, &T) -> bool,
) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} points instead of {}", theirs.len(), ours.len()));
    }
    let (left, right) = ours
        .iter()
        .zip(theirs)
        .find(|(left, right)| left.0 != right.0 || !same(&left.1, &right.1))?;
    Some(format!("{right:?} instead of {left:?}"))
}

fn same_number(left: f64, right: f64, tolerance: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= tolerance * left.abs().max(right.abs())
}

#[derive(Deserialize)]
struct Body<'a> {
    status: &'a str,
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

enum Data<'a> {
    Names(Vec<Value>),
    Result(Vec<Item<'a>>),
}

#[derive(Deserialize)]
struct Item<'a> {
    metric: Value,
    #[serde(borrow)]
    value: Option<(f64, &'a str)>,
    #[serde(borrow)]
    values: Option<Vec<(f64, &'a str)>>,
    histogram: Option<(f64, Value)>,
    histograms: Option<Vec<(f64, Value)>>,
}

impl Item<'_> {
    fn read(self) -> anyhow::Result<(String, Points)> {
        let floats: Vec<_> = self
            .value
            .into_iter()
            .chain(self.values.into_iter().flatten())
            .collect();
        let histograms = self
            .histogram
            .into_iter()
            .chain(self.histograms.into_iter().flatten());
        let points = Points {
            floats: floats
                .into_iter()
                .map(|(time, text)| Ok((time, text.parse().context("a value is no number")?)))
                .collect::<anyhow::Result<_>>()?,
            histograms: histograms
                .map(|(time, histogram)| {
                    let mut numbers = Vec::new();
                    flatten(&histogram, &mut numbers);
                    (time, numbers)
                })
                .collect(),
        };
        if points == Points::default() {
            bail!("a series has no values");
        }
        Ok((self.metric.to_string(), points))
    }
}

/// All numbers below `value`, also those that are written as text.
fn flatten(value: &Value, out: &mut Vec<f64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|it| flatten(it, out)),
        Value::Object(fields) => fields.values().for_each(|it| flatten(it, out)),
        Value::String(text) => out.extend(text.parse::<f64>()),
        Value::Number(number) => out.extend(number.as_f64()),
        Value::Null | Value::Bool(_) => {}
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("names, or the result of a query")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Data<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(name) = names.next_element()? {
            all.push(name);
        }
        Ok(Data::Names(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Data<'de>, A::Error> {
        let mut result = None;
        while let Some(field) = fields.next_key::<String>()? {
            if field == "result" {
                result = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        result
            .map(Data::Result)
            .ok_or_else(|| A::Error::custom("the answer has no result"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &str, right: &str, expected: Option<&str>) {
        let wrap =
            |it: &str| Answer::parse(&format!("{{\"status\":\"success\",\"data\":{it}}}")).unwrap();
        assert_eq!(
            wrap(left).difference(&wrap(right), CLOSE).as_deref(),
            expected
        );
    }

    #[test]
    fn order_and_last_bits_do_not_count() {
        check(r#"["a","b"]"#, r#"["b","a"]"#, None);
        check(
            r#"{"result":[{"metric":{"a":"1"},"value":[7,"0.3"]},{"metric":{"a":"2"},"value":[7,"NaN"]}]}"#,
            r#"{"result":[{"metric":{"a":"2"},"value":[7,"NaN"]},{"metric":{"a":"1"},"value":[7,"0.30000000000000004"]}]}"#,
            None,
        );
    }

    #[test]
    fn everything_else_counts() {
        check(r#"["a"]"#, r#"["b"]"#, Some("lacks \"a\""));
        check(r#"["a"]"#, r#"["a","b"]"#, Some("adds \"b\""));
        check(
            r#"{"result":[{"metric":{},"values":[[1,"1"],[2,"2"]]}]}"#,
            r#"{"result":[{"metric":{},"values":[[1,"1"]]}]}"#,
            Some("1 points instead of 2 in {}"),
        );
        check(
            r#"{"result":[{"metric":{},"histograms":[[1,{"count":"1","buckets":[[0,"-1","1","7"]]}]]}]}"#,
            r#"{"result":[{"metric":{},"histograms":[[1,{"count":"1","buckets":[[0,"-1","1","8"]]}]]}]}"#,
            Some(
                "(1.0, [0.0, -1.0, 1.0, 8.0, 1.0]) instead of (1.0, [0.0, -1.0, 1.0, 7.0, 1.0]) in {}",
            ),
        );
        check(
            r#"{"result":[{"metric":{},"values":[[1,"1"],[2,"2"]]}]}"#,
            r#"{"result":[{"metric":{},"values":[[1,"1"],[2,"2.1"]]}]}"#,
            Some("(2.0, 2.1) instead of (2.0, 2.0) in {}"),
        );
    }

    #[test]
    fn an_answer_that_is_not_one_is_an_error() {
        for body in [
            "",
            "{}",
            r#"{"status":"error"}"#,
            r#"{"status":"success","data":{}}"#,
        ] {
            assert!(Answer::parse(body).is_err(), "{body}");
        }
    }
}
