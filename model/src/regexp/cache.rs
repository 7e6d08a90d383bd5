//! Compiled patterns that were used lately, for the whole process. Dashboards ask the same
//! queries again and again, and compiling a pattern takes longer than reading a few series.
//!
//! What is kept has never matched anything: each user gets a copy with scratch memory of its own,
//! so the cache takes what its patterns take and no more.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex_automata::meta;

/// Patterns that are kept.
const PATTERNS_MAX: usize = 128;
/// What a pattern may take in bytes to be kept, its text and its program.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// A pattern as it is kept.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) automaton: meta::Regex,
    /// Of a pattern for matching: [`super::Regexp::prefix`].
    pub(super) prefix: String,
    /// Of a pattern with groups: their names.
    pub(super) names: Vec<(String, usize)>,
}

/// The patterns, each with the time of its last use.
#[derive(Default)]
struct Kept {
    patterns: HashMap<(bool, String), (Compiled, u64)>,
    /// Counts uses.
    now: u64,
}

impl Kept {
    fn get(&mut self, pattern: &str, groups: bool) -> Option<Compiled> {
        self.now += 1;
        let (compiled, used) = self.patterns.get_mut(&(groups, pattern.to_owned()))?;
        *used = self.now;
        Some(compiled.clone())
    }

    fn put(&mut self, pattern: &str, groups: bool, compiled: Compiled) {
        self.now += 1;
        let key = (groups, pattern.to_owned());
        self.patterns.insert(key, (compiled, self.now));
        if self.patterns.len() > PATTERNS_MAX {
            let oldest = self.patterns.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.patterns.remove(&oldest);
            }
        }
    }
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// A copy of the compiled `pattern`, with groups or without.
pub(super) fn get(pattern: &str, groups: bool) -> Option<Compiled> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get(pattern, groups)
}

/// Keeps a copy of the compiled `pattern`, in place of the one that was not used for longest.
pub(super) fn put(pattern: &str, groups: bool, compiled: &Compiled) {
    if is_small(pattern, compiled) {
        let compiled = compiled.clone();
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put(pattern, groups, compiled);
    }
}

fn is_small(pattern: &str, compiled: &Compiled) -> bool {
    pattern.len() + compiled.automaton.memory_usage() <= PATTERN_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regexp::{CaptureRegexp, Regexp};

    fn compiled(pattern: &str) -> Compiled {
        let regexp = CaptureRegexp::new(pattern).expect("a pattern");
        Compiled {
            automaton: regexp.automaton,
            prefix: String::new(),
            names: regexp.names,
        }
    }

    #[test]
    fn what_is_kept_matches_as_before() {
        for _ in 0..3 {
            let regexp = Regexp::new("a[a-f]+(x|y)[0-9]*").expect("a pattern");
            assert_eq!(regexp.prefix(), "a");
            assert!(regexp.is_match("abcx1") && !regexp.is_match("abc"));
            let capture = CaptureRegexp::new("[a-f]+(?P<n>x|y)[0-9]*").expect("a pattern");
            let groups = capture.captures("abcx1").expect("a match");
            assert_eq!(groups.get(1), Some("x"));
            assert_eq!(capture.group_indices("n"), [1]);
            assert!(Regexp::new("(").is_err());
        }
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_goes() {
        let mut kept = Kept::default();
        let any = compiled("[ab]c");
        for i in 0..PATTERNS_MAX {
            kept.put(&i.to_string(), true, any.clone());
        }
        assert!(kept.get("0", true).is_some());
        assert!(kept.get("0", false).is_none());
        kept.put("new", true, any);
        assert!(kept.get("0", true).is_some() && kept.get("new", true).is_some());
        assert!(kept.get("1", true).is_none());
        assert_eq!(kept.patterns.len(), PATTERNS_MAX);
    }

    #[test]
    fn large_ones_are_not_kept() {
        let large = r"(\pL{1,30}x){10}";
        assert!(!is_small(large, &compiled(large)));
        assert!(is_small("[ab]c", &compiled("[ab]c")));
    }
}
