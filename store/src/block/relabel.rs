//! Relabel rules with the meaning that they have in Prometheus: from the labels of something
//! either other labels are made, or the decision to leave it out.
//!
//! In Thanos' configuration of which blocks a component cares for, the labels are the external
//! ones of a block and `__block_id`; a block whose labels come out empty is left out as well.

use std::collections::BTreeMap;
use std::fmt;

use isobar_model::regexp::{CaptureRegexp, Groups};
use md5::{Digest, Md5};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

/// Labels by name.
pub type LabelMap = BTreeMap<String, String>;

const REGEX_DEFAULT: &str = "(.*)";
const SEPARATOR_DEFAULT: &str = ";";
const REPLACEMENT_DEFAULT: &str = "$1";

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sets the target label to the replacement when the sources match.
    Replace,
    /// Leaves out what does not match.
    Keep,
    /// Leaves out what matches.
    Drop,
    /// Leaves out what differs from the target label.
    KeepEqual,
    /// Leaves out what is equal to the target label.
    DropEqual,
    /// Sets the target label to a hash of the sources modulo a number.
    HashMod,
    /// Copies labels whose names match to other names.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target label to the sources in lower case.
    Lowercase,
    /// Sets the target label to the sources in upper case.
    Uppercase,
}

const ACTIONS: [(&str, Action); 11] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("hashmod", Action::HashMod),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
];

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ACTIONS.iter().find(|(_, action)| action == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// The actions that choose among blocks.
pub const SELECTOR_ACTIONS: [Action; 3] = [Action::Keep, Action::Drop, Action::HashMod];

/// Why a list of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    /// It is no YAML of this form.
    #[error("{0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// A rule makes no sense.
    #[error("rule {number}: {reason}")]
    Rule {
        /// Which rule, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    sources: Vec<String>,
    separator: String,
    regex: CaptureRegexp,
    any: bool,
    modulus: u64,
    target: String,
    replacement: String,
    action: Action,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRule {
    source_labels: Vec<String>,
    #[serde(deserialize_with = "scalar")]
    separator: String,
    #[serde(deserialize_with = "scalar")]
    regex: String,
    modulus: u64,
    #[serde(deserialize_with = "scalar")]
    target_label: String,
    #[serde(deserialize_with = "scalar")]
    replacement: String,
    #[serde(deserialize_with = "scalar")]
    action: String,
}

impl Default for RawRule {
    fn default() -> Self {
        RawRule {
            source_labels: Vec::new(),
            separator: SEPARATOR_DEFAULT.to_owned(),
            regex: REGEX_DEFAULT.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: REPLACEMENT_DEFAULT.to_owned(),
            action: "replace".to_owned(),
        }
    }
}

/// Reads a list of rules. With `allowed`, other actions are refused.
///
/// # Errors
/// When it is no such list, or a rule makes no sense.
pub fn parse(yaml: &str, allowed: Option<&[Action]>) -> Result<Vec<Rule>, RelabelError> {
    let raw: Option<Vec<RawRule>> = serde_yaml_ng::from_str(yaml)?;
    let checked = |(at, raw): (usize, RawRule)| {
        let number = at + 1;
        Rule::check(raw, allowed).map_err(|reason| RelabelError::Rule { number, reason })
    };
    raw.unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(checked)
        .collect()
}

/// Applies the rules in order; `false` when one of them leaves out what has these labels.
pub fn apply(rules: &[Rule], labels: &mut LabelMap) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    fn check(raw: RawRule, allowed: Option<&[Action]>) -> Result<Self, String> {
        let wanted = raw.action.to_lowercase();
        let Some((_, action)) = ACTIONS.into_iter().find(|(name, _)| *name == wanted) else {
            return Err(format!("unknown relabel action {:?}", raw.action));
        };
        if allowed.is_some_and(|allowed| !allowed.contains(&action)) {
            return Err(format!("unsupported relabel action: {action}"));
        }
        Self::check_fields(&raw, action)?;
        let regex = CaptureRegexp::new(&raw.regex).map_err(|e| format!("regex: {e}"))?;
        Ok(Rule {
            sources: raw.source_labels,
            separator: raw.separator,
            any: raw.regex == REGEX_DEFAULT,
            regex,
            modulus: raw.modulus,
            target: raw.target_label,
            replacement: raw.replacement,
            action,
        })
    }

    fn check_fields(raw: &RawRule, action: Action) -> Result<(), String> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, Lowercase, Replace, Uppercase,
        };
        if action == HashMod && raw.modulus == 0 {
            return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        let targeted = matches!(
            action,
            Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual
        );
        if targeted && raw.target_label.is_empty() {
            return Err(format!(
                "relabel configuration for {action} action requires 'target_label' value"
            ));
        }
        if action == Action::LabelMap && raw.replacement.is_empty() {
            return Err(format!("\"\" is invalid 'replacement' for {action} action"));
        }
        let plain_replacement = raw.replacement == REPLACEMENT_DEFAULT;
        let plain = plain_replacement && raw.modulus == 0 && raw.separator == SEPARATOR_DEFAULT;
        match action {
            KeepEqual | DropEqual if !plain || raw.regex != REGEX_DEFAULT => Err(format!(
                "{action} action requires only 'source_labels' and `target_label`, and no other fields"
            )),
            LabelDrop | LabelKeep
                if !plain || !raw.source_labels.is_empty() || !raw.target_label.is_empty() =>
            {
                Err(format!(
                    "{action} action requires only 'regex', and no other fields"
                ))
            }
            Lowercase | Uppercase if !plain_replacement => {
                Err(format!("'replacement' can not be set for {action} action"))
            }
            _ => Ok(()),
        }
    }

    /// Applies the rule; `false` when it leaves out what has these labels.
    pub fn apply(&self, labels: &mut LabelMap) -> bool {
        let value = self.source_value(labels);
        let target = || labels.get(&self.target).map_or("", String::as_str);
        match self.action {
            Action::Drop => return self.regex.captures(&value).is_none(),
            Action::Keep => return self.regex.captures(&value).is_some(),
            Action::DropEqual => return target() != value,
            Action::KeepEqual => return target() == value,
            Action::Replace => self.replace(&value, labels),
            Action::Lowercase => set(labels, self.target.clone(), value.to_lowercase()),
            Action::Uppercase => set(labels, self.target.clone(), value.to_uppercase()),
            Action::HashMod => {
                let rest = hash(&value) % self.modulus.max(1);
                set(labels, self.target.clone(), rest.to_string());
            }
            Action::LabelMap => {
                let renamed = |(name, value): (&String, &String)| {
                    let groups = self.regex.captures(name)?;
                    Some((self.expand(&self.replacement, &groups), value.clone()))
                };
                let copies: Vec<_> = labels.iter().filter_map(renamed).collect();
                for (name, value) in copies {
                    set(labels, name, value);
                }
            }
            Action::LabelDrop => labels.retain(|name, _| self.regex.captures(name).is_none()),
            Action::LabelKeep => labels.retain(|name, _| self.regex.captures(name).is_some()),
        }
        true
    }

    fn source_value(&self, labels: &LabelMap) -> String {
        let values = self.sources.iter();
        let values: Vec<&str> = values
            .map(|name| labels.get(name).map_or("", String::as_str))
            .collect();
        values.join(&self.separator)
    }

    fn replace(&self, value: &str, labels: &mut LabelMap) {
        let variable = self.target.contains('$') || self.replacement.contains('$');
        if value.is_empty() && self.any && !variable {
            set(labels, self.target.clone(), self.replacement.clone());
            return;
        }
        let Some(groups) = self.regex.captures(value) else {
            return;
        };
        let target = self.expand(&self.target, &groups);
        if !target.is_empty() {
            let replacement = self.expand(&self.replacement, &groups);
            set(labels, target, replacement);
        }
    }

    /// Puts groups in the places of `$1`, `$name` and `${name}`; `$$` is a dollar sign.
    fn expand(&self, template: &str, groups: &Groups<'_>) -> String {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, behind)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                out.push('$');
                rest = behind;
            } else if let Some((name, behind)) = variable(behind) {
                out.push_str(self.group(name, groups).unwrap_or(""));
                rest = behind;
            } else {
                out.push('$');
                rest = behind;
            }
        }
        out.push_str(rest);
        out
    }

    fn group<'v>(&self, name: &str, groups: &Groups<'v>) -> Option<&'v str> {
        let digits = name.bytes().all(|b| b.is_ascii_digit());
        if digits && (name.len() == 1 || !name.starts_with('0')) {
            return groups.get(name.parse().ok()?);
        }
        let mut named = self.regex.group_indices(name).into_iter();
        named.find_map(|index| groups.get(index))
    }
}

