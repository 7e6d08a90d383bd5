//! Draws queries: typed, so that nearly all are valid, and of a bounded depth.

use std::collections::BTreeMap;

use crate::harness::Random;

use super::requests::{ODD_MS, seconds};

/// What can be selected.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    /// For each metric the values of each of its labels.
    pub(super) metrics: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// Functions of one range.
const RANGE: [&str; 29] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "first_over_time",
    "mad_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "rate",
    "rate",
    "increase",
    "avg_over_time",
    "max_over_time",
];

/// Functions of one vector.
const UNARY: [&str; 35] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "round",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "deg",
    "rad",
    "timestamp",
    "absent",
    "sort",
    "sort_desc",
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
];

const AGGREGATIONS: [&str; 11] = [
    "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "sum", "max", "count",
];
const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const NUMBERS: [&str; 19] = [
    "0", "1", "2", "0.5", "-1", "100", "1e6", "NaN", "Inf", "-Inf", "1e-3", "0x1F", "3.7", "1e308",
    "time()", "pi()", "-0.0", "0.9", "300",
];
pub(super) const RANGES: [&str; 10] = [
    "15s",
    "30s",
    "1m",
    "1m30s",
    "2m",
    "5m",
    "10m1s",
    "30m",
    "1h",
    "5m17s250ms",
];
const OFFSETS: [&str; 6] = ["15s", "1m", "5m", "-1m", "1h", "-5m"];

/// Whether the last digits of a sum, which are free, may change a result altogether: what is left
/// of a division by it, or when the largest of values that are equal but for them was. Or whether
/// the labels of an `absent` depend on the order of matchers: Prometheus sorts them when it has
/// data at that time, and leaves them as they were written when it has none.
pub(super) fn unsteady(query: &str) -> bool {
    if query.to_lowercase().contains("absent") && query.split('{').any(matched_twice) {
        return true;
    }
    let rounded = ["stddev", "stdvar", "avg"]
        .iter()
        .any(|name| query.contains(name));
    let over_subquery = query.contains(':')
        && ["ts_of_m", "changes", "resets"]
            .iter()
            .any(|name| query.contains(name));
    let far_from_zero = query.contains("std") && query.contains("ts_of_");
    far_from_zero || rounded && (query.contains(" % ") || over_subquery)
}

