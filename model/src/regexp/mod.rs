//! Regular expressions with the meaning that Go's `regexp` package (RE2 syntax) gives them,
//! anchored at both ends as Prometheus anchors them, `.` matching line breaks too.
//!
//! Rust's `regex` reads a similar but different language: it refuses what Go accepts (`\Q..\E`,
//! octal escapes, a lone `{`), accepts what Go refuses (`a**`, `a{1001}`), and `\w`, `\d`, `\s`
//! and `\b` are Unicode there and ASCII in Go. So patterns are read here, in reading order by
//! [`parse`] with [`class`] and [`item`] into the tree of [`node`]. The tree becomes an automaton of
//! `regex-automata`; [`shape`] finds what needs no automaton at all; [`cache`] keeps automata.
//!
//! The oracle is the fork of Go's package that Prometheus 3.14 uses.

use std::sync::Arc;

use regex_automata::meta;
use regex_automata::util::syntax;

mod parse;

mod class;
mod item;
mod node;
mod scripts;

mod list;
mod shape;

mod cache;

use cache::Compiled;
use node::Node;
use shape::Shape;

/// Bytes that a compiled pattern may take. Go bounds its own programs by instructions
/// ("expression too large"); this bound is met earlier only by long repetitions of large Unicode
/// classes.
const PROGRAM_BYTES_MAX: usize = 16 << 20;

/// Why an expression was refused, in the words of Go's `regexp/syntax`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexpError(pub String);

/// An expression that has to match a whole value. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Regexp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shape: Shape,
    prefix: String,
    /// Absent when the shape alone decides.
    automaton: Option<meta::Regex>,
}

impl Regexp {
    /// Compiles `pattern`, written in Go's RE2 syntax.
    ///
    /// # Errors
    /// When Go would refuse the pattern, or when its program would grow too large.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        if let Some(list) = list::plain_list(pattern) {
            let prefix = list.prefix();
            return Ok(Regexp(Arc::new(Inner {
                shape: Shape::Literals(list),
                prefix,
                automaton: None,
            })));
        }
        if let Some(known) = cache::get(pattern, false) {
            return Ok(Regexp(Arc::new(Inner {
                shape: Shape::Other,
                prefix: known.prefix,
                automaton: Some(known.automaton),
            })));
        }
        let tree = parse::parse(pattern, true)?.tree;
        let shape = Shape::of(&tree);
        let prefix = shape::prefix(&tree);
        let automaton = match shape {
            Shape::Other => {
                let compiled = Compiled {
                    automaton: compile(pattern, &tree, false)?,
                    prefix: prefix.clone(),
                    names: Vec::new(),
                };
                cache::put(pattern, false, &compiled);
                Some(compiled.automaton)
            }
            _ => None,
        };
        Ok(Regexp(Arc::new(Inner {
            prefix,
            shape,
            automaton,
        })))
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.0.automaton {
            Some(automaton) => {
                shape::starts_with(value, &self.0.prefix) && automaton.is_match(value)
            }
            None => self.0.shape.is_match(value),
        }
    }

    /// The finite set of values that match, sorted and each once, when there is such a set and
    /// it is not too large.
    pub fn literals(&self) -> Option<&[String]> {
        match &self.0.shape {
            Shape::Literals(literals) => Some(literals.as_slice()),
            Shape::Globs(_) | Shape::Other => None,
        }
    }

    /// Literal text that every matching value begins with, `""` when there is none.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }
}

/// As [`Regexp`], for callers that need the groups of a match (`label_replace`).
#[derive(Clone, Debug)]
pub struct CaptureRegexp {
    automaton: meta::Regex,
    names: Vec<(String, usize)>,
}

impl CaptureRegexp {
    /// Compiles `pattern`, written in Go's RE2 syntax. Prometheus puts the text of the anchors
    /// around that of the pattern here, while for matchers it adds them to the parsed pattern:
    /// `a)|(b` is an error there and a pattern here.
    ///
    /// # Errors
    /// As for [`Regexp::new`], apart from such cases.
    pub fn new(pattern: &str) -> Result<Self, RegexpError> {
        let compiled = match cache::get(pattern, true) {
            Some(known) => known,
            None => {
                let parsed = parse::parse(&format!("^(?s:{pattern})$"), false)?;
                let compiled = Compiled {
                    automaton: compile(pattern, &parsed.tree, true)?,
                    prefix: String::new(),
                    names: parsed.names,
                };
                cache::put(pattern, true, &compiled);
                compiled
            }
        };
        Ok(CaptureRegexp {
            automaton: compiled.automaton,
            names: compiled.names,
        })
    }

    /// The groups of the match, when the whole of `value` matches.
    pub fn captures<'v>(&self, value: &'v str) -> Option<Groups<'v>> {
        let mut captures = self.automaton.create_captures();
        self.automaton.captures(value, &mut captures);
        captures.is_match().then_some(Groups { value, captures })
    }

    /// The indices of the groups called `name`, in ascending order; Go allows several.
    pub fn group_indices(&self, name: &str) -> Vec<usize> {
        self.names
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, index)| *index)
            .collect()
    }
}

/// The groups of a match.
pub struct Groups<'v> {
    value: &'v str,
    captures: regex_automata::util::captures::Captures,
}

impl<'v> Groups<'v> {
    /// The text of group `index`, of the whole match for 0; `None` when the group does not exist
    /// or took no part in the match.
    pub fn get(&self, index: usize) -> Option<&'v str> {
        self.value.get(self.captures.get_group(index)?.range())
    }
}

/// Engines that only serve to find groups are left out where nobody asks for groups.
fn compile(pattern: &str, tree: &Node, groups: bool) -> Result<meta::Regex, RegexpError> {
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(PROGRAM_BYTES_MAX))
        .auto_prefilter(false)
        .dfa(false)
        .onepass(groups)
        .backtrack(groups)
        .onepass_size_limit(Some(1 << 20))
        .hybrid_cache_capacity(2 << 20);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false))
        .build_from_hir(&tree.anchored())
        .map_err(|_| parse::error("expression too large", pattern))
}

#[cfg(test)]
mod tests;
