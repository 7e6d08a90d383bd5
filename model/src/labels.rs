//! Label sets: sorted, unique name-value pairs that identify a series.
//!
//! A [`Labels`] is one shared string. Each name and each value stands in it behind its length,
//! and each length is written as base-64 digits in ASCII, least significant first, with bit 6
//! set on all digits but the last:
//!
//! ```text
//! ┌──────────┬──────┬───────────┬───────┬──────────┬───
//! │ name len │ name │ value len │ value │ name len │ …
//! └──────────┴──────┴───────────┴───────┴──────────┴───
//! ```
//!
//! So a set costs one allocation, a clone costs a counter, equality is one comparison of bytes,
//! and the whole stays valid UTF-8. Pairs are sorted by name; an empty value is the same as an
//! absent label and is never stored.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";
/// The label that holds a bucket's upper bound in classic histograms.
pub const BUCKET_LABEL: &str = "le";

/// A sorted set of labels. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Labels {
    /// The set without labels.
    pub fn empty() -> Self {
        Labels(Arc::from(""))
    }

    /// Builds a set from pairs in any order. Empty values are dropped; of equal names the last wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Builds a set from pairs that are already sorted by name, unique and without empty values.
    ///
    /// `scratch` is used to assemble the text and is left with undefined content; callers that
    /// build many sets pass the same one to save allocations.
    pub fn from_sorted<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        scratch: &mut String,
    ) -> Self {
        scratch.clear();
        for (name, value) in pairs {
            push_text(scratch, name);
            push_text(scratch, value);
        }
        Labels(Arc::from(scratch.as_str()))
    }

    /// The set with the label `name`, in place of the one of this name if there is one, and whether it is
    /// the last of the set. The value must not be empty. `scratch` is as in [`Labels::from_sorted`].
    pub fn with(&self, name: &str, value: &str, scratch: &mut String) -> (Labels, bool) {
        let mut pairs = self.iter();
        let (begin, end) = loop {
            let begin = pairs.at;
            match pairs.next().map(|(other, _)| other.cmp(name)) {
                Some(Ordering::Less) => {}
                Some(Ordering::Equal) => break (begin, pairs.at),
                Some(Ordering::Greater) | None => break (begin, begin),
            }
        };
        scratch.clear();
        scratch.push_str(&self.0[..begin]);
        push_text(scratch, name);
        push_text(scratch, value);
        scratch.push_str(&self.0[end..]);
        (Labels(Arc::from(scratch.as_str())), end == self.0.len())
    }

    /// Whether the set has no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of labels. Walks the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The value of `name`, or `""` when there is no such label.
    pub fn get(&self, name: &str) -> &str {
        for (candidate, value) in self.iter() {
            match candidate.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return value,
                Ordering::Greater => break,
            }
        }
        ""
    }

    /// Whether the label `name` exists.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The metric's name, or `""`.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// The pairs in name order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            text: &self.0,
            at: 0,
        }
    }

    /// The set without the labels for which `keep` is false.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        let mut scratch = String::with_capacity(self.0.len());
        Labels::from_sorted(self.iter().filter(|(name, _)| keep(name)), &mut scratch)
    }

    /// The set without the metric's name.
    pub fn without_metric_name(&self) -> Labels {
        if self.has(METRIC_NAME) {
            self.filter(|name| name != METRIC_NAME)
        } else {
            self.clone()
        }
    }

    /// The bytes of the canonical form described in the module's page. Equal sets have equal
    /// bytes; the order of bytes is not the order of sets.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// A 64-bit hash of the canonical form, stable within a build of Isobar and no further.
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0.as_bytes())
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Orders as Prometheus does: pair by pair, names before values, a prefix before what it begins.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prints as Prometheus' `labels.Labels.String`: `{name="value", other="value"}`, with names that
/// are not legacy-valid quoted and values escaped as Go's `%q` does.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write_quoted(f, name)?;
            }
            f.write_str("=")?;
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Walks the pairs of a [`Labels`] in name order.
#[derive(Clone)]
pub struct Iter<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iter<'a> {
    fn text(&mut self) -> &'a str {
        let bytes = self.text.as_bytes();
        let mut len = 0;
        let mut shift = 0;
        loop {
            let digit = bytes[self.at];
            self.at += 1;
            len |= usize::from(digit & 0x3f) << shift;
            if digit & 0x40 == 0 {
                break;
            }
            shift += 6;
        }
        let text = &self.text[self.at..self.at + len];
        self.at += len;
        text
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.text.len()).then(|| (self.text(), self.text()))
    }
}

