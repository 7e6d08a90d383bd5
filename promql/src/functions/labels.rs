//! `label_replace`, `label_join` and the order of `sort_by_label`: functions of a series' labels,
//! applied once per series.
//!
//! What depends on more than one series (two series ending with the same labels) is the
//! evaluator's business.

use std::cmp::Ordering;

use isobar_model::regexp::CaptureRegexp;
use isobar_model::{Labels, LabelsBuilder};

/// Why a label function was refused, in the words of Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelFnError {
    /// The expression is not one in Go's RE2 syntax.
    #[error("invalid regular expression in label_replace(): {0}")]
    Regexp(String),
    /// The label to write has no valid name.
    #[error("invalid destination label name in {function}(): {name}")]
    Destination {
        /// The function.
        function: &'static str,
        /// The name given.
        name: String,
    },
    /// A label to read has no valid name.
    #[error("invalid source label name in label_join(): {0}")]
    Source(String),
}

/// `label_replace(v, dst, replacement, src, regex)`, ready to apply.
#[derive(Debug, Clone)]
pub struct LabelReplace {
    dst: String,
    src: String,
    regexp: CaptureRegexp,
    template: Vec<Piece>,
}

impl LabelReplace {
    /// Checks the arguments, in the order of the function's.
    ///
    /// # Errors
    /// When `regex` does not compile or `dst` is no label name. Any non-empty UTF-8 is one.
    pub fn new<N: AsRef<[u8]>>(
        dst: N,
        replacement: &str,
        src: &str,
        regex: &str,
    ) -> Result<Self, LabelFnError> {
        let regexp =
            CaptureRegexp::new(regex).map_err(|_| LabelFnError::Regexp(regex.to_owned()))?;
        let dst = check_destination("label_replace", dst.as_ref())?;
        let template = parse_template(replacement, &regexp);
        Ok(LabelReplace {
            dst,
            src: src.to_owned(),
            regexp,
            template,
        })
    }

    /// The label that is written. Writing `__name__` keeps the name from being dropped.
    pub fn dst(&self) -> &str {
        &self.dst
    }

    /// The labels after replacing; `None` when the expression does not match and they stay.
    pub fn apply(&self, labels: &Labels) -> Option<Labels> {
        let groups = self.regexp.captures(labels.get(&self.src))?;
        let mut value = String::new();
        for piece in &self.template {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Group(candidates) => {
                    let set = candidates.iter().find_map(|index| groups.get(*index));
                    value.push_str(set.unwrap_or_default());
                }
            }
        }
        let mut builder = LabelsBuilder::new(labels);
        builder.set(&self.dst, &value);
        Some(builder.build())
    }
}

/// `label_join(v, dst, separator, src…)`, ready to apply.
#[derive(Debug, Clone)]
pub struct LabelJoin {
    dst: String,
    separator: String,
    sources: Vec<String>,
}

impl LabelJoin {
    /// Checks the arguments.
    ///
    /// # Errors
    /// When a source or `dst` is no label name. Any non-empty UTF-8 is one.
    pub fn new<N: AsRef<[u8]>, S: AsRef<[u8]>>(
        dst: N,
        separator: &str,
        sources: &[S],
    ) -> Result<Self, LabelFnError> {
        let sources = sources
            .iter()
            .map(|source| label_name(source.as_ref()).map_err(LabelFnError::Source))
            .collect::<Result<_, _>>()?;
        let dst = check_destination("label_join", dst.as_ref())?;
        Ok(LabelJoin {
            dst,
            separator: separator.to_owned(),
            sources,
        })
    }

    /// The label that is written. Writing `__name__` keeps the name from being dropped.
    pub fn dst(&self) -> &str {
        &self.dst
    }

    /// The labels after joining. When nothing is left of the joined value, `dst` is removed.
    pub fn apply(&self, labels: &Labels) -> Labels {
        let values: Vec<&str> = self
            .sources
            .iter()
            .map(|source| labels.get(source))
            .collect();
        let mut builder = LabelsBuilder::new(labels);
        builder.set(&self.dst, &values.join(&self.separator));
        builder.build()
    }
}

fn check_destination(function: &'static str, name: &[u8]) -> Result<String, LabelFnError> {
    label_name(name).map_err(|name| LabelFnError::Destination { function, name })
}

/// The bytes of a literal as a label's name; as an error, a text to show.
fn label_name(bytes: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    /// The first of these groups that took part in the match; several when groups share a name.
    Group(Vec<usize>),
}

/// Reads a replacement as Go's `Regexp.Expand`: `$1`, `$name` (as long as letters, digits and
/// underscores go), `${name}`, `$$` for a dollar. A dollar that begins none of these stands for
/// itself; a group that does not exist is empty.
fn parse_template(template: &str, regexp: &CaptureRegexp) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some((name, after)) = group_name(after) {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Group(group_indices(name, regexp)));
            rest = after;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    pieces
}

/// The name at the start of `text`, which follows a dollar, and what comes after it.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let end = inner
        .find(|c: char| !(c == '_' || c.is_alphabetic() || is_digit(c)))
        .unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced {
        Some((name, after.strip_prefix('}')?))
    } else {
        Some((name, after))
    }
}

/// Whether Unicode counts `c` as a decimal digit (Go's `unicode.IsDigit`); beyond ASCII the
/// standard library knows only "numeric", which has more.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || !c.is_ascii() && c.is_numeric()
}

fn group_indices(name: &str, regexp: &CaptureRegexp) -> Vec<usize> {
    let is_number = name.bytes().all(|b| b.is_ascii_digit())
        && (name.len() == 1 || !name.starts_with('0'))
        && name.len() <= 9;
    if is_number {
        return name.parse().into_iter().collect();
    }
    regexp.group_indices(name)
}

