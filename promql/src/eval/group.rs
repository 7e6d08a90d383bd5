//! Which group of an aggregation a series belongs to.

use hashbrown::HashMap;
use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

/// Numbers the groups of an aggregation in the order in which they are first met.
pub(super) struct Groups {
    /// Sorted.
    grouping: Vec<String>,
    without: bool,
    by_key: HashMap<Box<[u8]>, usize>,
    labels: Vec<Labels>,
    key: Vec<u8>,
    scratch: String,
}

impl Groups {
    pub(super) fn new(grouping: &[String], without: bool) -> Self {
        let mut grouping = grouping.to_vec();
        grouping.sort_unstable();
        Groups {
            grouping,
            without,
            by_key: HashMap::new(),
            labels: Vec::new(),
            key: Vec::new(),
            scratch: String::new(),
        }
    }

    /// The number of the group of `labels`, and whether it is a new one.
    pub(super) fn find(&mut self, labels: &Labels) -> (usize, bool) {
        let (grouping, without) = (&self.grouping, self.without);
        let keeps = |name: &str| {
            let named = grouping.iter().any(|label| label == name);
            if without {
                !named && name != METRIC_NAME
            } else {
                named
            }
        };
        self.key.clear();
        if without || !grouping.is_empty() {
            for (name, value) in labels.iter().filter(|(name, _)| keeps(name)) {
                // A byte that is not in UTF-8 parts them.
                self.key.extend_from_slice(name.as_bytes());
                self.key.push(0xff);
                self.key.extend_from_slice(value.as_bytes());
                self.key.push(0xff);
            }
        }
        if let Some(at) = self.by_key.get(self.key.as_slice()) {
            return (*at, false);
        }
        let at = self.labels.len();
        let kept = labels.iter().filter(|(name, _)| keeps(name));
        self.labels
            .push(Labels::from_sorted(kept, &mut self.scratch));
        self.by_key.insert(self.key.as_slice().into(), at);
        (at, true)
    }

    /// The labels of each group.
    pub(super) fn labels(&self) -> &[Labels] {
        &self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(grouping: &[&str], without: bool, expected: &[&str]) {
        let names: Vec<String> = grouping.iter().map(|s| (*s).to_owned()).collect();
        let mut groups = Groups::new(&names, without);
        for (a, b) in [("1", "x"), ("1", "y"), ("2", "x")] {
            groups.find(&Labels::from_pairs([
                (METRIC_NAME, "m"),
                ("a", a),
                ("b", b),
            ]));
        }
        let labels: Vec<String> = groups.labels().iter().map(Labels::to_string).collect();
        assert_eq!(labels, expected);
    }

    #[test]
    fn by_and_without() {
        check(&["a"], false, &["{a=\"1\"}", "{a=\"2\"}"]);
        check(&["b", "c"], true, &["{a=\"1\"}", "{a=\"2\"}"]);
        check(&[], false, &["{}"]);
        check(&["__name__"], false, &["{__name__=\"m\"}"]);
    }
}
