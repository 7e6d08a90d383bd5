//! The primitives that all block files share: big-endian integers, varints, length-prefixed
//! strings and CRC-32C, as Prometheus writes them (`tsdb/encoding`).
//!
//! [`Decoder`] walks a slice and checks every length before it believes it. The `put_*`
//! functions append to a buffer.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use crate::Error;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes are announced or needed than there are.
    #[error("the bytes end too early")]
    Truncated,
    /// A varint does not end within 64 bits.
    #[error("a varint does not fit 64 bits")]
    VarintOverflow,
    /// A number does not fit the width it has in this format.
    #[error("a number is too large")]
    NumberTooLarge,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// The checksum says that bytes have changed.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes that are there.
        computed: u32,
    },
}

impl DecodeError {
    /// This error as [`Error::Corrupt`]: `what` is the file, `place` what lies at `offset` in it.
    pub fn at_offset(self, what: &str, place: impl std::fmt::Display, offset: u64) -> Error {
        Error::corrupt_at(what, offset, format!("{place} at {offset}: {self}"))
    }

    /// This error as [`Error::Corrupt`]: `what` is the file, `place` where in it.
    pub fn at(self, what: &str, place: impl std::fmt::Display) -> Error {
        Error::corrupt(what, format!("{place}: {self}"))
    }
}

/// CRC-32C (Castagnoli), the checksum of all block files.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(wide).expect("a 32-bit checksum is computed in the low 32 bits")
}

/// CRC-32C of bytes that arrive in pieces.
pub struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// The checksum of no bytes yet.
    pub fn new() -> Self {
        Crc32c(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added.
    pub fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("a 32-bit checksum is computed in the low 32 bits")
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Crc32c::new()
    }
}

/// The number whose groups of seven bits are the lower ones of the bytes of `word`.
#[inline(always)]
fn joined(word: u64) -> u64 {
    let bits = word & 0x7f7f_7f7f_7f7f_7f7f;
    // Groups of 7 bits move together to groups of 14, then 28, then 56.
    let bits = (bits & 0x007f_007f_007f_007f) | ((bits & 0x7f00_7f00_7f00_7f00) >> 1);
    let bits = (bits & 0x0000_3fff_0000_3fff) | ((bits & 0x3fff_0000_3fff_0000) >> 2);
    (bits & 0x0fff_ffff) | ((bits & 0x0fff_ffff_0000_0000) >> 4)
}

/// What an unsigned number means in zig-zag encoding.
#[inline(always)]
pub(crate) fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

