//! Remarks that travel with an answer without failing it.

/// Warnings and infos of an answer, each text once, in the order they were first raised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Warnings {
    /// Adds a warning: the answer may be wrong or incomplete.
    pub fn warn(&mut self, text: impl Into<String>) {
        insert(&mut self.warnings, text.into());
    }

    /// Adds an info: the answer is right, the question looks odd.
    pub fn info(&mut self, text: impl Into<String>) {
        insert(&mut self.infos, text.into());
    }

    /// Takes over all remarks of `other`.
    pub fn merge(&mut self, other: Warnings) {
        other
            .warnings
            .into_iter()
            .for_each(|text| insert(&mut self.warnings, text));
        other
            .infos
            .into_iter()
            .for_each(|text| insert(&mut self.infos, text));
    }

    /// Whether there is no remark.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    /// The warnings.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The infos.
    pub fn infos(&self) -> &[String] {
        &self.infos
    }
}

fn insert(into: &mut Vec<String>, text: String) {
    if !into.contains(&text) {
        into.push(text);
    }
}
