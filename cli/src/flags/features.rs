//! Flags that switch parts of PromQL, by the names that Prometheus and Thanos have for them.

use clap::{ArgAction, Args};
use isobar_promql::features::Features;

/// What is switched on and off.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FeatureFlags {
    /// Switch these parts of PromQL on, by comma-separated names. The flag can be repeated. On
    /// from the start are promql-experimental-functions, promql-duration-expr,
    /// promql-extended-range-selectors, promql-binop-fill-modifiers and promql-x-functions; off
    /// are promql-delayed-name-removal, use-start-timestamps and type-and-unit-labels, which
    /// change what queries answer, and promql-per-step-stats.
    #[arg(
        long = "enable-feature",
        value_name = "NAMES",
        value_delimiter = ',',
        action = ArgAction::Append,
        help_heading = "Queries"
    )]
    enabled: Vec<String>,

    /// Switch these parts of PromQL off. It wins over --enable-feature.
    #[arg(
        long = "disable-feature",
        value_name = "NAMES",
        value_delimiter = ',',
        action = ArgAction::Append,
        help_heading = "Queries"
    )]
    disabled: Vec<String>,

    /// Allow the functions xrate, xincrease and xdelta. [default]
    #[arg(
        long = "query.enable-x-functions",
        action = ArgAction::SetTrue,
        overrides_with = "no_x_functions",
        help_heading = "Queries"
    )]
    x_functions: bool,

    /// Do not allow the functions xrate, xincrease and xdelta.
    #[arg(
        long = "no-query.enable-x-functions",
        action = ArgAction::SetTrue,
        overrides_with = "x_functions",
        help_heading = "Queries"
    )]
    no_x_functions: bool,
}

/// A name that switches nothing, and what to say about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ignored<'a> {
    /// The name.
    pub(crate) option: &'a str,
    /// Why nothing happens.
    pub(crate) why: &'static str,
}

impl FeatureFlags {
    /// The parts that are on.
    pub(crate) fn features(&self) -> Features {
        let mut features = Features::default();
        for (names, on) in [(&self.enabled, true), (&self.disabled, false)] {
            for name in names {
                features.set(name, on);
            }
        }
        if self.no_x_functions {
            features.x_functions = false;
        }
        features
    }

    /// The names behind `--enable-feature`.
    pub(crate) fn enabled(&self) -> String {
        self.enabled.join(",")
    }

    /// The names behind `--disable-feature`.
    pub(crate) fn disabled(&self) -> String {
        self.disabled.join(",")
    }

    /// The names given that switch nothing.
    pub(crate) fn ignored(&self) -> Vec<Ignored<'_>> {
        let enabled = self
            .enabled
            .iter()
            .map(|name| (name, why_not_enabled(name)));
        let unknown = "Unknown option for --disable-feature";
        let disabled = self.disabled.iter().map(|name| (name, unknown));
        let given = enabled.chain(disabled);
        given
            .filter(|(name, _)| !name.is_empty() && !Features::default().set(name, true))
            .map(|(option, why)| Ignored { option, why })
            .collect()
    }
}

fn why_not_enabled(name: &str) -> &'static str {
    match name {
        "promql-at-modifier"
        | "promql-negative-offset"
        | "native-histograms"
        | "ooo-native-histograms" => {
            "This option for --enable-feature is now permanently enabled and therefore a no-op."
        }
        "query-pushdown" => {
            "This option for --enable-feature is now permanently deprecated and therefore ignored."
        }
        _ => "Unknown option for --enable-feature",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        flags: FeatureFlags,
    }

    fn flags(args: &[&str]) -> FeatureFlags {
        Only::try_parse_from([&["isobar"], args].concat())
            .unwrap()
            .flags
    }

    #[test]
    fn names_switch_and_disabling_wins() {
        assert_eq!(flags(&[]).features(), Features::default());
        let mixed = flags(&[
            "--enable-feature=promql-delayed-name-removal,promql-duration-expr",
            "--disable-feature",
            "promql-duration-expr,promql-binop-fill-modifiers",
            "--disable-feature=promql-experimental-functions",
            "--no-query.enable-x-functions",
        ]);
        let expected = Features {
            experimental_functions: false,
            duration_expressions: false,
            fill_modifiers: false,
            x_functions: false,
            delayed_name_removal: true,
            ..Features::default()
        };
        assert_eq!(mixed.features(), expected);
        assert_eq!(mixed.ignored(), []);
        let back = flags(&[
            "--no-query.enable-x-functions",
            "--query.enable-x-functions",
        ]);
        assert!(back.features().x_functions);
    }

    #[test]
    fn other_names_are_told_about() {
        let flags = flags(&[
            "--enable-feature=",
            "--enable-feature=agent,promql-at-modifier",
            "--disable-feature=agent",
        ]);
        let told: Vec<String> = flags
            .ignored()
            .iter()
            .map(|it| format!("{}: {}", it.option, it.why))
            .collect();
        assert_eq!(
            told,
            [
                "agent: Unknown option for --enable-feature",
                "promql-at-modifier: This option for --enable-feature is now permanently enabled \
                 and therefore a no-op.",
                "agent: Unknown option for --disable-feature",
            ]
        );
    }
}
