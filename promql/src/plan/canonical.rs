//! The canonical form of a query, see [`Canonical`].

use std::fmt::Write as _;

use isobar_model::labels::write_quoted;

use super::PlanParams;
use super::build::{Built, clamp_time};
use super::calls::absent_labels;
use super::duration::duration_ms;
use super::invariant::strip;
use crate::eval::arithmetic::scalar_binary;
use crate::functions::arithmetic::{go_max, go_min};
use crate::parse::ast::{
    Aggregate, At, AtPreprocessor, Binary, BinaryOp, Call, Cardinality, Duration, Expr, Offset,
    Subquery, ValueType, VectorMatching, VectorSelector,
};
use crate::parse::quoted_bytes;

/// Version of the form.
const VERSION: u32 = 1;

/// The canonical form of a query: a text that is equal for queries that mean the same. Caches, and
/// those who ship queries to others, use it or its hash as a key.
///
/// Not in the form are the times of the query, white space, parentheses, how durations and numbers
/// are written, the order of matchers and of labels in groupings, and on which side of `*` a
/// number stands; constants are folded. In the form, resolved to numbers, are step, lookback,
/// offsets, ranges, the step of each subquery, `@`, the features that change answers, and what the
/// query itself asks of its start or end (`@ start()`, `range()`).
///
/// So two queries of one form give the same value, in the same order, at each time at which both
/// have a step, whatever ranges they were asked for: pieces of answers can be put together. Whoever
/// keeps pieces keeps `start % step` beside the hash. Remarks are the same but for the line and the
/// column in them, which are those in the text.
///
/// The form begins with a version, which changes when a query gets another form than before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Canonical(String);

impl Canonical {
    /// The form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// XXH3 of 128 bits, seed 0, over the form in UTF-8. It tells forms apart, but not from those
    /// that somebody made on purpose to have the same hash.
    pub fn hash(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(self.0.as_bytes())
    }
}

/// The form of `expr`, whose types have been checked. Its durations are those of `params`.
pub(super) fn canonical(expr: &Expr, params: &PlanParams<'_>) -> Built<Canonical> {
    let mut head = format!("v{VERSION}");
    match (params.step_ms == 0, params.start_ms == params.end_ms) {
        (true, _) => head.push_str(" instant"),
        // Some functions sort and remark as for one moment then.
        (false, true) => head.push_str(" range of one moment"),
        (false, false) => head.push_str(" range"),
    }
    let (step_ms, lookback_ms) = (params.step_ms, params.lookback_ms);
    // Writing to a string does not fail, here and below.
    let _ = write!(head, " step={step_ms} lookback={lookback_ms}");
    for (on, name) in [
        (params.features.delayed_name_removal, " delayed-names"),
        (params.features.start_timestamps, " start-timestamps"),
        (params.features.type_and_unit_labels, " type-and-unit"),
    ] {
        head.push_str(if on { name } else { "" });
    }
    head.push_str(": ");
    let mut writer = Writer {
        params,
        in_parameter: false,
        out: head,
    };
    writer.write(expr)?;
    Ok(Canonical(writer.out))
}

/// Sides of a sum or product of numbers up to so many bytes are put in order. Others would be
/// copied at each level above.
const SIDES_BYTES_MAX: usize = 1024;

struct Writer<'a> {
    params: &'a PlanParams<'a>,
    /// In the parameter of an aggregation, where `@` means something else.
    in_parameter: bool,
    out: String,
}

