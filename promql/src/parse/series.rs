//! Series with their values, as test scripts write them: `up{job="x"} 1 2+3x4 _x5 stale`.
//!
//! A value stands alone; `1x3` is the value and three more of it; `1+2x3` adds 2 each time;
//! `_` is a gap and `_x3` three of them; `stale` is the staleness marker. A native histogram
//! `{{…}}` is recognised and kept as text.

use isobar_model::sample::STALE_NAN;
use isobar_model::{Labels, LabelsBuilder};

use super::ast::Span;
use super::error::{Fault, ParseError, Parsed, quoted};
use super::number::parse_number;
use super::parser::{Context, Parser};
use super::token::Kind;

/// Most values of one series. `1x1000000000` is a short text.
pub const VALUES_MAX: u64 = 1_000_000;

/// A series with its values.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDescription {
    /// The labels, the metric's name among them.
    pub labels: Labels,
    /// The values in time order.
    pub values: Vec<SequenceValue>,
}

/// What a series has at one time.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// Nothing.
    Omitted,
    /// A number or the staleness marker.
    Float(f64),
    /// A native histogram: what stands between `{{` and `}}`, and behind the first one of a
    /// series such as `{{…}}+{{…}}x3` which one it is.
    Histogram {
        /// The histogram that the series starts with.
        base: String,
        /// What is added each time, with its sign.
        step: Option<(char, String)>,
        /// How often it was added.
        steps: u64,
    },
}

/// Reads a series with its values.
///
/// # Errors
/// When the text does not follow the grammar, or describes more than [`VALUES_MAX`] values.
pub fn parse_series(text: &str) -> Result<SeriesDescription, ParseError> {
    let read = || {
        let (labels, at) = labels(text)?;
        let mut values = Values {
            text,
            at,
            values: Vec::new(),
        };
        values.read()?;
        Ok(SeriesDescription {
            labels,
            values: values.values,
        })
    };
    read().map_err(|fault: Box<Fault>| fault.in_query(text))
}

/// The labels, and where they end.
fn labels(text: &str) -> Parsed<(Labels, usize)> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    let name_len = text.bytes().take_while(|b| is_name(*b)).count();
    let mut builder = LabelsBuilder::default();
    builder.set("__name__", &text[..name_len]);
    if text.as_bytes().get(name_len) != Some(&b'{') {
        return Ok((builder.build(), name_len));
    }
    let mut parser = Parser::new_at(text, name_len);
    let end = parser.label_set(&mut builder)?;
    Ok((builder.build(), end))
}

impl Parser<'_> {
    /// Labels in braces; gives where they end.
    fn label_set(&mut self, builder: &mut LabelsBuilder) -> Parsed<usize> {
        const NAME: Context = Context::new("label set", "identifier or \"}\"");
        const EQUAL: Context = Context::new("label set", "\"=\"");
        const VALUE: Context = Context::new("label set", "string");
        const GO_ON: Context = Context::new("label set", "\",\" or \"}\"");
        self.next()?;
        loop {
            if let Some(close) = self.accept(Kind::RightBrace)? {
                return Ok(close.span.end);
            }
            let label = self.peek()?;
            let name = match label.kind {
                Kind::Identifier => self.text_of(label).to_owned(),
                Kind::String => self.string_text(label)?,
                _ => return self.unexpected(NAME),
            };
            self.next()?;
            if label.kind == Kind::String && self.peek()?.kind != Kind::Equal {
                builder.set("__name__", &name);
            } else {
                self.expect(Kind::Equal, EQUAL)?;
                let value = self.expect(Kind::String, VALUE)?;
                builder.set(&name, &self.string_text(value)?);
            }
            if self.accept(Kind::Comma)?.is_none() && self.peek()?.kind != Kind::RightBrace {
                return self.unexpected(GO_ON);
            }
        }
    }
}

