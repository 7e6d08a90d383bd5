//! What changed in answers from Prometheus 2.42 to 3.14. Each entry says which queries it touches;
//! an older Prometheus is not asked those. Three more changes are seen to elsewhere: the data and
//! the times keep samples off the boundaries of windows, which were closed on the left before
//! 3.0 (`data`, `requests`); counters neither begin small nor reset near a hole, where
//! extrapolation towards zero changed (`data`); annotations did not exist (`answers`).

use isobar_promql::functions::signature::FUNCTIONS;

/// One change.
pub(super) struct Change {
    pub(super) why: &'static str,
    touches: fn(&str) -> bool,
}

/// The changes that a generated query could meet.
const CHANGES: &[Change] = &[
    Change {
        why: "experimental functions came after 2.42",
        touches: |query| {
            FUNCTIONS
                .iter()
                .any(|f| f.experimental && calls(query, f.name))
                || calls(query, "first_over_time")
        },
    },
    Change {
        why: "limitk and limit_ratio came after 2.42",
        touches: |query| calls(query, "limitk") || calls(query, "limit_ratio"),
    },
    Change {
        why: "windows of subqueries within subqueries are at multiples of their steps, where \
              2.42 takes one step more",
        touches: |query| windows_of_subqueries(query) > 1,
    },
    Change {
        why: "extrapolation towards zero where a counter begins or resets within a window; what \
              gauges and subqueries give may be such",
        touches: |query| {
            ["rate", "increase"].iter().any(|name| {
                calls(query, name)
                    && (windows_of_subqueries(query) > 0 || !of_counters(query, name))
            })
        },
    },
    Change {
        why: "atan2 between a vector and a number kept the metric's name",
        touches: |query| query.contains(" atan2 "),
    },
    Change {
        why: "deviations across series of an infinity or a NaN were 0; anything but a selector \
              may give such",
        touches: |query| {
            ["stddev", "stdvar"]
                .iter()
                .any(|name| !of_plain_values(query, name))
        },
    },
    Change {
        why: "compensated sums over time with an infinity were NaN",
        touches: |query| {
            let odd = query.contains("odd_values") || windows_of_subqueries(query) > 0;
            odd && SUMS_OVER_TIME.iter().any(|name| calls(query, name))
        },
    },
    Change {
        why: "averages of numbers whose sum overflows were computed in another way",
        touches: |query| {
            calls(query, "avg") && (query.contains("odd_values") || query.contains("1e308"))
        },
    },
    Change {
        why: "a comparison that leaves values out did not look whether labels taken over by \
              group_left make two series the same",
        touches: takes_labels_over_in_comparison,
    },
    Change {
        why: "predict_linear over a range that @ fixes had a value at the first step only",
        touches: |query| calls(query, "predict_linear") && query.contains('@'),
    },
];

/// Functions that add the values of a window.
const SUMS_OVER_TIME: [&str; 6] = [
    "sum_over_time",
    "avg_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "deriv",
    "predict_linear",
];

/// Why an older Prometheus may answer a query differently.
pub(super) fn change(query: &str) -> Option<&'static Change> {
    CHANGES.iter().find(|change| (change.touches)(query))
}

/// Whether a function or an aggregation of that name stands in the query.
fn calls(query: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query.match_indices(name).any(|(at, _)| {
        let (before, after) = (&query[..at], &query[at + name.len()..]);
        !before.ends_with(word)
            && after.trim_start().starts_with(['(', 'b', 'w'])
            && !after.starts_with(word)
    })
}

fn takes_labels_over_in_comparison(query: &str) -> bool {
    [" group_left (", " group_right ("].iter().any(|words| {
        query.match_indices(words).any(|(at, _)| {
            let compared = query[..at]
                .rsplit_once(" on (")
                .is_some_and(|(before, _)| before.ends_with(['=', '<', '>']));
            compared && !query[at + words.len()..].starts_with(')')
        })
    })
}

/// Whether all arguments of the function of that name are counters of [`super::data`].
fn of_counters(query: &str, name: &str) -> bool {
    query.match_indices(&format!("{name}(")).all(|(at, call)| {
        let argument = &query[at + call.len()..];
        let metric = argument
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next();
        metric.is_some_and(|metric| metric.ends_with("_total") || metric.ends_with("_bucket"))
    })
}

/// Whether all arguments of the aggregation of that name are selectors of finite numbers.
fn of_plain_values(query: &str, name: &str) -> bool {
    query.match_indices(name).all(|(at, _)| {
        let rest = &query[at + name.len()..];
        if rest.starts_with("_over_time") {
            return true;
        }
        let argument = match rest.strip_prefix('(') {
            Some(argument) => argument,
            None => rest.split_once(") (").map_or("", |(_, argument)| argument),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let after = argument.trim_start_matches(word);
        !argument.starts_with("odd_values") && after.starts_with([')', '{'])
    })
}

fn windows_of_subqueries(query: &str) -> usize {
    query
        .split('[')
        .skip(1)
        .filter(|rest| {
            rest.split(']')
                .next()
                .is_some_and(|inside| inside.contains(':'))
        })
        .count()
}

#[test]
fn calls_are_whole_words() {
    assert!(calls("sum(rate(x[5m]))", "rate") && calls("stddev by (a) (x)", "stddev"));
    assert!(!calls("irate(x[5m])", "rate") && !calls("rate_total", "rate"));
    assert_eq!(windows_of_subqueries("f(g(x{a=\"b:1\"}[1m])[5m:1m])"), 1);
}
