//! Parts of the language that Prometheus calls experimental and switches by name
//! (`--enable-feature`). Here those are on from the start that change no query which was one
//! without them.

/// Which of the switchable parts are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `promql-experimental-functions`: functions marked so in
    /// [`crate::functions::signature`], and `limitk` and `limit_ratio`.
    pub experimental_functions: bool,
    /// `promql-duration-expr`: durations that are computed. Prometheus no longer asks for it.
    pub duration_expressions: bool,
    /// `promql-extended-range-selectors`: `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
    /// `promql-x-functions`: `xrate`, `xincrease` and `xdelta`, which only Thanos has
    /// (`--query.enable-x-functions` there).
    pub x_functions: bool,
    /// `promql-delayed-name-removal`: metric names go when a query is done, not function by
    /// function. It changes what queries answer.
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`: `rate` and its kin know when counters started. It changes what
    /// queries answer.
    pub start_timestamps: bool,
    /// `type-and-unit-labels`: whether something is a counter is told by label `__type__`, not by
    /// its name. It changes what queries remark.
    pub type_and_unit_labels: bool,
    /// `promql-per-step-stats`: whoever asks for all statistics is also told what each step cost.
    pub per_step_stats: bool,
}

impl Default for Features {
    fn default() -> Self {
        Features {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            x_functions: true,
            delayed_name_removal: false,
            start_timestamps: false,
            type_and_unit_labels: false,
            per_step_stats: false,
        }
    }
}

/// The names that can be switched, those first that are on from the start.
pub const NAMES: [&str; 9] = [
    "promql-experimental-functions",
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
    "promql-x-functions",
    "promql-delayed-name-removal",
    "use-start-timestamps",
    "type-and-unit-labels",
    "promql-per-step-stats",
];

impl Features {
    /// Switches a part on or off; false when no part has that name.
    pub fn set(&mut self, name: &str, on: bool) -> bool {
        let place = match name {
            "promql-experimental-functions" => &mut self.experimental_functions,
            "promql-duration-expr" => &mut self.duration_expressions,
            "promql-extended-range-selectors" => &mut self.extended_range_selectors,
            "promql-binop-fill-modifiers" => &mut self.fill_modifiers,
            "promql-x-functions" => &mut self.x_functions,
            "promql-delayed-name-removal" => &mut self.delayed_name_removal,
            "use-start-timestamps" => &mut self.start_timestamps,
            "type-and-unit-labels" => &mut self.type_and_unit_labels,
            "promql-per-step-stats" => &mut self.per_step_stats,
            _ => return false,
        };
        *place = on;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_expr_with;

    #[test]
    fn every_name_switches_something() {
        for name in NAMES {
            let (mut on, mut off) = (Features::default(), Features::default());
            assert!(on.set(name, true) && off.set(name, false), "{name}");
            assert_ne!(on, off, "{name}");
        }
        assert!(!Features::default().set("agent", true));
    }

    #[test]
    fn what_is_off_is_refused_in_prometheus_words() {
        for (name, query, error) in [
            (
                "promql-experimental-functions",
                "info(up)",
                "1:1: parse error: function \"info\" is not enabled",
            ),
            (
                "promql-experimental-functions",
                "vector(end())",
                "1:8: parse error: function \"end\" is not enabled",
            ),
            (
                "promql-experimental-functions",
                "1 + limitk(1, up)",
                "1:5: parse error: limitk() is experimental and must be enabled with \
                 --enable-feature=promql-experimental-functions",
            ),
            (
                "promql-duration-expr",
                "up[5m * 2]",
                "1:4: parse error: experimental duration expression is not enabled",
            ),
            (
                "promql-duration-expr",
                "up offset step()",
                "1:11: parse error: experimental duration expression is not enabled",
            ),
            (
                "promql-extended-range-selectors",
                "rate(up[5m] anchored)",
                "1:6: parse error: anchored modifier is experimental and not enabled",
            ),
            (
                "promql-extended-range-selectors",
                "up smoothed",
                "1:1: parse error: smoothed modifier is experimental and not enabled",
            ),
            (
                "promql-binop-fill-modifiers",
                "2 * (a + fill(0) b)",
                "1:6: parse error: binop fill modifiers are experimental and not enabled",
            ),
            (
                "promql-binop-fill-modifiers",
                "2 * a + on(x) fill_left(3) b - foo()",
                "1:1: parse error: binop fill modifiers are experimental and not enabled",
            ),
            (
                "promql-x-functions",
                "xrate(up[5m])",
                "1:1: parse error: unknown function with name \"xrate\"",
            ),
        ] {
            let mut features = Features::default();
            features.set(name, false);
            let refused = parse_expr_with(query, &features).unwrap_err();
            assert_eq!(refused.to_string(), error, "{query}");
        }
    }

    #[test]
    fn plain_durations_need_no_feature() {
        let mut features = Features::default();
        features.set("promql-duration-expr", false);
        for query in [
            "up[5m]",
            "up offset -5m",
            "up[1h:5m] offset 1m",
            "up[300] @ 5 offset +3",
        ] {
            assert!(parse_expr_with(query, &features).is_ok(), "{query}");
        }
    }
}
