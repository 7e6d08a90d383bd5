//! The words of the language: what the lexer gives and the parser reads.

use super::ast::{AggregateOp, BinaryOp, Span};
use super::error::quoted;

/// A piece of the query with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Eof,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Equal,
    EqualRegexp,
    NotEqualRegexp,
    At,
    Identifier,
    /// An identifier with a colon in it.
    MetricIdentifier,
    String,
    Number,
    Duration,
    Operator(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Preprocessor(Preprocessor),
}

/// A word that modifies what stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
}

impl Keyword {
    /// Whether the word is a keyword only in front of a parenthesis, and a name elsewhere.
    pub(super) fn needs_paren(self) -> bool {
        matches!(self, Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)
    }
}

/// A word that stands for a number of the query, and in front of parentheses for a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preprocessor {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// The longest word of [`word`].
const WORD_LEN_MAX: usize = "count_values".len();

/// The meaning of a word that is no plain identifier, whatever its case.
pub(super) fn word(text: &str) -> Option<Kind> {
    use {AggregateOp as A, BinaryOp as B, Keyword as K};
    let mut lower = [0; WORD_LEN_MAX];
    let lower = lower.get_mut(..text.len())?;
    lower.copy_from_slice(text.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => Kind::Operator(B::And),
        b"or" => Kind::Operator(B::Or),
        b"unless" => Kind::Operator(B::Unless),
        b"atan2" => Kind::Operator(B::Atan2),
        b"sum" => Kind::Aggregate(A::Sum),
        b"avg" => Kind::Aggregate(A::Avg),
        b"count" => Kind::Aggregate(A::Count),
        b"min" => Kind::Aggregate(A::Min),
        b"max" => Kind::Aggregate(A::Max),
        b"group" => Kind::Aggregate(A::Group),
        b"stddev" => Kind::Aggregate(A::Stddev),
        b"stdvar" => Kind::Aggregate(A::Stdvar),
        b"topk" => Kind::Aggregate(A::Topk),
        b"bottomk" => Kind::Aggregate(A::Bottomk),
        b"count_values" => Kind::Aggregate(A::CountValues),
        b"quantile" => Kind::Aggregate(A::Quantile),
        b"limitk" => Kind::Aggregate(A::Limitk),
        b"limit_ratio" => Kind::Aggregate(A::LimitRatio),
        b"offset" => Kind::Keyword(K::Offset),
        b"smoothed" => Kind::Keyword(K::Smoothed),
        b"anchored" => Kind::Keyword(K::Anchored),
        b"by" => Kind::Keyword(K::By),
        b"without" => Kind::Keyword(K::Without),
        b"on" => Kind::Keyword(K::On),
        b"ignoring" => Kind::Keyword(K::Ignoring),
        b"group_left" => Kind::Keyword(K::GroupLeft),
        b"group_right" => Kind::Keyword(K::GroupRight),
        b"fill" => Kind::Keyword(K::Fill),
        b"fill_left" => Kind::Keyword(K::FillLeft),
        b"fill_right" => Kind::Keyword(K::FillRight),
        b"bool" => Kind::Keyword(K::Bool),
        b"inf" | b"nan" => Kind::Number,
        other => Kind::Preprocessor(preprocessor(other)?),
    })
}

fn preprocessor(lower: &[u8]) -> Option<Preprocessor> {
    Some(match lower {
        b"start" => Preprocessor::Start,
        b"end" => Preprocessor::End,
        b"step" => Preprocessor::Step,
        b"range" => Preprocessor::Range,
        b"max_of" => Preprocessor::MaxOf,
        b"min_of" => Preprocessor::MinOf,
        _ => return None,
    })
}

impl Token {
    /// How an error names the token; `text` is what it was read from.
    pub(super) fn describe(self, text: &str) -> String {
        match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quoted(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quoted(text)),
            Kind::String => format!("string {}", quoted_start(text)),
            Kind::Number => format!("number {}", quoted_start(text)),
            Kind::Duration => format!("duration {}", quoted_start(text)),
            Kind::Keyword(_) => format!("<{text}>"),
            Kind::Operator(_) | Kind::At | Kind::EqualRegexp | Kind::NotEqualRegexp => {
                format!("<op:{text}>")
            }
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            _ => quoted_start(text),
        }
    }
}

/// Quotes the first ten characters of a text that is longer than ten bytes.
fn quoted_start(text: &str) -> String {
    if text.len() <= 10 {
        return quoted(text);
    }
    let end = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    format!("{}...", quoted(&text[..end]))
}

impl Kind {
    /// Whether the word may be a metric's name.
    pub(super) fn is_metric_name(self) -> bool {
        use Keyword as K;
        match self {
            Kind::Identifier | Kind::MetricIdentifier => true,
            Kind::Aggregate(_) | Kind::Preprocessor(_) => true,
            Kind::Operator(op) => matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless),
            Kind::Keyword(word) => match word {
                K::By | K::Without | K::Offset | K::Anchored | K::Smoothed => true,
                K::Fill | K::FillLeft | K::FillRight => true,
                K::Bool | K::On | K::Ignoring | K::GroupLeft | K::GroupRight => false,
            },
            _ => false,
        }
    }

    /// Whether the word may be a label's name in a list of labels.
    pub(super) fn is_label_name(self) -> bool {
        match self {
            Kind::Identifier | Kind::MetricIdentifier => true,
            Kind::Aggregate(_) | Kind::Preprocessor(_) => true,
            Kind::Operator(op) => {
                matches!(
                    op,
                    BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2
                )
            }
            Kind::Keyword(word) => word != Keyword::Without,
            _ => false,
        }
    }

    /// Whether an expression can begin with it.
    pub(super) fn starts_expression(self) -> bool {
        match self {
            Kind::LeftParen | Kind::LeftBrace | Kind::Number | Kind::Duration | Kind::String => {
                true
            }
            Kind::Operator(BinaryOp::Add | BinaryOp::Sub) => true,
            _ => self.is_metric_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_words_in_any_case() {
        assert_eq!(word("SUM"), Some(Kind::Aggregate(AggregateOp::Sum)));
        assert_eq!(
            word("Count_Values"),
            Some(Kind::Aggregate(AggregateOp::CountValues))
        );
        assert_eq!(word("NaN"), Some(Kind::Number));
        assert_eq!(
            word("max_of"),
            Some(Kind::Preprocessor(Preprocessor::MaxOf))
        );
        assert_eq!(word("summe"), None);
        assert_eq!(word("count_values_"), None);
        assert_eq!(word(""), None);
    }

    #[test]
    fn shortens_long_texts() {
        let check = |kind, text: &str, expected: &str| {
            let token = Token {
                kind,
                span: Span::default(),
            };
            assert_eq!(token.describe(text), expected);
        };
        check(
            Kind::String,
            "\"0123456789\"",
            "string \"\\\"012345678\"...",
        );
        check(Kind::String, "\"01234567\"", "string \"\\\"01234567\\\"\"");
        check(
            Kind::Identifier,
            "a_rather_long_name",
            "identifier \"a_rather_long_name\"",
        );
        check(Kind::Keyword(Keyword::By), "BY", "<BY>");
        check(Kind::RightParen, ")", "\")\"");
    }
}
