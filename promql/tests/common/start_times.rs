//! Start times as scripts write them in front of a series, relative to its samples: `x@st -1m -1mx3`.

use isobar_model::Labels;
use isobar_promql::parse::series::parse_series;
use isobar_promql::parse::{Expr, parse_expr};

/// The start times of a series' samples: milliseconds from the sample, `None` where it has none.
pub(crate) type StartTimes = Vec<Option<i64>>;

/// What a line says, if it is one of start times.
pub(crate) fn read(line: &str) -> Option<Result<(Labels, StartTimes), String>> {
    let (series, items) = line.trim().split_once(char::is_whitespace)?;
    let series = series.strip_suffix("@st")?;
    let read = || {
        let labels = parse_series(&format!("{series} _"))
            .map_err(|e| e.to_string())?
            .labels;
        let mut all = Vec::new();
        for text in items.split_whitespace() {
            all.extend(item(text).map_err(|e| format!("{text}: {e}"))?);
        }
        Ok((labels, all))
    };
    Some(read())
}

/// `_`, `_x3`, `-1m`, `-1mx3`, `-1m+2sx3`.
fn item(text: &str) -> Result<StartTimes, String> {
    let (series, times) = match text.split_once('x') {
        Some((series, times)) => (series, times.parse::<usize>().map_err(|e| e.to_string())?),
        None => (text, 0),
    };
    if series == "_" {
        return Ok(vec![None; times.max(1)]);
    }
    // A sign that is not the first begins the step.
    let (base, step) = match series.get(1..).and_then(|rest| rest.find(['+', '-'])) {
        Some(at) => series.split_at(at + 1),
        None => (series, "0"),
    };
    let (base, step) = (millis(base)?, millis(step)?);
    Ok((0..=times as i64).map(|i| Some(base + i * step)).collect())
}

fn millis(text: &str) -> Result<i64, String> {
    let (sign, duration) = match text.strip_prefix('-') {
        Some(duration) => (-1.0, duration),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match parse_expr(duration) {
        Ok(Expr::Number(number)) => Ok((sign * number.value * 1000.0).round() as i64),
        _ => Err(format!("no duration: {text}")),
    }
}
