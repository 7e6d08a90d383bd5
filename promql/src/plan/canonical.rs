//! The canonical form of a query, see [`Canonical`].

use std::fmt::Write as _;

use isobar_model::labels::write_quoted;

use super::build::{Built, clamp_time};
use super::calls::absent_labels;
use super::duration::duration_ms;
use super::invariant::strip;
use super::{PlanError, PlanParams};
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
    let mut writer = Writer {
        params,
        in_parameter: false,
    };
    let form = writer.any(expr)?;
    Ok(Canonical(format!("{head}: {form}")))
}

struct Writer<'a> {
    params: &'a PlanParams<'a>,
    /// In the parameter of an aggregation, where `@` means something else.
    in_parameter: bool,
}

/// A part of the form; numbers are kept until it is clear that they fold no further.
enum Form {
    Number(f64),
    Text(String),
}

impl Form {
    fn text(self) -> String {
        match self {
            Form::Number(value) if value.is_nan() => "NaN".to_owned(),
            // -0 and 0 are not the same.
            Form::Number(value) => format!("{value:?}"),
            Form::Text(text) => text,
        }
    }
}

impl Writer<'_> {
    fn any(&mut self, expr: &Expr) -> Built<String> {
        Ok(self.form(expr)?.text())
    }

    fn form(&mut self, expr: &Expr) -> Built<Form> {
        Ok(match expr {
            Expr::Number(number) => Form::Number(number.value),
            Expr::Paren(paren) => self.form(&paren.expr)?,
            Expr::Unary(unary) => match self.form(&unary.expr)? {
                inner if !unary.negative => inner,
                Form::Number(value) => Form::Number(-value),
                Form::Text(text) => Form::Text(format!("-({text})")),
            },
            Expr::String(string) => Form::Text(match &string.bytes {
                Some(bytes) => quoted_bytes(bytes),
                None => quoted(&string.value),
            }),
            Expr::VectorSelector(selector) => {
                let mut text = self.selector(selector);
                self.times(selector.at, &selector.offset, &mut text)?;
                Form::Text(text)
            }
            Expr::MatrixSelector(matrix) => {
                let mut text = self.selector(&matrix.selector);
                let _ = write!(text, "[{}]", self.duration(&matrix.range)?);
                self.times(matrix.selector.at, &matrix.selector.offset, &mut text)?;
                Form::Text(text)
            }
            Expr::Subquery(subquery) => Form::Text(self.subquery(subquery)?),
            Expr::Aggregate(aggregate) => Form::Text(self.aggregate(aggregate)?),
            Expr::Binary(binary) => self.binary(binary)?,
            Expr::Call(call) => self.call(call)?,
        })
    }

    fn selector(&self, selector: &VectorSelector) -> String {
        let mut matchers: Vec<String> = selector.matchers.iter().map(|m| m.to_string()).collect();
        matchers.sort_unstable();
        matchers.dedup();
        let edges = match (selector.anchored, selector.smoothed) {
            (true, _) => " anchored",
            (_, true) => " smoothed",
            _ => "",
        };
        format!("{{{}}}{edges}", matchers.join(","))
    }

    fn duration(&self, duration: &Duration) -> Built<i64> {
        match &duration.expr {
            Some(expr) => duration_ms(expr, self.params, false),
            None => Ok(duration.ms),
        }
    }

    /// Writes where the steps look.
    fn times(&self, at: Option<At>, offset: &Offset, text: &mut String) -> Built<()> {
        let at_ms = match at {
            None => None,
            Some(At::Preprocessor(_)) if self.in_parameter => None,
            Some(At::Timestamp(ms)) => Some(clamp_time(ms)),
            Some(At::Preprocessor(AtPreprocessor::Start)) => Some(self.params.start_ms),
            Some(At::Preprocessor(AtPreprocessor::End)) => Some(self.params.end_ms),
        };
        if let Some(at_ms) = at_ms {
            let _ = write!(text, " @{at_ms}");
            if self.in_parameter {
                // It fixes only where the first step looks.
                let _ = write!(text, " from {}", self.params.start_ms);
            }
        }
        let offset_ms = match &offset.expr {
            Some(expr) => duration_ms(expr, self.params, true)?,
            None => offset.ms,
        };
        if offset_ms != 0 {
            let _ = write!(text, " offset {offset_ms}");
        }
        Ok(())
    }

    fn subquery(&mut self, subquery: &Subquery) -> Built<String> {
        let range_ms = self.duration(&subquery.range)?;
        let step_ms = match &subquery.step {
            Some(step) => self.duration(step)?,
            None => 0,
        };
        let step_ms = match step_ms {
            0 => self.params.subquery_step_ms,
            step_ms => step_ms,
        };
        let inner = self.any(&subquery.expr)?;
        let mut text = format!("({inner})[{range_ms}:{step_ms}]");
        self.times(subquery.at, &subquery.offset, &mut text)?;
        Ok(text)
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Built<String> {
        let mut text = aggregate.op.as_str().to_owned();
        if aggregate.without || !aggregate.grouping.is_empty() {
            text.push_str(if aggregate.without { " without" } else { " by" });
            text.push_str(&names(&aggregate.grouping));
        }
        text.push('(');
        if let Some(param) = &aggregate.param {
            let around = std::mem::replace(&mut self.in_parameter, true);
            let param = self.any(param);
            self.in_parameter = around;
            text.push_str(&param?);
            text.push(',');
        }
        text.push_str(&self.any(&aggregate.expr)?);
        text.push(')');
        Ok(text)
    }

    fn binary(&mut self, binary: &Binary) -> Built<Form> {
        let op = binary.op;
        let scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
        let (scalar_left, scalar_right) = (scalar(&binary.lhs), scalar(&binary.rhs));
        let (lhs, rhs) = (self.form(&binary.lhs)?, self.form(&binary.rhs)?);
        if let (Form::Number(left), Form::Number(right)) = (&lhs, &rhs) {
            return Ok(Form::Number(scalar_binary(op, *left, *right)));
        }
        let (mut lhs, mut rhs) = (lhs.text(), rhs.text());
        // A sum of vectors is not the same the other way round: errors and remarks tell sides.
        let commutes = match (scalar_left, scalar_right) {
            (true, true) => matches!(op, BinaryOp::Add | BinaryOp::Mul) && lhs > rhs,
            (true, false) => op == BinaryOp::Mul,
            _ => false,
        };
        if commutes {
            std::mem::swap(&mut lhs, &mut rhs);
        }
        let bool = if binary.return_bool { " bool" } else { "" };
        let matching = binary.matching.as_ref().map_or(String::new(), matching);
        Ok(Form::Text(format!(
            "({lhs}) {}{bool}{matching} ({rhs})",
            op.as_str()
        )))
    }

    fn call(&mut self, call: &Call) -> Built<Form> {
        let name = call.func.name;
        let seconds = |ms: i64| Form::Number(ms as f64 / 1000.0);
        let (start_ms, end_ms) = (self.params.start_ms, self.params.end_ms);
        let args: Vec<&Expr> = call.args.iter().map(strip).collect();
        Ok(match (name, args.as_slice()) {
            ("pi", []) => Form::Number(std::f64::consts::PI),
            ("start", []) => seconds(start_ms),
            ("end", []) => seconds(end_ms),
            ("range", []) => seconds(end_ms - start_ms),
            ("step", []) if start_ms == end_ms => Form::Number(0.0),
            ("step", []) => seconds(self.params.step_ms),
            ("max_of" | "min_of", [left, right]) => match (self.form(left)?, self.form(right)?) {
                (Form::Number(left), Form::Number(right)) if name == "max_of" => {
                    Form::Number(go_max(left, right))
                }
                (Form::Number(left), Form::Number(right)) => Form::Number(go_min(left, right)),
                (left, right) => Form::Text(format!("{name}({},{})", left.text(), right.text())),
            },
            ("round", [input]) => Form::Text(format!("round({},1.0)", self.any(input)?)),
            ("absent" | "absent_over_time", [input]) => {
                // Which labels it gives depends on the order in which the matchers are written.
                let labels = match input {
                    Expr::VectorSelector(selector) => absent_labels(&selector.matchers).to_string(),
                    Expr::MatrixSelector(matrix) => {
                        absent_labels(&matrix.selector.matchers).to_string()
                    }
                    _ => String::new(),
                };
                Form::Text(format!("{name}{labels}({})", self.any(input)?))
            }
            (_, args) => {
                let args = args.iter().map(|arg| self.any(arg));
                let args = args.collect::<Result<Vec<_>, PlanError>>()?;
                Form::Text(format!("{name}({})", args.join(",")))
            }
        })
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
            let _ = write!(text, " fill_{side}({})", Form::Number(fill).text());
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
                "v1 range step=60000 lookback=300000: (sum by(\"instance\",\"job\")(rate({__name__=\"http_requests_total\",code=~\"5..\"}[300000]))) * (100.0)",
                "1d10cff0221fdeb5bebb28b835f861b7",
            ),
            (
                "x @ end() offset 1m unless on (a) -y",
                "v1 range step=60000 lookback=300000: ({__name__=\"x\"} @3600000 offset 60000) unless on(\"a\") (-({__name__=\"y\"}))",
                "734b9ccce856553727972f13337bbcdd",
            ),
            (
                "1 + time()",
                "v1 range step=60000 lookback=300000: (1.0) + (time())",
                "8289616f2fc271e913f4502b8c8076b1",
            ),
        ] {
            let form = form(query, 0);
            assert_eq!(form.as_str(), text);
            assert_eq!(format!("{:032x}", form.hash()), hash);
        }
    }
}
