//! Arguments as Thanos' parser takes them: `--no-<flag>` for each flag that is on or off, and `@file` for
//! the lines of a file.

use std::ffi::OsString;

use clap::Command;

/// The arguments as clap takes them. What is not understood is left for clap to complain about.
///
/// # Errors
/// When a file with arguments cannot be read.
pub(crate) fn arguments(
    command: &Command,
    given: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, String> {
    let mut all = Vec::new();
    let mut plain = false;
    for (i, argument) in given.into_iter().enumerate() {
        match argument.to_str() {
            Some("--") => {
                plain = true;
                all.push(argument);
            }
            Some(text) if i > 0 && !plain => match text.strip_prefix('@') {
                Some(file) => {
                    let lines = std::fs::read_to_string(file);
                    let lines = lines.map_err(|why| format!("arguments from {file}: {why}"))?;
                    let lines = lines
                        .lines()
                        .filter(|it| !it.is_empty() && !it.starts_with('#'));
                    all.extend(lines.map(|it| one(command, it)));
                }
                None => all.push(one(command, text)),
            },
            _ => all.push(argument),
        }
    }
    Ok(all)
}

fn one(command: &Command, text: &str) -> OsString {
    let negated = text
        .strip_prefix("--no-")
        .filter(|it| is_switch(command, it));
    match negated {
        Some(name) => format!("--{name}=false").into(),
        None => text.into(),
    }
}

/// Whether a flag takes `true` or `false`, and `true` when it stands alone.
fn is_switch(command: &Command, name: &str) -> bool {
    let parts = command.get_subcommands().chain([command]);
    let mut flags = parts.flat_map(Command::get_arguments);
    flags.any(|it| it.get_long() == Some(name) && it.is_require_equals_set())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::flags::Cli;

    #[test]
    fn switches_and_files() {
        let file = std::env::temp_dir().join(format!("isobar-arguments-{}", std::process::id()));
        std::fs::write(
            &file,
            "--a=b\n\n# not this\n--no-shipper.upload-compacted\n",
        )
        .unwrap();
        let from_file = format!("@{}", file.display());
        let given = [
            "isobar",
            "sidecar",
            "--no-shipper.upload-compacted",
            "--no-self-monitoring",
            &from_file,
            "--",
            "@x",
        ];
        let got = arguments(&Cli::command(), given.map(OsString::from)).unwrap();
        let expected = [
            "isobar",
            "sidecar",
            "--shipper.upload-compacted=false",
            "--no-self-monitoring",
            "--a=b",
            "--shipper.upload-compacted=false",
            "--",
            "@x",
        ];
        assert_eq!(got, expected.map(OsString::from));
        std::fs::remove_file(&file).unwrap();
        let missing = arguments(&Cli::command(), ["isobar".into(), from_file.into()]);
        assert!(missing.is_err());
    }
}
