//! Expressions: operators by precedence, function calls, aggregations, parentheses.

use std::borrow::Cow;

use super::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, NumberLiteral, Paren, Span,
    StringLiteral, Unary, ValueType, VectorMatching,
};
use super::duration::{parse_duration, seconds};
use super::error::{Fault, Parsed, quoted, quoted_bytes};
use super::number::parse_number;
use super::parser::{Context, Parser, Shape};
use super::token::{Keyword, Kind, Token};
use super::unquote::unquote;
use crate::functions::signature::{self, Signature};

/// How strongly operators bind. `^` is the only one that groups to the right.
mod power {
    pub(super) const LOWEST: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const COMPARE: u8 = 3;
    pub(super) const ADD: u8 = 4;
    pub(super) const MUL: u8 = 5;
    pub(super) const POW: u8 = 6;
}

fn power_of(op: BinaryOp) -> u8 {
    use BinaryOp as B;
    match op {
        B::Or => power::LOWEST,
        B::And | B::Unless => power::AND,
        B::Eq | B::Ne | B::Le | B::Lt | B::Ge | B::Gt | B::TrimUpper | B::TrimLower => {
            power::COMPARE
        }
        B::Add | B::Sub => power::ADD,
        B::Mul | B::Div | B::Mod | B::Atan2 => power::MUL,
        B::Pow => power::POW,
    }
}

/// What stands between an operator and its right operand.
struct BinaryModifiers {
    return_bool: bool,
    matching: VectorMatching,
}

