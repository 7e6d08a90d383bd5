//! What a pattern amounts to: often a list of values or text with wildcards around it, which
//! need no automaton.

use regex_syntax::hir::Look;

use super::list::{LiteralSet, common_prefix};
use super::node::{Node, Repeat};

/// The most values that classes and combinations may expand to. A plain list may be longer.
const EXPANSION_MAX: usize = 1024;
/// The most bytes of all values of a set together.
const LITERAL_BYTES_MAX: usize = 4 << 20;
/// The most alternatives with wildcards that are tried one after the other.
const GLOBS_MAX: usize = 8;

/// The simplest form that says what a pattern matches.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    /// Exactly these values.
    Literals(LiteralSet),
    /// What one of these matches.
    Globs(Vec<Glob>),
    /// Takes an automaton.
    Other,
}

/// Literal texts with gaps of any characters between and around them: `foo.*`, `.+a.*b`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Glob {
    /// The first stands at the value's start, the last at its end, both possibly empty.
    texts: Vec<String>,
    /// Between the texts: whether a gap has at least one character.
    gaps: Vec<bool>,
}

impl Shape {
    pub(super) fn of(tree: &Node) -> Shape {
        let tree = strip_anchors(tree);
        if let Some(literals) = literals(&tree) {
            return Shape::Literals(LiteralSet::new(literals));
        }
        match globs(&tree) {
            Some(globs) => Shape::Globs(globs),
            None => Shape::Other,
        }
    }

    /// Whether the whole of `value` matches; false for [`Shape::Other`].
    pub(super) fn is_match(&self, value: &str) -> bool {
        match self {
            Shape::Literals(literals) => literals.contains(value),
            Shape::Globs(globs) => globs.iter().any(|glob| glob.is_match(value)),
            Shape::Other => false,
        }
    }
}

impl Glob {
    /// Each text is taken where it occurs first: as gaps have no upper bound, a later place can
    /// never help.
    ///
    /// Empty texts are not compared. They have no memory, and glibc's comparison on AVX-512
    /// machines takes 40 ns to find out that there is nothing to read.
    fn is_match(&self, value: &str) -> bool {
        let [first, others @ ..] = self.texts.as_slice() else {
            return false;
        };
        let [inner @ .., last] = others else {
            return value == first;
        };
        if !starts_with(value, first) {
            return false;
        }
        let mut rest = &value[first.len()..];
        let mut gaps = self.gaps.iter();
        for (text, gap) in inner.iter().zip(&mut gaps) {
            let found = skip_gap(rest, *gap).and_then(|from| from.split_once(text.as_str()));
            let Some((_, after)) = found else {
                return false;
            };
            rest = after;
        }
        let last_gap = gaps.next().is_some_and(|gap| *gap);
        skip_gap(rest, last_gap)
            .is_some_and(|rest| last.is_empty() || rest.ends_with(last.as_str()))
    }
}

/// As the method of `str`, but see [`Glob::is_match`].
pub(super) fn starts_with(value: &str, text: &str) -> bool {
    text.is_empty() || value.starts_with(text)
}

/// The text behind the least gap.
fn skip_gap(text: &str, needs_one: bool) -> Option<&str> {
    if !needs_one {
        return Some(text);
    }
    let mut chars = text.chars();
    chars.next().map(|_| chars.as_str())
}

/// The pattern without anchors at its very ends, where they say nothing new.
fn strip_anchors(tree: &Node) -> Node {
    let mut subs = match tree {
        Node::Concat(subs) => subs.as_slice(),
        Node::Look(Look::Start | Look::End) => return Node::Empty,
        _ => return tree.clone(),
    };
    while let [Node::Look(Look::Start), rest @ ..] = subs {
        subs = rest;
    }
    while let [rest @ .., Node::Look(Look::End)] = subs {
        subs = rest;
    }
    match subs {
        [] => Node::Empty,
        [sub] => sub.clone(),
        subs => Node::Concat(subs.to_vec()),
    }
}

/// All values that match, if they are few.
fn literals(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::Empty => Some(vec![String::new()]),
        Node::Char(c) => Some(vec![c.to_string()]),
        Node::Class(class) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            if count > EXPANSION_MAX {
                return None;
            }
            let chars = class.iter().flat_map(|range| range.start()..=range.end());
            Some(chars.map(String::from).collect())
        }
        Node::Group(_, sub) => literals(sub),
        Node::Repeat(repeat) => repeated(repeat),
        Node::Concat(subs) => {
            let mut product = vec![String::new()];
            for sub in subs {
                product = append(product, sub)?;
            }
            Some(product)
        }
        Node::Alternate(subs) => {
            let mut union = Vec::new();
            let mut bytes = 0;
            for sub in subs {
                let more = literals(sub)?;
                bytes += weight(&more);
                if bytes > LITERAL_BYTES_MAX {
                    return None;
                }
                union.extend(more);
            }
            Some(union)
        }
        Node::Look(_) => None,
    }
}

