//! The abstract syntax tree. Each node knows the bytes of the query that it was read from.
//!
//! Durations are milliseconds. Where a duration may also be written as an expression
//! (`[5m * 2]`, `offset step()`), the node keeps the expression beside it; the planner resolves
//! it, since `step()` and `range()` are known only then.

use isobar_model::Matcher;

/// A half-open range of byte offsets in the query text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

/// The type of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// A float without labels.
    Scalar,
    /// A string.
    String,
    /// One sample per series (an instant vector).
    Vector,
    /// Many samples per series (a range vector).
    Matrix,
}

/// Any expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `sum by (job) (…)`
    Aggregate(Box<Aggregate>),
    /// `a + on (job) b`
    Binary(Box<Binary>),
    /// `rate(…)`
    Call(Call),
    /// `up[5m]`
    MatrixSelector(Box<MatrixSelector>),
    /// `(…)[5m:1m]`
    Subquery(Box<Subquery>),
    /// `42`, `5m` as a number
    Number(NumberLiteral),
    /// `(…)`
    Paren(Box<Paren>),
    /// `"text"`
    String(StringLiteral),
    /// `-…`, `+…`
    Unary(Box<Unary>),
    /// `up{job="x"}`
    VectorSelector(Box<VectorSelector>),
}

/// An aggregation operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the operator of that name")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

/// An aggregation over a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// The parameter of `topk`, `bottomk`, `quantile`, `count_values`, `limitk`, `limit_ratio`.
    pub param: Option<Expr>,
    /// The labels named behind `by` or `without`, in the order written.
    pub grouping: Vec<String>,
    /// Whether `grouping` names labels to drop (`without`) rather than to keep.
    pub without: bool,
    /// Where it stands.
    pub span: Span,
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<=`
    Le,
    /// `<`
    Lt,
    /// `>=`
    Ge,
    /// `>`
    Gt,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</` (keeps the part of a native histogram below a value)
    TrimUpper,
    /// `>/` (keeps the part of a native histogram above a value)
    TrimLower,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// How elements are matched; present exactly when both operands are vectors.
    pub matching: Option<VectorMatching>,
    /// Whether a comparison gives 0 and 1 rather than filtering.
    pub return_bool: bool,
}

/// How many elements of each side belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Cardinality {
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

/// How the elements of two vectors are matched.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorMatching {
    /// Which side may have several elements for one of the other.
    pub cardinality: Cardinality,
    /// The labels named behind `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are those to match on rather than those to ignore.
    pub on: bool,
    /// The labels named behind `group_left` or `group_right`.
    pub include: Vec<String>,
    /// `fill_left`: stands in for a missing element of the left side.
    pub fill_left: Option<f64>,
    /// `fill_right`: stands in for a missing element of the right side.
    pub fill_right: Option<f64>,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function, one of the table in [`crate::functions::signature`].
    pub func: &'static crate::functions::signature::Signature,
    /// The arguments as written.
    pub args: Vec<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// `@ start()` or `@ end()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum AtPreprocessor {
    Start,
    End,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    /// A fixed unix time in milliseconds.
    Timestamp(i64),
    /// The start or end of the query's range.
    Preprocessor(AtPreprocessor),
}

/// The `offset` modifier: a constant in milliseconds, or an expression and a zero beside it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offset {
    /// Milliseconds back in time; negative looks ahead.
    pub ms: i64,
    /// The expression, when it is not a plain constant.
    pub expr: Option<DurationExpr>,
}

/// A positive duration: a constant in milliseconds, or an expression and a zero beside it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Duration {
    /// Milliseconds.
    pub ms: i64,
    /// The expression, when it is not a plain constant.
    pub expr: Option<DurationExpr>,
}

/// An instant selector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The metric's name when it was written in front of the braces, else `None`.
    pub name: Option<String>,
    /// All matchers, the one for the metric's name among them (last, as Prometheus has it).
    pub matchers: Vec<Matcher>,
    /// `offset`
    pub offset: Offset,
    /// `@`
    pub at: Option<At>,
    /// Range modifier `anchored`.
    pub anchored: bool,
    /// Range modifier `smoothed`.
    pub smoothed: bool,
    /// Where it stands, modifiers included.
    pub span: Span,
}

/// A range selector: `selector[range]`.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The series; carries `offset` and `@`, also when they stand behind the brackets.
    pub selector: VectorSelector,
    /// The length of the window.
    pub range: Duration,
    /// Offset behind the last byte, modifiers included.
    pub end: usize,
}

