//! Room at the end of a vector that is made once for many short texts: asking for it each time costs
//! about as much as copying so few bytes.

/// Most bytes of a text that [`Room::push`] takes.
const TEXT_BYTES: usize = 32;

/// Room for some texts.
pub(super) struct Room<'v> {
    bytes: &'v mut [u8],
    len: usize,
}

impl<'v> Room<'v> {
    /// Appends what `write` adds to a room for `size` bytes to `out`. More than that makes it panic.
    pub(super) fn write(out: &'v mut Vec<u8>, size: usize, write: impl FnOnce(&mut Room<'_>)) {
        let begin = out.len();
        // What is copied behind the end of a text is overwritten by the next one.
        out.resize(begin + size + TEXT_BYTES, 0);
        let mut room = Room {
            bytes: &mut out[begin..],
            len: 0,
        };
        write(&mut room);
        let end = begin + room.len;
        out.truncate(end);
    }

    /// Adds the first `len` bytes of `text`, of which all are copied: the compiler knows how many.
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
        fn overlapping<const N: usize>(room: &mut Room<'_>, text: &[u8]) -> bool {
            let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>())
            else {
                return false;
            };
            let end = room.len + text.len();
            room.bytes[room.len..room.len + N].copy_from_slice(first);
            room.bytes[end - N..end].copy_from_slice(last);
            room.len = end;
            true
        }
        let done = text.len() <= TEXT_BYTES
            && (overlapping::<16>(self, text)
                || overlapping::<8>(self, text)
                || overlapping::<4>(self, text));
        if !done {
            self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
            self.len += text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_added_whole() {
        let all: Vec<u8> = (0..60).collect();
        for len in 0..=all.len() {
            let mut out = vec![255];
            Room::write(&mut out, 2 + len, |room| {
                room.push_of(b"12..", 2);
                room.push(&all[..len]);
            });
            assert_eq!((&out[..3], &out[3..]), (&b"\xff12"[..], &all[..len]));
        }
    }
}
