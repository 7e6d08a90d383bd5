//! Durations that are computed: `[5m * 2]`, `offset -step()`.

use super::ast::{BinaryOp, Duration, DurationExpr, DurationOp, NumberLiteral, Span, ValueType};
use super::duration::{millis, out_of_range};
use super::error::{Fault, Parsed};
use super::parser::{Context, Parser, Shape};
use super::token::{Kind, Preprocessor};

/// How strongly operators bind; a sign binds like `*`.
const POWER_LOWEST: u8 = 1;
const POWER_POW: u8 = 3;

fn operator(kind: Kind) -> Option<(DurationOp, u8)> {
    let Kind::Operator(op) = kind else {
        return None;
    };
    Some(match op {
        BinaryOp::Add => (DurationOp::Add, POWER_LOWEST),
        BinaryOp::Sub => (DurationOp::Sub, POWER_LOWEST),
        BinaryOp::Mul => (DurationOp::Mul, 2),
        BinaryOp::Div => (DurationOp::Div, 2),
        BinaryOp::Mod => (DurationOp::Mod, 2),
        BinaryOp::Pow => (DurationOp::Pow, POWER_POW),
        _ => return None,
    })
}

/// Whether the token is a sign, and then whether it is `-`.
fn sign(kind: Kind) -> Option<bool> {
    match kind {
        Kind::Operator(BinaryOp::Add) => Some(false),
        Kind::Operator(BinaryOp::Sub) => Some(true),
        _ => None,
    }
}

impl Parser<'_> {
    /// A range or step: a duration that is greater than 0 as far as that is known.
    pub(super) fn positive_duration(&mut self, context: Context) -> Parsed<Duration> {
        match self.duration_expr(POWER_LOWEST, context)? {
            DurationExpr::Number(number) if number.value <= 0.0 => Err(Fault::syntax(
                number.span,
                "duration must be greater than 0",
            )),
            DurationExpr::Number(number) => Ok(Duration {
                ms: millis(number.value),
                expr: None,
            }),
            expr => Ok(Duration {
                ms: 0,
                expr: Some(expr),
            }),
        }
    }

    /// What stands behind `offset`. It ends as early as it can, so that `a offset 5m + b` adds.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        const CONTEXT: Context = Context::new("offset", "number, duration, step(), or range()");
        let first = self.peek()?;
        let Some(negative) = sign(first.kind) else {
            return match first.kind {
                Kind::LeftParen => self.duration_expr(POWER_LOWEST, CONTEXT),
                _ => self.duration_operand(CONTEXT),
            };
        };
        self.next()?;
        if matches!(self.peek()?.kind, Kind::Number | Kind::Duration) {
            let number = self.number_literal()?;
            if out_of_range(number.value) {
                return Err(Fault::syntax(first.span, "duration out of range"));
            }
            return Ok(signed(
                negative,
                first.span.start,
                DurationExpr::Number(number),
            ));
        }
        let next = self.peek()?.kind;
        if sign(next).is_none() {
            let operand = self.duration_operand(CONTEXT)?;
            if matches!(next, Kind::Preprocessor(_)) && !negative {
                // Only here Prometheus keeps a plus.
                let span = Span {
                    start: first.span.start,
                    end: operand.span().end,
                };
                return Ok(operation(DurationOp::Add, None, Some(operand), span));
            }
            return Ok(signed(negative, first.span.start, operand));
        }
        let operand = self.duration_expr(POWER_POW, CONTEXT)?;
        self.duration_rest(
            signed(negative, first.span.start, operand),
            POWER_LOWEST,
            CONTEXT,
        )
    }

    /// A duration whose operators bind at least as strongly as `power_min`.
    fn duration_expr(&mut self, power_min: u8, context: Context) -> Parsed<DurationExpr> {
        self.descend()?;
        let first = self.peek()?;
        let operand = match sign(first.kind) {
            Some(negative) => {
                self.next()?;
                let operand = self.duration_expr(POWER_POW, context)?;
                self.grow(self.shape.height, ValueType::Scalar)?;
                signed(negative, first.span.start, operand)
            }
            None => self.duration_operand(context)?,
        };
        let expr = self.duration_rest(operand, power_min, context)?;
        self.ascend();
        Ok(expr)
    }

    /// The operators behind a first operand.
    fn duration_rest(
        &mut self,
        mut expr: DurationExpr,
        power_min: u8,
        context: Context,
    ) -> Parsed<DurationExpr> {
        while let Some((op, power)) = operator(self.peek()?.kind)
            && power >= power_min
        {
            let token = self.next()?;
            let left_height = self.shape.height;
            let right_min = if op == DurationOp::Pow {
                power
            } else {
                power + 1
            };
            let rhs = self.duration_expr(right_min, context)?;
            self.allow_computed(expr.span())?;
            match (op, &rhs) {
                (DurationOp::Div, DurationExpr::Number(n)) if n.value == 0.0 => {
                    return Err(Fault::syntax(token.span, "division by zero"));
                }
                (DurationOp::Mod, DurationExpr::Number(n)) if n.value == 0.0 => {
                    return Err(Fault::syntax(token.span, "modulo by zero"));
                }
                _ => {}
            }
            let span = Span {
                start: expr.span().start,
                end: rhs.span().end,
            };
            expr = operation(op, Some(expr), Some(rhs), span);
            self.grow(left_height.max(self.shape.height), ValueType::Scalar)?;
        }
        Ok(expr)
    }

    /// A number, `step()`, `range()`, `max_of(…)`, `min_of(…)`, or any duration in parentheses.
    fn duration_operand(&mut self, context: Context) -> Parsed<DurationExpr> {
        let token = self.peek()?;
        self.shape = Shape::leaf(ValueType::Scalar);
        match token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number_literal()?;
                if out_of_range(number.value) {
                    return Err(Fault::syntax(number.span, "duration out of range"));
                }
                Ok(DurationExpr::Number(number))
            }
            Kind::LeftParen => {
                self.next()?;
                let expr = self.duration_expr(POWER_LOWEST, context)?;
                let end = self.expect(Kind::RightParen, context)?.span.end;
                self.allow_computed(expr.span())?;
                self.grow(self.shape.height, ValueType::Scalar)?;
                Ok(wrapped(
                    expr,
                    Span {
                        start: token.span.start,
                        end,
                    },
                ))
            }
            Kind::Preprocessor(word) => {
                let (op, has_args) = match word {
                    Preprocessor::Step => (DurationOp::Step, false),
                    Preprocessor::Range => (DurationOp::Range, false),
                    Preprocessor::MaxOf => (DurationOp::MaxOf, true),
                    Preprocessor::MinOf => (DurationOp::MinOf, true),
                    Preprocessor::Start | Preprocessor::End => return self.unexpected(context),
                };
                self.next()?;
                self.expect(Kind::LeftParen, context)?;
                let (mut lhs, mut rhs) = (None, None);
                if has_args {
                    lhs = Some(self.duration_expr(POWER_LOWEST, context)?);
                    let left_height = self.shape.height;
                    self.expect(Kind::Comma, context)?;
                    rhs = Some(self.duration_expr(POWER_LOWEST, context)?);
                    self.grow(left_height.max(self.shape.height), ValueType::Scalar)?;
                }
                let end = self.expect(Kind::RightParen, context)?.span.end;
                let span = Span {
                    start: token.span.start,
                    end,
                };
                self.allow_computed(span)?;
                Ok(operation(op, lhs, rhs, span))
            }
            _ => self.unexpected(context),
        }
    }

    fn allow_computed(&self, span: Span) -> Parsed<()> {
        if self.features.duration_expressions {
            return Ok(());
        }
        let message = "experimental duration expression is not enabled";
        Err(Fault::syntax(span, message))
    }
}

