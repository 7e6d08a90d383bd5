//! What a server answered, in a form that can be compared with what another one answered.
//!
//! The order of series does not count, and numbers may differ in their last bits: servers add up in
//! different orders. Everything else counts.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Numbers that differ by no more than this part of the larger one are the same.
const TOLERANCE: f64 = 1e-9;

/// The data of an answer: for each series its times and values, or a set of names.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    series: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Answer {
    /// Reads the body of an answer of the query, series or labels endpoints.
    pub fn parse(body: &str) -> anyhow::Result<Answer> {
        let body: Value = serde_json::from_str(body).context("the answer is not JSON")?;
        ensure!(
            body["status"] == "success",
            "the answer says {}",
            body["status"]
        );
        let mut series = BTreeMap::new();
        match &body["data"] {
            Value::Array(items) => {
                for item in items {
                    series.insert(item.to_string(), Vec::new());
                }
            }
            data => {
                for item in data["result"]
                    .as_array()
                    .context("the answer has no result")?
                {
                    let points = match (&item["values"], &item["value"]) {
                        (Value::Array(points), _) => {
                            points.iter().map(point).collect::<anyhow::Result<_>>()?
                        }
                        (_, value @ Value::Array(_)) => vec![point(value)?],
                        _ => bail!("a series has no values"),
                    };
                    series.insert(item["metric"].to_string(), points);
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

    /// The value of the only point of the only series.
    pub fn single(&self) -> Option<f64> {
        match self.series.values().next().map(Vec::as_slice) {
            Some([(_, value)]) if self.series.len() == 1 => Some(*value),
            _ => None,
        }
    }

    /// The first way in which `other` is not the same, or none.
    pub fn difference(&self, other: &Answer) -> Option<String> {
        if let Some(missing) = self
            .series
            .keys()
            .find(|it| !other.series.contains_key(*it))
        {
            return Some(format!("lacks {missing}"));
        }
        if let Some(more) = other
            .series
            .keys()
            .find(|it| !self.series.contains_key(*it))
        {
            return Some(format!("adds {more}"));
        }
        self.series
            .iter()
            .zip(other.series.values())
            .find_map(|((name, ours), theirs)| {
                if ours.len() != theirs.len() {
                    return Some(format!(
                        "{} points instead of {} in {name}",
                        theirs.len(),
                        ours.len()
                    ));
                }
                let (left, right) = ours
                    .iter()
                    .zip(theirs)
                    .find(|(left, right)| !same_point(left, right))?;
                Some(format!("{right:?} instead of {left:?} in {name}"))
            })
    }
}

fn point(value: &Value) -> anyhow::Result<(f64, f64)> {
    let time = value[0].as_f64().context("a point without a time")?;
    let number = value[1]
        .as_str()
        .and_then(|it| it.parse().ok())
        .context("a point without a value")?;
    Ok((time, number))
}

fn same_point(left: &(f64, f64), right: &(f64, f64)) -> bool {
    left.0 == right.0 && same_number(left.1, right.1)
}

fn same_number(left: f64, right: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= TOLERANCE * left.abs().max(right.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &str, right: &str, expected: Option<&str>) {
        let wrap =
            |it: &str| Answer::parse(&format!("{{\"status\":\"success\",\"data\":{it}}}")).unwrap();
        assert_eq!(wrap(left).difference(&wrap(right)).as_deref(), expected);
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
