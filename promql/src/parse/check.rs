//! Whether the types of an expression fit. Runs when the syntax is known to be right, and finds
//! faults in the order in which Prometheus does.

use hashbrown::HashSet;

use super::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, Span, ValueType,
    VectorSelector,
};
use super::error::{Fault, Parsed, quoted};

/// Checks `expr`, which stands in `text`, and gives its type.
pub(super) fn check(expr: &Expr, text: &str) -> Parsed<ValueType> {
    Checker { text }.expr(expr)
}

impl ValueType {
    /// What the documentation calls the type.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }

    /// What the API calls the type.
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }
}

impl BinaryOp {
    /// Whether the operator compares numbers.
    pub fn is_comparison(self) -> bool {
        use BinaryOp as B;
        matches!(self, B::Eq | B::Ne | B::Le | B::Lt | B::Ge | B::Gt)
    }

    /// Whether the operator treats vectors as sets.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn expr(&self, expr: &Expr) -> Parsed<ValueType> {
        match expr {
            Expr::Binary(binary) => self.binaries(binary),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Call(call) => self.call(call),
            Expr::Paren(paren) => self.expr(&paren.expr),
            Expr::Unary(unary) => match self.expr(&unary.expr)? {
                found @ (ValueType::Scalar | ValueType::Vector) => Ok(found),
                found => Err(Fault::types(
                    expr.span(),
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant \
                         vector, got {}",
                        quoted(found.documented())
                    ),
                )),
            },
            Expr::Subquery(subquery) => match self.expr(&subquery.expr)? {
                ValueType::Vector => Ok(ValueType::Matrix),
                found => Err(Fault::types(
                    expr.span(),
                    format!(
                        "subquery is only allowed on instant vector, got {} instead",
                        found.as_str()
                    ),
                )),
            },
            Expr::MatrixSelector(matrix) => {
                check_selector(&matrix.selector)?;
                Ok(ValueType::Matrix)
            }
            Expr::VectorSelector(selector) => {
                check_selector(selector)?;
                Ok(ValueType::Vector)
            }
            Expr::Number(_) => Ok(ValueType::Scalar),
            Expr::String(_) => Ok(ValueType::String),
        }
    }

    /// A chain of operations that lean to the left, which can be long: `1 + 1 + 1 + …`.
    fn binaries(&self, top: &Binary) -> Parsed<ValueType> {
        let mut chain = vec![top];
        let mut first = &top.lhs;
        while let Expr::Binary(binary) = first {
            chain.push(binary);
            first = &binary.lhs;
        }
        let mut left = self.expr(first)?;
        for binary in chain.into_iter().rev() {
            let right = self.expr(&binary.rhs)?;
            left = self.binary(binary, left, right)?;
        }
        Ok(left)
    }

    fn binary(&self, e: &Binary, left: ValueType, right: ValueType) -> Parsed<ValueType> {
        use ValueType::{Scalar, Vector};
        let whole = || Span {
            start: e.lhs.span().start,
            end: e.rhs.span().end,
        };
        if e.return_bool && !e.op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            return Err(Fault::types(self.operator_span(e), message));
        }
        if e.op.is_comparison() && !e.return_bool && (left, right) == (Scalar, Scalar) {
            let message = "comparisons between scalars must use BOOL modifier";
            return Err(Fault::types(self.operator_span(e), message));
        }
        if let Some(matching) = &e.matching
            && matching.on
            && let Some(label) = first_in_both(&matching.labels, &matching.include)
        {
            let label = quoted(label);
            let message = format!("label {label} must not occur in ON and GROUP clause at once");
            return Err(Fault::types(self.operator_span(e), message));
        }
        for (operand, found) in [(&e.lhs, left), (&e.rhs, right)] {
            if found != Scalar && found != Vector {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err(Fault::types(operand.span(), message));
            }
        }
        match &e.matching {
            Some(matching) if left != Vector || right != Vector => {
                let message = if matching.labels.is_empty() {
                    "filling in missing series only allowed between instant vectors"
                } else {
                    "vector matching only allowed between instant vectors"
                };
                return Err(Fault::types(whole(), message));
            }
            Some(matching) if e.op.is_set() => {
                if matching.cardinality != Cardinality::ManyToMany {
                    let op = quoted(e.op.as_str());
                    let message = format!("no grouping allowed for {op} operation");
                    return Err(Fault::types(whole(), message));
                }
                if matching.fill_left.is_some() || matching.fill_right.is_some() {
                    let message = "filling in missing series not allowed for set operators";
                    return Err(Fault::types(whole(), message));
                }
            }
            _ => {}
        }
        if e.op.is_set() && (left == Scalar || right == Scalar) {
            let op = quoted(e.op.as_str());
            let message = format!("set operator {op} not allowed in binary scalar expression");
            return Err(Fault::types(whole(), message));
        }
        Ok(if (left, right) == (Scalar, Scalar) {
            Scalar
        } else {
            Vector
        })
    }

    /// Where the operator and its modifiers stand: from the first character that is no space to
    /// the start of the last, as Prometheus has it.
    fn operator_span(&self, e: &Binary) -> Span {
        let bytes = self.text.as_bytes();
        let is_space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        let lhs_end = e.lhs.span().end.min(bytes.len());
        let rhs_start = e.rhs.span().start.min(bytes.len());
        let start = bytes[lhs_end..].iter().position(|b| !is_space(b));
        let end = bytes[..rhs_start].iter().rposition(|b| !is_space(b));
        Span {
            start: start.map_or(lhs_end, |skipped| lhs_end + skipped),
            end: end.unwrap_or_default(),
        }
    }

    fn aggregate(&self, e: &Aggregate) -> Parsed<ValueType> {
        self.expect(&e.expr, ValueType::Vector, "aggregation expression")?;
        if let Some(param) = &e.param {
            let wanted = match e.op {
                AggregateOp::CountValues => ValueType::String,
                _ => ValueType::Scalar,
            };
            self.expect(param, wanted, "aggregation parameter")?;
        }
        Ok(ValueType::Vector)
    }

    fn expect(&self, expr: &Expr, wanted: ValueType, place: &str) -> Parsed<()> {
        let found = self.expr(expr)?;
        if found == wanted {
            return Ok(());
        }
        let (wanted, found) = (wanted.documented(), found.documented());
        Err(Fault::types(
            expr.span(),
            format!("expected type {wanted} in {place}, got {found}"),
        ))
    }

    fn call(&self, e: &Call) -> Parsed<ValueType> {
        check_arg_count(e)?;
        let is_info = e.func.name == "info";
        if is_info && let Some(labels) = e.args.get(1) {
            check_info_labels(e, labels)?;
        }
        for (i, arg) in e.args.iter().enumerate() {
            let Some(wanted) = e.func.args.get(i).or(e.func.args.last()) else {
                break;
            };
            if is_info && i == 1 {
                // The one selector that may match everything.
                if let Expr::VectorSelector(selector) = arg {
                    check_name_once(selector)?;
                }
                continue;
            }
            self.expect(
                arg,
                *wanted,
                &format!("call to function {}", quoted(e.func.name)),
            )?;
        }
        Ok(e.func.returns)
    }
}

