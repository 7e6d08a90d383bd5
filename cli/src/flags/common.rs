//! What every component of Thanos takes beside its own flags.

use clap::{ArgAction, Args};

use super::content::content_flags;

content_flags! {
    /// Tracing configuration as YAML. Accepted, without effect, which is said at the start: there is no
    /// tracing yet.
    TracingFlags, "tracing.config", "Common", global = true
}

/// Flags of all components.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common")]
pub(crate) struct CommonFlags {
    #[command(flatten)]
    pub(crate) tracing: TracingFlags,

    /// Accepted, without effect: there is no garbage collector to be tuned.
    #[arg(long = "enable-auto-gomemlimit", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, global = true)]
    pub(crate) auto_gomemlimit: bool,

    /// Accepted, without effect: there is no garbage collector to be tuned.
    #[arg(
        long = "auto-gomemlimit.ratio",
        value_name = "RATIO",
        default_value = "0.9",
        global = true
    )]
    pub(crate) gomemlimit_ratio: f64,

    /// Name to add to logs. Accepted, without effect.
    #[arg(
        long = "debug.name",
        value_name = "NAME",
        default_value = "",
        global = true,
        hide = true
    )]
    pub(crate) debug_name: String,

    /// As --help.
    #[arg(long = "help-long", action = ArgAction::HelpLong, global = true, hide = true)]
    help_long: Option<bool>,

    /// As --help.
    #[arg(long = "help-man", action = ArgAction::HelpLong, global = true, hide = true)]
    help_man: Option<bool>,

    /// Accepted, without effect: shells are not told about flags.
    #[arg(long = "completion-bash", action = ArgAction::SetTrue, global = true, hide = true)]
    completion_bash: bool,

    /// Accepted, without effect: shells are not told about flags.
    #[arg(long = "completion-script-bash", action = ArgAction::SetTrue, global = true, hide = true)]
    completion_script_bash: bool,

    /// Accepted, without effect: shells are not told about flags.
    #[arg(long = "completion-script-zsh", action = ArgAction::SetTrue, global = true, hide = true)]
    completion_script_zsh: bool,
}
