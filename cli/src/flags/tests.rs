//! Holds the pages in `cli/docs` against the binary, and the arguments in `deploy` against the flags.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::{Cli, Command};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a page with what the binary says; `UPDATE_EXPECT=1` rewrites it.
fn check_page(file: &str, expected: &str) {
    let path = root().join("cli/docs").join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == expected,
        "{} is old; run the test with UPDATE_EXPECT=1",
        path.display()
    );
}

#[test]
fn pages_are_what_the_binary_prints() {
    let mut command = Cli::command().term_width(100);
    command.build();
    for part in command
        .get_subcommands_mut()
        .filter(|part| part.get_name() != "help")
    {
        let name = part.get_name().to_owned();
        let help = part.render_long_help();
        check_page(
            &format!("{name}.md"),
            &format!("# isobar {name}\n\n```text\n{help}```\n"),
        );
    }
}

/// What stands behind `isobar` in a line of a file in `deploy`.
fn check_args(source: &str, args: &[&str]) {
    if let Err(error) = Cli::try_parse_from([&["isobar"], args].concat()) {
        panic!("{source}: {error}");
    }
}

#[test]
fn arguments_in_deploy_are_taken() {
    let unit = std::fs::read_to_string(root().join("deploy/isobar.service")).unwrap();
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    check_args(
        "isobar.service",
        &line.split_whitespace().skip(1).collect::<Vec<_>>(),
    );

    let image = std::fs::read_to_string(root().join("deploy/Containerfile")).unwrap();
    let line = image
        .lines()
        .find_map(|line| line.strip_prefix("CMD "))
        .unwrap();
    let args: Vec<String> = serde_json::from_str(line).unwrap();
    check_args(
        "Containerfile",
        &args.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn later_flags_win() {
    let monitors = |args: &[&str]| {
        let cli = Cli::try_parse_from([&["isobar", "standalone"], args].concat()).unwrap();
        let Command::Standalone(flags) = cli.command else {
            panic!("standalone");
        };
        flags.monitors_itself()
    };
    assert!(monitors(&[]));
    assert!(!monitors(&["--no-self-monitoring"]));
    assert!(monitors(&["--no-self-monitoring", "--self-monitoring"]));
    assert!(!monitors(&["--self-monitoring", "--no-self-monitoring"]));
}

#[test]
fn all_flags_are_listed() {
    let cli = Cli::try_parse_from(["isobar", "standalone"]).unwrap();
    let Command::Standalone(flags) = cli.command else {
        panic!("standalone");
    };
    let listed: Vec<&str> = flags.listed().into_iter().map(|(name, _)| name).collect();
    let command = Cli::command();
    let part = command.find_subcommand("standalone").unwrap();
    for arg in part.get_arguments() {
        let name = arg.get_long().unwrap();
        let base = name.strip_prefix("no-").unwrap_or(name);
        assert!(
            listed.contains(&base),
            "--{name} is not shown by /api/v1/status/flags"
        );
    }
    assert!(listed.is_sorted());
}

#[test]
fn passwords_in_urls_are_covered() {
    let check = |value: &str, expected: &str| {
        assert_eq!(super::without_password(value), expected);
    };
    check("http://a:b@c:9090/d?e#f", "http://a:xxxxx@c:9090/d?e#f");
    check("http://a:b@c@d", "http://a:xxxxx@d");
    for same in ["http://a:9090/b:c@d", "http://a@b:1", "1:2@3", ""] {
        check(same, same);
    }
}
