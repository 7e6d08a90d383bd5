//! Parts of the language that Prometheus has since 3.0, most of them experimental.

use super::queries::{RANGES, Writer};

const DURATIONS: [&str; 14] = [
    "step()",
    "range()",
    "1m + 30",
    "2 * 1m",
    "(1m + 30s) / 2",
    "2 ^ 5",
    "1h % 7m",
    "max_of(step(), 5m)",
    "min_of(range(), 5m) + 1s",
    "-(1m - 2m)",
    "step() * 3",
    "300",
    "1.5m",
    "+(step() + 1)",
];
const FILLS: [&str; 9] = [
    " fill(0)",
    " fill(NaN)",
    " fill(-1.5)",
    " fill_left(0)",
    " fill_right(1)",
    " fill_left(2) fill_right(-3)",
    " fill_right(1e3) fill_left(Inf)",
    " fill(5m)",
    " FILL_LEFT (+7)",
];
const BOUNDS: [&str; 9] = ["0", "0.25", "1", "-Inf", "Inf", "NaN", "-1", "3.7", "1e6"];
const QUANTILES: [&str; 8] = ["0", "0.25", "0.5", "0.9", "0.99", "1", "NaN", "-0.5"];

impl Writer<'_> {
    /// An instant vector of parts that came with 3.0 or later.
    pub(super) fn modern_vector(&mut self, depth: u64) -> String {
        match self.random.below(17) {
            0 => self.extended(),
            1 => self.filled(depth),
            2 => self.trimmed(depth),
            3 => self.many_quantiles(depth),
            4 => self.fraction(depth),
            5 => self.with_info(),
            6 => self.limited(),
            7 => self.nested_subquery(depth),
            8 => self.named(depth),
            9 => self.with_scalar_functions(depth),
            10 => self.computed_range(),
            11 => self.by_name(depth),
            12 => self.changing_parameter(depth),
            13 => self.shouted(depth),
            14 => self.joined_names(),
            15 => self.times(),
            _ => self.sorted(depth),
        }
    }

    /// What is not a vector of series at one time.
    pub(super) fn range_vector(&mut self) -> String {
        let selector = self.selector();
        let range = *self.random.pick(&RANGES);
        let modifiers = self.modifiers();
        match self.random.below(4) {
            0 => format!("{selector}[{range}:30s]{modifiers}"),
            1 => format!("{selector}[{range}] anchored{modifiers}"),
            2 => format!("{selector}[{range}] smoothed{modifiers}"),
            _ => format!("{selector}[{range}]{modifiers}"),
        }
    }

    fn duration(&mut self) -> String {
        (*self.random.pick(&DURATIONS)).to_owned()
    }

    fn extended(&mut self) -> String {
        let functions = ["rate", "increase", "delta", "changes", "resets"];
        let function = *self.random.pick(&functions);
        let kind = *self.random.pick(&["anchored", "smoothed"]);
        let range = match self.random.chance(20) {
            true => self.duration(),
            false => (*self.random.pick(&RANGES)).to_owned(),
        };
        let (selector, modifiers) = (self.selector(), self.modifiers());
        match self.random.below(4) {
            0 => format!("{function}({selector}[{range}] {kind} {modifiers})"),
            1 => format!("{function}({selector}[{range}]{modifiers} {kind})"),
            2 => format!("avg_over_time(({selector} smoothed)[{range}:15s]{modifiers})"),
            _ => format!("sum by (job) ({function}({selector}[{range}] {kind}{modifiers}))"),
        }
    }

    fn filled(&mut self, depth: u64) -> String {
        let (left, right) = (self.parens(depth), self.parens(depth));
        let op = self.operator();
        let fill = *self.random.pick(&FILLS);
        let label = self.label();
        match self.random.below(6) {
            0 => format!("{left} {op} {fill} {right}"),
            1 => format!("{left} {op} on ({label}){fill} {right}"),
            2 => format!("{left} {op} ignoring ({label}){fill} {right}"),
            3 => format!("{left} {op} on ({label}) group_left (){fill} {right}"),
            4 => format!("{left} {op} on ({label}) group_right (job){fill} {right}"),
            _ => format!(
                "sum by ({label}) ({left}) {op} on ({label}){fill} max by ({label}) ({right})"
            ),
        }
    }

    fn trimmed(&mut self, depth: u64) -> String {
        let inner = match self.random.chance(70) {
            true => self.selector(),
            false => self.parens(depth),
        };
        let op = *self.random.pick(&["</", ">/"]);
        let bound = *self.random.pick(&BOUNDS);
        match self.random.below(4) {
            0 => format!("histogram_count({inner} {op} {bound})"),
            1 => format!("{bound} {op} {inner}"),
            2 => format!("rate({}[5m]) {op} {bound}", self.selector()),
            _ => format!("{inner} {op} {bound}"),
        }
    }

    fn many_quantiles(&mut self, depth: u64) -> String {
        let inner = match self.random.below(3) {
            0 => self.parens(depth),
            1 => format!("rate({}[5m])", self.selector()),
            _ => self.selector(),
        };
        let count = 1 + self.random.below(4);
        let quantiles: Vec<&str> = (0..count).map(|_| *self.random.pick(&QUANTILES)).collect();
        let label = *self.random.pick(&["q", "le", "quantile", "job"]);
        format!(
            "histogram_quantiles({inner}, \"{label}\", {})",
            quantiles.join(", ")
        )
    }

    fn fraction(&mut self, depth: u64) -> String {
        let (low, high) = (*self.random.pick(&BOUNDS), *self.random.pick(&BOUNDS));
        let inner = match self.random.below(3) {
            0 => self.parens(depth),
            1 => format!("increase({}[10m])", self.selector()),
            _ => self.selector(),
        };
        format!("histogram_fraction({low}, {high}, {inner})")
    }

    fn with_info(&mut self) -> String {
        let inner = match self.random.below(3) {
            0 => format!("rate({}[5m])", self.selector()),
            1 => format!("({})", self.instant()),
            _ => self.instant(),
        };
        let of = *self.random.pick(&[
            "",
            ", {version!=\"\"}",
            ", {__name__=\"build_info\"}",
            ", {__name__=~\".+_info\"}",
            ", {__name__=~\".+_info\", version=~\".+\"}",
            ", {__name__!=\"target_info\"}",
            ", {version=\"1.2\", __name__=\"build_info\"}",
            ", {version=\"nope\", __name__=\"build_info\"}",
        ]);
        format!("info({inner}{of})")
    }

    /// Which series are taken is free, not how many, nor those of a part of all.
    fn limited(&mut self) -> String {
        let (selector, label) = (self.selector(), self.label());
        match self.random.below(4) {
            0 => format!("count by ({label}) (limitk by ({label}) (1, {selector}))"),
            1 => format!("count(limitk(3, {selector}))"),
            2 => format!("limit_ratio by ({label}) (0.3, {selector})"),
            _ => format!("{selector} unless limit_ratio(-0.4, {selector})"),
        }
    }

    fn nested_subquery(&mut self, depth: u64) -> String {
        let inner = match self.random.below(3) {
            0 => self.selector(),
            1 => format!("rate({}[2m])", self.selector()),
            _ => self.parens(depth),
        };
        let (inside, outside) = (self.modifiers(), self.modifiers());
        let step = *self.random.pick(&["", "20s", "1m", "step()", "2 * 15s"]);
        let functions = [
            "max_over_time",
            "sum_over_time",
            "rate",
            "last_over_time",
            "delta",
        ];
        let (f, g) = (*self.random.pick(&functions), *self.random.pick(&functions));
        format!("{f}({g}({inner}[2m:{step}]{inside})[5m:1m]{outside})")
    }

    /// Writes or reads the metric's name.
    fn named(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        let label = self.label();
        match self.random.below(6) {
            0 => format!("label_replace({inner}, \"__name__\", \"new_$1\", \"{label}\", \"(.*)\")"),
            1 => format!("label_replace({inner}, \"was\", \"$1\", \"__name__\", \"(.+)\")"),
            2 => format!("label_join({inner}, \"__name__\", \"_\", \"{label}\", \"job\")"),
            3 => format!("label_replace({inner}, \"__name__\", \"\", \"\", \"\")"),
            4 => format!("count_values(\"__name__\", {inner})"),
            _ => format!("{inner} == on (__name__, {label}) {inner}"),
        }
    }

    fn by_name(&mut self, depth: u64) -> String {
        let (label, op) = (
            self.label(),
            *self.random.pick(&["sum", "max", "count", "group"]),
        );
        let functions = ["rate", "last_over_time", "increase", "max_over_time"];
        let inner = match self.random.below(3) {
            0 => self.vector(depth),
            1 => format!("{}({}[5m])", self.random.pick(&functions), self.selector()),
            _ => format!("({} or -{})", self.selector(), self.selector()),
        };
        match self.random.below(3) {
            0 => format!("{op} by (__name__) ({inner})"),
            1 => format!("{op} by (__name__, {label}) ({inner})"),
            _ => format!("{op} without ({label}) ({inner})"),
        }
    }

    fn with_scalar_functions(&mut self, depth: u64) -> String {
        let inner = self.parens(depth);
        let scalar = self.random.pick(&[
            "start()",
            "end()",
            "step()",
            "range()",
            "max_of(1, time())",
            "min_of(step(), 30)",
            "max_of(scalar(up), NaN)",
            "(end() - start())",
            "minute() * 0 + 1",
        ]);
        format!(
            "{inner} {} {scalar}",
            self.random.pick(&["+", "-", "*", "/"])
        )
    }

    fn computed_range(&mut self) -> String {
        let (selector, range, offset) = (self.selector(), self.duration(), self.duration());
        let function = *self
            .random
            .pick(&["sum_over_time", "rate", "count_over_time"]);
        match self.random.below(4) {
            0 => format!("{function}({selector}[{range}] offset ({offset}))"),
            1 => format!("{function}({selector}[{range}:{offset}])"),
            2 => format!("{selector} offset -({offset})"),
            _ => format!("{function}({selector}[{range}])"),
        }
    }

    fn changing_parameter(&mut self, depth: u64) -> String {
        let (inner, selector) = (self.vector(depth), self.selector());
        let scalar = self.random.pick(&[
            "scalar(sum(up)) / 10",
            "time() % 3 / 2",
            "scalar(count(up))",
            "(time() % 2)",
        ]);
        match self.random.below(6) {
            0 => format!("quantile({scalar}, {inner})"),
            1 => format!("quantile_over_time({scalar}, {selector}[5m])"),
            2 => format!("clamp({inner}, -1, {scalar})"),
            3 => format!("predict_linear({selector}[5m], {scalar})"),
            4 => format!("round({inner}, {scalar})"),
            _ => format!("histogram_quantile({scalar}, {inner})"),
        }
    }

    /// Words in any case, spaces, comments.
    fn shouted(&mut self, depth: u64) -> String {
        let (left, right) = (self.parens(depth), self.selector());
        let label = self.label();
        match self.random.below(4) {
            0 => format!("SUM  BY({label},)({left})"),
            1 => format!("{left} # a comment\n+ ON({label}) Group_Left() {right}"),
            2 => format!("{left}\tUNLESS\n{right} Offset 1m"),
            _ => format!("Avg({left}) WithOut ( {label} , \"job\" )"),
        }
    }

    fn joined_names(&mut self) -> String {
        let (left, right) = (self.selector(), self.selector());
        let op = *self.random.pick(&["==", "!=", "+", "> bool", "and", "or"]);
        match op {
            "and" | "or" => format!("rate({left}[5m]) {op} on (__name__, job) {right}"),
            _ => format!(
                "rate({left}[5m]) {op} on (job) group_left (__name__) max by (job, __name__) ({right})"
            ),
        }
    }

    fn times(&mut self) -> String {
        let (selector, at, offset) = (
            self.selector(),
            *self.random.pick(&["", "@ start()", "@ end()"]),
            *self
                .random
                .pick(&["", "offset 15s", "offset 1m", "offset -1m", "offset 6m"]),
        );
        match self.random.below(3) {
            0 => format!("timestamp({selector} smoothed {at} {offset})"),
            1 => format!("timestamp(({selector} {at} {offset}))"),
            _ => format!("timestamp({selector} {at} {offset})"),
        }
    }

    fn sorted(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        let label = self.label();
        match self.random.below(3) {
            0 => format!("sort_by_label({inner}, \"{label}\", \"job\")"),
            1 => format!("sort_by_label_desc({inner}, \"{label}\")"),
            _ => format!("sort_desc({inner})"),
        }
    }

    fn label(&mut self) -> String {
        match self.labels.is_empty() {
            true => "job".to_owned(),
            false => self.random.pick(&self.labels).clone(),
        }
    }
}
