//! Reads scripts in Prometheus' PromQL test language (its `promql/promqltest/README.md`): `load`,
//! `clear` and `eval` with what it is expected to give.

use isobar_model::Labels;
use isobar_model::regexp::Regexp;
use isobar_promql::parse::series::{SequenceValue, parse_series};
use isobar_promql::parse::{Expr, parse_expr};

use super::start_times::{self, StartTimes};

/// One command of a script.
pub(crate) enum Command {
    /// Forgets all series.
    Clear,
    /// Adds series.
    Load(Load),
    /// Evaluates a query.
    Eval(Box<Eval>),
}

/// Series with a value every `step_ms` from time 0 on.
pub(crate) struct Load {
    pub(crate) step_ms: i64,
    pub(crate) series: Vec<(Labels, Vec<SequenceValue>)>,
    /// The start times of some of the series' samples.
    pub(crate) start_times: Vec<(Labels, StartTimes)>,
    /// Whether classic histograms are to be loaded as native ones too.
    pub(crate) with_nhcb: bool,
}

/// A query and what it is expected to give.
#[derive(Default)]
pub(crate) struct Eval {
    pub(crate) line: usize,
    pub(crate) query: String,
    /// Start and end are the same for an instant query, and the step is 0, unless a range vector
    /// is expected of it.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) is_range: bool,
    pub(crate) ordered: bool,
    pub(crate) fail: Vec<Pattern>,
    pub(crate) warn: Vec<Pattern>,
    pub(crate) info: Vec<Pattern>,
    pub(crate) no_warn: bool,
    pub(crate) no_info: bool,
    pub(crate) scalar: Option<f64>,
    pub(crate) string: Option<String>,
    pub(crate) range_vector: bool,
    /// The series in the order written.
    pub(crate) series: Vec<(Labels, Vec<SequenceValue>)>,
}

/// What a message has to look like.
pub(crate) enum Pattern {
    Any,
    Exactly(String),
    Regexp(Regexp),
}

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exactly(wanted) => wanted == text,
            Pattern::Regexp(regexp) => regexp.is_match(text),
        }
    }

    fn regexp(pattern: &str) -> Result<Pattern, String> {
        let regexp = Regexp::new(&format!(".*(?:{pattern}).*"));
        regexp.map(Pattern::Regexp).map_err(|e| e.to_string())
    }
}

/// The commands of a script.
pub(crate) fn read(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            if line.trim().starts_with('#') {
                ""
            } else {
                line.trim()
            }
        })
        .collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let first = at;
        at += 1;
        let word = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if word.is_empty() {
            continue;
        }
        let body: Vec<&str> = if word == "clear" {
            Vec::new()
        } else {
            lines[at..]
                .iter()
                .take_while(|line| !line.is_empty())
                .copied()
                .collect()
        };
        let in_line = |e: String| format!("line {}: {e}", first + 1);
        let command = match word.as_str() {
            "clear" => Command::Clear,
            "load" | "load_with_nhcb" => Command::Load(load(line, &body).map_err(in_line)?),
            word if word.starts_with("eval") => {
                let (eval, used) = eval(line, &body).map_err(in_line)?;
                at += used;
                commands.push(Command::Eval(Box::new(Eval {
                    line: first + 1,
                    ..eval
                })));
                continue;
            }
            _ => return Err(in_line(format!("no command: {line}"))),
        };
        at += body.len();
        commands.push(command);
    }
    Ok(commands)
}

fn load(line: &str, body: &[&str]) -> Result<Load, String> {
    let (word, step) = line
        .split_once(char::is_whitespace)
        .ok_or("load without step")?;
    let (mut series, mut start_times) = (Vec::new(), Vec::new());
    for line in body {
        match start_times::read(line) {
            Some(read) => start_times.push(read?),
            None => {
                let read = parse_series(line).map_err(|e| e.to_string())?;
                series.push((read.labels, read.values));
            }
        }
    }
    Ok(Load {
        step_ms: millis(step)?,
        series,
        start_times,
        with_nhcb: word.ends_with("nhcb"),
    })
}

