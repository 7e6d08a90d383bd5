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
    #[inline]
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let shift = self.at % 8;
        let mut word = [0; 9];
        match rest.first_chunk::<9>() {
            Some(nine) => word = *nine,
            None => word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from),
        }
        let [first @ .., last] = word;
        let high = u64::from_be_bytes(first) << shift;
        high | u64::from(last) >> (8 - shift)
    }

    #[inline]
    fn skip(&mut self, bits: u32) -> Result<(), Error> {
        let bits = bits as usize;
        if bits > self.left() {
            return Err(corrupt("the bytes end before the last sample"));
        }
        self.at += bits;
        Ok(())
    }

    /// The next `count` bits, at most 64.
    #[inline]
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
    #[inline]
    fn varbit(&mut self) -> Result<(u64, u32), Error> {
        let word = self.peek();
        let ones = word.leading_ones();
        if ones < 7 {
            // Prefix and number are at most 32 bits, and at hand.
            let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(0);
            self.skip(ones + 1 + width)?;
            let behind = word << (ones + 1);
            return Ok((behind.checked_shr(64 - width).unwrap_or(0), width));
        }
        self.long_varbit(ones.min(8))
    }

    /// As [`BitReader::varbit`], with this many leading ones.
    fn long_varbit(&mut self, ones: u32) -> Result<(u64, u32), Error> {
        // A zero ends the ones unless there are eight.
        self.skip((ones + 1).min(8))?;
        let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(64);
        Ok((self.read(width)?, width))
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
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        if bits.read(1)? == 0 {
            return Ok(());
        }
        if bits.read(1)? == 1 {
            let window = bits.peek();
            bits.skip(11)?;
            self.leading = (window >> 59) as u32 & 0x1f;
            let significant = match (window >> 53) as u32 & 0x3f {
                0 => 64,
                count => count,
            };
            self.trailing = 64_u32
                .checked_sub(self.leading + significant)
                .ok_or_else(|| corrupt("a float has more than 64 bits"))?;
        }
        let change = bits.read(64 - self.leading - self.trailing)?;
        self.value = f64::from_bits(self.value.to_bits() ^ change << self.trailing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
