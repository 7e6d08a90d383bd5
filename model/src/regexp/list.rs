//! Finite sets of values.

/// Up to this many values are compared one after the other.
const LINEAR_MAX: usize = 8;

/// A set of values.
#[derive(Debug, PartialEq)]
pub(super) struct LiteralSet {
    /// Sorted, each once.
    sorted: Vec<String>,
    /// A hash table of a power of two of places: the index of a value plus one, or 0. Collisions
    /// go to the next place. Empty for small sets.
    places: Vec<u32>,
}

impl LiteralSet {
    pub(super) fn new(mut literals: Vec<String>) -> Self {
        literals.sort_unstable();
        literals.dedup();
        let mut set = LiteralSet {
            sorted: literals,
            places: Vec::new(),
        };
        if set.sorted.len() > LINEAR_MAX {
            set.places = vec![0; (set.sorted.len() * 2).next_power_of_two()];
            for (index, literal) in (1..).zip(&set.sorted) {
                let mut at = set.place_of(literal);
                while set.places[at] != 0 {
                    at = (at + 1) % set.places.len();
                }
                set.places[at] = index;
            }
        }
        set
    }

    pub(super) fn as_slice(&self) -> &[String] {
        &self.sorted
    }

    /// The text that all values begin with.
    pub(super) fn prefix(&self) -> String {
        match self.sorted.as_slice() {
            [first, .., last] => common_prefix(first, last),
            [only] => only.clone(),
            [] => String::new(),
        }
    }

    fn place_of(&self, value: &str) -> usize {
        xxhash_rust::xxh3::xxh3_64(value.as_bytes()) as usize & (self.places.len() - 1)
    }

    pub(super) fn contains(&self, value: &str) -> bool {
        if value.is_empty() {
            return self.sorted.first().is_some_and(String::is_empty);
        }
        if self.places.is_empty() {
            return self.sorted.iter().any(|literal| literal == value);
        }
        let mut at = self.place_of(value);
        while self.places[at] != 0 {
            if self.sorted[self.places[at] as usize - 1] == value {
                return true;
            }
            at = (at + 1) % self.places.len();
        }
        false
    }
}

/// The values of a pattern that is no more than a list of plain texts (`a|b|c`), as dashboards
/// make them of what is chosen in a variable, often thousands. The general way takes ten times
/// as long for these.
pub(super) fn plain_list(pattern: &str) -> Option<LiteralSet> {
    const SPECIAL: &[u8] = b"\\.+*?()[]{}^$";
    if pattern.bytes().any(|byte| SPECIAL.contains(&byte)) {
        return None;
    }
    Some(LiteralSet::new(
        pattern.split('|').map(str::to_owned).collect(),
    ))
}

/// The text that both begin with.
pub(super) fn common_prefix(a: &str, b: &str) -> String {
    a.chars()
        .zip(b.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect()
}
