//! Things that go wrong outside: each is named clearly, nothing panics, other data live on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Server, columns, labels};

const FLAGS: [&str; 1] = ["--no-self-monitoring"];
const BASE_MS: i64 = 1_700_000_000_000;

fn assert_no_panic(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
}

/// A start that must fail: the exit code is 1 and the log says all of `parts`.
fn check_refused(data: &Path, parts: &[&str]) {
    let mut server = Server::isobar_unready(data, &FLAGS);
    let code = server.process.wait();
    let log = server.process.log();
    assert_eq!(code, Some(1), "{log}");
    for part in parts {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    assert_no_panic(&log);
}

#[test]
fn second_process_on_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Server::isobar(&data, &FLAGS);
    check_refused(&data, &["in use by another process", "lock"]);
    assert_eq!(first.get("/-/ready", &[]).status(), 200);
}

#[test]
fn directory_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    // A file in the way stops root, too, whom permissions do not.
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    check_refused(&file.join("data"), &["file/data"]);
}

#[test]
fn read_only_file_system() {
    let Some(mount) = Tmpfs::mount("8m") else {
        return;
    };
    let data = mount.path().join("data");
    let mut server = Server::isobar(&data, &FLAGS);
    write_steps(&server, 0..10);
    server.process.terminate();
    mount.remount("ro");
    check_refused(&data, &["Read-only file system"]);
}

#[test]
fn full_disk() {
    let Some(mount) = Tmpfs::mount("3m") else {
        return;
    };
    let data = mount.path().join("data");
    let mut server = Server::isobar(&data, &FLAGS);
    let mut acknowledged = 0;
    let refusal = (0..200_000).find_map(|step| match write_step(&server, step) {
        (204, _) => {
            acknowledged = step;
            None
        }
        refused => Some(refused),
    });
    let (status, text) = refusal.expect("a disk of 3 MiB gets full");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    assert!(server.process.is_running());
    check_steps(&server, acknowledged);
    let log = server.process.log();
    assert_no_panic(&log);
    // With room again the same process goes on, and a restart has everything.
    mount.remount("size=64m");
    crate::harness::eventually("writes to be taken again", || {
        (write_step(&server, acknowledged + 2).0 == 204).then_some(())
    });
    server.process.kill();
    let server = Server::isobar(&data, &FLAGS);
    check_steps(&server, acknowledged);
}

#[test]
fn corrupt_record_in_the_middle_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::isobar(&data, &FLAGS);
    write_steps(&server, 0..500);
    server.process.kill();
    let segment = largest_file(&data.join("isobar-wal"));
    let mut bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[used / 2] ^= 0xff;
    fs::write(&segment, bytes).unwrap();

    let server = Server::isobar(&data, &FLAGS);
    let log = server.process.log();
    assert!(
        log.contains("level=warn") && log.contains("damage in"),
        "{log}"
    );
    assert_no_panic(&log);
    let all = "sum(count_over_time({__name__=~\"m|filler\"}[1w]))";
    let answer = server.query(all, &(BASE_MS / 1000 + 1000).to_string());
    let found: f64 = answer["result"][0]["value"][1]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((990.0..1000.0).contains(&found), "{found} of 1000 samples");
}

#[test]
fn truncated_block_is_set_aside() {
    let contract = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract/ha"
    ));
    if !contract.is_dir() {
        eprintln!("skipped: {} not found", contract.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy_dir(contract, &data);
    let mut blocks: Vec<PathBuf> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    blocks.sort();
    let index = blocks[0].join("index");
    let bytes = fs::read(&index).unwrap();
    fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();

    let server = Server::isobar(&data, &FLAGS);
    let name = blocks[0].file_name().unwrap().to_str().unwrap();
    let log = server.process.log();
    assert!(log.contains(name) && log.contains("corrupt"), "{log}");
    assert_no_panic(&log);
    let answer = server.api("/api/v1/label/job/values", &[]);
    assert_eq!(answer["data"][0], "demo", "the other blocks are read");
    let query = [("query", "count(up)"), ("time", "1700014177")];
    for answer in [answer, server.api("/api/v1/query", &query)] {
        let warning = answer["warnings"][0].as_str().unwrap();
        assert!(warning.contains(name), "{warning}");
    }
}

fn write_step(server: &Server, step: i64) -> (u16, String) {
    let sample = (BASE_MS + step * 1000, step as f64);
    // An odd series for each step makes the log grow quickly.
    let filler = labels("filler", "text", &format!("{step} {}", "x".repeat(200)));
    let steady = labels("m", "job", "x");
    server
        .write(&[(steady, columns(&[sample])), (filler, columns(&[sample]))])
        .unwrap()
}

fn write_steps(server: &Server, steps: std::ops::Range<i64>) {
    for step in steps {
        assert_eq!(write_step(server, step), (204, String::new()));
    }
}

/// All steps up to `last` are there.
fn check_steps(server: &Server, last: i64) {
    let end = (BASE_MS / 1000 + last).to_string();
    let answer = server.query("count_over_time(m[4w])", &end);
    assert_eq!(answer["result"][0]["value"][1], (last + 1).to_string());
}

fn largest_file(dir: &Path) -> PathBuf {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

/// Copies a directory tree; what is copied can be written.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// A small file system in memory, for which one has to be root.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("skipped: a tmpfs cannot be mounted here (it needs root)");
            return None;
        }
        Some(Tmpfs { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn remount(&self, option: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{option}")])
            .arg(self.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, since a process under test may still be ending.
        let _left = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
