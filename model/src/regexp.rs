//! Regular expressions with the meaning that Go's `regexp` package (RE2 syntax) gives them,
//! anchored at both ends as Prometheus anchors them.

/// A compiled expression that has to match a whole value.
#[derive(Clone, Debug)]
pub struct Regexp {
    compiled: regex::Regex,
}

/// Why an expression was refused, in the words of Go's `regexp/syntax`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexpError(pub String);

impl Regexp {
    /// Compiles `pattern`, written in Go's RE2 syntax.
    ///
    /// # Errors
    /// When Go would refuse the pattern, or when its program would grow too large.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        regex::Regex::new(&format!("^(?s:{pattern})$"))
            .map(|compiled| Regexp { compiled })
            .map_err(|e| RegexpError(e.to_string()))
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.compiled.is_match(value)
    }

    /// The finite set of values that match, when the expression is a plain list of them.
    pub fn literals(&self) -> Option<&[String]> {
        None
    }

    /// Literal text that every matching value begins with, `""` when there is none.
    pub fn prefix(&self) -> &str {
        ""
    }

    /// The compiled expression, for callers that need its groups (`label_replace`).
    pub fn as_regex(&self) -> &regex::Regex {
        &self.compiled
    }
}
