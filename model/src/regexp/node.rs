//! The tree of a pattern, and its translation for `regex-automata`.

use regex_syntax::hir::{Capture, Class, ClassUnicode, Hir, Look, Repetition};

/// A part of a pattern. Case folding and the meaning of `.`, `^` and `$` are resolved already.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Matches the empty text.
    Empty,
    /// One character.
    Char(char),
    /// One character of a set, which may be empty: then nothing matches.
    Class(ClassUnicode),
    /// A condition on a position.
    Look(Look),
    /// A group with an index.
    Group(u32, Box<Node>),
    /// A repetition.
    Repeat(Box<Repeat>),
    /// One after the other.
    Concat(Vec<Node>),
    /// One of them, earlier ones preferred.
    Alternate(Vec<Node>),
}

/// How often a part is repeated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Repeat {
    pub(super) min: u32,
    /// Without end when `None`.
    pub(super) max: Option<u32>,
    pub(super) greedy: bool,
    pub(super) sub: Node,
}

impl Node {
    /// Whether any one character matches, line breaks among them.
    pub(super) fn is_any_char(&self) -> bool {
        match self {
            Node::Class(class) => {
                let mut ranges = class.iter().map(|range| (range.start(), range.end()));
                ranges.next() == Some(('\0', char::MAX)) && ranges.next().is_none()
            }
            _ => false,
        }
    }

    fn hir(&self) -> Hir {
        match self {
            Node::Empty => Hir::empty(),
            Node::Char(c) => Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Node::Class(class) => Hir::class(Class::Unicode(class.clone())),
            Node::Look(look) => Hir::look(*look),
            Node::Group(index, sub) => Hir::capture(Capture {
                index: *index,
                name: None,
                sub: Box::new(sub.hir()),
            }),
            Node::Repeat(repeat) => Hir::repetition(Repetition {
                min: repeat.min,
                max: repeat.max,
                greedy: repeat.greedy,
                sub: Box::new(repeat.sub.hir()),
            }),
            Node::Concat(subs) => Hir::concat(subs.iter().map(Node::hir).collect()),
            Node::Alternate(subs) => Hir::alternation(subs.iter().map(Node::hir).collect()),
        }
    }

    /// As a pattern that has to match from the start of a text to its end.
    pub(super) fn anchored(&self) -> Hir {
        Hir::concat(vec![
            Hir::look(Look::Start),
            self.hir(),
            Hir::look(Look::End),
        ])
    }
}