/// The command, and how many lines of the body belong to it.
fn eval(line: &str, body: &[&str]) -> Result<(Eval, usize), String> {
    let mut eval = Eval::default();
    let (word, rest) = next_word(line);
    match word.strip_prefix("eval").unwrap_or_default() {
        "" => {}
        "_fail" => eval.fail.push(Pattern::Any),
        "_warn" => eval.warn.push(Pattern::Any),
        "_info" => eval.info.push(Pattern::Any),
        "_ordered" => eval.ordered = true,
        other => return Err(format!("unknown command eval{other}")),
    }
    let (kind, mut rest) = next_word(rest);
    let mut time = |word: &str| {
        let (found, tail) = next_word(rest);
        if found != word {
            return Err(format!("{found} in place of {word}"));
        }
        let (time, tail) = next_word(tail);
        rest = tail;
        millis(time)
    };
    if kind == "range" {
        eval.is_range = true;
        eval.start_ms = time("from")?;
        eval.end_ms = time("to")?;
        eval.step_ms = time("step")?;
    } else {
        eval.start_ms = time("at")?;
        eval.end_ms = eval.start_ms;
    }
    eval.query = rest.to_owned();
    for (i, line) in body.iter().enumerate() {
        if line.starts_with("expected_fail") {
            let (word, text) = next_word(line);
            eval.fail = vec![match word {
                "expected_fail_message" => Pattern::Exactly(text.to_owned()),
                _ => Pattern::regexp(text)?,
            }];
            return Ok((eval, i + 1));
        }
        if line.split(' ').next() == Some("expect") {
            expect(&mut eval, line)?;
        } else if let Some(number) = number(line) {
            eval.scalar = Some(number);
            return Ok((eval, i + 1));
        } else {
            let read = parse_series(line).map_err(|e| format!("{e} in {line}"))?;
            eval.series.push((read.labels, read.values));
        }
    }
    Ok((eval, body.len()))
}

fn expect(eval: &mut Eval, line: &str) -> Result<(), String> {
    let (_, rest) = next_word(line);
    let (what, rest) = next_word(rest);
    let pattern = || match rest.split_once(':') {
        None => Ok(Pattern::Any),
        Some(("msg", text)) => Ok(Pattern::Exactly(text.trim().to_owned())),
        Some(("regex", text)) => Pattern::regexp(text.trim()),
        Some((other, _)) => Err(format!("unknown kind of match {other}")),
    };
    match what {
        "ordered" => eval.ordered = true,
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        "fail" => eval.fail.push(pattern()?),
        "warn" => eval.warn.push(pattern()?),
        "info" => eval.info.push(pattern()?),
        "string" => match parse_expr(rest) {
            Ok(Expr::String(string)) => eval.string = Some(string.value),
            _ => return Err(format!("no string: {rest}")),
        },
        "range" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let &["vector", "from", start, "to", end, "step", step] = words.as_slice() else {
                return Err(format!("no range vector: {line}"));
            };
            eval.range_vector = true;
            eval.start_ms = millis(start)?;
            eval.end_ms = millis(end)?;
            eval.step_ms = millis(step)?;
        }
        _ => return Err(format!("unknown expectation {what}")),
    }
    Ok(())
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// A number that is all there is, as Go reads it.
fn number(text: &str) -> Option<f64> {
    match parse_expr(text).ok()? {
        Expr::Number(number) if !number.is_duration => Some(number.value),
        _ => None,
    }
}

/// A duration such as `1m`, in milliseconds.
fn millis(text: &str) -> Result<i64, String> {
    match parse_expr(text.trim()) {
        Ok(Expr::Number(number)) => Ok((number.value * 1000.0).round() as i64),
        _ => Err(format!("no duration: {text}")),
    }
}