/// Reads values, which are apart by spaces.
struct Values<'a> {
    text: &'a str,
    at: usize,
    values: Vec<SequenceValue>,
}

impl<'a> Values<'a> {
    fn read(&mut self) -> Parsed<()> {
        loop {
            let spaces = self.take_while(|b| b.is_ascii_whitespace());
            if self.at == self.text.len() {
                return Ok(());
            }
            if spaces.is_empty() {
                return self.unexpected();
            }
            self.item()?;
        }
    }

    fn item(&mut self) -> Parsed<()> {
        if self.accept("_") {
            let times = self.times()?.unwrap_or(1);
            return self.push(times, |_| SequenceValue::Omitted);
        }
        if self.accept("{{") {
            return self.histograms();
        }
        let mut value = self.value()?;
        let step = match self.peek() {
            Some(b'+' | b'-') => Some(self.value()?),
            _ => None,
        };
        match (step, self.times()?) {
            (None, None) => self.push(1, |_| SequenceValue::Float(value)),
            (Some(_), None) => self.unexpected(),
            (step, Some(times)) => self.push(times.saturating_add(1), |_| {
                let now = value;
                value = step.map_or(value, |step| value + step);
                SequenceValue::Float(now)
            }),
        }
    }

    /// Behind the first `{{`.
    fn histograms(&mut self) -> Parsed<()> {
        let base = self.histogram()?;
        let step = match self.peek() {
            Some(sign @ (b'+' | b'-')) => {
                self.at += 1;
                if !self.accept("{{") {
                    return self.unexpected();
                }
                Some((char::from(sign), self.histogram()?))
            }
            _ => None,
        };
        let times = self.times()?;
        if step.is_some() && times.is_none() {
            return self.unexpected();
        }
        self.push(times.unwrap_or(0).saturating_add(1), |steps| {
            let steps = if step.is_some() { steps } else { 0 };
            SequenceValue::Histogram {
                base: base.clone(),
                step: step.clone(),
                steps,
            }
        })
    }

    /// The text up to `}}`.
    fn histogram(&mut self) -> Parsed<String> {
        let rest = &self.text[self.at..];
        let Some(len) = rest.find("}}") else {
            return self.unexpected();
        };
        self.at += len + "}}".len();
        Ok(rest[..len].trim().to_owned())
    }

