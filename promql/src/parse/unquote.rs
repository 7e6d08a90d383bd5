//! The text between the quotes of a string.

use std::borrow::Cow;

/// What a quoted string stands for: single and double quotes with Go's escapes, backquotes
/// without. The bytes need not be UTF-8, since `\xff` can be written. `None` when it is no string.
pub(super) fn unquote(text: &str) -> Option<Cow<'_, [u8]>> {
    let quote = text.bytes().next()?;
    if text.len() < 2 || text.bytes().last() != Some(quote) {
        return None;
    }
    let inner = text.as_bytes().get(1..text.len() - 1)?;
    match quote {
        b'`' => (!inner.contains(&b'`')).then_some(Cow::Borrowed(inner)),
        b'"' | b'\'' if inner.contains(&b'\n') => None,
        b'"' | b'\'' if !inner.contains(&b'\\') && !inner.contains(&quote) => {
            Some(Cow::Borrowed(inner))
        }
        b'"' | b'\'' => unescape(inner, quote).map(Cow::Owned),
        _ => None,
    }
}

fn unescape(mut rest: &[u8], quote: u8) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        rest = tail;
        match *first {
            b'\\' => escape(&mut rest, quote, &mut out)?,
            b if b == quote => return None,
            b => out.push(b),
        }
    }
    Some(out)
}

/// Reads one escape behind its backslash.
fn escape(rest: &mut &[u8], quote: u8, out: &mut Vec<u8>) -> Option<()> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    let byte = match first {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        b'\'' | b'"' if *first == quote => quote,
        b'x' => u8::try_from(digits(rest, 2, 16)?).ok()?,
        b'0'..=b'7' => {
            let high = u32::from(first - b'0') * 64;
            u8::try_from(high + digits(rest, 2, 8)?).ok()?
        }
        b'u' => return push_char(digits(rest, 4, 16)?, out),
        b'U' => return push_char(digits(rest, 8, 16)?, out),
        _ => return None,
    };
    out.push(byte);
    Some(())
}

fn digits(rest: &mut &[u8], count: usize, base: u32) -> Option<u32> {
    let (digits, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    digits.iter().try_fold(0_u32, |value, digit| {
        value
            .checked_mul(base)?
            .checked_add(char::from(*digit).to_digit(base)?)
    })
}

fn push_char(code: u32, out: &mut Vec<u8>) -> Option<()> {
    let c = char::from_u32(code)?;
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquotes() {
        let check = |text: &str, expected: Option<&[u8]>| {
            assert_eq!(unquote(text).as_deref(), expected, "{text}");
        };
        check(r#""a""#, Some(b"a"));
        check("'a\"b'", Some(b"a\"b"));
        check(r"`a\n`", Some(br"a\n"));
        check(
            r#""\n\x41\101\u00e9\U0001f600\"""#,
            Some("\nAAé\u{1f600}\"".as_bytes()),
        );
        check(r#""\xff""#, Some(b"\xff"));
        check(r#""\'""#, None);
        check(r#""\400""#, None);
        check(r#""\ud800""#, None);
        check("\"a\nb\"", None);
        check("\"", None);
        check("", None);
    }
}
