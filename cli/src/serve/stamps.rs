//! Files that are followed: whether some of them have changed since they were looked at last.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What files were like when they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Stamp)>);

/// By which a change of a file is noticed; none when it is not there.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Stamps {
    /// Those of some files as they are now.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let one = |path: &Path| (path.to_owned(), stamp(path));
        Stamps(files.into_iter().map(one).collect())
    }

    /// These and those.
    pub(super) fn and(mut self, more: Stamps) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Whether all files are as they were.
    pub(super) fn hold(&self) -> bool {
        self.0.iter().all(|(path, seen)| *seen == stamp(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "1").unwrap();
        let seen = || Stamps::of([a.as_path()]).and(Stamps::of([b.as_path()]));
        let before = seen();
        assert!(before.hold());
        fs::write(&b, "").unwrap();
        assert!(!before.hold());
        let before = seen();
        fs::write(&a, "12").unwrap();
        assert!(!before.hold());
        let before = seen();
        fs::remove_file(&a).unwrap();
        assert!(!before.hold() && seen().hold());
    }
}
