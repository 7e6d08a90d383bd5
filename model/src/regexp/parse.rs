//! Reads a pattern in Go's RE2 syntax, with Go's errors.
//!
//! Groups are kept on a stack of their own, so that nesting costs no call depth; the limits of
//! [`super::item`] bound it before anything walks the tree by recursion.

use regex_syntax::hir::{ClassUnicode, Look};

use super::RegexpError;
use super::class::{bracket_class, class_escape, code_points, escape, next_char, until};
use super::item::{Bounds, COPIES_MAX, Item, alternate, concat};
use super::node::Node;

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
        let repeated = item.repeat(&bounds, greedy);
        self.check(&repeated)?;
        let several = bounds.min >= 2 || bounds.max.is_some_and(|max| max >= 2);
        if repeated.copies > COPIES_MAX && several {
            return Err(error("invalid repeat count", until(before, after)));
        }
        self.group.items.push(repeated);
        Ok(after)
    }

    fn check(&self, item: &Item) -> Result<(), RegexpError> {
        match item.excess() {
            Some(what) => Err(error(what, self.pattern)),
            None => Ok(()),
        }
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
        let mut item = close(group);
        self.check(&item)?;
        if let Some(index) = index {
            item = item.group(index);
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
        let item = close(self.group);
        if let Some(what) = item.excess() {
            return Err(error(what, pattern));
        }
        Ok(Parsed {
            tree: item.node,
            names,
        })
    }
}

/// What is in a group.
fn close(mut group: Group) -> Item {
    let last = concat(std::mem::take(&mut group.items));
    if group.alternatives.is_empty() {
        return last;
    }
    group.alternatives.push(last);
    alternate(group.alternatives)
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
