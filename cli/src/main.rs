//! The `isobar` binary: flags to configs, configs to running components.
//!
//! In reading order: [`flags`] (the command line), [`cmd`] (one page per component, which wires
//! it), [`serve`] (sockets), [`lenient`] (URLs as people type them), [`shutdown`] (signals), [`telemetry`] (logs and metrics).

mod archive;
mod blocks;
mod cmd;
mod flags;
mod lenient;
mod page;
mod serve;
mod ship;
mod shutdown;
mod status;
mod telemetry;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use flags::content::ContentFlags;
use flags::{Cli, Command};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = flags::kingpin::arguments(&Cli::command(), std::env::args_os());
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(why) => Cli::command().error(ErrorKind::Io, why).exit(),
    };
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    telemetry::logs::init(&cli.log);
    cli.common.tracing.without_effect("there is no tracing yet");
    let result = match cli.command {
        Command::Standalone(flags) => cmd::standalone::run(*flags),
        Command::Sidecar(flags) => cmd::sidecar::run(*flags, flags::listed(&matches)),
        Command::Store(flags) => cmd::store::run(*flags, flags::listed(&matches)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` prints the whole chain of causes.
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}