fn repeated(repeat: &Repeat) -> Option<Vec<String>> {
    let max = repeat.max?;
    let mut product = vec![String::new()];
    let mut all = if repeat.min == 0 {
        product.clone()
    } else {
        Vec::new()
    };
    for count in 1..=max {
        product = append(product, &repeat.sub)?;
        if count >= repeat.min {
            all.extend_from_slice(&product);
            if all.len() > EXPANSION_MAX {
                return None;
            }
        }
    }
    Some(all)
}

/// Bytes that the values take.
fn weight(texts: &[String]) -> usize {
    let lengths = texts.iter().map(String::len).sum::<usize>();
    lengths + std::mem::size_of_val(texts)
}

/// Each of `product` followed by each value of `node`.
fn append(mut product: Vec<String>, node: &Node) -> Option<Vec<String>> {
    if let Node::Char(c) = node {
        product.iter_mut().for_each(|text| text.push(*c));
        return Some(product);
    }
    let more = literals(node)?;
    if product.len() > 1 && more.len() > 1 && product.len() * more.len() > EXPANSION_MAX {
        return None;
    }
    if weight(&product) * more.len() + weight(&more) * product.len() > LITERAL_BYTES_MAX {
        return None;
    }
    Some(
        product
            .iter()
            .flat_map(|a| more.iter().map(move |b| format!("{a}{b}")))
            .collect(),
    )
}

/// The pattern as literal texts with gaps, if it is no more than that.
fn globs(node: &Node) -> Option<Vec<Glob>> {
    match node {
        Node::Group(_, sub) => globs(sub),
        Node::Alternate(subs) => {
            let mut all = Vec::new();
            for sub in subs {
                all.extend(globs(sub)?);
            }
            (all.len() <= GLOBS_MAX).then_some(all)
        }
        Node::Concat(subs) => {
            let mut all = vec![Glob::empty()];
            for sub in subs {
                match sub {
                    Node::Char(c) => all.iter_mut().for_each(|glob| glob.push(*c)),
                    sub => {
                        let more = globs(sub)?;
                        all = all
                            .iter()
                            .flat_map(|a| more.iter().map(|b| a.then(b)))
                            .collect();
                        if all.len() > GLOBS_MAX {
                            return None;
                        }
                    }
                }
            }
            Some(all)
        }
        Node::Repeat(repeat) if repeat.max.is_none() && repeat.min <= 1 => {
            let gaps = vec![repeat.min == 1];
            let texts = vec![String::new(), String::new()];
            any_char(&repeat.sub).then_some(vec![Glob { texts, gaps }])
        }
        _ => {
            let texts = literals(node)?;
            let few = texts.len() <= GLOBS_MAX;
            let glob = |text| Glob {
                texts: vec![text],
                gaps: Vec::new(),
            };
            few.then(|| texts.into_iter().map(glob).collect())
        }
    }
}

/// Whether `node` matches any one character and nothing else.
fn any_char(node: &Node) -> bool {
    match node {
        Node::Group(_, sub) => any_char(sub),
        node => node.is_any_char(),
    }
}

impl Glob {
    fn empty() -> Glob {
        Glob {
            texts: vec![String::new()],
            gaps: Vec::new(),
        }
    }

    fn push(&mut self, c: char) {
        if let Some(last) = self.texts.last_mut() {
            last.push(c);
        }
    }

    /// This glob followed by `other`.
    fn then(&self, other: &Glob) -> Glob {
        let mut joined = self.clone();
        let mut others = other.texts.iter();
        if let (Some(last), Some(first)) = (joined.texts.last_mut(), others.next()) {
            last.push_str(first);
        }
        joined.texts.extend(others.cloned());
        joined.gaps.extend(&other.gaps);
        joined
    }
}

/// Literal text that every match begins with.
pub(super) fn prefix(tree: &Node) -> String {
    let mut text = String::new();
    extend_prefix(tree, &mut text);
    text
}

/// Appends the literal text that `node` begins with; says whether that is all of `node`.
fn extend_prefix(node: &Node, text: &mut String) -> bool {
    match node {
        Node::Empty | Node::Look(Look::Start) => true,
        Node::Char(c) => {
            text.push(*c);
            true
        }
        Node::Group(_, sub) => extend_prefix(sub, text),
        Node::Concat(subs) => subs.iter().all(|sub| extend_prefix(sub, text)),
        Node::Repeat(repeat) if repeat.min >= 1 => {
            extend_prefix(&repeat.sub, text) && repeat.max == Some(1)
        }
        Node::Alternate(subs) => {
            let common = subs.iter().map(prefix).reduce(|a, b| common_prefix(&a, &b));
            text.push_str(&common.unwrap_or_default());
            false
        }
        Node::Class(_) | Node::Repeat(_) | Node::Look(_) => false,
    }
}
