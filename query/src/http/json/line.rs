//! A short text that is put together on the stack and appended at once: asking a vector for room
//! costs about as much as copying so few bytes.

/// The longest text, in bytes.
const BYTES: usize = 64;

/// A text of at most 64 bytes. Whoever adds more than fits makes a mistake, and panics.
pub(super) struct Line {
    bytes: [u8; BYTES],
    len: usize,
}

impl Line {
    pub(super) fn new() -> Self {
        Line {
            bytes: [0; BYTES],
            len: 0,
        }
    }

    /// Adds the first `len` bytes of `text`. All are copied, so that the compiler knows how many, and
    /// have to fit.
    #[inline(always)]
    pub(super) fn push_of<const N: usize>(&mut self, text: &[u8; N], len: usize) {
        self.bytes[self.len..self.len + N].copy_from_slice(text);
        self.len += len.min(N);
    }

    /// Adds a text: by two copies that overlap, each of a length that the compiler knows.
    #[inline(always)]
    pub(super) fn push(&mut self, text: &[u8]) {
        /// Adds `N..=2 * N` bytes.
        #[inline(always)]
        fn overlapping<const N: usize>(line: &mut Line, text: &[u8]) -> bool {
            let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>())
            else {
                return false;
            };
            let end = line.len + text.len();
            line.bytes[line.len..line.len + N].copy_from_slice(first);
            line.bytes[end - N..end].copy_from_slice(last);
            line.len = end;
            true
        }
        let done = text.len() <= 32
            && (overlapping::<16>(self, text)
                || overlapping::<8>(self, text)
                || overlapping::<4>(self, text));
        if !done {
            self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
            self.len += text.len();
        }
    }

    /// Appends the text to `out`.
    #[inline(always)]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_added_whole() {
        let all: Vec<u8> = (0..60).collect();
        for len in 0..=all.len() {
            let mut line = Line::new();
            line.push_of(b"12..", 2);
            line.push(&all[..len]);
            let mut out = vec![255];
            line.append_to(&mut out);
            assert_eq!((&out[..3], &out[3..]), (&b"\xff12"[..], &all[..len]));
        }
    }
}
