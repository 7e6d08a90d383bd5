//! Selectors and what stands behind an expression: ranges, subqueries, `offset`, `@`,
//! `anchored`, `smoothed`.

use isobar_model::{MatchOp, Matcher};

use super::ast::{
    At, AtPreprocessor, BinaryOp, DurationExpr, Expr, MatrixSelector, Offset, Span, Subquery,
    ValueType, VectorSelector,
};
use super::duration::{go_integer, millis};
use super::error::{Fault, Parsed};
use super::parser::{Context, Parser, Shape};
use super::token::{Keyword, Kind, Preprocessor, Token};

/// The label that holds a metric's name.
const METRIC_NAME: &str = "__name__";

impl Parser<'_> {
    /// A selector that is all there is to read (`match[]`).
    pub(super) fn only_selector(&mut self) -> Parsed<VectorSelector> {
        let token = self.peek()?;
        let selector = if token.kind == Kind::LeftBrace {
            self.braces(None)?
        } else if token.kind.is_metric_name() {
            self.next()?;
            self.name_and_braces(token)?
        } else {
            return self.unexpected_anywhere();
        };
        self.expect_anywhere(Kind::Eof)?;
        Ok(selector)
    }

    /// A selector that begins with its brace.
    pub(super) fn selector(&mut self) -> Parsed<Expr> {
        self.shape = Shape::leaf(ValueType::Vector);
        Ok(Expr::VectorSelector(Box::new(self.braces(None)?)))
    }

    /// A selector whose name was read.
    pub(super) fn selector_of(&mut self, name: Token) -> Parsed<Expr> {
        self.shape = Shape::leaf(ValueType::Vector);
        Ok(Expr::VectorSelector(Box::new(self.name_and_braces(name)?)))
    }

    fn name_and_braces(&mut self, name: Token) -> Parsed<VectorSelector> {
        if self.peek()?.kind == Kind::LeftBrace {
            return self.braces(Some(name));
        }
        Ok(self.vector_selector(Some(name), Vec::new(), name.span))
    }

    fn vector_selector(
        &self,
        name: Option<Token>,
        mut matchers: Vec<Matcher>,
        span: Span,
    ) -> VectorSelector {
        let name = name.map(|token| self.text_of(token).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        }
        VectorSelector {
            name,
            matchers,
            offset: Offset::default(),
            at: None,
            anchored: false,
            smoothed: false,
            span,
        }
    }

    /// Matchers in braces.
    fn braces(&mut self, name: Option<Token>) -> Parsed<VectorSelector> {
        const GO_ON: Context = Context::new("label matching", "\",\" or \"}\"");
        let open = self.next()?;
        let mut matchers = Vec::new();
        let close = loop {
            if let Some(close) = self.accept(Kind::RightBrace)? {
                break close;
            }
            matchers.push(self.matcher()?);
            if self.accept(Kind::Comma)?.is_none() && self.peek()?.kind != Kind::RightBrace {
                return self.unexpected(GO_ON);
            }
        };
        let start = name.map_or(open.span.start, |name| name.span.start);
        Ok(self.vector_selector(
            name,
            matchers,
            Span {
                start,
                end: close.span.end,
            },
        ))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        const NAME: Context = Context::new("label matching", "identifier or \"}\"");
        const OPERATOR: Context = Context::new("label matching", "label matching operator");
        const VALUE: Context = Context::new("label matching", "string");
        let label = self.peek()?;
        let name = match label.kind {
            Kind::Identifier => self.text_of(label).to_owned(),
            Kind::String => self.string_text(label)?,
            _ => return self.unexpected(NAME),
        };
        self.next()?;
        let op = match self.peek()?.kind {
            Kind::Equal => MatchOp::Equal,
            Kind::Operator(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegexp => MatchOp::Regexp,
            Kind::NotEqualRegexp => MatchOp::NotRegexp,
            _ if label.kind == Kind::String => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return self.unexpected(OPERATOR),
        };
        self.next()?;
        let value = self.expect(Kind::String, VALUE)?;
        let text = self.string_text(value)?;
        Matcher::new(name, op, text).map_err(|e| {
            let span = Span {
                start: label.span.start,
                end: value.span.end,
            };
            Fault::syntax(span, e.to_string())
        })
    }

    /// Everything that stands behind `expr` and belongs to it.
    pub(super) fn modified(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            match self.peek()?.kind {
                Kind::LeftBracket => expr = self.bracket(expr)?,
                Kind::At => self.at(&mut expr)?,
                Kind::Keyword(Keyword::Offset) => self.offset(&mut expr)?,
                Kind::Keyword(word @ (Keyword::Anchored | Keyword::Smoothed)) => {
                    self.next()?;
                    self.extend(&mut expr, word)?;
                }
                _ => return Ok(expr),
            }
        }
    }

    /// `[5m]` or `[5m:1m]`.
    fn bracket(&mut self, expr: Expr) -> Parsed<Expr> {
        const RANGE: Context = Context::new(
            "subquery or range selector",
            "number, duration, step(), or range()",
        );
        const GO_ON: Context = Context::new("subquery or range", "\":\" or \"]\"");
        const STEP: Context = Context::new(
            "subquery selector",
            "number, duration, step(), range(), or \"]\"",
        );
        const CLOSE: Context = Context::new("subquery selector", "\"]\"");
        let open = self.next()?;
        let below = self.shape;
        let range = self.positive_duration(RANGE)?;
        if let Some(close) = self.accept(Kind::RightBracket)? {
            let span = Span {
                start: open.span.start,
                end: close.span.end,
            };
            let selector = ranged_selector(expr, span)?;
            self.shape = Shape {
                height: below.height + 1,
                value_type: ValueType::Matrix,
            };
            let matrix = MatrixSelector {
                selector,
                range,
                end: close.span.end,
            };
            return Ok(Expr::MatrixSelector(Box::new(matrix)));
        }
        self.expect(Kind::Colon, GO_ON)?;
        let step = match self.peek()?.kind {
            Kind::RightBracket => None,
            _ => Some(self.positive_duration(STEP)?),
        };
        let end = self.expect(Kind::RightBracket, CLOSE)?.span.end;
        self.grow(below.height, ValueType::Matrix)?;
        let offset = Offset::default();
        Ok(Expr::Subquery(Box::new(Subquery {
            expr,
            range,
            step,
            offset,
            at: None,
            end,
        })))
    }

    /// `@ 1234.5`, `@ start()`, `@ end()`.
    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        const TIME: Context = Context::new("@", "timestamp");
        self.next()?;
        let token = self.peek()?;
        let negative = token.kind == Kind::Operator(BinaryOp::Sub);
        if negative || token.kind == Kind::Operator(BinaryOp::Add) {
            self.next()?;
            if !matches!(self.peek()?.kind, Kind::Number | Kind::Duration) {
                return self.unexpected(TIME);
            }
        }
        let at = match self.peek()?.kind {
            Kind::Number | Kind::Duration => {
                let value = self.number_literal()?.value;
                timestamp(if negative { -value } else { value }, expr.span())?
            }
            Kind::Preprocessor(word @ (Preprocessor::Start | Preprocessor::End)) => {
                self.next()?;
                self.expect(Kind::LeftParen, TIME)?;
                self.expect(Kind::RightParen, TIME)?;
                At::Preprocessor(match word {
                    Preprocessor::Start => AtPreprocessor::Start,
                    _ => AtPreprocessor::End,
                })
            }
            _ => return self.unexpected(TIME),
        };
        set_at(expr, at, self.last_closing)
    }

    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.next()?;
        let shape = self.shape;
        let offset = match self.offset_duration()? {
            DurationExpr::Number(number) => Offset {
                ms: millis(number.value),
                expr: None,
            },
            expr => Offset {
                ms: 0,
                expr: Some(expr),
            },
        };
        self.shape = shape;
        let whole = expr.span();
        let (place, end) = match expr {
            Expr::VectorSelector(e) => (&mut e.offset, &mut e.span.end),
            Expr::MatrixSelector(e) => (&mut e.selector.offset, &mut e.end),
            Expr::Subquery(e) => (&mut e.offset, &mut e.end),
            _ => {
                return Err(Fault::syntax(
                    whole,
                    "offset modifier must be preceded by an instant vector selector or range \
                     vector selector or a subquery",
                ));
            }
        };
        if *place != Offset::default() {
            return Err(Fault::syntax(whole, "offset may not be set multiple times"));
        }
        *place = offset;
        *end = self.last_closing;
        Ok(())
    }

    /// Sets `anchored` or `smoothed`.
    fn extend(&self, expr: &mut Expr, word: Keyword) -> Parsed<()> {
        let name = if word == Keyword::Anchored {
            "anchored"
        } else {
            "smoothed"
        };
        let whole = expr.span();
        if !self.features.extended_range_selectors {
            let message = format!("{name} modifier is experimental and not enabled");
            return Err(Fault::syntax(whole, message));
        }
        let selector = match expr {
            Expr::VectorSelector(e) => &mut **e,
            Expr::MatrixSelector(e) => &mut e.selector,
            Expr::Subquery(_) => {
                let message = format!("{name} modifier is not supported for subqueries");
                return Err(Fault::syntax(whole, message));
            }
            _ => {
                return Err(Fault::syntax(
                    whole,
                    format!("{name} modifier not implemented"),
                ));
            }
        };
        match word {
            Keyword::Anchored => selector.anchored = true,
            _ => selector.smoothed = true,
        }
        if selector.anchored && selector.smoothed {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(Fault::syntax(whole, message));
        }
        Ok(())
    }
}

