//! What all parts of the parser share: one token of lookahead, the bounds of nesting, and the
//! wording of "unexpected …".
//!
//! Prometheus' parser is generated from a grammar. Which error comes first depends on when that
//! parser reads ahead, so the parts here peek exactly where it does.

use super::ast::{Span, ValueType};
use super::error::{Fault, ParseErrorKind, Parsed};
use super::lex::Lexer;
use super::token::{Kind, Token};
use super::{DEPTH_MAX, HEIGHT_MAX};
use crate::features::Features;

/// Reads one query.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) lexer: Lexer<'a>,
    pub(super) features: Features,
    peeked: Option<Token>,
    /// Where the last token ended that may close an expression, read ahead or not.
    pub(super) last_closing: usize,
    /// Aggregations that are being read. Errors inside of them say so.
    pub(super) aggregations: usize,
    depth: usize,
    /// What is known of the expression that was read last.
    pub(super) shape: Shape,
}

/// Properties of a tree that are kept beside it, so that they are not computed again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The number of levels.
    pub(super) height: usize,
    /// The type of the value.
    pub(super) value_type: ValueType,
}

impl Shape {
    /// The shape of a leaf.
    pub(super) fn leaf(value_type: ValueType) -> Shape {
        Shape {
            height: 1,
            value_type,
        }
    }
}

/// Where an unexpected token stands and what should be there. Either may be empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) place: &'static str,
    pub(super) expected: &'static str,
}

impl Context {
    pub(super) const fn new(place: &'static str, expected: &'static str) -> Context {
        Context { place, expected }
    }
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parser<'a> {
        Parser::new_at(text, 0)
    }

    /// A parser that begins inside of `text`, outside of all parentheses.
    pub(super) fn new_at(text: &'a str, at: usize) -> Parser<'a> {
        Parser {
            text,
            lexer: Lexer::new_at(text, at),
            features: Features::default(),
            peeked: None,
            last_closing: 0,
            aggregations: 0,
            depth: 0,
            shape: Shape::leaf(ValueType::Scalar),
        }
    }

    /// The parser with these features on.
    pub(super) fn with(self, features: Features) -> Parser<'a> {
        Parser { features, ..self }
    }

    /// The next token, which stays the next one.
    pub(super) fn peek(&mut self) -> Parsed<Token> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        let token = self.lexer.next_token()?;
        if matches!(
            token.kind,
            Kind::RightBrace
                | Kind::RightParen
                | Kind::RightBracket
                | Kind::Duration
                | Kind::Number
        ) {
            self.last_closing = token.span.end;
        }
        self.peeked = Some(token);
        Ok(token)
    }

    /// Consumes the next token.
    pub(super) fn next(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.peeked = None;
        Ok(token)
    }

    /// Consumes the next token if it is of this kind.
    pub(super) fn accept(&mut self, kind: Kind) -> Parsed<Option<Token>> {
        if self.peek()?.kind == kind {
            self.next().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Consumes the next token, which has to be of this kind.
    pub(super) fn expect(&mut self, kind: Kind, context: Context) -> Parsed<Token> {
        if self.peek()?.kind == kind {
            self.next()
        } else {
            self.unexpected(context)
        }
    }

    /// Consumes the next token, which has to be of this kind; the place is not worth a word.
    pub(super) fn expect_anywhere(&mut self, kind: Kind) -> Parsed<Token> {
        if self.peek()?.kind == kind {
            self.next()
        } else {
            self.unexpected_anywhere()
        }
    }

    /// Refuses the next token.
    pub(super) fn unexpected<T>(&mut self, context: Context) -> Parsed<T> {
        let token = self.peek()?;
        let mut message = format!("unexpected {}", token.describe(self.text_of(token)));
        if !context.place.is_empty() {
            message.push_str(" in ");
            message.push_str(context.place);
        }
        if !context.expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(context.expected);
        }
        Err(Fault::syntax(token.span, message))
    }

    /// Refuses the next token where the grammar has nothing more to say.
    pub(super) fn unexpected_anywhere<T>(&mut self) -> Parsed<T> {
        let place = if self.aggregations > 0 {
            "aggregation"
        } else {
            ""
        };
        self.unexpected(Context::new(place, ""))
    }

    /// What the token was read from.
    pub(super) fn text_of(&self, token: Token) -> &'a str {
        &self.text[token.span.start..token.span.end]
    }

    /// Goes one level deeper; each success is paired with one [`Parser::ascend`].
    pub(super) fn descend(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.too_deep(DEPTH_MAX);
        }
        Ok(())
    }

    /// Comes back from one level.
    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }

    /// Notes that a node of this type was put on top of a tree of this height.
    pub(super) fn grow(&mut self, below: usize, value_type: ValueType) -> Parsed<()> {
        self.shape = Shape {
            height: below + 1,
            value_type,
        };
        if self.shape.height > HEIGHT_MAX {
            self.too_deep(HEIGHT_MAX)
        } else {
            Ok(())
        }
    }

    fn too_deep(&self, levels: usize) -> Parsed<()> {
        let start = self
            .peeked
            .map_or(self.last_closing, |token| token.span.start);
        Err(Box::new(Fault {
            kind: ParseErrorKind::TooDeep,
            span: Span {
                start,
                end: self.text.len(),
            },
            message: format!("expression is nested more than {levels} levels deep"),
        }))
    }
}