/// Whether a label comes twice among the matchers with which a text begins.
fn matched_twice(text: &str) -> bool {
    let matchers = text.split('}').next().unwrap_or_default().split(',');
    let mut names: Vec<&str> = matchers
        .filter_map(|matcher| matcher.split(['=', '!']).next())
        .map(str::trim)
        .collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// A query being written. Labels of the metric last selected are grouped and matched by.
pub(super) struct Writer<'a> {
    pub(super) random: &'a mut Random,
    pub(super) vocabulary: &'a Vocabulary,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) modern: bool,
    pub(super) labels: Vec<String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        random: &'a mut Random,
        vocabulary: &'a Vocabulary,
        (start_ms, end_ms): (i64, i64),
        modern: bool,
    ) -> Self {
        Writer {
            random,
            vocabulary,
            start_ms,
            end_ms,
            modern,
            labels: Vec::new(),
        }
    }

    /// A whole query.
    pub(super) fn query(&mut self) -> String {
        let depth = 1 + self.random.below(5);
        match self.random.below(100) {
            0 => "\"a \\\"text\\\" \\u00e9\"".to_owned(),
            1..3 => self.scalar(depth),
            3..8 => self.pick_some(depth),
            8..11 if self.modern => self.range_vector(),
            _ => self.vector(depth),
        }
    }

    /// A query that is cut, doubled or mixed up somewhere, mostly not valid any more.
    pub(super) fn broken(&mut self) -> String {
        let mut chars: Vec<char> = self.query().chars().collect();
        let at = self.random.below(chars.len() as u64) as usize;
        match self.random.below(4) {
            0 => chars.truncate(at),
            1 => drop(chars.remove(at)),
            2 => chars.insert(at, chars[chars.len() - 1]),
            _ => chars.insert(
                at,
                *self
                    .random
                    .pick(&['(', ')', '[', '{', '"', ',', '@', '=', '~', 'a', '5', ' ']),
            ),
        }
        chars.into_iter().collect()
    }

    /// Aggregations that keep some of the series. Which of equal ones is free, and so they stand
    /// outermost only.
    fn pick_some(&mut self, depth: u64) -> String {
        let op = *self.random.pick(&["topk", "bottomk", "limitk", "topk"]);
        let inner = self.vector(depth);
        let count = self.random.pick(&["1", "2", "3", "5", "2.7", "0", "100"]);
        format!("{op}({count}, {inner})")
    }

    pub(super) fn vector(&mut self, depth: u64) -> String {
        if depth == 0 {
            return self.instant();
        }
        if self.modern && self.random.chance(15) {
            return self.modern_vector(depth - 1);
        }
        match self.random.below(100) {
            0..8 => self.instant(),
            8..34 => self.range_function(depth),
            34..54 => self.aggregation(depth - 1),
            54..62 => self.with_scalar(depth - 1),
            62..74 => self.binary(depth - 1),
            74..80 => self.set(depth - 1),
            80..87 => self.unary(depth - 1),
            87..90 => self.label_function(depth - 1),
            90..94 => self.quantile_of_histogram(),
            94..96 => format!("-{}", self.parens(depth - 1)),
            96..97 => format!("vector({})", self.scalar(depth - 1)),
            _ => self.clamp(depth - 1),
        }
    }

    pub(super) fn parens(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        format!("({inner})")
    }

    pub(super) fn selector(&mut self) -> String {
        let metrics: Vec<&String> = self.vocabulary.metrics.keys().collect();
        let native: Vec<&String> = metrics
            .iter()
            .filter(|m| m.contains("native"))
            .copied()
            .collect();
        let metrics = if self.random.chance(15) && !native.is_empty() {
            native
        } else {
            metrics
        };
        let metric = (*self.random.pick(&metrics)).clone();
        if self.random.chance(3) {
            // Two metrics at once: without their names their series may fall together.
            let other = (*self.random.pick(&metrics)).clone();
            self.selector_of(&metric);
            return format!("{{__name__=~\"{metric}|{other}\"}}");
        }
        self.selector_of(&metric)
    }

    fn selector_of(&mut self, metric: &str) -> String {
        let vocabulary = self.vocabulary;
        let labels = &vocabulary.metrics[metric];
        self.labels = labels.keys().cloned().collect();
        if labels.is_empty() || self.random.chance(50) {
            return metric.to_owned();
        }
        let count = 1 + self.random.below(2);
        let matchers: Vec<String> = (0..count)
            .map(|_| {
                let (name, values) = self
                    .random
                    .pick(&labels.iter().collect::<Vec<_>>())
                    .to_owned();
                self.matcher(name, values)
            })
            .collect();
        format!("{metric}{{{}}}", matchers.join(","))
    }

    fn matcher(&mut self, name: &str, values: &[String]) -> String {
        let value = self.random.pick(values).clone();
        let quoted = |text: &str| {
            format!(
                "\"{}\"",
                text.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n")
            )
        };
        let plain: String = value
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        match self.random.below(7) {
            0..3 => format!("{name}={}", quoted(&value)),
            3 => format!("{name}!={}", quoted(&value)),
            4 => format!("{name}=~{}", quoted(&format!("{plain}.*"))),
            5 => format!("{name}!~{}", quoted(&format!("{plain}.*|x"))),
            _ => (*self.random.pick(&[
                "no_such_label!~\".*\"",
                "no_such_label=\"\"",
                "no_such_label!~\".+\"",
            ]))
            .to_owned(),
        }
    }

    /// `@` and `offset`, mostly neither.
    pub(super) fn modifiers(&mut self) -> String {
        let mut text = String::new();
        if self.random.chance(5) {
            let span = (self.end_ms - self.start_ms) as u64;
            let at_ms = (self.start_ms + self.random.below(span) as i64) / 1000 * 1000 + ODD_MS;
            let at = seconds(at_ms);
            text.push_str(&format!(
                " @ {}",
                self.random.pick(&["start()", "end()", &at])
            ));
        }
        if self.modern && self.random.chance(2) {
            let offset =
                self.random
                    .pick(&["step()", "(1m + 30s)", "-(2 * 15s)", "1.5", "range()"]);
            text.push_str(&format!(" offset {offset}"));
        } else if self.random.chance(10) {
            text.push_str(&format!(" offset {}", self.random.pick(&OFFSETS)));
        }
        text
    }

    pub(super) fn instant(&mut self) -> String {
        let selector = self.selector();
        let smooth = if self.modern && self.random.chance(3) {
            " smoothed"
        } else {
            ""
        };
        format!("{selector}{smooth}{}", self.modifiers())
    }

    /// A range of samples or of a subquery.
    fn matrix(&mut self, depth: u64) -> String {
        let range = *self.random.pick(&RANGES);
        if depth > 0 && self.random.chance(15) {
            let inner = if self.random.chance(60) {
                self.selector()
            } else {
                self.parens(depth - 1)
            };
            let step = self.random.pick(&["", "15s", "1m", "30s", "7s", "5m"]);
            return format!("{inner}[{range}:{step}]{}", self.modifiers());
        }
        let selector = self.selector();
        let range = if self.modern && self.random.chance(5) {
            *self.random.pick(&[
                "300",
                "2 * 1m",
                "step()",
                "1m + 30",
                "range()",
                "max_of(step(), 5m)",
            ])
        } else {
            range
        };
        format!("{selector}[{range}]{}", self.modifiers())
    }

    fn range_function(&mut self, depth: u64) -> String {
        if self.modern && self.random.chance(6) {
            let function = self.random.pick(&[
                "rate",
                "increase",
                "delta",
                "changes",
                "resets",
                "avg_over_time",
            ]);
            let kind = self.random.pick(&["anchored", "smoothed"]);
            let range = self.random.pick(&RANGES);
            let selector = self.selector();
            return format!("{function}({selector}[{range}] {kind}{})", self.modifiers());
        }
        let matrix = self.matrix(depth);
        match self.random.below(30) {
            0..2 => {
                let q = self
                    .random
                    .pick(&["0.9", "0", "1", "0.5", "NaN", "-1", "2", "0.25"]);
                format!("quantile_over_time({q}, {matrix})")
            }
            2 => format!(
                "predict_linear({matrix}, {})",
                self.random.pick(&["60", "3600", "-300", "1e5"])
            ),
            3 => {
                let factors = self.random.pick(&["0.5, 0.1", "0.3, 0.3", "0.9, 0.9"]);
                format!("double_exponential_smoothing({matrix}, {factors})")
            }
            _ => format!("{}({matrix})", self.random.pick(&RANGE)),
        }
    }

    fn grouping(&mut self) -> String {
        let mut labels = Vec::new();
        for _ in 0..self.random.below(3) {
            if !self.labels.is_empty() {
                labels.push(self.random.pick(&self.labels).clone());
            }
        }
        labels.dedup();
        let word = if self.random.chance(80) {
            "by"
        } else {
            "without"
        };
        format!("{word} ({})", labels.join(", "))
    }

    fn aggregation(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        let grouping = self.grouping();
        match self.random.below(16) {
            0 => format!(
                "quantile {grouping} ({}, {inner})",
                self.random
                    .pick(&["0.9", "0.5", "0", "1", "NaN", "-2", "7"])
            ),
            1 => format!("count_values {grouping} (\"value\", {inner})"),
            2 => {
                let ratio = self
                    .random
                    .pick(&["0.5", "-0.5", "0.1", "1", "-0.9", "2", "0"]);
                format!("limit_ratio({ratio}, {inner})")
            }
            3..6 => format!("{}({inner})", self.random.pick(&AGGREGATIONS)),
            _ => format!("{} {grouping} ({inner})", self.random.pick(&AGGREGATIONS)),
        }
    }

    fn scalar(&mut self, depth: u64) -> String {
        match self.random.below(if depth == 0 { 7 } else { 10 }) {
            0..7 => (*self.random.pick(&NUMBERS)).to_owned(),
            7 => {
                let inner = self.vector(depth - 1);
                format!("scalar(max({inner}))")
            }
            8 => format!(
                "(1 {} {})",
                self.random.pick(&ARITHMETIC),
                self.scalar(depth - 1)
            ),
            _ => format!(
                "(2 {} bool {})",
                self.random.pick(&COMPARISONS),
                self.scalar(depth - 1)
            ),
        }
    }

    pub(super) fn operator(&mut self) -> String {
        match self.random.below(10) {
            0..6 => (*self.random.pick(&ARITHMETIC)).to_owned(),
            6..8 => (*self.random.pick(&COMPARISONS)).to_owned(),
            _ => format!("{} bool", self.random.pick(&COMPARISONS)),
        }
    }

    fn with_scalar(&mut self, depth: u64) -> String {
        let (vector, scalar) = (self.parens(depth), self.scalar(depth));
        let op = self.operator();
        if self.random.chance(70) {
            format!("{vector} {op} {scalar}")
        } else {
            format!("{scalar} {op} {vector}")
        }
    }

    /// Both sides of an operator between vectors with the words of matching between them.
    fn binary(&mut self, depth: u64) -> String {
        let op = self.operator();
        let fill = if self.modern && self.random.chance(8) {
            format!(
                " {}(0)",
                self.random.pick(&["fill", "fill_left", "fill_right"])
            )
        } else {
            String::new()
        };
        match self.random.below(5) {
            4 => {
                let (left, right) = (self.selector(), self.selector());
                let label = if self.labels.is_empty() {
                    "job"
                } else {
                    self.random.pick(&self.labels)
                };
                format!("{left} {op} ignoring ({label}){fill} {right}")
            }
            0 => {
                let (left, right) = (self.parens(depth), self.parens(depth));
                format!("{left} {op}{fill} {right}")
            }
            1 => {
                let selector = self.selector();
                let range = self.random.pick(&RANGES);
                format!("max_over_time({selector}[{range}]) {op}{fill} {selector}")
            }
            2 => {
                let left = self.vector(depth);
                let by = self.grouping();
                let (a, b) = (
                    self.random.pick(&AGGREGATIONS),
                    self.random.pick(&AGGREGATIONS),
                );
                format!("{a} {by} ({left}) {op}{fill} {b} {by} ({left})")
            }
            _ => {
                let left = self.selector();
                let on = if self.labels.is_empty() {
                    String::new()
                } else {
                    self.random.pick(&self.labels).clone()
                };
                let extra = if self.random.chance(20) && !self.labels.is_empty() {
                    self.random.pick(&self.labels).clone()
                } else {
                    String::new()
                };
                let agg = self.random.pick(&AGGREGATIONS);
                let right = self.selector();
                if self.random.chance(60) {
                    format!(
                        "{left} {op} on ({on}) group_left ({extra}){fill} {agg} by ({on}) ({right})"
                    )
                } else {
                    format!(
                        "{agg} by ({on}) ({right}) {op} on ({on}) group_right ({extra}){fill} {left}"
                    )
                }
            }
        }
    }

    fn set(&mut self, depth: u64) -> String {
        let op = *self.random.pick(&["and", "or", "unless"]);
        let left = self.parens(depth);
        let matching = match self.random.below(4) {
            0 if !self.labels.is_empty() => format!(" on ({})", self.random.pick(&self.labels)),
            1 if !self.labels.is_empty() => {
                format!(" ignoring ({})", self.random.pick(&self.labels))
            }
            2 => " on ()".to_owned(),
            _ => String::new(),
        };
        let right = self.parens(depth);
        format!("{left} {op}{matching} {right}")
    }

    fn unary(&mut self, depth: u64) -> String {
        let function = *self.random.pick(&UNARY);
        let inner = self.vector(depth);
        if self.modern && self.random.chance(6) {
            let of = self
                .random
                .pick(&["count", "sum", "avg", "stddev", "stdvar"]);
            return format!("histogram_{of}({inner})");
        }
        if self.modern && self.random.chance(2) {
            return format!("info({inner}, {{__name__=~\"build_info|kube_pod_info\"}})");
        }
        if self.modern && self.random.chance(2) {
            return format!("start_timestamp({inner})");
        }
        if self.modern && self.random.chance(4) {
            return format!("sort_by_label({inner}, \"job\")");
        }
        format!("{function}({inner})")
    }

    fn clamp(&mut self, depth: u64) -> String {
        let (inner, one) = (self.vector(depth), self.scalar(0));
        match self.random.below(4) {
            0 => format!("clamp({inner}, {one}, {})", self.scalar(0)),
            1 => format!("clamp_max({inner}, {one})"),
            2 => format!("clamp_min({inner}, {one})"),
            _ => format!(
                "round({inner}, {})",
                self.random.pick(&["0.1", "10", "1", "0.5", "3"])
            ),
        }
    }

    fn label_function(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        let label = if self.labels.is_empty() {
            "job".to_owned()
        } else {
            self.random.pick(&self.labels).clone()
        };
        match self.random.below(4) {
            0 => format!("label_join({inner}, \"joined\", \"-\", \"{label}\", \"job\")"),
            1 => format!("label_replace({inner}, \"{label}\", \"\", \"\", \"\")"),
            2 => format!("label_replace({inner}, \"new\", \"$1x\", \"{label}\", \"(.).*\")"),
            _ => format!(
                "label_replace({inner}, \"{label}\", \"y${{1}}\", \"{label}\", \".*([a-z]).*\")"
            ),
        }
    }

    fn quantile_of_histogram(&mut self) -> String {
        let buckets: Vec<&String> = self
            .vocabulary
            .metrics
            .keys()
            .filter(|name| name.ends_with("_bucket"))
            .collect();
        if buckets.is_empty() {
            return self.instant();
        }
        let metric = (*self.random.pick(&buckets)).clone();
        let selector = self.selector_of(&metric);
        let range = self.random.pick(&RANGES);
        let label = self.random.pick(&self.labels).clone();
        let q = *self
            .random
            .pick(&["0.9", "0.5", "0", "1", "NaN", "-1", "2", "0.99"]);
        let inner = match self.random.below(4) {
            0 => selector,
            1 => format!("rate({selector}[{range}])"),
            2 => format!("sum by (le) (increase({selector}[{range}]))"),
            _ => format!("sum by (le, {label}) (rate({selector}[{range}]))"),
        };
        match self.random.below(8) {
            0 if self.modern => format!("histogram_quantiles({inner}, \"q\", 0.5, {q})"),
            1 if self.modern => format!("histogram_fraction(0.2, 5, {inner})"),
            _ => format!("histogram_quantile({q}, {inner})"),
        }
    }
}