/// The selector in front of a range; `span` is where the range stands.
fn ranged_selector(expr: Expr, span: Span) -> Parsed<VectorSelector> {
    let Expr::VectorSelector(selector) = expr else {
        return Err(Fault::syntax(
            span,
            "ranges only allowed for vector selectors",
        ));
    };
    if selector.offset != Offset::default() {
        return Err(Fault::syntax(
            span,
            "no offset modifiers allowed before range",
        ));
    }
    if selector.at.is_some() {
        return Err(Fault::syntax(span, "no @ modifiers allowed before range"));
    }
    Ok(*selector)
}

/// Seconds as the time of an `@` modifier.
fn timestamp(seconds: f64, span: Span) -> Parsed<At> {
    // What lies between these fits into 64 bits of seconds.
    const LIMIT: f64 = i64::MAX as f64;
    if seconds > -LIMIT && seconds < LIMIT {
        return Ok(At::Timestamp(go_integer((seconds * 1000.0).round())));
    }
    let printed = if seconds.is_infinite() {
        if seconds > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        }
    } else {
        format!("{seconds:.6}")
    };
    let message = format!("timestamp out of bounds for @ modifier: {printed}");
    Err(Fault::syntax(span, message))
}

fn set_at(expr: &mut Expr, at: At, closing: usize) -> Parsed<()> {
    let whole = expr.span();
    let (place, end) = match expr {
        Expr::VectorSelector(e) => (&mut e.at, &mut e.span.end),
        Expr::MatrixSelector(e) => (&mut e.selector.at, &mut e.end),
        Expr::Subquery(e) => (&mut e.at, &mut e.end),
        _ => {
            return Err(Fault::syntax(
                whole,
                "@ modifier must be preceded by an instant vector selector or range vector \
                 selector or a subquery",
            ));
        }
    };
    if place.is_some() {
        return Err(Fault::syntax(
            whole,
            "@ <timestamp> may not be set multiple times",
        ));
    }
    *place = Some(at);
    *end = closing;
    Ok(())
}
