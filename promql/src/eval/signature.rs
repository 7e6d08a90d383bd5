//! Which elements of two vectors belong together: the labels of `on`, or all but those of
//! `ignoring` and the name.

use hashbrown::HashMap;
use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

use crate::parse::ast::VectorMatching;

/// Numbers the signatures of series, for both sides of an operation.
pub(super) struct Signatures<'a> {
    matching: &'a VectorMatching,
    by_key: HashMap<Box<[u8]>, usize>,
    /// The bytes of all keys.
    key_bytes: usize,
}

impl<'a> Signatures<'a> {
    pub(super) fn new(matching: &'a VectorMatching) -> Self {
        Signatures {
            matching,
            by_key: HashMap::new(),
            key_bytes: 0,
        }
    }

    /// The bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.by_key.allocation_size() + self.key_bytes
    }

    /// The number of the signature of `labels`; a new one is the number of those before. `key` is
    /// room to work in, as for [`Signatures::find`].
    pub(super) fn number(&mut self, labels: &Labels, key: &mut Vec<u8>) -> usize {
        self.write_key(labels, key);
        let next = self.by_key.len();
        match self.by_key.get(key.as_slice()) {
            Some(at) => *at,
            None => {
                self.key_bytes += key.len();
                self.by_key.insert(key.as_slice().into(), next);
                next
            }
        }
    }

    /// The number of the signature of `labels`, if it has been met.
    pub(super) fn find(&self, labels: &Labels, key: &mut Vec<u8>) -> Option<usize> {
        self.write_key(labels, key);
        self.by_key.get(key.as_slice()).copied()
    }

    fn write_key(&self, labels: &Labels, key: &mut Vec<u8>) {
        key.clear();
        for (name, value) in labels
            .iter()
            .filter(|(name, _)| in_signature(self.matching, name))
        {
            key.extend_from_slice(name.as_bytes());
            key.push(0xff);
            key.extend_from_slice(value.as_bytes());
            key.push(0xff);
        }
    }
}

fn in_signature(matching: &VectorMatching, name: &str) -> bool {
    let named = matching.labels.iter().any(|label| label == name);
    if matching.on {
        named
    } else {
        !named && name != METRIC_NAME
    }
}

/// The part of `labels` that is matched.
pub(super) fn match_labels(matching: &VectorMatching, labels: &Labels) -> Labels {
    labels.filter(|name| in_signature(matching, name))
}