/// Reads values one after the other from a slice.
#[derive(Debug, Clone, Copy)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Decoder { rest: bytes }
    }

    /// A decoder at `offset` in `bytes`.
    ///
    /// # Errors
    /// When the offset lies behind the end.
    pub fn at(bytes: &'a [u8], offset: u64) -> Result<Self, DecodeError> {
        let offset = usize::try_from(offset).map_err(|_| DecodeError::Truncated)?;
        bytes
            .get(offset..)
            .map(Decoder::new)
            .ok_or(DecodeError::Truncated)
    }

    /// The number of bytes left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// When none is left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, tail) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(*first)
    }

    /// A big-endian 32-bit number.
    ///
    /// # Errors
    /// When fewer than four bytes are left.
    pub fn be32(&mut self) -> Result<u32, DecodeError> {
        let (head, tail) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A big-endian 64-bit number.
    ///
    /// # Errors
    /// When fewer than eight bytes are left.
    pub fn be64(&mut self) -> Result<u64, DecodeError> {
        let (head, tail) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(u64::from_be_bytes(*head))
    }

    /// An unsigned varint.
    ///
    /// # Errors
    /// When it does not end, or not within 64 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        if let Some(value) = self.uvarint_in_word() {
            return Ok(value);
        }
        self.uvarint_by_byte()
    }

    /// An unsigned varint that ends within the next eight bytes, where there are eight: read at
    /// once, without a branch for each byte that would be guessed wrong as often as not.
    #[inline(always)]
    fn uvarint_in_word(&mut self) -> Option<u64> {
        let word = u64::from_le_bytes(*self.rest.first_chunk()?);
        // The last byte of the varint is the first without its high bit.
        let last = !word & 0x8080_8080_8080_8080;
        if last == 0 {
            return None;
        }
        self.rest = self.rest.get(last.trailing_zeros() as usize / 8 + 1..)?;
        Some(joined(word & (last ^ (last - 1))))
    }

    /// Three unsigned varints that take `LEN` bytes together, 3 to 8, where there are eight. That
    /// the length is given breaks the chain of reads that wait for each other: a processor guesses
    /// that it will be the same again and reads on.
    #[inline(always)]
    pub(crate) fn three_uvarints<const LEN: usize>(&mut self) -> Option<[u64; 3]> {
        const { assert!(3 <= LEN && LEN <= 8) }
        let word = u64::from_le_bytes(*self.rest.first_chunk()?);
        let ends = !word & 0x8080_8080_8080_8080 & (u64::MAX >> (64 - 8 * LEN));
        // The high bits of the last bytes of the first and of the second; the third has the rest.
        let first = ends & ends.wrapping_neg();
        let behind = ends ^ first;
        let second = behind & behind.wrapping_neg();
        let third = behind ^ second;
        if third != 1 << (8 * LEN - 1) {
            return None;
        }
        self.rest = self.rest.get(LEN..)?;
        // Neither end is in the highest byte, so these shifts are less than 64.
        let behind_first = first.trailing_zeros() + 1;
        let behind_second = second.trailing_zeros() + 1;
        Some([
            joined(word & (first - 1)),
            joined((word & (second - 1)) >> behind_first),
            joined((word & (third - 1)) >> behind_second),
        ])
    }

    fn uvarint_by_byte(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::VarintOverflow);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// An unsigned varint that has to fit 32 bits.
    ///
    /// # Errors
    /// When it does not end or is larger.
    pub fn uvarint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.uvarint()?).map_err(|_| DecodeError::NumberTooLarge)
    }

    /// An unsigned varint that counts bytes or entries.
    ///
    /// # Errors
    /// When it does not end or does not fit a `usize`.
    pub fn uvarint_len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.uvarint()?).map_err(|_| DecodeError::NumberTooLarge)
    }

    /// A zig-zag encoded signed varint.
    ///
    /// # Errors
    /// When it does not end, or not within 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<i64, DecodeError> {
        self.uvarint().map(unzigzag)
    }

    /// Bytes behind their length as a varint.
    ///
    /// # Errors
    /// When fewer are left than announced.
    pub fn uvarint_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.uvarint_len()?;
        self.bytes(len)
    }

    /// A text behind its length as a varint.
    ///
    /// # Errors
    /// When fewer bytes are left than announced, or they are not UTF-8.
    pub fn uvarint_str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.uvarint_bytes()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// Skips zero bytes.
    pub fn skip_zeros(&mut self) {
        let zeros = self.rest.iter().take_while(|byte| **byte == 0).count();
        self.rest = self.rest.get(zeros..).unwrap_or_default();
    }

    /// The content of a section `len <4b> │ content │ CRC-32C <4b>` and moves behind it.
    ///
    /// # Errors
    /// When it is cut or its checksum does not match.
    pub fn section(&mut self) -> Result<&'a [u8], DecodeError> {
        let content = self.section_unchecked()?;
        self.checksum(content)?;
        Ok(content)
    }

    /// As [`Decoder::section`], for content whose checksum was checked before: the checksum is
    /// left unread.
    ///
    /// # Errors
    /// When it is cut.
    pub fn section_unchecked(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.be32()?).map_err(|_| DecodeError::NumberTooLarge)?;
        self.bytes(len)
    }

    /// Reads a stored checksum and compares it with that of `content`.
    ///
    /// # Errors
    /// When it is cut or differs.
    pub fn checksum(&mut self, content: &[u8]) -> Result<(), DecodeError> {
        let stored = self.be32()?;
        let computed = crc32c(content);
        // A fuzzer does not find checksums, and there is nothing behind them that may rely on them.
        if stored == computed || cfg!(fuzzing) {
            return Ok(());
        }
        Err(DecodeError::Checksum { stored, computed })
    }
}

