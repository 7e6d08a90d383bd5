//! Patterns and values with the answers of Go, what needs no automaton, and hostile patterns.

use super::*;

/// The escapes that the table's values use.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (code, length) = match after.as_bytes()[0] {
            b'n' => (10, 1),
            b't' => (9, 1),
            b'r' => (13, 1),
            b'v' => (11, 1),
            b'f' => (12, 1),
            b'a' => (7, 1),
            b'x' => (u32::from_str_radix(&after[1..3], 16).unwrap(), 3),
            b'u' => (u32::from_str_radix(&after[1..5], 16).unwrap(), 5),
            other => (other.into(), 1),
        };
        out.push(char::from_u32(code).unwrap());
        rest = &after[length..];
    }
    out + rest
}

/// What we make of a line of the table, in its form.
fn answer(pattern: &str, value: Option<&str>) -> String {
    let regexp = match Regexp::new(pattern) {
        Ok(regexp) => regexp,
        Err(error) => return format!("!\t{error}"),
    };
    let Some(value) = value else {
        return "accepted".to_owned();
    };
    let text = unescape(value);
    let captures = CaptureRegexp::new(pattern).expect("accepted above");
    let groups = captures.captures(&text);
    assert_eq!(
        regexp.is_match(&text),
        groups.is_some(),
        "{pattern} {value}"
    );
    assert!(groups.is_none() || text.starts_with(regexp.prefix()));
    let Some(groups) = groups else {
        return format!("=\t{value}\t-");
    };
    let count = captures.automaton.captures_len();
    let groups: Vec<&str> = (1..count).map(|i| groups.get(i).unwrap_or("~")).collect();
    [&["=", value, "+"], groups.as_slice()].concat().join("\t")
}

#[test]
fn answers_are_those_of_go() {
    let table = include_str!("testdata/go.txt");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (pattern, want) = line.split_once('\t').expect("a pattern and more");
        let value = want
            .strip_prefix("=\t")
            .and_then(|rest| rest.split('\t').next());
        assert_eq!(answer(pattern, value), want, "{pattern}");
    }
}

#[test]
fn finite_patterns_are_lists() {
    for (pattern, want) in [
        ("", Some("")),
        ("a", Some("a")),
        ("b|a|b", Some("a b")),
        (
            "eu-(west|east)-[12]",
            Some("eu-east-1 eu-east-2 eu-west-1 eu-west-2"),
        ),
        ("(?:ab|c)?d", Some("abd cd d")),
        ("x{2,3}", Some("xx xxx")),
        ("^a$", Some("a")),
        ("(?i)a1", Some("A1 a1")),
        ("\\Qa.b\\E", Some("a.b")),
        ("a\\.b", Some("a.b")),
        ("a.", None),
        ("a*", None),
        ("a|^b", None),
        ("\\w{2}", None),
    ] {
        let regexp = Regexp::new(pattern).expect(pattern);
        assert_eq!(
            regexp.literals().map(|list| list.join(" ")).as_deref(),
            want,
            "{pattern}"
        );
    }
    let long: Vec<String> = (0..5000).map(|i| format!("host-{i:04}")).collect();
    let regexp = Regexp::new(&long.join("|")).expect("a long list");
    assert_eq!(regexp.literals(), Some(long.as_slice()));
    assert!(regexp.is_match("host-4999") && !regexp.is_match("host-5000"));
}

#[test]
fn prefixes() {
    for (pattern, want) in [
        ("foo.*", "foo"),
        ("^foo.+", "foo"),
        ("(foo|fob)x.*", "fo"),
        ("(foo)(ba[rz].*)", "fooba"),
        ("(ab)+c", "ab"),
        ("(?i)foo.*", ""),
        (".*foo", ""),
        ("a?b", ""),
        ("é[x].*", "éx"),
    ] {
        assert_eq!(
            Regexp::new(pattern).expect(pattern).prefix(),
            want,
            "{pattern}"
        );
    }
}

#[test]
fn common_shapes_need_no_automaton() {
    for pattern in [
        ".*",
        ".+",
        "foo.*",
        ".*foo",
        ".*foo.*",
        "a.+b.*c",
        "foo.*|bar",
        "(a|b).+",
        ".*?a",
    ] {
        assert!(
            Regexp::new(pattern).expect(pattern).0.automaton.is_none(),
            "{pattern}"
        );
    }
    for pattern in ["(?-s).*", "[0-9]+", "a*", "(?i)foobar.*", "a.b"] {
        assert!(
            Regexp::new(pattern).expect(pattern).0.automaton.is_some(),
            "{pattern}"
        );
    }
}

#[test]
fn hostile_patterns_are_refused_or_compiled() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    let error = |pattern: &str| Regexp::new(pattern).map(|_| ()).map_err(|e| e.to_string());
    for depth in [1001, 10_000, 100_000] {
        let pattern = nested(depth);
        let want = format!("error parsing regexp: expression nests too deeply: `{pattern}`");
        assert_eq!(error(&pattern), Err(want));
    }
    assert_eq!(error(&nested(999)), Ok(()));
    assert!(CaptureRegexp::new(&nested(998)).is_ok());
    assert!(error(&"(".repeat(100_000)).is_err_and(|e| e.contains("missing closing )")));
    assert!(error(&")".repeat(100_000)).is_err());
    assert!(error(&"[".repeat(100_000)).is_err());
    assert!(error(&"[[:".repeat(300_000)).is_err());
    assert!(error(&"(?:a|b".repeat(300)).is_err());
    assert_eq!(error(&"|".repeat(100_000)), Ok(()));
    assert_eq!(error(&"(a|b)*c+".repeat(1000)), Ok(()));
    assert_eq!(error(&format!("{}x", "(?i)".repeat(10_000))), Ok(()));
    let doubling = format!("{}a{}", "((?:".repeat(300), "?)*)+".repeat(300));
    assert_eq!(error(&doubling), Ok(()));
    for pattern in [
        "((a{100}){10}b{1000}){1000}",
        "\\pL{1000}",
        "((\\pL{10}){10}\\pL{900})*",
    ] {
        let outcome = error(pattern);
        assert!(
            outcome.is_ok()
                || outcome.is_err_and(|e| e.contains("too large") || e.contains("repeat count"))
        );
    }
    let literal = "x".repeat(2_000_000);
    assert!(
        Regexp::new(&literal)
            .expect("a long text")
            .is_match(&literal)
    );
}
