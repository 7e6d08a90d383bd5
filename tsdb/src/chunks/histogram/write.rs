//! Writing bits, varbit numbers, changes of changes and XORed floats: the other half of
//! [`super::bits`].

use super::bits::VARBIT_WIDTHS;

/// At least this many bytes are added when there is no room.
const GROWTH_MIN: usize = 64;

/// Writes bits from the most significant on.
#[derive(Debug, Clone, Default)]
pub(super) struct BitWriter {
    pub(super) bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: u32,
}

impl BitWriter {
    /// Appends the `count` low bits of `value`, at most 64.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                if self.bytes.len() == self.bytes.capacity() {
                    // By a quarter, not by all: of many series the chunk is open most of the time.
                    self.bytes
                        .reserve_exact((self.bytes.len() / 4).max(GROWTH_MIN));
                }
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            let part = (value >> (left - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                let [.., low] = (part << (self.free - taken)).to_be_bytes();
                *last |= low;
            }
            self.free -= taken;
            left -= taken;
        }
    }

    /// A varbit number of the class with so many leading ones.
    fn varbit(&mut self, value: u64, ones: u32) {
        let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(64);
        // Ones, and a zero that ends them unless there are eight.
        let prefix = (1_u64 << ones) - 1;
        match ones {
            8 => self.put(prefix, 8),
            _ => self.put(prefix << 1, ones + 1),
        }
        self.put(value, width);
    }

    pub(super) fn varbit_uint(&mut self, value: u64) {
        let needed = 64 - value.leading_zeros();
        let class = VARBIT_WIDTHS.iter().zip(0..).find(|(w, _)| needed <= **w);
        self.varbit(value, class.map_or(8, |(_, ones)| ones));
    }

    pub(super) fn varbit_int(&mut self, value: i64) {
        // A class of `w` bits holds 1 - 2^(w-1) to 2^(w-1).
        let fits = |width: u32| match width {
            0 => value == 0,
            64 => true,
            _ => {
                let most = 1_i64 << (width - 1);
                (1 - most..=most).contains(&value)
            }
        };
        let class = VARBIT_WIDTHS.iter().zip(0..).find(|(w, _)| fits(**w));
        self.varbit(value.cast_unsigned(), class.map_or(8, |(_, ones)| ones));
    }
}

/// A number of which the change of its change is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) value: i64,
    pub(super) delta: i64,
}

impl Delta {
    pub(super) fn put(&mut self, bits: &mut BitWriter, value: i64) {
        let delta = value.wrapping_sub(self.value);
        bits.varbit_int(delta.wrapping_sub(self.delta));
        *self = Delta { value, delta };
    }
}

/// A float of which the XOR with the one before is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct XorFloat {
    pub(super) value: f64,
    /// Leading and trailing zeros of the bits that were written last.
    window: Option<(u32, u32)>,
}

impl XorFloat {
    pub(super) fn of(value: f64) -> Self {
        XorFloat {
            value,
            window: None,
        }
    }

    pub(super) fn put(&mut self, bits: &mut BitWriter, value: f64) {
        let change = value.to_bits() ^ self.value.to_bits();
        self.value = value;
        if change == 0 {
            return bits.put(0, 1);
        }
        let leading = change.leading_zeros().min(31);
        let trailing = change.trailing_zeros();
        match self.window {
            Some((before, behind)) if leading >= before && trailing >= behind => {
                bits.put(0b10, 2);
                bits.put(change >> behind, 64 - before - behind);
            }
            _ => {
                self.window = Some((leading, trailing));
                let significant = 64 - leading - trailing;
                bits.put(0b11, 2);
                bits.put(leading.into(), 5);
                // 64 is written as 0.
                bits.put(u64::from(significant & 63), 6);
                bits.put(change >> trailing, significant);
            }
        }
    }
}
