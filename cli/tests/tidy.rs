//! The house rules that a program can check, checked over the whole repository.
//!
//! Each rule is a function from text to findings, and each finding reads `file:line: rule`. This file
//! holds the tables, the tests that apply the rules to the repository, and the rules;
//! `tidy/repository.rs` reads files and manifests, and `tidy/examples.rs` shows that each rule finds
//! what it is for. A rule that stands in the way of better code is changed here, with a reason.

#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/repository.rs"]
mod repository;

use repository::{Kind, Source, crate_folder, dependencies, manifests, rust_files, text_files};

/// For each crate, the crates of ours that it may use, also in its tests. What is not listed may use
/// nothing of ours. The picture of it is in `ARCHITECTURE.md`.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &["model"]),
    ("tsdb", &["model"]),
    ("promql", &["model"]),
    ("store", &["model", "proto", "tsdb"]),
    ("ingest", &["model", "proto", "tsdb", "store"]),
    ("compactor", &["model", "tsdb", "store"]),
    ("query", &["model", "proto", "tsdb", "promql", "store"]),
    ("ui", &[]),
    (
        "cli",
        &[
            "model",
            "proto",
            "tsdb",
            "promql",
            "store",
            "ingest",
            "compactor",
            "query",
            "ui",
        ],
    ),
    (
        "benches",
        &[
            "model",
            "proto",
            "tsdb",
            "promql",
            "store",
            "ingest",
            "compactor",
            "query",
            "cli",
            "ui",
        ],
    ),
];

/// What only the tests of a crate may use beyond [`EDGES`].
const DEV_EDGES: &[(&str, &[&str])] = &[];

/// The crates that compute and never wait.
const RUNTIME_FREE: &[&str] = &["model", "tsdb", "promql"];

/// What would bring a runtime or the network into them.
const RUNTIMES: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "axum",
    "reqwest",
    "hyper",
    "hyper-util",
    "tonic",
    "tower",
];

/// The only files that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &["tsdb/src/mmap.rs"];

/// Lines of a file, tests included: the longest of today, rounded up. It only ever goes down.
const FILE_LINES_MAX: usize = 700;

/// Files that were longer than that when the rule came, each with its length then. Take an entry out
/// when its file has become short enough; do not add one, split the file.
const LONG_FILES: &[(&str, usize)] = &[];

/// Lines of a function. It only ever goes down.
const FUNCTION_LINES_MAX: usize = 120;

/// Names of places on one person's machine.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    rule: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let found = manifests().iter().flat_map(edges).collect();
    report(found);
}

#[test]
fn pure_crates_have_no_runtime() {
    let found = manifests().iter().flat_map(runtime_free).collect();
    report(found);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let found = manifests().iter().flat_map(inherits_lints).collect();
    report(found);
}

#[test]
fn every_file_says_what_it_is_for() {
    let found = rust_files().iter().flat_map(module_doc).collect();
    report(found);
}

#[test]
fn every_lint_exception_has_a_reason() {
    let found = rust_files().iter().flat_map(exception_reasons).collect();
    report(found);
}

#[test]
fn no_test_is_ignored() {
    let found = rust_files().iter().flat_map(ignored_tests).collect();
    report(found);
}

#[test]
fn unsafe_code_stays_in_its_place() {
    let found = rust_files().iter().flat_map(unsafe_code).collect();
    report(found);
}

#[test]
fn files_do_not_grow_without_end() {
    let files = rust_files();
    let mut found: Vec<Finding> = files
        .iter()
        .flat_map(|file| file_length(file, LONG_FILES))
        .collect();
    found.extend(stale_long_files(&files, LONG_FILES));
    report(found);
}

#[test]
fn functions_do_not_grow_without_end() {
    let found = rust_files().iter().flat_map(function_length).collect();
    report(found);
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let found = text_files().iter().flat_map(forbidden_words).collect();
    report(found);
}

fn report(mut found: Vec<Finding>) {
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let lines: Vec<String> = found.iter().map(Finding::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} broken rules:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

// ---- the rules ----

fn edges(manifest: &Source) -> Vec<Finding> {
    let name = crate_folder(manifest);
    let listed = |table: &[(&str, &'static [&'static str])]| -> &'static [&'static str] {
        table
            .iter()
            .find(|(krate, _)| *krate == name)
            .map_or(&[], |(_, uses)| *uses)
    };
    if !EDGES.iter().any(|(krate, _)| *krate == name) {
        return vec![manifest.finding(
            1,
            format!("`{name}` has no place in the table of permitted edges"),
        )];
    }
    let mut found = Vec::new();
    for dependency in dependencies(manifest) {
        let Some(used) = dependency.package.strip_prefix("isobar-") else {
            continue;
        };
        let permitted = listed(EDGES).contains(&used)
            || (dependency.kind == Kind::Dev && listed(DEV_EDGES).contains(&used));
        if !permitted {
            let tests = if dependency.kind == Kind::Dev {
                " in its tests"
            } else {
                ""
            };
            found.push(manifest.finding(
                dependency.line,
                format!("`{name}` must not use `{used}`{tests}"),
            ));
        }
    }
    found
}