/// The order of `sort_by_label` for two values: runs of digits compare as numbers.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a_chunks, mut b_chunks) = (chunks(a), chunks(b));
    loop {
        match (a_chunks.next(), b_chunks.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match chunk_order(a, b) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
        }
    }
}

/// Whether `sort_by_label` takes `a` to come before the different text `b`, as the library that
/// Prometheus uses says it. Unlike [`natural_order`] it is no order: neither of `""` and `"a"`
/// comes before the other, and each of `"1"` and `"01"` does.
pub fn precedes(a: &str, b: &str) -> bool {
    let (mut a_chunks, mut b_chunks) = (chunks(a).peekable(), chunks(b).peekable());
    while let Some(a) = a_chunks.next() {
        let Some(b) = b_chunks.next() else {
            return false;
        };
        let numbers = a.parse::<i64>().ok().zip(b.parse::<i64>().ok());
        let (same, before) = match numbers {
            Some((a, b)) => (a == b, a < b),
            None => (a == b, a < b),
        };
        if !same {
            return before;
        }
        if a_chunks.peek().is_none() {
            return true;
        }
    }
    false
}

fn chunk_order(a: &str, b: &str) -> Ordering {
    let both_digits = [a, b]
        .iter()
        .all(|chunk| chunk.starts_with(|c: char| c.is_ascii_digit()));
    if !both_digits {
        return a.cmp(b);
    }
    let (a_digits, b_digits) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a_digits
        .len()
        .cmp(&b_digits.len())
        .then_with(|| a_digits.cmp(b_digits))
}

/// Splits into runs of digits and runs of anything else.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first_is_digit = rest.chars().next()?.is_ascii_digit();
        let end = rest
            .find(|c: char| c.is_ascii_digit() != first_is_digit)
            .unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(labels: &str, args: [&str; 4]) -> String {
        let base = Labels::from_pairs(labels.split(',').filter_map(|pair| pair.split_once('=')));
        match LabelReplace::new(args[0], args[1], args[2], args[3]) {
            Ok(function) => function.apply(&base).unwrap_or(base).to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn label_replace_expands_like_go() {
        for (args, want) in [
            (
                ["dst", "$1-x", "src", "a(.*)"],
                r#"{dst="bc-x", src="abc"}"#,
            ),
            (["dst", "$1x", "src", "a(.*)"], r#"{src="abc"}"#),
            (
                ["dst", "${1}x", "src", "a(.*)"],
                r#"{dst="bcx", src="abc"}"#,
            ),
            (
                ["dst", "$rest.", "src", "a(?P<rest>.*)"],
                r#"{dst="bc.", src="abc"}"#,
            ),
            (
                ["dst", "${rest}", "src", "a(?<rest>.*)"],
                r#"{dst="bc", src="abc"}"#,
            ),
            (["dst", "$$1", "src", "a(.*)"], r#"{dst="$1", src="abc"}"#),
            (["dst", "$", "src", ".*"], r#"{dst="$", src="abc"}"#),
            (["dst", "${1", "src", "a(.*)"], r#"{dst="${1", src="abc"}"#),
            (["dst", "${}", "src", "a(.*)"], r#"{dst="${}", src="abc"}"#),
            (
                ["dst", "$01|$9|$0", "src", "a(.*)"],
                r#"{dst="||abc", src="abc"}"#,
            ),
            (["dst", "v", "src", "bc"], r#"{src="abc"}"#),
            (["dst", "v", "none", ""], r#"{dst="v", src="abc"}"#),
            (["src", "", "src", ".*"], "{}"),
            (["é 1", "v", "src", ".*"], r#"{src="abc", "é 1"="v"}"#),
            (
                ["dst", "$2$1", "src", "a(x)?(b)c"],
                r#"{dst="b", src="abc"}"#,
            ),
            (
                ["", "v", "src", ".*"],
                "invalid destination label name in label_replace(): ",
            ),
            (
                ["d", "v", "src", "(.*"],
                "invalid regular expression in label_replace(): (.*",
            ),
        ] {
            assert_eq!(replace("src=abc", args), want, "{args:?}");
        }
    }

    #[test]
    fn label_join_joins_absent_labels_as_empty() {
        let base = Labels::from_pairs([("a", "1"), ("c", "3")]);
        let join = LabelJoin::new("dst", "-", &["a", "b", "c"]).expect("valid");
        assert_eq!(
            join.apply(&base).to_string(),
            r#"{a="1", c="3", dst="1--3"}"#
        );
        let join = LabelJoin::new("a", "", &["b"]).expect("valid");
        assert_eq!(join.apply(&base).to_string(), r#"{c="3"}"#);
        let none: [&str; 0] = [];
        let join = LabelJoin::new("a", ",", &none).expect("valid");
        assert_eq!(join.apply(&base).to_string(), r#"{c="3"}"#);
        let error = LabelJoin::new("dst", "-", &[""]).expect_err("no name");
        assert_eq!(
            error.to_string(),
            "invalid source label name in label_join(): "
        );
    }

    #[test]
    fn what_precedes_is_no_order() {
        for (a, b, forth, back) in [
            ("a", "b", true, false),
            ("n9", "n10", true, false),
            ("a", "a1", true, false),
            ("", "a", false, false),
            ("1", "01", true, true),
            ("99999999999999999999", "5", false, true),
        ] {
            assert_eq!((precedes(a, b), precedes(b, a)), (forth, back), "{a} {b}");
        }
    }

    #[test]
    fn natural_order_compares_numbers() {
        let mut names = ["n10", "n9", "n", "n09", "1", "a2b10", "a2b9", ""];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["", "1", "a2b9", "a2b10", "n", "n09", "n9", "n10"]);
    }
}
