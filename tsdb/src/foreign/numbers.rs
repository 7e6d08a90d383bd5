//! What is known of the numbers of series in a log.
//!
//! They are given one after the other, and a log goes through them in their order, so they lie in
//! pages of neighbours: looking one up mostly reads beside what was read last. Pages are small, as
//! few of the numbers of a log that is old are in use.

use hashbrown::HashMap;

use super::record::SeriesNumber;

const PAGE_BITS: u32 = 5;

/// Something for each number, at first its default.
#[derive(Default)]
pub(super) struct ByNumber<T> {
    pages: HashMap<u64, Box<[T; 1 << PAGE_BITS]>>,
}

impl<T: Default> ByNumber<T> {
    /// What there is of a number, if there is something of a neighbour.
    pub(super) fn get(&self, number: SeriesNumber) -> Option<&T> {
        let page = self.pages.get(&(number.0 >> PAGE_BITS))?;
        page.get(slot(number))
    }

    /// What there is of a number, to be changed.
    pub(super) fn get_mut(&mut self, number: SeriesNumber) -> &mut T {
        let page = self.pages.entry(number.0 >> PAGE_BITS);
        let page = page.or_insert_with(|| Box::new(std::array::from_fn(|_| T::default())));
        &mut page[slot(number)]
    }
}

fn slot(number: SeriesNumber) -> usize {
    (number.0 & ((1 << PAGE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        let mut all = ByNumber::default();
        let numbers = [0, 1, 31, 32, 1 << 40, u64::MAX].map(SeriesNumber);
        for number in numbers {
            *all.get_mut(number) = Some(number);
        }
        for number in numbers {
            assert_eq!(all.get(number), Some(&Some(number)));
        }
        assert_eq!(all.get(SeriesNumber(2)), Some(&None));
        assert_eq!(all.get(SeriesNumber(999)), None);
    }
}