impl Parser<'_> {
    /// A whole query.
    pub(super) fn query(&mut self) -> Parsed<Expr> {
        if self.peek()?.kind == Kind::Eof {
            return Err(Fault::syntax(
                Span::default(),
                "no expression found in input",
            ));
        }
        let expr = self.expr(power::LOWEST)?;
        self.expect_anywhere(Kind::Eof)?;
        Ok(expr)
    }

    /// An expression whose operators bind at least as strongly as `power_min`.
    fn expr(&mut self, power_min: u8) -> Parsed<Expr> {
        self.descend()?;
        let mut expr = self.operand()?;
        while let Kind::Operator(op) = self.peek()?.kind
            && power_of(op) >= power_min
        {
            expr = self.binary(expr, op)?;
        }
        self.ascend();
        Ok(expr)
    }

    fn operand(&mut self) -> Parsed<Expr> {
        let token = self.peek()?;
        match token.kind {
            Kind::Operator(BinaryOp::Add) => self.unary(false),
            Kind::Operator(BinaryOp::Sub) => self.unary(true),
            _ => {
                let expr = self.primary(token)?;
                self.modified(expr)
            }
        }
    }

    fn primary(&mut self, token: Token) -> Parsed<Expr> {
        match token.kind {
            Kind::LeftParen => self.paren(),
            Kind::LeftBrace => self.selector(),
            Kind::Number | Kind::Duration => {
                self.shape = Shape::leaf(ValueType::Scalar);
                self.number_literal().map(Expr::Number)
            }
            Kind::String => self.string_literal(),
            kind if kind.is_metric_name() => self.named(),
            _ => self.unexpected_anywhere(),
        }
    }

    /// What begins with a name: a call, an aggregation or a selector.
    fn named(&mut self) -> Parsed<Expr> {
        let name = self.next()?;
        let next = self.peek()?.kind;
        match (name.kind, next) {
            (
                Kind::Aggregate(op),
                Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without),
            ) => self.aggregate(op, name),
            (Kind::Identifier | Kind::Preprocessor(_), Kind::LeftParen) => self.call(name),
            _ => self.selector_of(name),
        }
    }

    fn unary(&mut self, negative: bool) -> Parsed<Expr> {
        let start = self.next()?.span.start;
        match self.expr(power::POW)? {
            Expr::Number(mut number) => {
                if negative {
                    number.value = -number.value;
                }
                number.span.start = start;
                Ok(Expr::Number(number))
            }
            expr => {
                self.grow(self.shape.height, self.shape.value_type)?;
                Ok(Expr::Unary(Box::new(Unary {
                    negative,
                    expr,
                    start,
                })))
            }
        }
    }

    fn paren(&mut self) -> Parsed<Expr> {
        let start = self.next()?.span.start;
        let expr = self.expr(power::LOWEST)?;
        let end = self.expect_anywhere(Kind::RightParen)?.span.end;
        self.grow(self.shape.height, self.shape.value_type)?;
        Ok(Expr::Paren(Box::new(Paren {
            expr,
            span: Span { start, end },
        })))
    }

    /// A number or duration.
    pub(super) fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.next()?;
        let text = self.text_of(token);
        let is_duration = token.kind == Kind::Duration;
        let value = if is_duration {
            parse_duration(text)
                .map(seconds)
                .map_err(|e| Fault::syntax(token.span, e))?
        } else {
            parse_number(text)
                .map_err(|e| Fault::syntax(token.span, format!("error parsing number: {e}")))?
        };
        Ok(NumberLiteral {
            value,
            is_duration,
            span: token.span,
        })
    }

    fn string_literal(&mut self) -> Parsed<Expr> {
        let token = self.next()?;
        self.shape = Shape::leaf(ValueType::String);
        let bytes = self.string_bytes(token)?;
        let bytes = std::str::from_utf8(&bytes).is_err().then(|| bytes.into());
        let value = self.string_text(token)?;
        let span = token.span;
        Ok(Expr::String(StringLiteral { value, bytes, span }))
    }

    /// The text of a string token. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn string_text(&self, token: Token) -> Parsed<String> {
        Ok(match self.string_bytes(token)? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            },
        })
    }

    fn string_bytes(&self, token: Token) -> Parsed<Cow<'_, [u8]>> {
        let text = self.text_of(token);
        unquote(text).ok_or_else(|| {
            let message = format!("error unquoting string {}: invalid syntax", quoted(text));
            Fault::syntax(token.span, message)
        })
    }

    fn binary(&mut self, lhs: Expr, op: BinaryOp) -> Parsed<Expr> {
        self.next()?;
        let left = self.shape;
        let BinaryModifiers {
            return_bool,
            matching,
        } = self.binary_modifiers(op)?;
        let power_min = if op == BinaryOp::Pow {
            power::POW
        } else {
            power_of(op) + 1
        };
        let rhs = self.expr(power_min)?;
        let right = self.shape;

        let both = |wanted| left.value_type == wanted && right.value_type == wanted;
        let value_type = if both(ValueType::Scalar) {
            ValueType::Scalar
        } else {
            ValueType::Vector
        };
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if fills {
            self.allow_fill(&lhs, &rhs)?;
        }
        // The type check refuses modifiers between what are not two vectors, so they stay until then.
        let is_told = fills || !matching.labels.is_empty();
        let matching = (both(ValueType::Vector) || is_told).then_some(matching);
        self.grow(left.height.max(right.height), value_type)?;
        Ok(Expr::Binary(Box::new(Binary {
            op,
            lhs,
            rhs,
            matching,
            return_bool,
        })))
    }

    /// `bool`, `on`, `ignoring`, `group_left`, `group_right`, `fill`, in this order.
    fn binary_modifiers(&mut self, op: BinaryOp) -> Parsed<BinaryModifiers> {
        let is_set = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless);
        let mut matching = VectorMatching {
            cardinality: if is_set {
                Cardinality::ManyToMany
            } else {
                Cardinality::OneToOne
            },
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.accept(Kind::Keyword(Keyword::Bool))?.is_some();
        if let Kind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = self.peek()?.kind {
            self.next()?;
            matching.on = word == Keyword::On;
            matching.labels = self.label_names()?;
            if let Kind::Keyword(word @ (Keyword::GroupLeft | Keyword::GroupRight)) =
                self.peek()?.kind
            {
                self.next()?;
                matching.cardinality = match word {
                    Keyword::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                matching.include = self.group_label_names()?;
            }
        }
        if let Kind::Keyword(word) = self.peek()?.kind {
            self.fill_modifiers(word, &mut matching)?;
        }
        Ok(BinaryModifiers {
            return_bool,
            matching,
        })
    }

    fn fill_modifiers(&mut self, word: Keyword, matching: &mut VectorMatching) -> Parsed<()> {
        match word {
            Keyword::Fill => {
                let value = self.fill_value()?;
                matching.fill_left = Some(value);
                matching.fill_right = Some(value);
            }
            Keyword::FillLeft => {
                matching.fill_left = Some(self.fill_value()?);
                if self.peek()?.kind == Kind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Keyword::FillRight => {
                matching.fill_right = Some(self.fill_value()?);
                if self.peek()?.kind == Kind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            // A metric of that name, or an error that the operand reports.
            _ => {}
        }
        Ok(())
    }

    /// The keyword, and a number in parentheses.
    fn fill_value(&mut self) -> Parsed<f64> {
        self.next()?;
        self.expect_anywhere(Kind::LeftParen)?;
        let sign = match self.peek()?.kind {
            Kind::Operator(BinaryOp::Add) => 1.0,
            Kind::Operator(BinaryOp::Sub) => -1.0,
            _ => 0.0,
        };
        if sign != 0.0 {
            self.next()?;
        }
        if !matches!(self.peek()?.kind, Kind::Number | Kind::Duration) {
            return self.unexpected_anywhere();
        }
        let value = self.number_literal()?.value;
        self.expect_anywhere(Kind::RightParen)?;
        Ok(if sign < 0.0 { -value } else { value })
    }

    /// The list of label names behind `group_left` or `group_right`, which may be left out.
    fn group_label_names(&mut self) -> Parsed<Vec<String>> {
        let next = self.peek()?.kind;
        let is_fill = matches!(next, Kind::Keyword(word) if word.needs_paren());
        if next == Kind::LeftParen || !next.starts_expression() && !is_fill {
            return self.label_names();
        }
        Ok(Vec::new())
    }

    /// A list of label names in parentheses.
    fn label_names(&mut self) -> Parsed<Vec<String>> {
        const OPEN: Context = Context::new("grouping opts", "\"(\"");
        const LABEL: Context = Context::new("grouping opts", "label");
        const GO_ON: Context = Context::new("grouping opts", "\",\" or \")\"");
        self.expect(Kind::LeftParen, OPEN)?;
        let mut names = Vec::new();
        while self.accept(Kind::RightParen)?.is_none() {
            let token = self.peek()?;
            if token.kind == Kind::String {
                self.next()?;
                names.push(self.quoted_label_name(token)?);
            } else if token.kind.is_label_name() {
                self.next()?;
                names.push(self.text_of(token).to_owned());
            } else {
                return self.unexpected(LABEL);
            }
            if self.accept(Kind::Comma)?.is_none() && self.peek()?.kind != Kind::RightParen {
                return self.unexpected(GO_ON);
            }
        }
        Ok(names)
    }

    fn quoted_label_name(&self, token: Token) -> Parsed<String> {
        let bytes = self.string_bytes(token)?;
        match std::str::from_utf8(&bytes) {
            Ok(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => {
                let name = quoted_bytes(&bytes);
                let message = format!("invalid label name for grouping: {name}");
                Err(Fault::syntax(token.span, message))
            }
        }
    }

    fn call(&mut self, name: Token) -> Parsed<Expr> {
        let (args, height) = self.call_args()?;
        let func = self.function(name)?;
        self.grow(height, func.returns)?;
        let span = Span {
            start: name.span.start,
            end: self.last_closing,
        };
        Ok(Expr::Call(Call { func, args, span }))
    }

    fn function(&self, name: Token) -> Parsed<&'static Signature> {
        let text = self.text_of(name);
        let known = signature::lookup(text).filter(|f| self.features.x_functions || !f.extension);
        let message = match known {
            Some(func) if !func.experimental || self.features.experimental_functions => {
                return Ok(func);
            }
            Some(_) => format!("function {} is not enabled", quoted(text)),
            None => format!("unknown function with name {}", quoted(text)),
        };
        Err(Fault::syntax(name.span, message))
    }

    fn allow_aggregation(&self, op: AggregateOp, span: Span) -> Parsed<()> {
        let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if !experimental || self.features.experimental_functions {
            return Ok(());
        }
        let message = format!(
            "{}() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
            op.as_str()
        );
        Err(Fault::syntax(span, message))
    }

    fn allow_fill(&self, lhs: &Expr, rhs: &Expr) -> Parsed<()> {
        if self.features.fill_modifiers {
            return Ok(());
        }
        let (start, end) = (lhs.span().start, rhs.span().end);
        let message = "binop fill modifiers are experimental and not enabled";
        Err(Fault::syntax(Span { start, end }, message))
    }

    /// Arguments in parentheses, and the height of the highest.
    fn call_args(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect_anywhere(Kind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.accept(Kind::RightParen)?.is_some() {
            return Ok((args, height));
        }
        loop {
            args.push(self.expr(power::LOWEST)?);
            height = height.max(self.shape.height);
            let Some(comma) = self.accept(Kind::Comma)? else {
                self.expect_anywhere(Kind::RightParen)?;
                return Ok((args, height));
            };
            if !self.peek()?.kind.starts_expression() {
                let message = "trailing commas not allowed in function call args";
                return Err(Fault::syntax(comma.span, message));
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Parsed<Expr> {
        self.aggregations += 1;
        let mut modifier = self.aggregate_modifier()?;
        let (args, height) = self.call_args()?;
        let mut end = self.last_closing;
        if modifier.is_none() {
            self.peek()?;
            modifier = self.aggregate_modifier()?;
            end = match modifier {
                Some(_) => self.last_closing,
                // The end as Prometheus has it, which has read one token too many.
                None => self.lexer.previous_paren_end(self.last_closing),
            };
        }
        self.aggregations -= 1;
        self.grow(height, ValueType::Vector)?;
        let span = Span {
            start: name.span.start,
            end,
        };
        if !args.is_empty() {
            self.allow_aggregation(op, span)?;
        }
        let (expr, param) = aggregate_args(op, args, span)?;
        let (without, grouping) = modifier.unwrap_or_default();
        Ok(Expr::Aggregate(Box::new(Aggregate {
            op,
            expr,
            param,
            grouping,
            without,
            span,
        })))
    }

    /// `by (…)` or `without (…)`: whether it is `without`, and the labels.
    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let Kind::Keyword(word @ (Keyword::By | Keyword::Without)) = self.peek()?.kind else {
            return Ok(None);
        };
        self.next()?;
        Ok(Some((word == Keyword::Without, self.label_names()?)))
    }
}

impl AggregateOp {
    /// Whether the operator takes a parameter in front of the vector.
    pub fn has_param(self) -> bool {
        use AggregateOp as A;
        match self {
            A::Topk | A::Bottomk | A::CountValues | A::Quantile | A::Limitk | A::LimitRatio => true,
            A::Sum | A::Avg | A::Count | A::Min | A::Max | A::Group | A::Stddev | A::Stdvar => {
                false
            }
        }
    }
}

/// Tells the vector and the parameter of an aggregation apart.
fn aggregate_args(op: AggregateOp, args: Vec<Expr>, span: Span) -> Parsed<(Expr, Option<Expr>)> {
    let count = args.len();
    let mut args = args.into_iter();
    match (op.has_param(), args.next(), args.next()) {
        (_, None, _) => Err(Fault::syntax(
            span,
            "no arguments for aggregate expression provided",
        )),
        (false, Some(expr), None) => Ok((expr, None)),
        (true, Some(param), Some(expr)) if count == 2 => Ok((expr, Some(param))),
        (has_param, ..) => {
            let expected = if has_param { 2 } else { 1 };
            let message = format!(
                "wrong number of arguments for aggregate expression provided, \
                 expected {expected}, got {count}"
            );
            Err(Fault::syntax(span, message))
        }
    }
}
