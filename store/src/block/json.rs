//! JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators of Unicode are escaped
//! in texts. None of them occurs outside of texts.

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

/// One value a line, indented with tabs, with a line feed at the end.
pub(super) fn encode_indented(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    let tabs = PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, tabs);
    value
        .serialize(&mut serializer)
        .expect("all keys are texts and a Vec takes all bytes");
    out.push(b'\n');
    escape(out)
}

/// All in one line, without an end.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    escape(serde_json::to_vec(value).expect("all keys are texts and a Vec takes all bytes"))
}

fn escape(json: Vec<u8>) -> Vec<u8> {
    if !json.iter().any(|b| matches!(b, b'<' | b'>' | b'&' | 0xe2)) {
        return json;
    }
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut rest = json.as_slice();
    while let Some((byte, behind)) = rest.split_first() {
        let (escaped, behind): (&[u8], &[u8]) = match (byte, behind) {
            (b'<', _) => (b"\\u003c", behind),
            (b'>', _) => (b"\\u003e", behind),
            (b'&', _) => (b"\\u0026", behind),
            (0xe2, [0x80, 0xa8, behind @ ..]) => (b"\\u2028", behind),
            (0xe2, [0x80, 0xa9, behind @ ..]) => (b"\\u2029", behind),
            _ => (std::slice::from_ref(byte), behind),
        };
        out.extend_from_slice(escaped);
        rest = behind;
    }
    out
}
