//! The command line. Flags are text that has been checked; the components' plain configs are
//! made of them in [`crate::cmd`]. The doc comments here are the help pages.

pub(crate) mod bucket;
pub(crate) mod common;
pub(crate) mod content;
#[cfg(test)]
mod contract;
pub(crate) mod features;
pub(crate) mod kingpin;
mod limits;
pub(crate) mod replicas;
pub(crate) mod requests;
pub(crate) mod server;
pub(crate) mod sidecar;
pub(crate) mod standalone;
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub(crate) mod units;

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, Parser, Subcommand, ValueEnum};

/// Stores and queries the metrics of many Prometheus clusters.
///
/// Isobar takes Prometheus remote write, keeps the samples on disk in Prometheus' own block
/// format, and answers PromQL over the Prometheus HTTP API.
///
/// To try it: run `isobar standalone`, then open http://127.0.0.1:10902 in a browser.
#[derive(Debug, Parser)]
#[command(
    name = "isobar",
    version,
    propagate_version = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Which part of Isobar to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogFlags,
    #[command(flatten)]
    pub(crate) common: common::CommonFlags,
}

/// Names and values of all flags of the component that was chosen, as text.
pub(crate) fn listed(matches: &ArgMatches) -> BTreeMap<String, String> {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    let Some((name, matches)) = matches.subcommand() else {
        return BTreeMap::new();
    };
    let part = command.find_subcommand(name);
    let Some(part) = part else {
        return BTreeMap::new();
    };
    let has = |name: &str| part.get_arguments().any(|it| it.get_long() == Some(name));
    part.get_arguments()
        .filter_map(|argument| {
            let values = matches
                .try_get_raw(argument.get_id().as_str())
                .ok()
                .flatten();
            let texts = values.into_iter().flatten().map(|it| it.to_string_lossy());
            let name = argument.get_long()?.to_owned();
            let value = texts.collect::<Vec<_>>().join(",");
            // Configurations may hold keys.
            let is_secret = content::is_inline(&name, has) && !value.is_empty();
            let value = if is_secret {
                "<REDACTED>".to_owned()
            } else {
                without_password(&value)
            };
            Some((name, value))
        })
        .collect()
}

/// A value whose password is covered, when it is a URL with one.
fn without_password(value: &str) -> String {
    let covered = || {
        let (scheme, rest) = value.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = authority.rsplit_once('@')?;
        let (name, _password) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:xxxxx@{host}{path}"))
    };
    covered().unwrap_or_else(|| value.to_owned())
}

/// The parts that can be run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process, on one local directory. Needs no configuration.
    Standalone(Box<standalone::StandaloneFlags>),
    /// Beside one Prometheus: its data over the Store API.
    Sidecar(Box<sidecar::SidecarFlags>),
    /// The blocks of a bucket, through the Store API.
    Store(Box<store::StoreFlags>),
}

/// How much is logged, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogFlags {
    /// Log this and what is more important.
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    pub(crate) level: LogLevel,
    /// Write each message as `key=value` pairs or as a JSON object. Logs go to standard error.
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        default_value = "logfmt",
        global = true
    )]
    pub(crate) format: LogFormat,
}

/// How important a message must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Someone must act.
    Error,
    /// Degraded, but going on.
    Warn,
    /// A state has changed.
    Info,
    /// What developers want to know.
    Debug,
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `ts=… level=info msg=…`
    Logfmt,
    /// `{"ts":…,"level":"info","msg":…}`
    Json,
    /// As logfmt; journald reads what is written there.
    Journald,
}
