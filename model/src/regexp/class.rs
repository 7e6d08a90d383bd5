//! Escapes and character classes: `\n`, `\x{1F}`, `\d`, `\p{Greek}`, `[a-z[:digit:]]`.
//!
//! Each function gets the text from where its construct begins, and returns what follows it.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::RegexpError;
use super::parse::error;
use super::scripts::SCRIPTS;

/// A code point, which unlike a `char` may be a surrogate. None of those is in any text.
pub(super) type CodePoint = u32;

const CODE_POINT_MAX: CodePoint = char::MAX as CodePoint;

/// The general categories that `\p{…}` knows.
const CATEGORIES: [&str; 39] = [
    "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "LC", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me",
    "Mn", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk",
    "Sm", "So", "Z", "Zl", "Zp", "Zs", "Any",
];

/// Reads one character of `text`; `None` at its end.
pub(super) fn next_char(text: &str) -> (Option<char>, &str) {
    let mut chars = text.chars();
    (chars.next(), chars.as_str())
}

/// What lies in `text` before `rest`, its end.
pub(super) fn until<'t>(text: &'t str, rest: &str) -> &'t str {
    &text[..text.len() - rest.len()]
}

/// Reads an escape that stands for one character. `text` begins with the backslash.
pub(super) fn escape(text: &str) -> Result<(CodePoint, &str), RegexpError> {
    let invalid = |rest: &str| error("invalid escape sequence", until(text, rest));
    let (Some(c), rest) = next_char(&text[1..]) else {
        return Err(error("trailing backslash at end of expression", ""));
    };
    let value = match c {
        '1'..='7' if !rest.starts_with(|c| ('0'..='7').contains(&c)) => return Err(invalid(rest)),
        '0'..='7' => return Ok(octal(&text[1..])),
        'x' => return hexadecimal(rest).map_err(invalid),
        'a' => 0x07,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c as CodePoint,
        _ => return Err(invalid(rest)),
    };
    Ok((value, rest))
}

/// Up to three octal digits.
fn octal(digits: &str) -> (CodePoint, &str) {
    let count = digits
        .bytes()
        .take(3)
        .take_while(|b| (b'0'..=b'7').contains(b))
        .count();
    let (digits, rest) = digits.split_at(count);
    (
        digits
            .bytes()
            .fold(0, |value, digit| value * 8 + CodePoint::from(digit - b'0')),
        rest,
    )
}

/// Two hexadecimal digits, or any number of them in braces. The error is what follows the
/// character at which the number broke off.
fn hexadecimal(text: &str) -> Result<(CodePoint, &str), &str> {
    let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
    let (first, mut rest) = next_char(text);
    if first != Some('{') {
        let (second, rest) = next_char(rest);
        return match (digit(first), digit(second)) {
            (Some(high), Some(low)) => Ok((high * 16 + low, rest)),
            _ => Err(rest),
        };
    }
    let mut value = None;
    loop {
        let (c, after) = next_char(rest);
        rest = after;
        match (c, value) {
            (Some('}'), Some(value)) => return Ok((value, rest)),
            _ => {
                let digit = digit(c).ok_or(rest)?;
                let next = value.unwrap_or(0) * 16 + digit;
                if next > CODE_POINT_MAX {
                    return Err(rest);
                }
                value = Some(next);
            }
        }
    }
}

/// Reads a class of several characters that is written with a backslash: `\d`, `\pN`,
/// `\p{Greek}`. `None` when there is none of these.
pub(super) fn class_escape(
    text: &str,
    fold: bool,
) -> Result<Option<(ClassUnicode, &str)>, RegexpError> {
    let mut chars = text.chars();
    if chars.next() != Some('\\') {
        return Ok(None);
    }
    let (class, negated) = match chars.next() {
        Some('p' | 'P') => return unicode_class(text, fold).map(Some),
        Some('d') => ("0-9", false),
        Some('D') => ("0-9", true),
        Some('s') => ("\t-\n\x0c-\r - ", false),
        Some('S') => ("\t-\n\x0c-\r - ", true),
        Some('w') => ("0-9A-Z_-_a-z", false),
        Some('W') => ("0-9A-Z_-_a-z", true),
        _ => return Ok(None),
    };
    Ok(Some((finish(ranges(class), fold, negated), chars.as_str())))
}

