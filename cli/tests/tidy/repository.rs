//! Reads what the rules of `tidy.rs` look at: text files and the dependencies in manifests.
//!
//! The manifests are read with a few string functions rather than a TOML parser, because the
//! workspace writes one dependency a line or a table of its own, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Finding;

/// A text file of the repository, by its path from the root.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn finding(&self, line: usize, rule: impl Into<String>) -> Finding {
        Finding {
            file: self.path.clone(),
            line,
            rule: rule.into(),
        }
    }

    /// The lines with their numbers, counted from one.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Dev,
    Build,
}

#[derive(Debug)]
pub(crate) struct Dependency {
    /// The package's name, also where the crate renames it.
    pub(crate) package: String,
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

/// All dependencies of a manifest, those for one target included.
pub(crate) fn dependencies(manifest: &Source) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut inside: Option<Kind> = None;
    for (number, line) in manifest.lines() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let (table, own_name) = split_header(header);
            inside = kind_of(table).filter(|_| own_name.is_none());
            if let (Some(kind), Some(name)) = (kind_of(table), own_name) {
                found.push(Dependency {
                    package: name.to_owned(),
                    kind,
                    line: number,
                });
            }
        } else if let (Some(kind), Some((key, value))) = (inside, line.split_once('=')) {
            if line.starts_with('#') {
                continue;
            }
            let renamed = value
                .split_once("package = \"")
                .and_then(|(_, rest)| rest.split('"').next());
            let key = key
                .split('.')
                .next()
                .unwrap_or_default()
                .trim()
                .trim_matches('"');
            found.push(Dependency {
                package: renamed.unwrap_or(key).to_owned(),
                kind,
                line: number,
            });
        }
    }
    found
}

/// `dependencies.tokio` is the table `dependencies` and the name `tokio`.
fn split_header(header: &str) -> (&str, Option<&str>) {
    match header.rsplit_once('.') {
        Some((table, name)) if kind_of(table).is_some() => (table, Some(name)),
        _ => (header, None),
    }
}

fn kind_of(table: &str) -> Option<Kind> {
    match table.rsplit('.').next() {
        Some("dependencies") if !table.starts_with("workspace") => Some(Kind::Normal),
        Some("dev-dependencies") => Some(Kind::Dev),
        Some("build-dependencies") => Some(Kind::Build),
        _ => None,
    }
}

pub(crate) fn crate_folder(manifest: &Source) -> &str {
    manifest.path.split('/').next().unwrap_or_default()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The manifests of the crates, without the workspace's own and without fuzz targets.
pub(crate) fn manifests() -> Vec<Source> {
    let found: Vec<Source> = text_files()
        .into_iter()
        .filter(|it| it.path.split('/').skip(1).eq(["Cargo.toml"]))
        .collect();
    assert!(
        found.len() >= 5,
        "found {} manifests, so looked in the wrong place",
        found.len()
    );
    found
}

pub(crate) fn rust_files() -> Vec<Source> {
    let by_hand = |source: &Source| source.is_rust() && !source.path.contains(GENERATED);
    let found: Vec<Source> = text_files().into_iter().filter(by_hand).collect();
    assert!(
        found.len() >= 20,
        "found {} files, so looked in the wrong place",
        found.len()
    );
    found
}

/// Where code lies that a program wrote; a test of its crate keeps it fresh.
const GENERATED: &str = "/src/gen/";

/// Everything that people write here: code, manifests, pages, scripts.
pub(crate) fn text_files() -> Vec<Source> {
    let mut paths = BTreeSet::new();
    walk(&root(), &mut paths);
    paths
        .into_iter()
        .filter_map(|path| {
            let relative = path.strip_prefix(root()).ok()?.to_str()?.to_owned();
            Some(Source {
                text: std::fs::read_to_string(&path).ok()?,
                path: relative,
            })
        })
        .collect()
}

fn walk(folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|err| panic!("list {}: {err}", folder.display()));
    for entry in entries {
        let path = entry
            .unwrap_or_else(|err| panic!("list {}: {err}", folder.display()))
            .path();
        let name = path
            .file_name()
            .and_then(|it| it.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci";
            if !hidden
                && ![
                    "target",
                    "corpus",
                    "artifacts",
                    "testdata",
                    "golden",
                    "isobar-data",
                ]
                .contains(&name)
            {
                walk(&path, paths);
            }
        } else if name == "run"
            || ["rs", "toml", "md", "sh", "yaml", "yml"]
                .iter()
                .any(|it| name.ends_with(&format!(".{it}")))
        {
            paths.insert(path);
        }
    }
}
