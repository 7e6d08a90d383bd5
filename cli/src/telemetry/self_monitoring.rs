//! Isobar's own metrics as series in its own database.

use isobar_ingest::local::LocalSample;
use isobar_model::{Labels, LabelsBuilder, Sample, Tenant};
use isobar_store::metadata::{Metadata, MetadataStore};

/// The tenant that Isobar's own metrics belong to.
pub(crate) const TENANT: &str = "isobar";
/// How often they are stored, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 15_000;

/// Turns `/metrics` in the older text format into samples at `now_ms`, labelled as a Prometheus
/// that scrapes `instance` with job `isobar` would label them, and `up` beside them.
pub(crate) fn samples(classic: &str, instance: &str, now_ms: i64) -> Vec<LocalSample> {
    let mut samples: Vec<LocalSample> = classic
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(parse_line)
        .map(|(labels, value)| sample(labels, value, instance, now_ms))
        .collect();
    samples.push(sample(
        Labels::from_pairs([("__name__", "up")]),
        1.0,
        instance,
        now_ms,
    ));
    samples
}

/// Passes the help and type of each own metric on to `metadata`.
pub(crate) fn describe(classic: &str, tenant: &Tenant, metadata: &MetadataStore) {
    let mut help = ("", "");
    for line in classic.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let text = if help.0 == name { help.1 } else { "" };
            let description = Metadata {
                kind: kind.to_owned(),
                help: text.to_owned(),
                unit: String::new(),
            };
            // A full store is reported where senders' metadata do not fit, a log that cannot be
            // written where samples are stored.
            let _kept = metadata.insert(tenant, name, description);
        }
    }
}

fn sample(labels: Labels, value: f64, instance: &str, now_ms: i64) -> LocalSample {
    let mut builder = LabelsBuilder::new(&labels);
    builder.set("job", "isobar").set("instance", instance);
    LocalSample {
        labels: builder.build(),
        sample: Sample {
            timestamp_ms: now_ms,
            value,
        },
    }
}

/// Reads `name{label="value",…} number`, as the own encoder writes it.
fn parse_line(line: &str) -> Option<(Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let mut builder = LabelsBuilder::default();
    match series.split_once('{') {
        None => {
            builder.set("__name__", series);
        }
        Some((name, pairs)) => {
            builder.set("__name__", name);
            let mut left = pairs.strip_suffix('}')?;
            while !left.is_empty() {
                let (label, rest) = left.split_once("=\"")?;
                let (value, rest) = read_quoted(rest)?;
                builder.set(label, &value);
                left = rest.strip_prefix(',').unwrap_or(rest);
            }
        }
    }
    Some((builder.build(), value.parse().ok()?))
}

/// Reads up to the closing quote and undoes the escapes; gives the value and what follows.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_own_format() {
        let text = "# TYPE a counter\na_total{x=\"1\",y=\"say \\\"}\\\", \\n\"} 5\nb 2.5\n";
        let got: Vec<String> = samples(text, "here:1", 7)
            .iter()
            .map(|s| format!("{} {}@{}", s.labels, s.sample.value, s.sample.timestamp_ms))
            .collect();
        assert_eq!(
            got,
            [
                r#"{__name__="a_total", instance="here:1", job="isobar", x="1", y="say \"}\", \n"} 5@7"#,
                r#"{__name__="b", instance="here:1", job="isobar"} 2.5@7"#,
                r#"{__name__="up", instance="here:1", job="isobar"} 1@7"#,
            ]
        );
    }
}