/// Reads `[:name:]`; `None` when the text does not have that form.
fn posix_class(text: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, RegexpError> {
    let Some((name, rest)) = text
        .strip_prefix("[:")
        .and_then(|inner| inner.split_once(":]"))
    else {
        return Ok(None);
    };
    let class = match name.trim_start_matches('^') {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => "\0-\x7f",
        "blank" => "\t-\t - ",
        "cntrl" => "\0-\x1f\x7f-\x7f",
        "digit" => "0-9",
        "graph" => "!-~",
        "lower" => "a-z",
        "print" => " -~",
        "punct" => "!-/:-@[-`{-~",
        "space" => "\t-\r - ",
        "upper" => "A-Z",
        "word" => "0-9A-Z_-_a-z",
        "xdigit" => "0-9A-Fa-f",
        _ => return Err(error("invalid character class range", until(text, rest))),
    };
    if name.starts_with("^^") {
        return Err(error("invalid character class range", until(text, rest)));
    }
    Ok(Some((
        finish(ranges(class), fold, name.starts_with('^')),
        rest,
    )))
}

/// A class of ranges that are written as three characters each.
fn ranges(text: &str) -> ClassUnicode {
    let chars: Vec<char> = text.chars().collect();
    ClassUnicode::new(
        chars
            .chunks(3)
            .map(|range| ClassUnicodeRange::new(range[0], range[2])),
    )
}

fn finish(mut class: ClassUnicode, fold: bool, negated: bool) -> ClassUnicode {
    if fold {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    class
}

/// Reads `\pN`, `\p{Name}`, `\p{^Name}` or the same with `P`.
fn unicode_class(text: &str, fold: bool) -> Result<(ClassUnicode, &str), RegexpError> {
    let invalid = |sequence| error("invalid character class range", sequence);
    let (name, rest) = match text[2..].strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(|| invalid(text))?,
        None => {
            let rest = next_char(&text[2..]).1;
            (until(&text[2..], rest), rest)
        }
    };
    let (name, inverted) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let class = named_class(name).ok_or_else(|| invalid(until(text, rest)))?;
    Ok((
        finish(class, fold, text.starts_with("\\P") != inverted),
        rest,
    ))
}

fn named_class(name: &str) -> Option<ClassUnicode> {
    let property = match name {
        // No text holds a surrogate.
        "Cs" => return Some(ClassUnicode::empty()),
        _ if CATEGORIES.contains(&name) => format!("\\p{{gc={name}}}"),
        _ if SCRIPTS.contains(&name) => format!("\\p{{sc={name}}}"),
        _ => return None,
    };
    match regex_syntax::parse(&property).ok()?.into_kind() {
        regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => Some(class),
        _ => None,
    }
}

/// Reads `[…]`. `text` begins with the bracket.
pub(super) fn bracket_class(text: &str, fold: bool) -> Result<(ClassUnicode, &str), RegexpError> {
    let (negated, mut rest) = match text[1..].strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, &text[1..]),
    };
    // Made into a class at the end, once.
    let mut ranges: Vec<ClassUnicodeRange> = Vec::new();
    let mut first = true;
    // Where no name ends any more, none is looked for: a row of "[:" would take quadratic time.
    let names_end = rest.rfind(":]").map(|at| rest.len() - at);
    loop {
        if !first && let Some(rest) = rest.strip_prefix(']') {
            // Its parts are folded already.
            return Ok((finish(ClassUnicode::new(ranges), false, negated), rest));
        }
        first = false;
        let posix = match names_end {
            Some(end) if rest.len() > end => posix_class(rest, fold)?,
            _ => None,
        };
        let (part, after) = match (posix, class_escape(rest, fold)?) {
            (Some(part), _) | (None, Some(part)) => part,
            (None, None) => {
                let (part, after) = range(rest, text)?;
                (finish(part, fold, false), after)
            }
        };
        ranges.extend(part.ranges());
        rest = after;
    }
}

/// Reads one character or a range of a class, which begins with `whole`.
fn range<'t>(text: &'t str, whole: &str) -> Result<(ClassUnicode, &'t str), RegexpError> {
    let (low, mut rest) = class_char(text, whole)?;
    let mut high = low;
    // A hyphen before the closing bracket stands for itself.
    if let Some(after) = rest
        .strip_prefix('-')
        .filter(|after| !after.starts_with(']'))
        && !after.is_empty()
    {
        (high, rest) = class_char(after, whole)?;
        if high < low {
            return Err(error("invalid character class range", until(text, rest)));
        }
    }
    Ok((code_points(low, high), rest))
}

fn class_char<'t>(text: &'t str, whole: &str) -> Result<(CodePoint, &'t str), RegexpError> {
    if text.starts_with('\\') {
        return escape(text);
    }
    match next_char(text) {
        (Some(c), rest) => Ok((c as CodePoint, rest)),
        (None, _) => Err(error("missing closing ]", whole)),
    }
}

/// The characters from `low` to `high`; surrogates are none.
pub(super) fn code_points(low: CodePoint, high: CodePoint) -> ClassUnicode {
    let start = if (0xd800..0xe000).contains(&low) {
        0xe000
    } else {
        low
    };
    let end = if (0xd800..0xe000).contains(&high) {
        0xd7ff
    } else {
        high
    };
    match (char::from_u32(start), char::from_u32(end)) {
        (Some(start), Some(end)) if start <= end => {
            ClassUnicode::new([ClassUnicodeRange::new(start, end)])
        }
        _ => ClassUnicode::empty(),
    }
}