fn push_text(into: &mut String, text: &str) {
    let mut len = text.len();
    loop {
        let digit = (len & 0x3f) as u8;
        len >>= 6;
        if len == 0 {
            into.push(char::from(digit));
            break;
        }
        into.push(char::from(digit | 0x40));
    }
    into.push_str(text);
}

/// Assembles or changes a label set.
#[derive(Debug, Default, Clone)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder that starts from `base`.
    pub fn new(base: &Labels) -> Self {
        LabelsBuilder {
            pairs: base
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The finished set.
    pub fn build(mut self) -> Labels {
        self.pairs.retain(|(_, value)| !value.is_empty());
        self.pairs.sort_unstable();
        let mut scratch = String::new();
        Labels::from_sorted(
            self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())),
            &mut scratch,
        )
    }
}

/// Whether `name` is a label name that needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` is a metric name that needs no quotes: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Writes `text` in double quotes, escaped as Go's `strconv.Quote` does.
pub fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\x07' => out.write_str("\\a")?,
            '\x08' => out.write_str("\\b")?,
            '\x0c' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\x0b' => out.write_str("\\v")?,
            c if (c as u32) < 0x20 || c == '\x7f' => write!(out, "\\x{:02x}", c as u32)?,
            c if !is_printable(c) && (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32)?,
            c if !is_printable(c) => write!(out, "\\U{:08x}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// An approximation of Go's `unicode.IsPrint` for what lies beyond ASCII: control, format and
/// surrogate code points, separators other than the plain space, and private use do not print.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    !(c.is_control()
        || c.is_whitespace()
        || matches!(c as u32,
            0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f
            | 0x202a..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xfffb
            | 0xfffe | 0xffff | 0xe0000..=0x10ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_drops_empty_and_finds() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("__name__", "m")]);
        assert_eq!(labels.to_string(), r#"{__name__="m", a="1", b="2"}"#);
        assert_eq!(labels.get("b"), "2");
        assert_eq!(labels.get("c"), "");
        assert_eq!(labels.len(), 3);
        assert_eq!(
            labels.without_metric_name().to_string(),
            r#"{a="1", b="2"}"#
        );
    }

    #[test]
    fn one_label_more() {
        let check = |name: &str, expected: &str, expect_last: bool| {
            let labels = Labels::from_pairs([("b", "2"), ("d", "4")]);
            let (labels, last) = labels.with(name, "new", &mut String::from("rest"));
            assert_eq!((labels.to_string().as_str(), last), (expected, expect_last));
        };
        check("a", r#"{a="new", b="2", d="4"}"#, false);
        check("b", r#"{b="new", d="4"}"#, false);
        check("c", r#"{b="2", c="new", d="4"}"#, false);
        check("d", r#"{b="2", d="new"}"#, true);
        check("e", r#"{b="2", d="4", e="new"}"#, true);
        let (labels, last) = Labels::default().with("a", "new", &mut String::new());
        assert_eq!((labels, last), (Labels::from_pairs([("a", "new")]), true));
    }

    #[test]
    fn keeps_texts_longer_than_one_digit() {
        for len in [0, 1, 63, 64, 65, 4095, 4096, 300_000] {
            let value = "é".repeat(len);
            let labels = Labels::from_pairs([("a", value.as_str()), ("b", "x")]);
            assert_eq!(labels.get("a"), value);
            assert_eq!(labels.get("b"), "x");
        }
    }

    #[test]
    fn orders_pair_by_pair() {
        let a = Labels::from_pairs([("a", "x"), ("b", "long value here")]);
        let b = Labels::from_pairs([("a", "xy")]);
        let c = Labels::from_pairs([("a", "x")]);
        assert!(c < a && a < b);
    }
}