/// An empty value removes a label.
fn set(labels: &mut LabelMap, name: String, value: String) {
    if value.is_empty() {
        labels.remove(&name);
    } else {
        labels.insert(name, value);
    }
}

/// The last eight bytes of the MD5 sum.
fn hash(value: &str) -> u64 {
    let sum = Md5::digest(value.as_bytes());
    let mut last = [0; 8];
    last.copy_from_slice(&sum[8..16]);
    u64::from_be_bytes(last)
}

/// The name of the variable that `text` begins with, and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let end = inner.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (name, behind) = inner.split_at(end.unwrap_or(inner.len()));
    let behind = if braced {
        behind.strip_prefix('}')?
    } else {
        behind
    };
    (!name.is_empty()).then_some((name, behind))
}

/// A text; YAML takes `1` and `true` for something else.
fn scalar<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    use serde_yaml_ng::Value;
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(D::Error::invalid_type(
            Unexpected::Other("no text"),
            &"a text",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> LabelMap {
        let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    /// `expected` is `-` for what is left out.
    #[track_caller]
    fn check(yaml: &str, input: &[(&str, &str)], expected: &str) {
        let rules = parse(yaml, None).unwrap();
        let mut labels = labels(input);
        let kept = apply(&rules, &mut labels);
        let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let text = if kept {
            pairs.join(",")
        } else {
            "-".to_owned()
        };
        assert_eq!(text, expected, "{yaml}");
    }

    #[test]
    fn values_decide() {
        let input = [("a", "foo"), ("b", "bar"), ("c", "foo")];
        let all = "a=foo,b=bar,c=foo";
        check(
            "[{action: keep, source_labels: [a], regex: fo+}]",
            &input,
            all,
        );
        check(
            "[{action: keep, source_labels: [a], regex: fo}]",
            &input,
            "-",
        );
        check(
            "[{action: Drop, source_labels: [a, b], regex: foo;bar}]",
            &input,
            "-",
        );
        check(
            "[{action: drop, source_labels: [a, b], separator: '', regex: foo;bar}]",
            &input,
            all,
        );
        check(
            "[{action: keepequal, source_labels: [a], target_label: c}]",
            &input,
            all,
        );
        check(
            "[{action: keepequal, source_labels: [a], target_label: b}]",
            &input,
            "-",
        );
        check(
            "[{action: dropequal, source_labels: [a], target_label: c}]",
            &input,
            "-",
        );
        check(
            "[{action: dropequal, source_labels: [z], target_label: c}]",
            &input,
            all,
        );
        check("[]", &input, all);
    }

    #[test]
    fn values_are_replaced() {
        let input = [("a", "foo-12")];
        check(
            "[{source_labels: [a], target_label: b}]",
            &input,
            "a=foo-12,b=foo-12",
        );
        check(
            "[{source_labels: [a], regex: '(?P<w>\\w+)-(\\d)(\\d)', target_label: 'x_${w}', replacement: '$3$$$2${w}$9$-'}]",
            &input,
            "a=foo-12,x_foo=2$1foo$-",
        );
        check(
            "[{source_labels: [a], regex: nope, target_label: b, replacement: x}]",
            &input,
            "a=foo-12",
        );
        check(
            "[{source_labels: [a], target_label: a, replacement: ''}]",
            &input,
            "",
        );
        check(
            "[{target_label: b, replacement: 7}]",
            &input,
            "a=foo-12,b=7",
        );
        check(
            "[{action: uppercase, source_labels: [a], target_label: b}]",
            &input,
            "a=foo-12,b=FOO-12",
        );
        check(
            "[{action: labelmap, regex: '(.)', replacement: 'z_$1'}]",
            &input,
            "a=foo-12,z_a=foo-12",
        );
        check("[{action: labeldrop, regex: a}]", &input, "");
        check("[{action: labelkeep, regex: a}]", &input, "a=foo-12");
    }

    /// The figures come from Prometheus' own tests.
    #[test]
    fn hashes_are_those_of_prometheus() {
        let input = [("a", "foo"), ("b", "bar"), ("c", "baz")];
        check(
            "[{action: hashmod, source_labels: [c], separator: ';', target_label: d, modulus: 1000}]",
            &input,
            "a=foo,b=bar,c=baz,d=976",
        );
        let shard = |number: u64| {
            format!(
                "[{{action: hashmod, source_labels: [c], target_label: s, modulus: 2}}, {{action: keep, source_labels: [s], regex: {number}}}]"
            )
        };
        check(&shard(0), &input, "a=foo,b=bar,c=baz,s=0");
        check(&shard(1), &input, "-");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |yaml: &str, expected: &str| {
            let error = parse(yaml, Some(&SELECTOR_ACTIONS))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(
            "[{action: replace, target_label: a}]",
            "rule 1: unsupported relabel action: replace",
        );
        check(
            "[{action: what}]",
            "rule 1: unknown relabel action \"what\"",
        );
        check(
            "[{action: hashmod, target_label: a}]",
            "rule 1: relabel configuration for hashmod requires non-zero modulus",
        );
        check(
            "[{action: hashmod, modulus: 2}]",
            "rule 1: relabel configuration for hashmod action requires 'target_label' value",
        );
        check(
            "[{action: keep, source_labels: [a]}, {action: keep, regex: '('}]",
            "rule 2: regex: ",
        );
        check(
            "[{action: keep, colour: red}]",
            ".[0]: unknown field `colour`",
        );
        check("7", "invalid type");
        assert!(parse("", None).unwrap().is_empty());
    }
}