/// Appends an unsigned varint.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a zig-zag encoded signed varint.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a big-endian 32-bit number.
pub fn put_be32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a big-endian 64-bit number.
pub fn put_be64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a text behind its length as a varint.
pub fn put_uvarint_str(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX >> 1,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            put_varint(&mut out, value.cast_signed());
            put_varint(&mut out, value.cast_signed().wrapping_neg());
            put_be64(&mut out, value);
            let mut decoder = Decoder::new(&out);
            assert_eq!(decoder.uvarint(), Ok(value));
            assert_eq!(decoder.varint(), Ok(value.cast_signed()));
            assert_eq!(decoder.varint(), Ok(value.cast_signed().wrapping_neg()));
            assert_eq!(decoder.be64(), Ok(value));
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn varints_of_all_lengths_come_back_with_and_without_bytes_behind_them() {
        for shift in 0..64 {
            for value in [
                1u64 << shift,
                (1 << shift) - 1,
                0x5555_5555_5555_5555 >> shift,
            ] {
                let mut out = Vec::new();
                put_uvarint(&mut out, value);
                let len = out.len();
                assert_eq!(Decoder::new(&out).uvarint(), Ok(value));
                out.resize(len + 8, 0xff);
                let mut decoder = Decoder::new(&out);
                assert_eq!(decoder.uvarint(), Ok(value));
                assert_eq!(decoder.len(), 8);
            }
        }
    }

    #[test]
    fn three_varints_are_those_one_after_the_other() {
        fn check<const LEN: usize>(three: [u64; 3], bytes: &[u8], len: usize) {
            let mut decoder = Decoder::new(bytes);
            let at_once = decoder.three_uvarints::<LEN>();
            assert_eq!(
                at_once.is_some(),
                len == LEN && bytes.len() >= 8,
                "{three:?}"
            );
            if let Some(at_once) = at_once {
                assert_eq!((at_once, decoder.len()), (three, bytes.len() - len));
            }
        }
        let values = [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            u64::MAX,
        ];
        for first in values {
            for second in values {
                for third in values {
                    let mut out = Vec::new();
                    let three = [first, second, third];
                    three.iter().for_each(|value| put_uvarint(&mut out, *value));
                    let len = out.len();
                    for (more, byte) in [(0, 0), (8, 0x80), (8, 0)] {
                        out.truncate(len);
                        out.resize(len + more, byte);
                        check::<3>(three, &out, len);
                        check::<5>(three, &out, len);
                        check::<6>(three, &out, len);
                        check::<7>(three, &out, len);
                        check::<8>(three, &out, len);
                    }
                }
            }
        }
    }

    #[test]
    fn overlong_and_cut_varints_are_errors() {
        let overlong = [0xff; 11];
        assert_eq!(
            Decoder::new(&overlong).uvarint(),
            Err(DecodeError::VarintOverflow)
        );
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Decoder::new(&largest).uvarint(), Ok(u64::MAX));
        assert_eq!(Decoder::new(&[0x80]).uvarint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut digest = Crc32c::new();
        digest.update(b"1234");
        digest.update(b"56789");
        assert_eq!(digest.finish(), 0xe306_9283);
    }

    #[test]
    fn sections_are_checked() {
        let mut out = Vec::new();
        put_be32(&mut out, 3);
        out.extend_from_slice(b"abc");
        put_be32(&mut out, crc32c(b"abc"));
        assert_eq!(Decoder::new(&out).section(), Ok(&b"abc"[..]));
        for cut in 0..out.len() {
            assert_eq!(
                Decoder::new(&out[..cut]).section(),
                Err(DecodeError::Truncated)
            );
        }
        out[5] ^= 1;
        assert!(matches!(
            Decoder::new(&out).section(),
            Err(DecodeError::Checksum { .. })
        ));
    }
}
