//! Whether another process is at work in a directory, as far as the machine tells.
//!
//! A lock file tells it, if the other one takes it; Debian's Prometheus takes none. On Linux the
//! files that processes have open can be seen, those of other users by the superuser only, and those
//! in other containers not at all.

use std::path::{Path, PathBuf};

/// A file in `dir` or below that another process has open, if one is seen.
pub(super) fn open_elsewhere(dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    let me = std::process::id();
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let name = process.file_name();
        let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
        if number.is_none_or(|number| number == me) {
            continue;
        }
        // What may not be looked at is passed over.
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let files = open.flatten().filter_map(|it| it.path().read_link().ok());
        if let Some(found) = files.into_iter().find(|file| file.starts_with(&dir)) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_process_holds_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open_elsewhere(dir.path()), None);
        let path = dir.path().join("segment");
        let file = std::fs::File::create(&path).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .spawn()
            .unwrap();
        let seen = open_elsewhere(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        if std::path::Path::new("/proc/self/fd").exists() {
            assert_eq!(seen, Some(path.canonicalize().unwrap()));
        }
        assert_eq!(open_elsewhere(dir.path()), None);
    }
}