    /// A number with or without a sign, `inf`, `nan` or `stale`.
    fn value(&mut self) -> Parsed<f64> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
        let digits_start = self.at;
        if self.peek().is_some_and(|b| b.is_ascii_alphabetic()) {
            self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_');
        } else {
            self.take_while(|b| b.is_ascii_digit() || b == b'.' || b == b'_');
            if matches!(self.peek(), Some(b'e' | b'E')) {
                self.at += 1;
                self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
                self.take_while(|b| b.is_ascii_digit());
            }
        }
        let text = &self.text[digits_start..self.at];
        if text == "stale" && digits_start == start {
            return Ok(STALE_NAN);
        }
        let span = Span {
            start,
            end: self.at,
        };
        match parse_number(text) {
            Ok(value) => Ok(if negative { -value } else { value }),
            Err(_) if text.is_empty() || text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                self.at = start;
                self.unexpected()
            }
            Err(e) => Err(Fault::syntax(span, format!("error parsing number: {e}"))),
        }
    }

    /// `x5`, if it stands here.
    fn times(&mut self) -> Parsed<Option<u64>> {
        if !self.accept("x") {
            return Ok(None);
        }
        let start = self.at;
        let digits = self.take_while(|b| b.is_ascii_digit());
        digits.parse().map(Some).map_err(|e| {
            let span = Span {
                start,
                end: start + digits.len(),
            };
            Fault::syntax(span, format!("invalid repetition in series values: {e}"))
        })
    }

    fn push(&mut self, times: u64, mut value: impl FnMut(u64) -> SequenceValue) -> Parsed<()> {
        if times > VALUES_MAX.saturating_sub(self.values.len() as u64) {
            let span = Span {
                start: self.at,
                end: self.text.len(),
            };
            return Err(Fault::syntax(
                span,
                format!("more than {VALUES_MAX} values in a series"),
            ));
        }
        self.values.extend((0..times).map(&mut value));
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, wanted: &str) -> bool {
        let accepted = self.text[self.at..].starts_with(wanted);
        self.at += if accepted { wanted.len() } else { 0 };
        accepted
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(|b| wanted(*b)).count();
        self.at += len;
        &rest[..len]
    }

    fn unexpected<T>(&self) -> Parsed<T> {
        let rest = &self.text[self.at..];
        let found = match rest.chars().next() {
            None => "end of input".to_owned(),
            Some(c) => quoted(c.encode_utf8(&mut [0; 4])),
        };
        let message = format!("unexpected {found} in series values, expected number or \"stale\"");
        Err(Fault::syntax(
            Span {
                start: self.at,
                end: self.text.len(),
            },
            message,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let read = match parse_series(text) {
            Ok(series) => {
                let values: Vec<String> = series
                    .values
                    .iter()
                    .map(|value| match value {
                        SequenceValue::Omitted => "_".to_owned(),
                        SequenceValue::Float(v) if isobar_model::sample::is_stale(*v) => {
                            "stale".to_owned()
                        }
                        SequenceValue::Float(v) => v.to_string(),
                        SequenceValue::Histogram {
                            base, step: None, ..
                        } => format!("<{base}>"),
                        SequenceValue::Histogram {
                            base,
                            step: Some((sign, step)),
                            steps,
                        } => {
                            format!("<{base}{sign}{steps}*{step}>")
                        }
                    })
                    .collect();
                format!("{} {}", series.labels, values.join(" "))
            }
            Err(e) => e.to_string(),
        };
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn reads_series() {
        check("up 1", r#"{__name__="up"} 1"#);
        check(r#"{"a b", c="d"} 1"#, r#"{__name__="a b", c="d"} 1"#);
        check(
            r#"up{a="b",} 1 -2.5e-3 +3"#,
            r#"{__name__="up", a="b"} 1 -0.0025 3"#,
        );
        check("{} 1x2 1+2x3 5-5x2 -1-1x1", "{} 1 1 1 1 3 5 7 5 0 -5 -1 -2");
        check(
            "up _ _x3 stale NaN Inf -inf",
            r#"{__name__="up"} _ _ _ _ stale NaN inf -inf"#,
        );
        check("up", r#"{__name__="up"} "#);
        check(
            "a {{sum:1 count:2}} {{}}x1",
            r#"{__name__="a"} <sum:1 count:2> <> <>"#,
        );
        check(
            "a {{sum:1}}+{{sum:2}}x2",
            r#"{__name__="a"} <sum:1+0*sum:2> <sum:1+1*sum:2> <sum:1+2*sum:2>"#,
        );
    }

    #[test]
    fn refuses_what_is_no_series() {
        check(
            "up 1+",
            "1:5: parse error: unexpected \"+\" in series values, expected number or \"stale\"",
        );
        check(
            "up 1+2",
            "1:7: parse error: unexpected end of input in series values, expected number or \"stale\"",
        );
        check(
            "up old",
            "1:4: parse error: unexpected \"o\" in series values, expected number or \"stale\"",
        );
        check(
            "up{a=b} 1",
            "1:6: parse error: unexpected identifier \"b\" in label set, expected string",
        );
        check(
            "up 1x9999999999",
            "1:16: parse error: more than 1000000 values in a series",
        );
        check(
            "up é",
            "1:4: parse error: unexpected \"é\" in series values, expected number or \"stale\"",
        );
        check(
            "é",
            "1:1: parse error: unexpected \"é\" in series values, expected number or \"stale\"",
        );
    }
}
