//! A disk that forgets: from the changes and syncs of a run it works out what may be left when the
//! power goes. What was synced is there. Of what was not, each write of a file may be there, be
//! torn or be missing, and so may each name in a directory, in any combination.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isobar_tsdb::disk::Change;

/// Random numbers from a seed (splitmix64).
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A change, kept.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Sync(PathBuf),
    CreateDir(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveDir(PathBuf),
}

impl From<&Change<'_>> for Kept {
    fn from(change: &Change<'_>) -> Self {
        let own = |path: &Path| path.to_owned();
        match *change {
            Change::Create(path) => Kept::Create(own(path)),
            Change::Write {
                path,
                offset,
                bytes,
            } => Kept::Write(own(path), offset, bytes.to_vec()),
            Change::SetLen { path, len } => Kept::SetLen(own(path), len),
            Change::Sync(path) => Kept::Sync(own(path)),
            Change::CreateDir(path) => Kept::CreateDir(own(path)),
            Change::SyncDir(path) => Kept::SyncDir(own(path)),
            Change::Rename { from, to } => Kept::Rename(own(from), own(to)),
            Change::Link { from, to } => Kept::Link(own(from), own(to)),
            Change::Remove(path) => Kept::Remove(own(path)),
            Change::RemoveDir(path) => Kept::RemoveDir(own(path)),
        }
    }
}