fn runtime_free(manifest: &Source) -> Vec<Finding> {
    let name = crate_folder(manifest);
    if !RUNTIME_FREE.contains(&name) {
        return Vec::new();
    }
    dependencies(manifest)
        .into_iter()
        .filter(|it| it.kind != Kind::Dev && RUNTIMES.contains(&it.package.as_str()))
        .map(|it| {
            manifest.finding(
                it.line,
                format!("`{name}` is synchronous: no `{}`", it.package),
            )
        })
        .collect()
}

fn inherits_lints(manifest: &Source) -> Vec<Finding> {
    let mut section = "";
    for line in manifest.text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            return Vec::new();
        }
    }
    vec![manifest.finding(1, "`[lints] workspace = true` is missing")]
}

fn module_doc(file: &Source) -> Vec<Finding> {
    let in_src = file.path.split('/').nth(1) == Some("src");
    if !in_src || file.path.contains("/gen/") || file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![file.finding(
        1,
        "a file opens with `//!`: what it is for, what it does not do",
    )]
}

/// An attribute that begins a line, on that line or over several.
fn exception_reasons(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in file.lines() {
        let line = line.trim();
        if open.is_none()
            && ["#[expect(", "#[allow(", "#![expect(", "#![allow("]
                .iter()
                .any(|it| line.starts_with(it))
        {
            open = Some((number, String::new()));
        }
        let Some((began, mut text)) = open.take() else {
            continue;
        };
        text.push_str(line);
        text.push(' ');
        if !text.contains(")]") {
            open = Some((began, text));
        } else if !text.contains("reason = \"") {
            found.push(file.finding(began, "a lint exception gives its `reason`"));
        }
    }
    found
}

fn ignored_tests(file: &Source) -> Vec<Finding> {
    file.lines()
        .filter(|(_, line)| line.trim_start().starts_with("#[ignore"))
        .map(|(number, _)| {
            file.finding(
                number,
                "no test is ignored: assert today's behaviour and say what is wrong",
            )
        })
        .collect()
}

fn unsafe_code(file: &Source) -> Vec<Finding> {
    if UNSAFE_FILES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    file.lines()
        .filter(|(_, line)| has_unsafe(line))
        .map(|(number, _)| {
            file.finding(
                number,
                format!("unsafe code belongs in {}", UNSAFE_FILES.join(", ")),
            )
        })
        .collect()
}

fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let mut words = code.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let next = words.peek().copied().unwrap_or_default();
        if word.trim_start_matches(['(', '{', '|']) == "unsafe"
            && ["{", "fn", "impl", "extern", "trait"]
                .iter()
                .any(|it| next.starts_with(it))
        {
            return true;
        }
    }
    code.contains(concat!("#[unsa", "fe("))
}

fn file_length(file: &Source, long_files: &[(&str, usize)]) -> Option<Finding> {
    let lines = file.text.lines().count();
    let known = long_files.iter().find(|(path, _)| *path == file.path);
    let max = known.map_or(FILE_LINES_MAX, |(_, lines)| *lines);
    (lines > max && !file.path.contains("/gen/")).then(|| {
        file.finding(
            lines,
            format!("{lines} lines, more than {max}: two subjects, two files"),
        )
    })
}

fn stale_long_files(files: &[Source], long_files: &[(&str, usize)]) -> Vec<Finding> {
    let still_long = |path: &str| {
        files
            .iter()
            .any(|file| file.path == path && file.text.lines().count() > FILE_LINES_MAX)
    };
    long_files
        .iter()
        .filter(|(path, _)| !still_long(path))
        .map(|(path, _)| Finding {
            file: (*path).to_owned(),
            line: 1,
            rule: "no longer a long file: take it out of LONG_FILES".to_owned(),
        })
        .collect()
}

/// Relies on rustfmt: a function ends at the first `}` that stands as far to the right as it began.
fn function_length(file: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let is_function = code.starts_with("fn ")
            || (["pub", "const ", "async ", "unsafe ", "extern "]
                .iter()
                .any(|it| code.starts_with(it))
                && code.contains(" fn "));
        if !is_function || code.ends_with(';') || file.path.contains("/gen/") {
            continue;
        }
        let end = lines[index..]
            .iter()
            .position(|it| it.starts_with('}') && indent == 0 || closes(it, indent));
        let length = end.map_or(0, |last| last + 1);
        if length > FUNCTION_LINES_MAX {
            found.push(file.finding(
                index + 1,
                format!("a function of {length} lines, more than {FUNCTION_LINES_MAX}"),
            ));
        }
    }
    found
}

fn closes(line: &str, indent: usize) -> bool {
    line.len() > indent
        && line.as_bytes()[..indent].iter().all(|it| *it == b' ')
        && line[indent..].starts_with('}')
}

fn forbidden_words(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
            found.push(file.finding(number, format!("`{word}` is a place on one machine")));
        }
    }
    found
}
