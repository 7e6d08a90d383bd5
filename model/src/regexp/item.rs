//! Parts of a pattern on their way into the tree, with what Go's limits need to know of them.

use regex_syntax::hir::ClassUnicode;

use super::class::code_points;
use super::node::{Node, Repeat};

/// The greatest height of a tree ("expression nests too deeply"), as in Go.
const HEIGHT_MAX: u32 = 1000;
/// The most instructions of Go's program ("expression too large").
const SIZE_MAX: i64 = (128 << 20) / 40;
/// The most copies that nested counted repetitions may make of a part.
pub(super) const COPIES_MAX: u32 = 1000;

/// A part with what Go's limits need to know of it.
pub(super) struct Item {
    pub(super) node: Node,
    height: u32,
    /// Instructions of Go's program.
    size: i64,
    /// Copies that counted repetitions make of its innermost part.
    pub(super) copies: u32,
    /// Whether it is a literal, which Go joins with its neighbours.
    is_literal: bool,
}

impl Item {
    pub(super) fn leaf(node: Node) -> Self {
        let is_literal = matches!(node, Node::Char(_));
        Item {
            node,
            height: 1,
            size: 1,
            copies: 1,
            is_literal,
        }
    }

    /// Why Go would refuse a pattern with this part.
    pub(super) fn excess(&self) -> Option<&'static str> {
        if self.size > SIZE_MAX {
            Some("expression too large")
        } else if self.height > HEIGHT_MAX {
            Some("expression nests too deeply")
        } else {
            None
        }
    }

    pub(super) fn repeat(self, bounds: &Bounds, greedy: bool) -> Item {
        let Bounds { min, max, counted } = *bounds;
        let copies = match (counted, max) {
            (false, _) => self.copies,
            (true, Some(0)) => 1,
            (true, max) => max.unwrap_or(min).max(1).saturating_mul(self.copies),
        };
        let sub = self.node;
        Item {
            node: Node::Repeat(Box::new(Repeat {
                min,
                max,
                greedy,
                sub,
            })),
            height: self.height + 1,
            size: repeated_size(bounds, self.size),
            copies,
            is_literal: false,
        }
    }

    /// As the group with this index.
    pub(super) fn group(self, index: u32) -> Item {
        Item {
            node: Node::Group(index, Box::new(self.node)),
            height: self.height + 1,
            size: self.size.saturating_add(2),
            copies: self.copies,
            is_literal: false,
        }
    }
}

/// How often a part may be repeated.
pub(super) struct Bounds {
    pub(super) min: u32,
    pub(super) max: Option<u32>,
    /// Whether it is written with braces.
    pub(super) counted: bool,
}

/// The items of a group one after the other. A run of literals counts as one for the height, as
/// Go joins them.
pub(super) fn concat(mut items: Vec<Item>) -> Item {
    if items.len() == 1
        && let Some(item) = items.pop()
    {
        return item;
    }
    if items.is_empty() {
        return Item::leaf(Node::Empty);
    }
    let only_literals = items.iter().all(|item| item.is_literal);
    let mut nodes = Vec::with_capacity(items.len());
    let (mut height, mut size, mut copies) = (0, 0i64, 1);
    for item in items {
        let flat = matches!(item.node, Node::Concat(_));
        height = height.max(item.height - u32::from(flat && item.height > 1));
        size = size.saturating_add(item.size);
        copies = copies.max(item.copies);
        match item.node {
            Node::Concat(subs) => nodes.extend(subs),
            node => nodes.push(node),
        }
    }
    let height = if only_literals { 1 } else { height + 1 };
    Item {
        node: Node::Concat(nodes),
        height,
        size,
        copies,
        is_literal: only_literals,
    }
}

/// The alternatives of a group. Alternatives that are one character each become a class.
pub(super) fn alternate(alternatives: Vec<Item>) -> Item {
    let is_char = |item: &Item| matches!(item.node, Node::Char(_) | Node::Class(_));
    if alternatives.iter().all(is_char) {
        let mut class = ClassUnicode::empty();
        for item in alternatives {
            match item.node {
                Node::Class(part) => class.union(&part),
                Node::Char(c) => class.union(&code_points(c.into(), c.into())),
                _ => {}
            }
        }
        return Item::leaf(Node::Class(class));
    }
    let height = 1 + alternatives
        .iter()
        .map(|item| item.height)
        .max()
        .unwrap_or(0);
    let copies = alternatives
        .iter()
        .map(|item| item.copies)
        .max()
        .unwrap_or(1);
    let size = alternatives
        .iter()
        .fold(-1, |sum: i64, item| sum.saturating_add(item.size + 1));
    let mut nodes = Vec::with_capacity(alternatives.len());
    for item in alternatives {
        match item.node {
            Node::Alternate(subs) => nodes.extend(subs),
            node => nodes.push(node),
        }
    }
    Item {
        node: Node::Alternate(nodes),
        height,
        size,
        copies,
        is_literal: false,
    }
}

/// Instructions of Go's program for a repetition.
fn repeated_size(bounds: &Bounds, size: i64) -> i64 {
    let min = i64::from(bounds.min);
    match (bounds.counted, bounds.max.map(i64::from)) {
        (_, None) if min == 0 => 2 + size,
        (_, None) => 1 + min.saturating_mul(size),
        (false, Some(_)) => 1 + size,
        (true, Some(max)) => max.saturating_mul(size).saturating_add(max - min).max(1),
    }
}
