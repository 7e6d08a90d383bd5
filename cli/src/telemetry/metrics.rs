//! `/metrics`: the registry in OpenMetrics, or in the older text format when that is asked for.

use prometheus_client::registry::Registry;

/// The OpenMetrics media type.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older text format.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The registry's content and media type in the format that the `Accept` header prefers.
///
/// # Errors
/// When a metric cannot be formatted, which is a mistake in the metric.
pub(crate) fn render(
    registry: &Registry,
    accept: &str,
) -> Result<(&'static str, String), std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    if accept.contains("application/openmetrics-text") {
        Ok((OPENMETRICS, text))
    } else {
        Ok((CLASSIC, classic(&text)))
    }
}

/// Turns OpenMetrics text into the older format: a counter's family is named like its samples,
/// types that the older format does not know are `gauge`, units, exemplars and the end mark go.
pub(crate) fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else {
                continue;
            };
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "gauge" | "histogram" | "summary" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                push_line(&mut out, &["# HELP ", name, suffix, " ", text]);
            }
            push_line(&mut out, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push_line(&mut out, &[without_exemplar(line)]);
        }
    }
    out
}

fn push_line(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

/// An exemplar follows the value behind ` # `; label values are quoted, so it is looked for only
/// behind the closing brace.
fn without_exemplar(line: &str) -> &str {
    let from = line.rfind("} ").unwrap_or(0);
    match line[from..].find(" # ") {
        Some(at) => &line[..from + at],
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_format() {
        let openmetrics = "\
# HELP a_b Requests.
# TYPE a_b counter
# UNIT a_b b
a_b_total{x=\"} # \"} 5
# HELP build Which.
# TYPE build info
build_info{v=\"1\"} 1
# HELP g A gauge.
# TYPE g gauge
g 2.5
# EOF
";
        assert_eq!(
            classic(openmetrics),
            "\
# HELP a_b_total Requests.
# TYPE a_b_total counter
a_b_total{x=\"} # \"} 5
# HELP build_info Which.
# TYPE build_info gauge
build_info{v=\"1\"} 1
# HELP g A gauge.
# TYPE g gauge
g 2.5
"
        );
    }
}