impl Kept {
    /// The kind of the change and what it is done to, without numbers: where in the program it
    /// comes from.
    pub(super) fn site(&self, root: &Path) -> String {
        let (kind, path) = match self {
            Kept::Create(path) => ("create", path),
            Kept::Write(path, ..) => ("write", path),
            Kept::SetLen(path, _) => ("cut", path),
            Kept::Sync(path) => ("sync", path),
            Kept::CreateDir(path) => ("make", path),
            Kept::SyncDir(path) => ("sync names in", path),
            Kept::Rename(_, path) => ("rename to", path),
            Kept::Link(_, path) => ("link to", path),
            Kept::Remove(path) => ("remove", path),
            Kept::RemoveDir(path) => ("remove all of", path),
        };
        let path = path.strip_prefix(root).unwrap_or(path);
        let parts = path.iter().map(|part| part.to_string_lossy());
        let plain: Vec<String> = parts
            .map(|part| match part.split_once('.') {
                Some((ulid, rest)) if ulid.len() == 26 => format!("ULID.{rest}"),
                None if part.len() == 26 => "ULID".to_owned(),
                _ => part.replace(|c: char| c.is_ascii_digit(), ""),
            })
            .collect();
        format!("{kind} {}", plain.join("/"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    File(usize),
    Dir(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Pending::Write(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
            Pending::SetLen(len) => content.resize(*len as usize, 0),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Dir {
    durable: BTreeMap<String, Node>,
    live: BTreeMap<String, Node>,
    /// Names that change together.
    pending: Vec<Vec<(String, Option<Node>)>>,
}

/// Directories and files, with what is durable of them and what is not yet.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    dirs: Vec<Dir>,
}

/// How much survives of what was not synced.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Nothing,
    Everything,
    Some,
}

impl Disk {
    /// An empty disk, known by the path of its first directory.
    pub(super) fn new(root: &Path) -> Self {
        Disk {
            root: root.to_owned(),
            files: Vec::new(),
            dirs: vec![Dir::default()],
        }
    }

    /// A disk with all that is in a directory now, durable.
    pub(super) fn of(root: &Path) -> Self {
        let mut disk = Disk::new(root);
        disk.load(root);
        disk
    }

    fn load(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.apply(&Kept::CreateDir(path.clone()));
                self.load(&path);
            } else {
                self.apply(&Kept::Create(path.clone()));
                let bytes = std::fs::read(&path).unwrap();
                self.apply(&Kept::Write(path.clone(), 0, bytes));
                self.apply(&Kept::Sync(path));
            }
        }
        self.apply(&Kept::SyncDir(dir.to_owned()));
    }

    fn find_dir(&self, path: &Path) -> usize {
        let relative = path.strip_prefix(&self.root).unwrap();
        relative.iter().fold(0, |dir, name| {
            match self.dirs[dir].live.get(name.to_str().unwrap()) {
                Some(Node::Dir(dir)) => *dir,
                other => panic!("{}: {other:?}", path.display()),
            }
        })
    }

    fn split(&self, path: &Path) -> (usize, String) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (self.find_dir(path.parent().unwrap()), name)
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let (dir, name) = self.split(path);
        self.dirs[dir].live.get(&name).copied()
    }

    fn file(&mut self, path: &Path) -> &mut File {
        match self.find(path) {
            Some(Node::File(file)) => &mut self.files[file],
            other => panic!("{}: {other:?}", path.display()),
        }
    }

    fn set(&mut self, dir: usize, names: Vec<(String, Option<Node>)>) {
        let dir = &mut self.dirs[dir];
        for (name, node) in &names {
            match node {
                Some(node) => dir.live.insert(name.clone(), *node),
                None => dir.live.remove(name),
            };
        }
        dir.pending.push(names);
    }

    /// Makes a change. One that the operating system would have refused changes nothing.
    pub(super) fn apply(&mut self, change: &Kept) {
        match change {
            Kept::Create(path) => {
                if let Some(Node::File(file)) = self.find(path) {
                    self.files[file].pending.push(Pending::SetLen(0));
                    return;
                }
                self.files.push(File::default());
                let node = Node::File(self.files.len() - 1);
                let (dir, name) = self.split(path);
                self.set(dir, vec![(name, Some(node))]);
            }
            Kept::Write(path, offset, bytes) => {
                let write = Pending::Write(*offset, bytes.clone());
                self.file(path).pending.push(write);
            }
            Kept::SetLen(path, len) => self.file(path).pending.push(Pending::SetLen(*len)),
            Kept::Sync(path) => {
                let file = self.file(path);
                for pending in std::mem::take(&mut file.pending) {
                    pending.apply(&mut file.durable);
                }
            }
            Kept::CreateDir(path) => {
                self.dirs.push(Dir::default());
                let node = Node::Dir(self.dirs.len() - 1);
                let (dir, name) = self.split(path);
                self.set(dir, vec![(name, Some(node))]);
            }
            Kept::SyncDir(path) => {
                let dir = self.find_dir(path);
                let dir = &mut self.dirs[dir];
                dir.durable.clone_from(&dir.live);
                dir.pending.clear();
            }
            Kept::Rename(from, to) => {
                let node = self.find(from);
                let ((from_dir, from), (to_dir, to)) = (self.split(from), self.split(to));
                if from_dir == to_dir {
                    self.set(from_dir, vec![(from, None), (to, node)]);
                } else {
                    self.set(to_dir, vec![(to, node)]);
                    self.set(from_dir, vec![(from, None)]);
                }
            }
            Kept::Link(from, to) => {
                let node = self.find(from);
                let (dir, name) = self.split(to);
                self.set(dir, vec![(name, node)]);
            }
            Kept::Remove(path) => {
                let (dir, name) = self.split(path);
                self.set(dir, vec![(name, None)]);
            }
            Kept::RemoveDir(path) => {
                if let Some(Node::Dir(dir)) = self.find(path) {
                    let names: Vec<_> = self.dirs[dir].live.clone().into_iter().collect();
                    for (name, node) in names {
                        let child = path.join(&name);
                        self.apply(&match node {
                            Node::File(_) => Kept::Remove(child),
                            Node::Dir(_) => Kept::RemoveDir(child),
                        });
                    }
                    let (dir, name) = self.split(path);
                    self.set(dir, vec![(name, None)]);
                }
            }
        }
    }

    /// Writes to `target` what is left when the power goes now.
    pub(super) fn lose_power(&self, random: &mut Random, target: &Path) {
        let mood = match random.below(8) {
            0 => Mood::Nothing,
            1 => Mood::Everything,
            _ => Mood::Some,
        };
        self.put_dir(0, random, mood, target);
    }

    fn put_dir(&self, dir: usize, random: &mut Random, mood: Mood, target: &Path) {
        std::fs::create_dir_all(target).unwrap();
        let dir = &self.dirs[dir];
        let mut names = dir.durable.clone();
        let share = 10 + random.below(80);
        for together in &dir.pending {
            if !survives(mood, random, share) {
                continue;
            }
            for (name, node) in together {
                match node {
                    Some(node) => names.insert(name.clone(), *node),
                    None => names.remove(name),
                };
            }
        }
        for (name, node) in names {
            let target = target.join(name);
            match node {
                Node::Dir(dir) => self.put_dir(dir, random, mood, &target),
                Node::File(file) => {
                    let content = self.content(&self.files[file], random, mood);
                    std::fs::write(target, content).unwrap();
                }
            }
        }
    }

    fn content(&self, file: &File, random: &mut Random, mood: Mood) -> Vec<u8> {
        let mut content = file.durable.clone();
        let share = 10 + random.below(80);
        for pending in &file.pending {
            if !survives(mood, random, share) {
                continue;
            }
            match pending {
                Pending::Write(offset, bytes)
                    if matches!(mood, Mood::Some) && random.chance(40) =>
                {
                    let part = random.below(bytes.len() as u64) as usize;
                    Pending::Write(*offset, bytes[..part].to_vec()).apply(&mut content);
                }
                other => other.apply(&mut content),
            }
        }
        content
    }
}

fn survives(mood: Mood, random: &mut Random, share: u64) -> bool {
    match mood {
        Mood::Nothing => false,
        Mood::Everything => true,
        Mood::Some => random.chance(share),
    }
}
