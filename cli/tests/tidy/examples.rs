//! Each rule of `tidy.rs`, shown to find what it is for and to leave alone what it is not for.

use super::*;

/// What `rule` says about a file of this path and text, one finding a line.
fn check<I: IntoIterator<Item = Finding>>(
    rule: impl Fn(&Source) -> I,
    path: &str,
    text: &str,
    expected: &str,
) {
    let source = Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let found: Vec<String> = rule(&source).into_iter().map(|it| it.to_string()).collect();
    assert_eq!(found.join("\n"), expected);
}

#[test]
fn finds_a_forbidden_edge() {
    let text = "[dependencies]\nisobar-model.workspace = true\nbytes = \"1\"\nisobar-tsdb = { path = \"../tsdb\" }\n";
    check(
        edges,
        "promql/Cargo.toml",
        text,
        "promql/Cargo.toml:4: `promql` must not use `tsdb`",
    );
    check(edges, "store/Cargo.toml", text, "");
    let text = "[dependencies.isobar-query]\nworkspace = true\n[dev-dependencies]\nengine = { package = \"isobar-promql\" }\n";
    check(
        edges,
        "ingest/Cargo.toml",
        text,
        "ingest/Cargo.toml:1: `ingest` must not use `query`\n\
         ingest/Cargo.toml:4: `ingest` must not use `promql` in its tests",
    );
    check(
        edges,
        "common/Cargo.toml",
        text,
        "common/Cargo.toml:1: `common` has no place in the table of permitted edges",
    );
}

#[test]
fn finds_a_runtime() {
    let text =
        "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"\n[dev-dependencies]\nfutures = \"0.3\"\n";
    check(
        runtime_free,
        "tsdb/Cargo.toml",
        text,
        "tsdb/Cargo.toml:2: `tsdb` is synchronous: no `tokio`",
    );
    check(runtime_free, "store/Cargo.toml", text, "");
}

#[test]
fn finds_missing_lints() {
    check(
        inherits_lints,
        "a/Cargo.toml",
        "[lints]\nworkspace = true\n",
        "",
    );
    check(
        inherits_lints,
        "a/Cargo.toml",
        "[package]\nworkspace = true\n",
        "a/Cargo.toml:1: `[lints] workspace = true` is missing",
    );
}

#[test]
fn finds_a_missing_module_doc() {
    check(module_doc, "a/src/lib.rs", "//! Reads.\n", "");
    check(module_doc, "a/tests/it.rs", "use std;\n", "");
    check(
        module_doc,
        "a/src/x/y.rs",
        "// Reads.\n",
        "a/src/x/y.rs:1: a file opens with `//!`: what it is for, what it does not do",
    );
}

#[test]
fn finds_an_exception_without_a_reason() {
    let text = "    #[expect(dead_code, reason = \"later\")]\n#[allow(\n    dead_code,\n    reason = \"x\"\n)]\n";
    check(exception_reasons, "a.rs", text, "");
    let text = "fn a() {}\n#![allow(\n  dead_code\n)]\n#[expect(unused)]\n";
    check(
        exception_reasons,
        "a.rs",
        text,
        "a.rs:2: a lint exception gives its `reason`\na.rs:5: a lint exception gives its `reason`",
    );
}

#[test]
fn finds_ignored_tests_and_unsafe_code() {
    let text = format!("    #[{}]\n", "ignore = \"slow\"");
    check(
        ignored_tests,
        "a.rs",
        &text,
        "a.rs:1: no test is ignored: assert today's behaviour and say what is wrong",
    );
    let text = format!(
        "let x = {0} {{ 1 }};\n// {0} {{\n#![deny({0}_code)]\npub {0} fn f() {{}}\n",
        "unsafe"
    );
    check(
        unsafe_code,
        "a.rs",
        &text,
        "a.rs:1: unsafe code belongs in tsdb/src/mmap.rs\na.rs:4: unsafe code belongs in tsdb/src/mmap.rs",
    );
    check(unsafe_code, "tsdb/src/mmap.rs", &text, "");
}

#[test]
fn finds_long_files_and_long_functions() {
    let text = "\n".repeat(FILE_LINES_MAX + 1);
    let over = FILE_LINES_MAX + 1;
    let expected =
        format!("a.rs:{over}: {over} lines, more than {FILE_LINES_MAX}: two subjects, two files");
    check(|it| file_length(it, &[]), "a.rs", &text, &expected);
    check(|it| file_length(it, &[("a.rs", over)]), "a.rs", &text, "");
    check(
        |it| stale_long_files(std::slice::from_ref(it), &[("b.rs", over)]),
        "a.rs",
        &text,
        "b.rs:1: no longer a long file: take it out of LONG_FILES",
    );
    let body = "        let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    let text =
        format!("impl A {{\n    fn short() {{\n    }}\n\n    pub fn long() {{\n{body}    }}\n}}\n");
    let over = FUNCTION_LINES_MAX + 2;
    check(
        function_length,
        "a.rs",
        &text,
        &format!("a.rs:5: a function of {over} lines, more than {FUNCTION_LINES_MAX}"),
    );
}

#[test]
fn finds_places_on_one_machine() {
    let text = format!("fine\nsee {}x\n", FORBIDDEN[0]);
    check(
        forbidden_words,
        "a.md",
        &text,
        &format!("a.md:2: `{}` is a place on one machine", FORBIDDEN[0]),
    );
}
