//! Cuts a query into tokens, as Prometheus' `lex.go` does: what a character means depends on
//! whether a brace or bracket is open.
//!
//! After the first error the lexer is not asked again.

use super::ast::{BinaryOp, Span};
use super::error::{Fault, Parsed, quoted, quoted_char, unicode_char};
use super::token::{Kind, Preprocessor, Token, word};

/// Reads tokens from a query, one at a time.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the next character is read.
    at: usize,
    /// Where the token being read began.
    start: usize,
    /// Where the last token given began.
    last_start: usize,
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    /// Whether a colon was seen since the bracket opened.
    got_colon: bool,
    /// Whether a number or duration was seen in any bracket.
    got_duration: bool,
    /// Whether only what belongs to a duration expression is allowed: behind `[`, until a number.
    in_duration: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer that begins at byte `at`, outside of all parentheses.
    pub(super) fn new_at(text: &'a str, at: usize) -> Lexer<'a> {
        Lexer {
            text,
            at,
            start: at,
            last_start: at,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
            in_duration: false,
        }
    }

    /// The next token, comments skipped. At the end it gives [`Kind::Eof`] again and again.
    pub(super) fn next_token(&mut self) -> Parsed<Token> {
        loop {
            self.skip_spaces();
            if self.in_duration {
                return self.duration_token();
            }
            if self.peek() == Some(b'#') {
                self.skip_comment();
                continue;
            }
            return if self.brace_open {
                self.brace_token()
            } else {
                self.plain_token()
            };
        }
    }

    /// Where the parenthesis before the last token ends, if that token is one too and only
    /// spaces are between them; otherwise `fallback`.
    ///
    /// Prometheus corrects the end of an aggregation so, after it has read one token too many.
    pub(super) fn previous_paren_end(&self, fallback: usize) -> usize {
        let bytes = self.text.as_bytes();
        if self.last_start == 0 || bytes.get(self.last_start) != Some(&b')') {
            return fallback;
        }
        let before = &bytes[..self.last_start];
        match before.iter().rposition(|b| !is_space(*b)) {
            Some(at) if at > 0 && before[at] == b')' => at + 1,
            _ => fallback,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Consumes the next byte if `wanted` says so.
    fn accept(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let accepted = self.peek().is_some_and(wanted);
        self.at += usize::from(accepted);
        accepted
    }

    fn accept_byte(&mut self, wanted: u8) -> bool {
        self.accept(|b| b == wanted)
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.accept(&wanted) {}
    }

    fn skip_spaces(&mut self) {
        self.skip_while(is_space);
        self.start = self.at;
    }

    fn skip_comment(&mut self) {
        self.skip_while(|b| b != b'\n' && b != b'\r');
        self.start = self.at;
    }

    fn token_text(&self) -> &'a str {
        &self.text[self.start..self.at]
    }

    /// The character that starts at `at`.
    fn char_at(&self, at: usize) -> Option<char> {
        self.text[at..].chars().next()
    }

    fn emit(&mut self, kind: Kind) -> Parsed<Token> {
        let span = Span {
            start: self.start,
            end: self.at,
        };
        self.last_start = self.start;
        self.start = self.at;
        Ok(Token { kind, span })
    }

    /// A fault that begins with the token being read and takes in all that follows.
    fn fault<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Fault::syntax(
            Span {
                start: self.start,
                end: self.text.len(),
            },
            message,
        ))
    }

    /// A fault that begins behind what was read.
    fn fault_behind<T>(&mut self, message: impl Into<String>) -> Parsed<T> {
        self.start = self.at;
        self.fault(message)
    }

    /// A token outside of braces.
    fn plain_token(&mut self) -> Parsed<Token> {
        let Some(first) = self.peek() else {
            return self.end_of_input();
        };
        if first.is_ascii_digit() {
            return self.number_or_duration();
        }
        if is_alpha(first) || first == b':' {
            return if self.bracket_open {
                self.bracket_word(first)
            } else {
                self.word()
            };
        }
        self.at += 1;
        let kind = match first {
            b',' => Kind::Comma,
            b'@' => Kind::At,
            b'.' if self.peek().is_some_and(|b| b.is_ascii_digit()) => {
                self.at -= 1;
                return self.number_or_duration();
            }
            b'"' | b'\'' => return self.string(first),
            b'`' => return self.raw_string(),
            b'(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            b')' => return self.right_paren(),
            b'{' => {
                self.brace_open = true;
                Kind::LeftBrace
            }
            b'[' => return self.left_bracket(),
            b']' if self.bracket_open => {
                self.bracket_open = false;
                Kind::RightBracket
            }
            b']' => return self.fault("unexpected right bracket ']'"),
            b'=' if self.accept_byte(b'=') => Kind::Operator(BinaryOp::Eq),
            b'=' if self.peek() == Some(b'~') => {
                return self.fault("unexpected character after '=': '~'");
            }
            b'=' => Kind::Equal,
            b'!' if self.accept_byte(b'=') => Kind::Operator(BinaryOp::Ne),
            b'!' => {
                let next = quoted_char(self.char_at(self.at));
                return self.fault(format!("unexpected character after '!': {next}"));
            }
            _ => match self.operator(first) {
                Some(op) => Kind::Operator(op),
                None => {
                    let c = quoted_char(self.char_at(self.start));
                    return self.fault(format!("unexpected character: {c}"));
                }
            },
        };
        self.emit(kind)
    }

    /// The operator that begins with `first`, which was consumed.
    fn operator(&mut self, first: u8) -> Option<BinaryOp> {
        Some(match first {
            b'<' if self.accept_byte(b'=') => BinaryOp::Le,
            b'<' if self.accept_byte(b'/') => BinaryOp::TrimUpper,
            b'<' => BinaryOp::Lt,
            b'>' if self.accept_byte(b'=') => BinaryOp::Ge,
            b'>' if self.accept_byte(b'/') => BinaryOp::TrimLower,
            b'>' => BinaryOp::Gt,
            _ => return arithmetic(first),
        })
    }

    fn end_of_input(&mut self) -> Parsed<Token> {
        if self.paren_depth != 0 {
            return self.fault("unclosed left parenthesis");
        }
        if self.bracket_open {
            return self.fault("unclosed left bracket");
        }
        self.emit(Kind::Eof)
    }

    /// Behind a `)` that was consumed.
    fn right_paren(&mut self) -> Parsed<Token> {
        if self.paren_depth == 0 {
            return self.fault_behind("unexpected right parenthesis ')'");
        }
        self.paren_depth -= 1;
        self.emit(Kind::RightParen)
    }

    /// Behind a `[` that was consumed.
    fn left_bracket(&mut self) -> Parsed<Token> {
        if self.bracket_open {
            return self.fault("unexpected left bracket '['");
        }
        self.got_colon = false;
        self.bracket_open = true;
        self.in_duration = true;
        self.emit(Kind::LeftBracket)
    }

    /// A word or colon between brackets, behind the first number.
    fn bracket_word(&mut self, first: u8) -> Parsed<Token> {
        self.at += 1;
        if first == b':' {
            if self.got_colon {
                return self.fault("unexpected colon ':'");
            }
            self.got_colon = true;
            return self.emit(Kind::Colon);
        }
        match self.duration_word(first) {
            Some(word) => self.emit(Kind::Preprocessor(word)),
            None => {
                let c = quoted_char(Some(char::from(first)));
                self.fault(format!("unexpected character: {c}, expected ':'"))
            }
        }
    }

    /// The rest of a word that may stand in a duration expression.
    fn duration_word(&mut self, first: u8) -> Option<Preprocessor> {
        if !matches!(first.to_ascii_lowercase(), b's' | b'r' | b'm') {
            return None;
        }
        self.skip_while(is_alpha);
        match word(self.token_text())? {
            Kind::Preprocessor(Preprocessor::Start | Preprocessor::End) => None,
            Kind::Preprocessor(word) => Some(word),
            _ => None,
        }
    }

    /// A token between brackets, until the first number.
    fn duration_token(&mut self) -> Parsed<Token> {
        let Some(first) = self.peek() else {
            return self.fault("unexpected end of input in duration expression");
        };
        self.at += 1;
        let kind = match first {
            b']' => {
                self.bracket_open = false;
                self.in_duration = false;
                self.got_colon = false;
                Kind::RightBracket
            }
            b':' => {
                if !self.got_duration {
                    return self
                        .fault_behind("unexpected colon before duration in duration expression");
                }
                if self.got_colon {
                    return self.fault_behind("unexpected repeated colon in duration expression");
                }
                self.got_colon = true;
                Kind::Colon
            }
            b'(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            b')' => return self.right_paren(),
            b',' => Kind::Comma,
            b'0'..=b'9' | b'.'
                if first != b'.' || self.peek().is_some_and(|b| b.is_ascii_digit()) =>
            {
                self.at -= 1;
                self.got_duration = true;
                self.in_duration = false;
                return self.number_or_duration();
            }
            _ => match (arithmetic(first), self.duration_word(first)) {
                (Some(op), _) => Kind::Operator(op),
                (None, Some(word)) => Kind::Preprocessor(word),
                (None, None) => {
                    let c = quoted_char(self.char_at(self.start));
                    return self.fault(format!("unexpected character in duration expression: {c}"));
                }
            },
        };
        self.emit(kind)
    }

    /// A token between braces, where no word is a keyword.
    fn brace_token(&mut self) -> Parsed<Token> {
        let Some(first) = self.peek() else {
            return self.fault("unexpected end of input inside braces");
        };
        self.at += 1;
        let kind = match first {
            b if is_alpha(b) => {
                self.skip_while(is_alphanumeric);
                Kind::Identifier
            }
            b',' => Kind::Comma,
            b'"' | b'\'' => return self.string(first),
            b'`' => return self.raw_string(),
            b'=' if self.accept_byte(b'~') => Kind::EqualRegexp,
            b'=' => Kind::Equal,
            b'!' if self.accept_byte(b'~') => Kind::NotEqualRegexp,
            b'!' if self.accept_byte(b'=') => Kind::Operator(BinaryOp::Ne),
            b'!' => {
                let next = quoted_char(self.char_at(self.at));
                return self.fault(format!(
                    "unexpected character after '!' inside braces: {next}"
                ));
            }
            b'{' => return self.fault("unexpected left brace '{'"),
            b'}' => {
                self.brace_open = false;
                Kind::RightBrace
            }
            _ => {
                let c = quoted_char(self.char_at(self.start));
                return self.fault(format!("unexpected character inside braces: {c}"));
            }
        };
        self.emit(kind)
    }

    /// A keyword or identifier, which may hold colons.
    fn word(&mut self) -> Parsed<Token> {
        self.skip_while(|b| is_alphanumeric(b) || b == b':');
        let text = self.token_text();
        let kind = match word(text) {
            Some(Kind::Keyword(keyword)) if keyword.needs_paren() && !self.paren_follows() => {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if text.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.emit(kind)
    }

    /// Whether the next thing that is no space is `(`.
    fn paren_follows(&self) -> bool {
        self.text.as_bytes()[self.at..]
            .iter()
            .find(|b| !is_space(**b))
            == Some(&b'(')
    }

    /// Behind the opening quote, which was consumed.
    fn string(&mut self, quote: u8) -> Parsed<Token> {
        loop {
            match self.peek() {
                None | Some(b'\n') => return self.fault("unterminated quoted string"),
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(quote)?;
                }
                Some(b) => {
                    self.refuse_replacement_char(b)?;
                    self.at += 1;
                    if b == quote {
                        return self.emit(Kind::String);
                    }
                }
            }
        }
    }

    /// Behind the opening backquote, which was consumed.
    fn raw_string(&mut self) -> Parsed<Token> {
        loop {
            let Some(b) = self.peek() else {
                return self.fault("unterminated raw string");
            };
            self.refuse_replacement_char(b)?;
            self.at += 1;
            if b == b'`' {
                return self.emit(Kind::String);
            }
        }
    }

    /// Go reads what is not UTF-8 as U+FFFD, so that character itself is refused as well.
    fn refuse_replacement_char(&self, next: u8) -> Parsed<()> {
        if next == 0xef && self.text[self.at..].starts_with('\u{fffd}') {
            return self.fault("invalid UTF-8 rune");
        }
        Ok(())
    }

    /// Behind a backslash, which was consumed.
    fn escape(&mut self, quote: u8) -> Parsed<()> {
        let Some(first) = self.char_at(self.at) else {
            return self.fault("escape sequence not terminated");
        };
        let (digits, base, limit) = match first {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => (0, 0, 0),
            c if c == char::from(quote) => (0, 0, 0),
            '0'..='7' => (3, 8, 255),
            'x' => (2, 16, 255),
            'u' => (4, 16, u32::from(char::MAX)),
            'U' => (8, 16, u32::from(char::MAX)),
            c => return self.fault(format!("unknown escape sequence {}", unicode_char(c))),
        };
        if base != 8 {
            self.at += 1;
        }
        let mut code: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.char_at(self.at) else {
                return self.fault("escape sequence not terminated");
            };
            let Some(digit) = c.to_digit(base) else {
                let c = unicode_char(c);
                return self.fault(format!("illegal character {c} in escape sequence"));
            };
            code = code.wrapping_mul(base).wrapping_add(digit);
            self.at += 1;
        }
        if code > limit || (0xd800..0xe000).contains(&code) {
            return self.fault("escape sequence is an invalid Unicode code point");
        }
        Ok(())
    }

    fn number_or_duration(&mut self) -> Parsed<Token> {
        if self.scan_number() {
            return self.emit(Kind::Number);
        }
        if self.scan_duration() {
            return self.emit(Kind::Duration);
        }
        let text = quoted(self.token_text());
        self.fault(format!("bad number or duration syntax: {text}"))
    }

    /// Reads on from where [`Lexer::scan_number`] stopped, which is behind a number.
    fn scan_duration(&mut self) -> bool {
        let mut first = true;
        while first || self.accept(|b| b.is_ascii_digit()) {
            self.skip_while(|b| !first && b.is_ascii_digit());
            // Years only come first. Units such as `hs` are refused when the text is parsed.
            if !self.accept(|b| b"smhdw".contains(&b) || first && b == b'y') {
                return false;
            }
            self.accept_byte(b's');
            first = false;
        }
        // On failure the message shows the character that is too much.
        !self.accept(is_alphanumeric)
    }

    /// Reads what may be a number; whether it is one shows when its text is parsed.
    fn scan_number(&mut self) -> bool {
        let mut hex = false;
        if self.accept_byte(b'0') && self.accept(|b| matches!(b, b'x' | b'X')) {
            self.accept_byte(b'_');
            hex = true;
        }
        let is_digit = |b: u8| b.is_ascii_digit() || hex && b.is_ascii_hexdigit();
        let is_exponent = |b: u8| matches!(b, b'e' | b'E');
        self.accept_byte(b'.');
        self.accept(is_digit);
        let (mut got_dot, mut got_exponent) = (false, false);
        while let Some(next) = self.peek() {
            if next == b'.' {
                self.at += 1;
                if got_dot || self.accept(|b| matches!(b, b'_' | b'.')) || hex {
                    return false;
                }
                got_dot = true;
            } else if is_exponent(next) {
                self.at += 1;
                if got_exponent {
                    return false;
                }
                got_exponent = true;
                self.accept(|b| matches!(b, b'+' | b'-'));
                if self.accept(|b| matches!(b, b'.' | b'_') || is_exponent(b)) || self.is_at_end() {
                    return false;
                }
            } else if next == b'_' {
                self.at += 1;
                if self.accept(|b| matches!(b, b'.' | b'_') || is_exponent(b)) || self.is_at_end() {
                    return false;
                }
            } else if is_digit(next) {
                self.skip_while(is_digit);
            } else {
                break;
            }
        }
        !self.peek().is_some_and(is_alphanumeric)
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }
}

fn arithmetic(b: u8) -> Option<BinaryOp> {
    Some(match b {
        b'+' => BinaryOp::Add,
        b'-' => BinaryOp::Sub,
        b'*' => BinaryOp::Mul,
        b'/' => BinaryOp::Div,
        b'%' => BinaryOp::Mod,
        b'^' => BinaryOp::Pow,
        _ => return None,
    })
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alpha(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphabetic()
}

fn is_alphanumeric(b: u8) -> bool {
    is_alpha(b) || b.is_ascii_digit()
}
