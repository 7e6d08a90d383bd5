//! The `isobar` binary: flags to configs, configs to running components.
//!
//! In reading order: [`flags`] (the command line), [`cmd`] (one page per component, which wires
//! it), [`serve`] (sockets), [`lenient`] (URLs as people type them), [`shutdown`] (signals), [`telemetry`] (logs and metrics).

mod cmd;
mod flags;
mod lenient;
mod page;
mod serve;
mod shutdown;
mod status;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use flags::{Cli, Command};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::logs::init(&cli.log);
    let result = match cli.command {
        Command::Standalone(flags) => cmd::standalone::run(flags),
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
