//! Between the messages of Thanos and the types of `model`.

use isobar_model::matcher::MatchOp;
use isobar_model::{Labels, Matcher};

use crate::thanos::label_matcher::Type;
use crate::thanos::{Label, LabelMatcher, ZLabelSet};

/// A matcher of a request.
///
/// # Errors
/// A text that says what is wrong with it: no such kind, or a pattern that does not compile.
pub fn matcher(wire: &LabelMatcher) -> Result<Matcher, String> {
    let op = match Type::try_from(wire.r#type) {
        Ok(Type::Eq) => MatchOp::Equal,
        Ok(Type::Neq) => MatchOp::NotEqual,
        Ok(Type::Re) => MatchOp::Regexp,
        Ok(Type::Nre) => MatchOp::NotRegexp,
        Err(_) => return Err(format!("unknown matcher type {}", wire.r#type)),
    };
    Matcher::new(wire.name.as_str(), op, wire.value.as_str()).map_err(|why| why.to_string())
}

/// The matchers of a request.
///
/// # Errors
/// As [`matcher`], for the first that is wrong.
pub fn matchers(wire: &[LabelMatcher]) -> Result<Vec<Matcher>, String> {
    wire.iter().map(matcher).collect()
}

/// A matcher to be sent.
pub fn wire_matcher(matcher: &Matcher) -> LabelMatcher {
    let op = match matcher.op() {
        MatchOp::Equal => Type::Eq,
        MatchOp::NotEqual => Type::Neq,
        MatchOp::Regexp => Type::Re,
        MatchOp::NotRegexp => Type::Nre,
    };
    LabelMatcher {
        r#type: op.into(),
        name: matcher.name().to_owned(),
        value: matcher.value().to_owned(),
    }
}

/// Labels to be sent.
pub fn wire_labels(labels: &Labels) -> ZLabelSet {
    let pair = |(name, value): (&str, &str)| Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    ZLabelSet {
        labels: labels.iter().map(pair).collect(),
    }
}

/// Labels that were received, in any order.
pub fn labels(wire: &[Label]) -> Labels {
    Labels::from_pairs(wire.iter().map(|it| (&it.name, &it.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_there_and_back() {
        let wire = |kind: i32, name: &str, value: &str| LabelMatcher {
            r#type: kind,
            name: name.into(),
            value: value.into(),
        };
        let all = [
            wire(0, "a", "x"),
            wire(1, "b", ""),
            wire(2, "c", "x|y.*"),
            wire(3, "d", ".+"),
        ];
        let read = matchers(&all).expect("valid matchers");
        let back: Vec<_> = read.iter().map(wire_matcher).collect();
        assert_eq!(back, all);
        assert!(matchers(&[wire(2, "a", "(")]).is_err());
        let unknown = matcher(&wire(9, "a", "b")).expect_err("no such kind");
        assert_eq!(unknown, "unknown matcher type 9");
    }

    #[test]
    fn labels_there_and_back() {
        let set = Labels::from_pairs([("b", "2"), ("a", "1")]);
        assert_eq!(labels(&wire_labels(&set).labels), set);
    }
}
