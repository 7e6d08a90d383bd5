//! Bits, varbit numbers and XORed floats.

use super::corrupt;
use crate::Error;
use crate::encoding::Decoder;

/// Reads bits from the most significant on.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits read.
    at: usize,
}

/// The bits that a varbit number has behind each number of leading ones.
pub(in crate::chunks) const VARBIT_WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// The number of bits left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// The next 64 bits, zeros behind the end.
    #[inline(always)]
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let shift = self.at % 8;
        let [first @ .., last] = match rest.first_chunk::<9>() {
            Some(nine) => *nine,
            None => {
                let mut word = [0; 9];
                word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                word
            }
        };
        let high = u64::from_be_bytes(first) << shift;
        high | u64::from(last) >> (8 - shift)
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) -> Result<(), Error> {
        let bits = bits as usize;
        if bits > self.left() {
            return Err(corrupt("the bytes end before the last sample"));
        }
        self.at += bits;
        Ok(())
    }

    /// The next `count` bits, at most 64.
    pub(super) fn read(&mut self, count: u32) -> Result<u64, Error> {
        let word = self.peek();
        self.skip(count)?;
        Ok(word.checked_shr(64 - count).unwrap_or(0))
    }

    /// A float as its 64 bits.
    pub(super) fn float(&mut self) -> Result<f64, Error> {
        self.read(64).map(f64::from_bits)
    }

    /// An unsigned varbit number with its width.
    #[inline(always)]
    fn varbit(&mut self) -> Result<(u64, u32), Error> {
        let word = self.peek();
        self.varbit_of(word)
    }

    /// As `varbit`, when the next bits are known.
    #[inline(always)]
    fn varbit_of(&mut self, word: u64) -> Result<(u64, u32), Error> {
        let ones = word.leading_ones().min(8);
        // A zero ends the ones unless there are eight.
        let prefix = (ones + 1).min(8);
        let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(64);
        if prefix + width <= 64 {
            self.skip(prefix + width)?;
            let number = (word << prefix).checked_shr(64 - width).unwrap_or(0);
            return Ok((number, width));
        }
        self.skip(prefix)?;
        Ok((self.read(width)?, width))
    }

    /// Reads a signed varbit number for each of `deltas` and adds it. Counts mostly go on as they
    /// went, so most of the numbers are zeros, one bit each: these are passed over at once.
    pub(super) fn add_to_each(&mut self, deltas: &mut [i64]) -> Result<(), Error> {
        let mut at = 0;
        while let Some(delta) = deltas.get_mut(at) {
            let word = self.peek();
            let zeros = word.leading_zeros();
            if zeros == 0 {
                let (bits, width) = self.varbit_of(word)?;
                *delta = delta.wrapping_add(varbit_signed(bits, width));
                at += 1;
                continue;
            }
            let left = u32::try_from(deltas.len() - at).unwrap_or(u32::MAX);
            self.skip(zeros.min(left))?;
            at += zeros.min(left) as usize;
        }
        Ok(())
    }

    pub(super) fn varbit_uint(&mut self) -> Result<u64, Error> {
        self.varbit().map(|it| it.0)
    }

    pub(super) fn varbit_int(&mut self) -> Result<i64, Error> {
        let (bits, width) = self.varbit()?;
        Ok(varbit_signed(bits, width))
    }

    /// A signed varint, whose bytes begin at any bit.
    pub(super) fn varint(&mut self) -> Result<i64, Error> {
        let mut bytes = [0; 10];
        for at in 0..bytes.len() {
            let byte = self.read(8)?.to_be_bytes()[7];
            if let Some(to) = bytes.get_mut(at) {
                *to = byte;
            }
            if byte < 0x80 {
                break;
            }
        }
        let read = Decoder::new(&bytes).varint();
        read.map_err(|error| corrupt(error.to_string()))
    }
}

/// A varbit number of `width` bits as a signed one: from 1 - 2^(width-1) to 2^(width-1).
pub(in crate::chunks) fn varbit_signed(bits: u64, width: u32) -> i64 {
    let negative = (1..64).contains(&width) && bits > 1 << (width - 1);
    let bits = if negative {
        bits.wrapping_sub(1 << width)
    } else {
        bits
    };
    bits.cast_signed()
}

/// A float that is XORed with the one before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct XorFloat {
    pub(super) value: f64,
    leading: u32,
    trailing: u32,
}

impl XorFloat {
    pub(super) fn of(value: f64) -> Self {
        XorFloat {
            value,
            ..XorFloat::default()
        }
    }

    /// Reads the next one.
    #[inline]
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        let word = bits.peek();
        if word >> 63 == 0 {
            return bits.skip(1);
        }
        let mut prefix = 2;
        if word >> 62 == 3 {
            prefix = 13;
            self.leading = (word >> 57) as u32 & 0x1f;
            let significant = match (word >> 51) as u32 & 0x3f {
                0 => 64,
                count => count,
            };
            self.trailing = 64_u32
                .checked_sub(self.leading + significant)
                .ok_or_else(|| corrupt("a float has more than 64 bits"))?;
        }
        let width = 64 - self.leading - self.trailing;
        let change = if prefix + width <= 64 {
            bits.skip(prefix + width)?;
            (word << prefix).checked_shr(64 - width).unwrap_or(0)
        } else {
            bits.skip(prefix)?;
            bits.read(width)?
        };
        self.value = f64::from_bits(self.value.to_bits() ^ change << self.trailing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zeros_are_passed_over() {
        // Ten zeros, 4, five zeros, -3, one zero.
        let bits = "0".repeat(10) + "10100" + "00000" + "10101" + "0";
        let mut bytes = Vec::new();
        for byte in bits.as_bytes().chunks(8) {
            let text = format!("{:0<8}", std::str::from_utf8(byte).unwrap());
            bytes.push(u8::from_str_radix(&text, 2).unwrap());
        }
        let mut want = vec![1_i64; 18];
        (want[10], want[16]) = (5, -2);
        for cut in 0..=17 {
            let mut deltas = vec![1; 18];
            let mut reader = BitReader::new(&bytes);
            let (head, rest) = deltas.split_at_mut(cut);
            reader.add_to_each(head).unwrap();
            reader.add_to_each(rest).unwrap();
            assert_eq!((deltas, reader.at), (want.clone(), 26));
            assert!(reader.add_to_each(&mut [0; 7]).is_err());
        }
    }

    #[test]
    fn varbit_numbers() {
        // 0, 4, -3, 32, 64 bits of ones.
        let bits = "0".to_owned() + "10100" + "10101" + "110100000" + "11111111" + &"1".repeat(64);
        let bytes: Vec<u8> = bits
            .as_bytes()
            .chunks(8)
            .map(|byte| {
                let text = format!("{:0<8}", std::str::from_utf8(byte).unwrap());
                u8::from_str_radix(&text, 2).unwrap()
            })
            .collect();
        let mut reader = BitReader::new(&bytes);
        for want in [0, 4, -3, 32, -1] {
            assert_eq!(reader.varbit_int().unwrap(), want);
        }
        assert!(reader.read(64).is_err());
        let left = u32::try_from(reader.left()).unwrap();
        assert_eq!((reader.read(left).unwrap(), reader.left()), (0, 0));
        assert!(reader.read(1).is_err());
        assert_eq!(reader.read(0).unwrap(), 0);
    }
}