/// The first of `labels` that is among `others` too.
fn first_in_both<'a>(labels: &'a [String], others: &[String]) -> Option<&'a String> {
    if others.is_empty() {
        return None;
    }
    let others: HashSet<&String> = others.iter().collect();
    labels.iter().find(|label| others.contains(label))
}

fn check_arg_count(e: &Call) -> Parsed<()> {
    let (named, given) = (e.func.args.len(), e.args.len());
    let (bound, count) = match e.func.variadic {
        0 if named == given => return Ok(()),
        0 => ("", named),
        _ if given + 1 < named => ("at least ", named - 1),
        more => match usize::try_from(more) {
            Ok(more) if given + 1 > named + more => ("at most ", named - 1 + more),
            _ => return Ok(()),
        },
    };
    let name = quoted(e.func.name);
    let message = format!("expected {bound}{count} argument(s) in call to {name}, got {given}");
    Err(Fault::types(e.span, message))
}

/// The second argument of `info` is a selector without a name in front.
fn check_info_labels(e: &Call, labels: &Expr) -> Parsed<()> {
    let found = labels.value_type();
    if found != ValueType::Vector {
        let message = format!(
            "expected type instant vector in call to function \"info\", got {}",
            found.documented()
        );
        return Err(Fault::types(e.span, message));
    }
    match labels {
        Expr::VectorSelector(selector) if selector.name.is_none() => Ok(()),
        Expr::VectorSelector(_) => Err(Fault::types(
            labels.span(),
            "expected label selectors only, got vector selector instead",
        )),
        _ => Err(Fault::types(labels.span(), "expected label selectors only")),
    }
}

fn check_selector(selector: &VectorSelector) -> Parsed<()> {
    if selector.name.is_some() {
        return check_name_once(selector);
    }
    if selector.matchers.iter().all(|m| m.matches_empty()) {
        let message = "vector selector must contain at least one non-empty matcher";
        return Err(Fault::types(selector.span, message));
    }
    Ok(())
}

/// A name in front of the braces and one inside do not go together.
fn check_name_once(selector: &VectorSelector) -> Parsed<()> {
    let (Some(name), Some((_, inside))) = (&selector.name, selector.matchers.split_last()) else {
        return Ok(());
    };
    match inside.iter().find(|m| m.name() == "__name__") {
        None => Ok(()),
        Some(second) => {
            let (name, second) = (quoted(name), quoted(second.value()));
            let message = format!("metric name must not be set twice: {name} or {second}");
            Err(Fault::types(selector.span, message))
        }
    }
}
