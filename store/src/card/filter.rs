//! The filter of metric names of a card: says of most names that a block does not have that it does
//! not, without a look at its symbols.

use xxhash_rust::xxh3::xxh3_64;

const KIND: u8 = 5;
const HASHES: u8 = 7;
/// One name in a hundred that is not there passes.
const BITS_PER_NAME: usize = 10;
/// A filter of more names lets more pass.
const BYTES_MAX: usize = 64 << 10;
const HEADER_BYTES: usize = 8;

/// The payload of the filter of some names.
pub(super) fn encode<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    let bytes = (names.len() * BITS_PER_NAME)
        .div_ceil(8)
        .clamp(8, BYTES_MAX);
    let bits = u32::try_from(bytes * 8).unwrap_or(u32::MAX);
    let mut out = vec![KIND, HASHES, 0, 0];
    out.extend_from_slice(&bits.to_le_bytes());
    out.resize(HEADER_BYTES + bytes, 0);
    for name in names {
        for bit in bits_of(name, HASHES, bits) {
            if let Some(byte) = out.get_mut(HEADER_BYTES + bit as usize / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    out
}

/// Whether `name` may be among the names; `None` when the payload is no filter.
pub(super) fn may_hold(payload: &[u8], name: &str) -> Option<bool> {
    let (header, field) = payload.split_first_chunk::<HEADER_BYTES>()?;
    let [KIND, hashes, _, _, a, b, c, d] = *header else {
        return None;
    };
    let bits = u32::from_le_bytes([a, b, c, d]);
    if bits == 0 || field.len() < (bits as usize).div_ceil(8) {
        return None;
    }
    let set = |bit: u32| {
        let byte = field.get(bit as usize / 8);
        byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    };
    Some(bits_of(name, hashes, bits).all(set))
}

fn bits_of(name: &str, hashes: u8, bits: u32) -> impl Iterator<Item = u32> {
    let hash = xxh3_64(name.as_bytes());
    let (first, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
    let bit = move |i: u8| first.wrapping_add(u64::from(i).wrapping_mul(step)) % u64::from(bits);
    (0..hashes).map(move |i| u32::try_from(bit(i)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_there_pass_and_few_others() {
        let names: Vec<String> = (0..1000).map(|i| format!("metric_{i}")).collect();
        let filter = encode(names.iter().map(String::as_str));
        assert!(
            names
                .iter()
                .all(|name| may_hold(&filter, name) == Some(true))
        );
        let passed = (0..1000).filter(|i| may_hold(&filter, &format!("other_{i}")) == Some(true));
        assert!(passed.count() < 30);
        assert_eq!(may_hold(&[], "a"), None);
        assert_eq!(may_hold(&[5, 7, 0, 0, 0xff, 0xff, 0, 0, 1], "a"), None);
        assert_eq!(may_hold(&encode([].into_iter()), "a"), Some(false));
    }
}