impl DurationExpr {
    /// Where the expression stands in the query.
    pub fn span(&self) -> Span {
        match self {
            DurationExpr::Number(number) => number.span,
            DurationExpr::Op { span, .. } => *span,
        }
    }
}

fn operation(
    op: DurationOp,
    lhs: Option<DurationExpr>,
    rhs: Option<DurationExpr>,
    span: Span,
) -> DurationExpr {
    let (lhs, rhs) = (lhs.map(Box::new), rhs.map(Box::new));
    DurationExpr::Op {
        op,
        lhs,
        rhs,
        wrapped: false,
        span,
    }
}

/// Puts a sign in front. A plus changes nothing and is not kept.
fn signed(negative: bool, start: usize, operand: DurationExpr) -> DurationExpr {
    match operand {
        DurationExpr::Number(number) => DurationExpr::Number(NumberLiteral {
            value: if negative {
                -number.value
            } else {
                number.value
            },
            span: Span {
                start,
                ..number.span
            },
            ..number
        }),
        operand if negative => {
            let span = Span {
                start,
                end: operand.span().end,
            };
            operation(DurationOp::Sub, None, Some(operand), span)
        }
        operand => operand,
    }
}

/// Puts parentheses around. A number gets a plus in front, which is not printed, since it cannot
/// say of itself that it stands in parentheses.
fn wrapped(expr: DurationExpr, span: Span) -> DurationExpr {
    match expr {
        DurationExpr::Op {
            op, lhs, rhs, span, ..
        } => DurationExpr::Op {
            op,
            lhs,
            rhs,
            wrapped: true,
            span,
        },
        number @ DurationExpr::Number(_) => DurationExpr::Op {
            op: DurationOp::Add,
            lhs: None,
            rhs: Some(Box::new(number)),
            wrapped: true,
            span,
        },
    }
}