impl Writer<'_> {
    /// The number that an expression is, if it is one at all steps.
    fn constant(&self, expr: &Expr) -> Option<f64> {
        match expr {
            Expr::Number(number) => Some(number.value),
            Expr::Paren(paren) => self.constant(&paren.expr),
            Expr::Unary(unary) => {
                let value = self.constant(&unary.expr)?;
                Some(if unary.negative { -value } else { value })
            }
            Expr::Binary(binary) => {
                // The right side is the shorter one of a chain.
                let right = self.constant(&binary.rhs)?;
                Some(scalar_binary(binary.op, self.constant(&binary.lhs)?, right))
            }
            Expr::Call(call) => self.constant_call(call),
            _ => None,
        }
    }

    fn constant_call(&self, call: &Call) -> Option<f64> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let (start_ms, end_ms) = (self.params.start_ms, self.params.end_ms);
        Some(match (call.func.name, call.args.as_slice()) {
            ("pi", []) => std::f64::consts::PI,
            ("start", []) => seconds(start_ms),
            ("end", []) => seconds(end_ms),
            ("range", []) => seconds(end_ms - start_ms),
            ("step", []) if start_ms == end_ms => 0.0,
            ("step", []) => seconds(self.params.step_ms),
            ("max_of", [left, right]) => go_max(self.constant(left)?, self.constant(right)?),
            ("min_of", [left, right]) => go_min(self.constant(left)?, self.constant(right)?),
            _ => return None,
        })
    }

    fn number(&mut self, value: f64) {
        if value.is_nan() {
            self.out.push_str("NaN");
        } else {
            // -0 and 0 are not the same, and print so.
            let _ = write!(self.out, "{value:?}");
        }
    }

    fn write(&mut self, expr: &Expr) -> Built<()> {
        if let Some(value) = self.constant(expr) {
            self.number(value);
            return Ok(());
        }
        match expr {
            Expr::Number(_) => {}
            Expr::Paren(paren) => self.write(&paren.expr)?,
            Expr::Unary(unary) if !unary.negative => self.write(&unary.expr)?,
            Expr::Unary(unary) => {
                self.out.push_str("-(");
                self.write(&unary.expr)?;
                self.out.push(')');
            }
            Expr::String(string) => match &string.bytes {
                Some(bytes) => self.out.push_str(&quoted_bytes(bytes)),
                None => self.out.push_str(&quoted(&string.value)),
            },
            Expr::VectorSelector(selector) => {
                self.selector(selector);
                self.times(selector.at, &selector.offset)?;
            }
            Expr::MatrixSelector(matrix) => {
                self.selector(&matrix.selector);
                let range_ms = self.duration(&matrix.range)?;
                let _ = write!(self.out, "[{range_ms}]");
                self.times(matrix.selector.at, &matrix.selector.offset)?;
            }
            Expr::Subquery(subquery) => self.subquery(subquery)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate)?,
            Expr::Binary(binary) => self.binary(binary)?,
            Expr::Call(call) => self.call(call)?,
        }
        Ok(())
    }

    fn selector(&mut self, selector: &VectorSelector) {
        let mut matchers: Vec<String> = selector.matchers.iter().map(|m| m.to_string()).collect();
        matchers.sort_unstable();
        matchers.dedup();
        let edges = match (selector.anchored, selector.smoothed) {
            (true, _) => " anchored",
            (_, true) => " smoothed",
            _ => "",
        };
        let _ = write!(self.out, "{{{}}}{edges}", matchers.join(","));
    }

    fn duration(&self, duration: &Duration) -> Built<i64> {
        match &duration.expr {
            Some(expr) => duration_ms(expr, self.params, false),
            None => Ok(duration.ms),
        }
    }

    /// Writes where the steps look.
    fn times(&mut self, at: Option<At>, offset: &Offset) -> Built<()> {
        let at_ms = match at {
            None => None,
            Some(At::Preprocessor(_)) if self.in_parameter => None,
            Some(At::Timestamp(ms)) => Some(clamp_time(ms)),
            Some(At::Preprocessor(AtPreprocessor::Start)) => Some(self.params.start_ms),
            Some(At::Preprocessor(AtPreprocessor::End)) => Some(self.params.end_ms),
        };
        if let Some(at_ms) = at_ms {
            let _ = write!(self.out, " @{at_ms}");
            if self.in_parameter {
                // It fixes only where the first step looks.
                let _ = write!(self.out, " from {}", self.params.start_ms);
            }
        }
        let offset_ms = match &offset.expr {
            Some(expr) => duration_ms(expr, self.params, true)?,
            None => offset.ms,
        };
        if offset_ms != 0 {
            let _ = write!(self.out, " offset {offset_ms}");
        }
        Ok(())
    }

    fn subquery(&mut self, subquery: &Subquery) -> Built<()> {
        let range_ms = self.duration(&subquery.range)?;
        let step_ms = match &subquery.step {
            Some(step) => self.duration(step)?,
            None => 0,
        };
        let step_ms = match step_ms {
            0 => self.params.subquery_step_ms,
            step_ms => step_ms,
        };
        self.out.push('(');
        self.write(&subquery.expr)?;
        let _ = write!(self.out, ")[{range_ms}:{step_ms}]");
        self.times(subquery.at, &subquery.offset)
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Built<()> {
        self.out.push_str(aggregate.op.as_str());
        if aggregate.without || !aggregate.grouping.is_empty() {
            let by = if aggregate.without { " without" } else { " by" };
            self.out.push_str(by);
            self.out.push_str(&names(&aggregate.grouping));
        }
        self.out.push('(');
        if let Some(param) = &aggregate.param {
            let around = std::mem::replace(&mut self.in_parameter, true);
            let written = self.write(param);
            self.in_parameter = around;
            written?;
            self.out.push(',');
        }
        self.write(&aggregate.expr)?;
        self.out.push(')');
        Ok(())
    }

    /// The operator, then the sides.
    fn binary(&mut self, binary: &Binary) -> Built<()> {
        let op = binary.op;
        let bool = if binary.return_bool { " bool" } else { "" };
        let matching = binary.matching.as_ref().map_or(String::new(), matching);
        let _ = write!(self.out, "{}{bool}{matching}(", op.as_str());
        let scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
        let (first, second) = match (scalar(&binary.lhs), scalar(&binary.rhs)) {
            // A sum of vectors is not the same the other way round: errors and remarks tell sides.
            (true, false) if op == BinaryOp::Mul => (&binary.rhs, &binary.lhs),
            _ => (&binary.lhs, &binary.rhs),
        };
        let start = self.out.len();
        self.write(first)?;
        let middle = self.out.len();
        self.out.push(',');
        self.write(second)?;
        if matches!(op, BinaryOp::Add | BinaryOp::Mul)
            && self.out.len() - start <= SIDES_BYTES_MAX
            && scalar(first)
            && scalar(second)
            && self.out[start..middle] > self.out[middle + 1..]
        {
            let second = self.out.split_off(middle + 1);
            self.out.truncate(middle);
            self.out.insert_str(start, &format!("{second},"));
        }
        self.out.push(')');
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Built<()> {
        let name = call.func.name;
        self.out.push_str(name);
        let args: Vec<&Expr> = call.args.iter().map(strip).collect();
        // Which labels it gives depends on the order in which the matchers are written.
        match (name, args.as_slice()) {
            ("absent", [Expr::VectorSelector(selector)]) => {
                let _ = write!(self.out, "{}", absent_labels(&selector.matchers));
            }
            ("absent_over_time", [Expr::MatrixSelector(matrix)]) => {
                let _ = write!(self.out, "{}", absent_labels(&matrix.selector.matchers));
            }
            _ => {}
        }
        self.out.push('(');
        for (i, arg) in args.iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.write(arg)?;
        }
        if let ("round", [_]) = (name, args.as_slice()) {
            self.out.push(',');
            self.number(1.0);
        }
        self.out.push(')');
        Ok(())
    }
}

