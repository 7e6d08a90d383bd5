//! JSON texts with Go's escapes. Prometheus writes label sets with one set of escapes and
//! everything else with another that is safe inside HTML.

use std::io;

use serde::Serialize;

use super::number;

/// Appends a quoted label name or value: only quotes, backslashes and control characters are
/// escaped.
pub(crate) fn write_label_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    if bytes.iter().any(|b| needs_escape(*b)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| needs_escape(*b)) {
            let (plain, behind) = rest.split_at(at);
            out.extend_from_slice(plain);
            if let Some((byte, behind)) = behind.split_first() {
                write_escaped(out, *byte);
                rest = behind;
            }
        }
        out.extend_from_slice(rest);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            const HEX: [u8; 16] = *b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend([byte >> 4, byte & 0xf].map(|nibble| HEX[usize::from(nibble)]));
        }
    }
}

/// Appends `value` as Go's `encoding/json` would: `<`, `>`, `&`, U+2028 and U+2029 escaped.
pub(crate) fn write_json<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(
        out,
        GoFormatter,
    ))
}

struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let mut text = Vec::with_capacity(24);
        number::write_json_number(&mut text, value);
        writer.write_all(&text)
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        use serde_json::ser::CharEscape as Escape;
        let byte = match escape {
            Escape::Quote => b'"',
            Escape::ReverseSolidus => b'\\',
            Escape::Solidus => b'/',
            Escape::Backspace => 0x08,
            Escape::FormFeed => 0x0c,
            Escape::LineFeed => b'\n',
            Escape::CarriageReturn => b'\r',
            Escape::Tab => b'\t',
            Escape::AsciiControl(byte) => byte,
        };
        let mut text = Vec::with_capacity(6);
        write_escaped(&mut text, byte);
        writer.write_all(&text)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, behind) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = behind.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_html_and_structures_escape_it() {
        let text = "a<b>&\"\\\n\t\u{8}\u{1f}\u{7f}é\u{2028}";
        let mut label = Vec::new();
        write_label_text(&mut label, text);
        assert_eq!(
            String::from_utf8(label).unwrap(),
            "\"a<b>&\\\"\\\\\\n\\t\\u0008\\u001f\u{7f}é\u{2028}\""
        );
        let mut json = Vec::new();
        write_json(&mut json, text).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\t\\u0008\\u001f\u{7f}é\\u2028\""
        );
    }
}