/// A subquery: `expr[range:step]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// The inner expression.
    pub expr: Expr,
    /// The length of the window.
    pub range: Duration,
    /// The inner step; `None` means the global evaluation interval.
    pub step: Option<Duration>,
    /// `offset`
    pub offset: Offset,
    /// `@`
    pub at: Option<At>,
    /// Offset behind the last byte.
    pub end: usize,
}

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberLiteral {
    /// The value; seconds when it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration and prints as one.
    pub is_duration: bool,
    /// Where it stands.
    pub span: Span,
}

/// An expression in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct Paren {
    /// What stands between them.
    pub expr: Expr,
    /// Where they stand.
    pub span: Span,
}

/// A string.
#[derive(Debug, Clone, PartialEq)]
pub struct StringLiteral {
    /// The text, unescaped. What is not UTF-8 (`"\xff"`) is U+FFFD here.
    pub value: String,
    /// The bytes, when they are not UTF-8.
    pub bytes: Option<Box<[u8]>>,
    /// Where it stands.
    pub span: Span,
}

impl StringLiteral {
    /// What was written, which need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.value.as_bytes())
    }
}

/// `+` or `-` in front of an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// Whether it is `-`.
    pub negative: bool,
    /// The operand.
    pub expr: Expr,
    /// Offset of the sign.
    pub start: usize,
}

/// An operator or function in a duration expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operator or function of that name")]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Step,
    Range,
    MinOf,
    MaxOf,
}

/// A duration computed from numbers, `step()`, `range()`, `min_of` and `max_of`.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// A number in seconds.
    Number(NumberLiteral),
    /// An operator or function with its operands; unary operators have no left side.
    Op {
        /// The operator.
        op: DurationOp,
        /// Left operand, absent for unary operators, `step()` and `range()`.
        lhs: Option<Box<DurationExpr>>,
        /// Right operand, absent for `step()` and `range()`.
        rhs: Option<Box<DurationExpr>>,
        /// Whether it stands in parentheses.
        wrapped: bool,
        /// Where it stands.
        span: Span,
    },
}

impl Expr {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            expr = match expr {
                Expr::Aggregate(_) | Expr::VectorSelector(_) => return ValueType::Vector,
                Expr::MatrixSelector(_) | Expr::Subquery(_) => return ValueType::Matrix,
                Expr::Number(_) => return ValueType::Scalar,
                Expr::String(_) => return ValueType::String,
                Expr::Call(call) => return call.func.returns,
                Expr::Paren(paren) => &paren.expr,
                Expr::Unary(unary) => &unary.expr,
                // Scalar when both sides are; the left side can be a long chain.
                Expr::Binary(binary) if binary.rhs.value_type() != ValueType::Scalar => {
                    return ValueType::Vector;
                }
                Expr::Binary(binary) => match &binary.lhs {
                    chain @ Expr::Binary(_) => chain,
                    first if first.value_type() == ValueType::Scalar => {
                        return ValueType::Scalar;
                    }
                    _ => return ValueType::Vector,
                },
            }
        }
    }

    /// Where the expression stands in the query.
    pub fn span(&self) -> Span {
        Span {
            start: self.start(),
            end: self.end(),
        }
    }

    fn start(&self) -> usize {
        let mut expr = self;
        loop {
            expr = match expr {
                Expr::Binary(e) => &e.lhs,
                Expr::Subquery(e) => &e.expr,
                Expr::MatrixSelector(e) => return e.selector.span.start,
                Expr::Aggregate(e) => return e.span.start,
                Expr::Call(e) => return e.span.start,
                Expr::Number(e) => return e.span.start,
                Expr::Paren(e) => return e.span.start,
                Expr::String(e) => return e.span.start,
                Expr::Unary(e) => return e.start,
                Expr::VectorSelector(e) => return e.span.start,
            }
        }
    }

    fn end(&self) -> usize {
        let mut expr = self;
        loop {
            expr = match expr {
                Expr::Binary(e) => &e.rhs,
                Expr::Unary(e) => &e.expr,
                Expr::Subquery(e) => return e.end,
                Expr::MatrixSelector(e) => return e.end,
                Expr::Aggregate(e) => return e.span.end,
                Expr::Call(e) => return e.span.end,
                Expr::Number(e) => return e.span.end,
                Expr::Paren(e) => return e.span.end,
                Expr::String(e) => return e.span.end,
                Expr::VectorSelector(e) => return e.span.end,
            }
        }
    }
}
