//! Why a text is no query, printed as Prometheus prints it: `1:4: parse error: …`.
//!
//! Only the first thing wrong is reported, as Prometheus does.

use std::fmt;

use isobar_model::labels::write_quoted;

use super::ast::Span;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// The text does not follow the grammar.
    Syntax,
    /// The text follows the grammar but its types do not fit.
    Type,
    /// The expression nests deeper than [`super::DEPTH_MAX`] or its tree is higher than
    /// [`super::HEIGHT_MAX`].
    TooDeep,
}

/// Why and where a text was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    fault: Fault,
    position: Position,
}

/// Where in the query the fault starts, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// The query is empty.
    Unknown,
    /// Line and column, both from 1, the column in bytes.
    At(usize, usize),
}

/// An error that does not know the query yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ParseErrorKind,
    pub(super) span: Span,
    pub(super) message: String,
}

/// What the parts of the parser answer.
pub(super) type Parsed<T> = Result<T, Box<Fault>>;

impl Fault {
    /// A fault of syntax.
    pub(super) fn syntax(span: Span, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault {
            kind: ParseErrorKind::Syntax,
            span,
            message: message.into(),
        })
    }

    /// A fault of types.
    pub(super) fn types(span: Span, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault {
            kind: ParseErrorKind::Type,
            span,
            message: message.into(),
        })
    }

    /// The error for whoever gave `query`.
    pub(super) fn in_query(self, query: &str) -> ParseError {
        let position = if query.is_empty() {
            Position::Unknown
        } else {
            let before = &query.as_bytes()[..self.span.start.min(query.len())];
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            let line_start = before
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            Position::At(line, before.len() - line_start + 1)
        };
        ParseError(Box::new(Inner {
            fault: self,
            position,
        }))
    }
}

impl ParseError {
    /// What kind of thing is wrong.
    pub fn kind(&self) -> ParseErrorKind {
        self.0.fault.kind
    }

    /// The bytes of the query that are at fault.
    pub fn span(&self) -> Span {
        self.0.fault.span
    }

    /// What is wrong, without the position.
    pub fn message(&self) -> &str {
        &self.0.fault.message
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.position {
            Position::Unknown => f.write_str("unknown position")?,
            Position::At(line, column) => write!(f, "{line}:{column}")?,
        }
        write!(f, ": parse error: {}", self.0.fault.message)
    }
}

impl std::error::Error for ParseError {}

/// `text` in double quotes, escaped as Go's `%q` does.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _written = write_quoted(&mut out, text);
    out
}

/// Bytes that may not be UTF-8, quoted as Go's `%q` does: what is no character is written `\x..`.
pub(crate) fn quoted_bytes(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        let quoted = quoted(chunk.valid());
        out.push_str(&quoted[1..quoted.len() - 1]);
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// A character in single quotes, as Go's `%q` prints a rune; `None` stands for the end of input.
pub(super) fn quoted_char(c: Option<char>) -> String {
    match c {
        None => "'\u{fffd}'".to_owned(),
        Some('\'') => "'\\''".to_owned(),
        Some('"') => "'\"'".to_owned(),
        Some(c) => {
            let quoted = quoted(c.encode_utf8(&mut [0; 4]));
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// A character as Go's `%#U` prints it: `U+0063 'c'`, without the picture when it has none.
pub(super) fn unicode_char(c: char) -> String {
    let code = c as u32;
    let mut picture = [0; 4];
    let picture: &str = c.encode_utf8(&mut picture);
    if matches!(c, '"' | '\\') || quoted(picture) == format!("\"{picture}\"") {
        format!("U+{code:04X} '{picture}'")
    } else {
        format!("U+{code:04X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quoted_char(Some('\'')), r"'\''");
        assert_eq!(quoted_char(Some('"')), r#"'"'"#);
        assert_eq!(quoted_char(Some('\\')), r"'\\'");
        assert_eq!(quoted_char(Some('\0')), r"'\x00'");
        assert_eq!(quoted_char(None), "'\u{fffd}'");
        assert_eq!(quoted_bytes(b"a\xff\"\xc3"), r#""a\xff\"\xc3""#);
        assert_eq!(unicode_char('"'), "U+0022 '\"'");
        assert_eq!(unicode_char('\n'), "U+000A");
        assert_eq!(unicode_char('\u{1f600}'), "U+1F600 '\u{1f600}'");
    }

    #[test]
    fn counts_lines_and_columns() {
        let at = |start| {
            Fault::syntax(Span { start, end: start }, "x")
                .in_query("a\nbc\n")
                .to_string()
        };
        assert_eq!(at(0), "1:1: parse error: x");
        assert_eq!(at(1), "1:2: parse error: x");
        assert_eq!(at(3), "2:2: parse error: x");
        assert_eq!(at(5), "3:1: parse error: x");
        let empty = Fault::syntax(Span::default(), "x").in_query("");
        assert_eq!(empty.to_string(), "unknown position: parse error: x");
    }
}
