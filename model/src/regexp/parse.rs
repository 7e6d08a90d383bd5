//! Reads a pattern in Go's RE2 syntax, with Go's errors.
//!
//! Groups are kept on a stack of their own, so that nesting costs no call depth; [`HEIGHT_MAX`]
//! bounds it before anything walks the tree by recursion.

use regex_syntax::hir::{ClassUnicode, Look};

use super::RegexpError;
use super::class::{bracket_class, class_escape, code_points, escape, next_char, until};
use super::node::{Node, Repeat};

/// The greatest height of a tree ("expression nests too deeply"), as in Go.
const HEIGHT_MAX: u32 = 1000;
/// The most instructions of Go's program ("expression too large").
const SIZE_MAX: i64 = (128 << 20) / 40;
/// The most copies that nested counted repetitions may make of a part.
const COPIES_MAX: u32 = 1000;

/// A pattern that was read.
pub(super) struct Parsed {
    pub(super) tree: Node,
    /// Names of groups with their indices.
    pub(super) names: Vec<(String, usize)>,
}

/// An error of Go's parser: what is wrong and the part of the pattern that is meant.
pub(super) fn error(what: &str, part: &str) -> RegexpError {
    RegexpError(format!("{what}: `{part}`"))
}

/// Reads `pattern` as Go does with its flags `Perl` and, if `dot_newline`, `DotNL`.
pub(super) fn parse(pattern: &str, dot_newline: bool) -> Result<Parsed, RegexpError> {
    let mut parser = Parser {
        pattern,
        flags: Flags {
            fold: false,
            dot_newline,
            one_line: true,
            non_greedy: false,
        },
        open: Vec::new(),
        group: Group::new(Flags::default(), None),
        names: Vec::new(),
        group_count: 0,
    };
    let mut rest = pattern;
    // Where the repetition began that was read last, if nothing was read since.
    let mut last_repeat = None;
    while let (Some(c), after) = next_char(rest) {
        let before = rest;
        let mut repeated = false;
        rest = match c {
            '(' => parser.open_group(rest)?,
            ')' => parser.close_group(after)?,
            '|' => parser.bar(after)?,
            '^' => parser.look(
                if parser.flags.one_line {
                    Look::Start
                } else {
                    Look::StartLF
                },
                after,
            ),
            '$' => parser.look(
                if parser.flags.one_line {
                    Look::End
                } else {
                    Look::EndLF
                },
                after,
            ),
            '.' => parser.dot(after),
            '[' => {
                let (class, after) = bracket_class(rest, parser.flags.fold)?;
                parser.class(class);
                after
            }
            '*' | '+' | '?' => {
                repeated = true;
                let (min, max) = match c {
                    '*' => (0, None),
                    '+' => (1, None),
                    _ => (0, Some(1)),
                };
                parser.repeat(
                    Bounds {
                        min,
                        max,
                        counted: false,
                    },
                    before,
                    after,
                    last_repeat,
                )?
            }
            '{' => match counts(rest) {
                Some((bounds, after)) => {
                    repeated = true;
                    let bounds =
                        bounds.ok_or_else(|| error("invalid repeat count", until(rest, after)))?;
                    parser.repeat(bounds, before, after, last_repeat)?
                }
                None => parser.literal('{', after),
            },
            '\\' => parser.backslash(rest)?,
            c => parser.literal(c, after),
        };
        last_repeat = repeated.then_some(before);
    }
    parser.finish()
}

/// What can be switched within a pattern.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    /// `i`: upper and lower case are the same.
    fold: bool,
    /// `s`: `.` matches line breaks.
    dot_newline: bool,
    /// Not `m`: `^` and `$` match at the ends of the text only.
    one_line: bool,
    /// `U`: repetitions prefer few.
    non_greedy: bool,
}

/// A part with what Go's limits need to know of it.
struct Item {
    node: Node,
    height: u32,
    /// Instructions of Go's program.
    size: i64,
    /// Copies that counted repetitions make of its innermost part.
    copies: u32,
    /// Whether it is a literal, which Go joins with its neighbours.
    is_literal: bool,
}

impl Item {
    fn leaf(node: Node) -> Self {
        let is_literal = matches!(node, Node::Char(_));
        Item {
            node,
            height: 1,
            size: 1,
            copies: 1,
            is_literal,
        }
    }
}

/// A group that is not closed yet; the outermost one is the pattern itself.
struct Group {
    /// What was in force before it.
    flags: Flags,
    index: Option<u32>,
    /// Alternatives before the last bar.
    alternatives: Vec<Item>,
    items: Vec<Item>,
}

impl Group {
    fn new(flags: Flags, index: Option<u32>) -> Self {
        Group {
            flags,
            index,
            alternatives: Vec::new(),
            items: Vec::new(),
        }
    }
}