fn matching(matching: &VectorMatching) -> String {
    let mut text = String::new();
    if matching.on || !matching.labels.is_empty() {
        text.push_str(if matching.on { " on" } else { " ignoring" });
        text.push_str(&names(&matching.labels));
    }
    match matching.cardinality {
        Cardinality::ManyToOne => text.push_str(" left"),
        Cardinality::OneToMany => text.push_str(" right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => {}
    }
    if !matching.include.is_empty() {
        text.push_str(&names(&matching.include));
    }
    for (side, fill) in [("left", matching.fill_left), ("right", matching.fill_right)] {
        if let Some(fill) = fill {
            let _ = write!(text, " fill_{side}({fill:?})");
        }
    }
    text
}

/// Label names, the order and repetitions of which mean nothing.
fn names(names: &[String]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    names.sort_unstable();
    names.dedup();
    format!("({})", names.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    let _ = write_quoted(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::super::canonical;
    use super::*;
    use crate::parse::parse_expr;

    fn form(query: &str, start_ms: i64) -> Canonical {
        let expr = parse_expr(query).expect(query);
        let params = PlanParams {
            query,
            start_ms,
            end_ms: start_ms + 3_600_000,
            step_ms: 60_000,
            ..PlanParams::default()
        };
        canonical(&expr, &params).expect(query)
    }

    /// Each line is a group of queries, divided by `|`, that mean the same; no two lines do.
    const GROUPS: &str = r#"
        x | {__name__="x"} | (x) | x{} | +x | {"x"} | x offset 0s
        x{a="1",b=~"2"} | x{b=~"2",a="1"} | {b=~"2",a="1",__name__="x"} | x{a="1",b=~"2",a="1"}
        x{a="1"}
        x{a!="1"}
        y
        x offset 5m | x offset 300s | x offset 300 | x offset (1m * 5)
        x offset -5m
        x @ 60 | x @ 6e1 | (x @ 60.000)
        -x | -(x) | (-x)
        rate(x[5m]) | rate(x[300s]) | rate((x[5m])) | rate(x[300]) | rate(x[2m30s * 2])
        rate(x[5m:]) | rate(x[5m:1m]) | rate(x[5m:60s]) | rate((x)[5m:1m])
        rate(x[5m:30s])
        rate(x[5m] offset 1m) | rate(x[5m] offset 60s)
        irate(x[5m])
        sum by (a, b) (x) | sum by (b, a) (x) | sum(x) by (a, b) | sum by (a, b, a) (x)
        sum(x) | sum by () (x) | sum((x))
        sum without (a) (x)
        sum without () (x)
        x * 2 | 2 * x | (x) * (1 + 1) | x * 2.0 | x * 0x2 | x * max_of(1, 2)
        x + 2
        2 + x
        x * time() | time() * x
        time() + 1 | 1 + time()
        time() - 1
        1 - time()
        x + y
        y + x
        x + ignoring () y * 1 | x + ignoring() 1 * y
        x + on (a, b) y | x + on (b, a) y
        x + on () y
        x * on (a) group_left (b, c) y | x * on (a) group_left (c, b) y
        x * on (a) group_right (b, c) y
        x > 1
        x > bool 1
        x == bool on (a) y
        1 | 0.5 + 0.5 | (1) | --1 | 1s
        -1 | 1 - 2
        vector(0) | vector(1 - 1)
        vector(-0) | vector(0 * -1)
        vector(NaN) | vector(0 / 0) | vector(-NaN)
        round(x) | round(x, 1) | round(x, 2 - 1)
        round(x, 2)
        topk(3, x) | topk(1 + 2, x) | topk(3, x) by ()
        topk(3, x) by (a)
        bottomk(3, x)
        count_values("a", x)
        count_values("b", x)
        label_replace(x, "a", "b", "c", "d")
        label_replace(x, "a", "b", "d", "c")
        absent(x{a="1"})
        absent(x{a="1",a="1"})
        x and y
        x or y
        x unless y
        (x and y) or z | x and y or z
        x and (y or z)
        sum(x) / sum(y) * 100 | 100 * (sum(x) / sum(y)) | (sum by () (x) / sum(y)) * 1e2
        x smoothed
        rate(x[5m] anchored)
        "text"
        'te"xt'
        histogram_quantile(0.9, x) | histogram_quantile(9 / 10, x)
        info(x, {a="1"})
        x + fill (0) y
        x + fill_left (0) y
        x[5m] | x[300s]
        sum(max_over_time((sum(x))[5m:1m])) | sum(max_over_time(sum(x)[5m:]))
        sum(x @ end()) by (a)
    "#;

    #[test]
    fn queries_that_mean_the_same_have_one_form() {
        let mut forms: Vec<(Canonical, &str)> = Vec::new();
        for group in GROUPS.lines().map(str::trim).filter(|it| !it.is_empty()) {
            let mut queries = group.split(" | ");
            let first = queries.next().expect("a query");
            let expected = form(first, 0);
            for query in queries {
                assert_eq!(form(query, 0), expected, "{query}");
                assert_eq!(form(query, 0).hash(), expected.hash());
            }
            for (other, query) in &forms {
                assert_ne!(*other, expected, "{query} and {first}");
                assert_ne!(other.hash(), expected.hash(), "{query} and {first}");
            }
            forms.push((expected, first));
        }
    }

    #[test]
    fn the_range_is_in_the_form_only_where_it_is_asked_for() {
        for (query, stays) in [
            ("sum by (a) (rate(x[5m] offset 1h))", true),
            ("x @ 60 + max_over_time(x[5m:1m])", true),
            ("x * step()", true),
            ("x * range()", true),
            ("time() + topk(scalar(x @ start()), x)", true),
            ("x @ start()", false),
            ("x - start()", false),
            ("max_over_time(x[5m:1m] @ end())", false),
            ("topk(scalar(x @ 60), x)", false),
        ] {
            assert_eq!(form(query, 0) == form(query, 77_000), stays, "{query}");
        }
    }

    /// Hashes are kept by caches of other processes and later versions: a change of these is a
    /// change of the form's version.
    #[test]
    fn forms_and_hashes_stay() {
        for (query, text, hash) in [
            (
                "sum by (job, instance) (rate(http_requests_total{code=~\"5..\"}[5m])) * 100",
                "v1 range step=60000 lookback=300000: *(sum by(\"instance\",\"job\")(rate({__name__=\"http_requests_total\",code=~\"5..\"}[300000])),100.0)",
                "6950f7be8562526751fc41f2b0b93c7c",
            ),
            (
                "x @ end() offset 1m unless on (a) -y",
                "v1 range step=60000 lookback=300000: unless on(\"a\")({__name__=\"x\"} @3600000 offset 60000,-({__name__=\"y\"}))",
                "8c57f3163b334969257a418b1563da86",
            ),
            (
                "1 + time()",
                "v1 range step=60000 lookback=300000: +(1.0,time())",
                "385d792489ab97d6be82c56634e04fdf",
            ),
        ] {
            let form = form(query, 0);
            assert_eq!(form.as_str(), text);
            assert_eq!(format!("{:032x}", form.hash()), hash);
        }
    }
}
