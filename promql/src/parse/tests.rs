//! Printing, bounds and the errors that Prometheus' own cases do not cover. What is expected was
//! answered by Prometheus 3.14 (`/api/v1/format_query`).

use super::*;

fn check(query: &str, expected: &str) {
    let printed = match parse_expr(query) {
        Ok(expr) => expr.to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(printed, expected, "{query}");
}

/// Prints unchanged.
fn check_same(query: &str) {
    check(query, query);
    check_round_trip(query);
}

/// What is printed parses to a tree that prints the same.
fn check_round_trip(query: &str) {
    let printed = parse_expr(query).unwrap().to_string();
    let again = parse_expr(&printed).unwrap().to_string();
    assert_eq!(again, printed, "{query}");
}

#[test]
fn prints_what_it_read() {
    // Found by fuzzing: the sign of a zero duration was lost.
    check_same("-0s");
    check_round_trip("1 / -0s");
    check_same(r#"sum by (a, "b c") (rate(m{a!="x",b=~"y|z"}[5m] offset 1h))"#);
    check_same("sum without () (a)");
    check_same("topk(5, a)");
    check_same("a + on (b, c) group_left (d) e");
    check_same("a - ignoring () group_right () b");
    check_same("a == bool b");
    check_same("a + on (x) fill (1) b");
    check_same("a + fill_left (1e+06) fill_right (-Inf) b");
    check_same("a[5m:1m] @ 1.500 offset -1d");
    check_same("a[5m:] @ end()");
    check_same("a[5m] anchored @ start() offset 1m");
    check_same("a @ 0.000 smoothed offset 1m");
    check_same("a[5m + step()]");
    check_same("a[-(2m * 3)]");
    check_same("a[min_of(range(), 5m):max_of(1, 2)] offset -step()");
    check_same("a offset (5m)");
    check_same("-a ^ b");
    check_same("(a or b) unless c");
    check_same("a </ 1");
    check_same(r#"label_replace(a, "b", "$1", "c", "(.*)\n")"#);
    check_same("1.5 + -0.25 * 16");
}

#[test]
fn prints_canonically() {
    check("sum(a) by (b)", "sum by (b) (a)");
    check("sum(a) by ()", "sum(a)");
    check(r#"a{c="1",b="2",}"#, r#"a{b="2",c="1"}"#);
    check(r#"{"a"}"#, r#"{__name__="a"}"#);
    check(r#"{"a b", 'c d'=`e"`}"#, r#"{"c d"="e\"",__name__="a b"}"#);
    check("a[90s] offset 3600s", "a[1m30s] offset 1h");
    check("a[0.5]", "a[500ms]");
    check("+1 - - 1e3", "1 - -1000");
    check("0755 + 1_000 + Inf", "493 + 1000 + +Inf");
    check("1y1w + 90d", "372d + 90d");
    check("a @ 1603774568", "a @ 1603774568.000");
    check("1 + on () 2", "1 + 2");
    check("a + on () group_left b", "a + on () group_left () b");
    check("SUM(a) Without (b) # comment", "sum without (b) (a)");
    check("a+fill (5m) b", "a + fill (300) b");
    check("fill + fill", "fill + fill");
    check("sum + by", "sum + by");
}

#[test]
fn refuses_in_prometheus_words() {
    check(
        "",
        "unknown position: parse error: no expression found in input",
    );
    check(" #", "1:1: parse error: no expression found in input");
    check(
        "foo{",
        "1:5: parse error: unexpected end of input inside braces",
    );
    check(
        "a\n+ )",
        "2:4: parse error: unexpected right parenthesis ')'",
    );
    check(
        "sum(a + )",
        "1:9: parse error: unexpected \")\" in aggregation",
    );
    check("sum foo", "1:5: parse error: unexpected identifier \"foo\"");
    check(
        "a + on (b) group_left ",
        "1:23: parse error: unexpected end of input in grouping opts, expected \"(\"",
    );
    check(
        "a offset b",
        "1:10: parse error: unexpected identifier \"b\" in offset, expected number, duration, step(), or range()",
    );
    check(
        "a @ b",
        "1:5: parse error: unexpected identifier \"b\" in @, expected timestamp",
    );
    check("a[5m", "1:5: parse error: unclosed left bracket");
    check(
        "a[5m 5m]",
        "1:6: parse error: unexpected duration \"5m\" in subquery or range, expected \":\" or \"]\"",
    );
    check(
        "a[5m:1m 1]",
        "1:9: parse error: unexpected number \"1\" in subquery selector, expected \"]\"",
    );
    check(
        "a offset -9.5e10",
        "1:10: parse error: duration out of range",
    );
    check(
        "1e999",
        "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range",
    );
    check(
        r#"sum by ("") (a)"#,
        "1:9: parse error: invalid label name for grouping: \"\"",
    );
    check(r#"a{b="c"#, "1:5: parse error: unterminated quoted string");
    check(
        r#"a{__name__="b"}"#,
        "1:1: parse error: metric name must not be set twice: \"a\" or \"b\"",
    );
    check(
        "!",
        "1:1: parse error: unexpected character after '!': '\u{fffd}'",
    );
    check(
        "a and fill (1) b",
        "1:1: parse error: filling in missing series not allowed for set operators",
    );
    check("\"\u{fffd}\"", "1:1: parse error: invalid UTF-8 rune");
}

#[test]
fn prints_over_several_lines() {
    let query = r#"sum by (job, instance) (rate(a_metric_with_a_long_name{label="value"}[5m])) / on (job) group_left () (b_metric or c_metric)"#;
    let expected = r#"  sum by (job, instance) (rate(a_metric_with_a_long_name{label="value"}[5m]))
/ on (job) group_left ()
  (b_metric or c_metric)"#;
    assert_eq!(pretty(&parse_expr(query).unwrap()), expected);

    let query = format!("-topk(5, rate(({0} + {0})[5m:]))", "long_name".repeat(6));
    let expected = format!(
        "-topk(\n  5,\n  rate(\n    (\n        {0}\n      +\n        {0}\n    )[5m:]\n  )\n)",
        "long_name".repeat(6)
    );
    assert_eq!(pretty(&parse_expr(&query).unwrap()), expected);
    assert_eq!(
        pretty(&parse_expr("sum(a)by(b)").unwrap()),
        "sum by (b) (a)"
    );
}

#[test]
fn reads_selectors() {
    let check = |text: &str, expected: &str| {
        let read = match parse_metric_selector(text) {
            Ok(matchers) => format!("{matchers:?}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(read, expected, "{text}");
    };
    check(
        r#"up{job="x",a!~"b"}"#,
        r#"[job="x", a!~"b", __name__="up"]"#,
    );
    check("{}", "[]");
    check("sum", r#"[__name__="sum"]"#);
    check("", "unknown position: parse error: unexpected end of input");
    check(
        "{",
        "1:2: parse error: unexpected end of input inside braces",
    );
    check("up offset 5m", "1:4: parse error: unexpected <offset>");
    check("up[5m]", "1:3: parse error: unexpected \"[\"");
    check("1", "1:1: parse error: unexpected number \"1\"");
}

/// Runs on a stack as small as those of a pool's threads.
fn on_small_stack(test: impl FnOnce() + Send + 'static) {
    const STACK: usize = 2 << 20;
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn bounds_nesting() {
    let nests: [(&str, &str); 8] = [
        ("(", ")"),
        ("sum(", ")"),
        ("abs(", ")"),
        ("-", ""),
        ("2 ^ ", ""),
        ("1 + (", ")"),
        ("sum by (a) (b * on (c) ", ")"),
        ("(", ")[5m:1m]"),
    ];
    for (open, close) in nests {
        on_small_stack(move || {
            let nested = |levels| format!("{}a{}", open.repeat(levels), close.repeat(levels));
            // Some of these go two levels deeper at a time.
            let deepest =
                (0..DEPTH_MAX)
                    .rev()
                    .find_map(|levels| match parse_expr(&nested(levels)) {
                        Err(e) if e.kind() == ParseErrorKind::TooDeep => None,
                        parsed => Some((levels, parsed)),
                    });
            let (levels, parsed) = deepest.unwrap();
            assert!(levels >= DEPTH_MAX / 2 - 1, "{open}");
            match parsed {
                Ok(expr) => assert_eq!(
                    expr.to_string(),
                    parse_expr(&expr.to_string()).unwrap().to_string()
                ),
                Err(e) => assert_eq!(e.kind(), ParseErrorKind::Type, "{open}"),
            }
            let refused = parse_expr(&nested(DEPTH_MAX + 1)).unwrap_err();
            assert_eq!(refused.kind(), ParseErrorKind::TooDeep, "{open}");
            let refused = parse_expr(&nested(200_000)).unwrap_err();
            assert_eq!(refused.kind(), ParseErrorKind::TooDeep, "{open}");
        });
    }
    on_small_stack(|| {
        let nested = |levels| format!("a[{}1{}]", "(".repeat(levels), ")".repeat(levels));
        assert!(parse_expr(&nested(DEPTH_MAX - 2)).is_ok());
        let refused = parse_expr(&nested(DEPTH_MAX)).unwrap_err();
        assert_eq!(refused.kind(), ParseErrorKind::TooDeep);
    });
}

#[test]
fn bounds_chains() {
    on_small_stack(|| {
        let chain = |terms| vec!["1"; terms].join(" + ");
        let expr = parse_expr(&chain(HEIGHT_MAX)).unwrap();
        assert!(parse_expr(&expr.to_string()).is_ok_and(|again| again == expr));
        assert_eq!(expr.span().end, 4 * HEIGHT_MAX - 3);
        assert!(pretty(&expr).len() > HEIGHT_MAX);
        let refused = parse_expr(&chain(HEIGHT_MAX + 1)).unwrap_err();
        assert_eq!(refused.kind(), ParseErrorKind::TooDeep);
        assert_eq!(
            refused.message(),
            format!("expression is nested more than {HEIGHT_MAX} levels deep")
        );
        let durations = format!("a[{}]", chain(HEIGHT_MAX + 1));
        assert_eq!(
            parse_expr(&durations).unwrap_err().kind(),
            ParseErrorKind::TooDeep
        );
    });
}