struct Bounds {
    min: u32,
    max: Option<u32>,
    /// Whether it is written with braces.
    counted: bool,
}

struct Parser<'p> {
    pattern: &'p str,
    flags: Flags,
    /// The groups around the innermost one.
    open: Vec<Group>,
    group: Group,
    names: Vec<(String, usize)>,
    group_count: u32,
}

impl<'p> Parser<'p> {
    fn push(&mut self, node: Node) {
        self.group.items.push(Item::leaf(node));
    }

    fn literal(&mut self, c: char, rest: &'p str) -> &'p str {
        if self.flags.fold {
            let mut class = code_points(c.into(), c.into());
            class.case_fold_simple();
            self.class(class);
        } else {
            self.push(Node::Char(c));
        }
        rest
    }

    /// A class of one character is that character.
    fn class(&mut self, class: ClassUnicode) {
        let single = match class.ranges() {
            [range] if range.start() == range.end() => Some(range.start()),
            _ => None,
        };
        self.push(single.map_or_else(|| Node::Class(class), Node::Char));
    }

    fn look(&mut self, look: Look, rest: &'p str) -> &'p str {
        self.push(Node::Look(look));
        rest
    }

    fn dot(&mut self, rest: &'p str) -> &'p str {
        let mut class = ClassUnicode::empty();
        if !self.flags.dot_newline {
            class = code_points('\n'.into(), '\n'.into());
        }
        class.negate();
        self.push(Node::Class(class));
        rest
    }

    fn backslash(&mut self, text: &'p str) -> Result<&'p str, RegexpError> {
        let (Some(c), rest) = next_char(&text[1..]) else {
            return Err(error("trailing backslash at end of expression", ""));
        };
        match c {
            'A' => return Ok(self.look(Look::Start, rest)),
            'z' => return Ok(self.look(Look::End, rest)),
            'b' => return Ok(self.look(Look::WordAscii, rest)),
            'B' => return Ok(self.look(Look::WordAsciiNegate, rest)),
            'C' => return Err(error("invalid escape sequence", "\\C")),
            'Q' => {
                let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
                quoted.chars().for_each(|c| {
                    self.literal(c, "");
                });
                return Ok(rest);
            }
            _ => {}
        }
        if let Some((class, rest)) = class_escape(text, self.flags.fold)? {
            self.class(class);
            return Ok(rest);
        }
        let (code_point, rest) = escape(text)?;
        match char::from_u32(code_point) {
            Some(c) => self.literal(c, ""),
            None => {
                self.class(ClassUnicode::empty());
                ""
            }
        };
        Ok(rest)
    }

    /// Repeats the last item. `before` begins with the operator, `after` follows it, and
    /// `last_repeat` begins with the operator right before it.
    fn repeat(
        &mut self,
        bounds: Bounds,
        before: &'p str,
        mut after: &'p str,
        last_repeat: Option<&'p str>,
    ) -> Result<&'p str, RegexpError> {
        let mut greedy = !self.flags.non_greedy;
        if let Some(rest) = after.strip_prefix('?') {
            after = rest;
            greedy = !greedy;
        }
        if let Some(last) = last_repeat {
            return Err(error(
                "invalid nested repetition operator",
                until(last, after),
            ));
        }
        let Some(item) = self.group.items.pop() else {
            return Err(error(
                "missing argument to repetition operator",
                until(before, after),
            ));
        };
        let Bounds { min, max, counted } = bounds;
        let size = repeated_size(&bounds, item.size);
        let copies = match (counted, max) {
            (false, _) => item.copies,
            (true, Some(0)) => 1,
            (true, max) => max.unwrap_or(min).max(1).saturating_mul(item.copies),
        };
        let height = item.height + 1;
        let node = Node::Repeat(Box::new(Repeat {
            min,
            max,
            greedy,
            sub: item.node,
        }));
        let repeated = Item {
            node,
            height,
            size,
            copies,
            is_literal: false,
        };
        self.check(&repeated)?;
        if repeated.copies > COPIES_MAX && (min >= 2 || max.is_some_and(|max| max >= 2)) {
            return Err(error("invalid repeat count", until(before, after)));
        }
        self.group.items.push(repeated);
        Ok(after)
    }

    fn check(&self, item: &Item) -> Result<(), RegexpError> {
        if item.size > SIZE_MAX {
            return Err(error("expression too large", self.pattern));
        }
        if item.height > HEIGHT_MAX {
            return Err(error("expression nests too deeply", self.pattern));
        }
        Ok(())
    }

    /// Reads `(`, `(?P<name>`, `(?<name>`, `(?flags:` or the whole of `(?flags)`.
    fn open_group(&mut self, text: &'p str) -> Result<&'p str, RegexpError> {
        let Some(inner) = text.strip_prefix("(?") else {
            self.begin_group(true, self.flags);
            return Ok(&text[1..]);
        };
        let long_enough = |length| text.len() > length;
        let named = match (inner.strip_prefix("P<"), inner.strip_prefix('<')) {
            (Some(named), _) if long_enough(4) => Some(named),
            (_, Some(named)) if long_enough(3) => Some(named),
            _ => None,
        };
        let Some(named) = named else {
            return self.open_flags(text);
        };
        let (name, rest) = named
            .split_once('>')
            .ok_or_else(|| error("invalid named capture", text))?;
        if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            return Err(error("invalid named capture", until(text, rest)));
        }
        self.begin_group(true, self.flags);
        self.names
            .push((name.to_owned(), self.group_count as usize));
        Ok(rest)
    }

    fn begin_group(&mut self, has_index: bool, flags_inside: Flags) {
        self.group_count += u32::from(has_index);
        let group = Group::new(self.flags, has_index.then_some(self.group_count));
        self.open.push(std::mem::replace(&mut self.group, group));
        self.flags = flags_inside;
    }

    fn open_flags(&mut self, text: &'p str) -> Result<&'p str, RegexpError> {
        let mut flags = self.flags;
        let (mut negated, mut saw_flag) = (false, false);
        let mut rest = &text[2..];
        loop {
            let (c, after) = next_char(rest);
            rest = after;
            match c {
                Some('i') => flags.fold = !negated,
                Some('m') => flags.one_line = negated,
                Some('s') => flags.dot_newline = !negated,
                Some('U') => flags.non_greedy = !negated,
                Some('-') if !negated => {
                    negated = true;
                    saw_flag = false;
                    continue;
                }
                Some(end @ (':' | ')')) if !negated || saw_flag => {
                    if end == ':' {
                        self.begin_group(false, flags);
                    } else {
                        self.flags = flags;
                    }
                    return Ok(rest);
                }
                _ => {
                    return Err(error(
                        "invalid or unsupported Perl syntax",
                        until(text, rest),
                    ));
                }
            }
            saw_flag = true;
        }
    }

    fn bar(&mut self, rest: &'p str) -> Result<&'p str, RegexpError> {
        let items = std::mem::take(&mut self.group.items);
        let alternative = concat(items);
        self.check(&alternative)?;
        self.group.alternatives.push(alternative);
        Ok(rest)
    }

    fn close_group(&mut self, rest: &'p str) -> Result<&'p str, RegexpError> {
        let Some(outer) = self.open.pop() else {
            return Err(error("unexpected )", self.pattern));
        };
        let group = std::mem::replace(&mut self.group, outer);
        self.flags = group.flags;
        let index = group.index;
        let mut item = alternate(group);
        self.check(&item)?;
        if let Some(index) = index {
            item.node = Node::Group(index, Box::new(item.node));
            item.height += 1;
            item.size += 2;
            item.is_literal = false;
            self.check(&item)?;
        }
        self.group.items.push(item);
        Ok(rest)
    }

    fn finish(self) -> Result<Parsed, RegexpError> {
        if !self.open.is_empty() {
            return Err(error("missing closing )", self.pattern));
        }
        let (pattern, names) = (self.pattern, self.names);
        let item = alternate(self.group);
        if item.size > SIZE_MAX {
            return Err(error("expression too large", pattern));
        }
        if item.height > HEIGHT_MAX {
            return Err(error("expression nests too deeply", pattern));
        }
        Ok(Parsed {
            tree: item.node,
            names,
        })
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

/// The items of a group one after the other. A run of literals counts as one for the height, as
/// Go joins them.
fn concat(mut items: Vec<Item>) -> Item {
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
fn alternate(mut group: Group) -> Item {
    let last = concat(std::mem::take(&mut group.items));
    if group.alternatives.is_empty() {
        return last;
    }
    group.alternatives.push(last);
    let alternatives = group.alternatives;
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

/// Reads `{min}`, `{min,}` or `{min,max}`; `None` when the text does not have that form and the
/// brace stands for itself. The bounds are `None` when they are too large or the wrong way round.
fn counts(text: &str) -> Option<(Option<Bounds>, &str)> {
    let (min, mut rest) = number(text.strip_prefix('{')?)?;
    let mut max = Some(min);
    if let Some(after) = rest.strip_prefix(',') {
        (max, rest) = if after.starts_with('}') {
            (None, after)
        } else {
            let (max, rest) = number(after)?;
            (Some(max), rest)
        };
    }
    let rest = rest.strip_prefix('}')?;
    let valid = min <= COPIES_MAX && max.is_none_or(|max| min <= max && max <= COPIES_MAX);
    Some((
        valid.then_some(Bounds {
            min,
            max,
            counted: true,
        }),
        rest,
    ))
}

/// Reads a decimal number without leading zeros. Large ones are all the same.
fn number(text: &str) -> Option<(u32, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(count);
    if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}
