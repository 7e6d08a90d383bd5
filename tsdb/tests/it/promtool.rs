//! Blocks that promtool makes are read, and promtool reads the blocks that are written here.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use isobar_model::Labels;
use isobar_tsdb::block::BlockReader;
use ulid::Ulid;

use crate::data::{Data, read_block, write_block};

const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 1_700_000_000_000;

/// Runs promtool; nothing when it is not installed, unless it has to be.
pub(crate) fn promtool(args: &[&str]) -> Option<String> {
    let output = match Command::new("promtool").args(args).output() {
        Ok(output) => output,
        Err(e) if std::env::var_os("ISOBAR_REQUIRE_PEERS").is_none() => {
            println!("skipped: promtool not found ({e})");
            return None;
        }
        Err(e) => panic!("promtool is required: {e}"),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "promtool {args:?}: {text}\n{errors}"
    );
    Some(text)
}

/// Six hours of all kinds of values, in series with all kinds of labels.
fn data() -> Data {
    let values = |i: i64, at: i64| match i % 5 {
        0 => at as f64,
        1 => (at as f64 / 7.0).sin() * 1e9,
        2 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324][at as usize % 5],
        3 => f64::MAX / (at + 1) as f64,
        _ => 42.0,
    };
    let mut data = Data::new();
    for i in 0..40 {
        let labels = Labels::from_pairs([
            ("__name__", if i % 2 == 0 { "even" } else { "odd" }),
            ("number", i.to_string().as_str()),
            (
                "text",
                ["plain", "é ü 😀", "quo\"te", "back\\slash", "line\nfeed"][i as usize % 5],
            ),
        ]);
        let samples = (0..360)
            .filter(|at| i != 7 || at % 50 < 20)
            .map(|at| (START_MS + at * MINUTE_MS + i, values(i, at).to_bits()));
        data.insert(labels, samples.collect());
    }
    data
}

/// All samples of a data directory, as promtool sees them.
fn dump(dir: &Path) -> String {
    // It takes blocks without a log for no data directory.
    fs::create_dir(dir.join("wal")).unwrap();
    promtool(&["tsdb", "dump", path_text(dir)]).unwrap()
}

/// What `promtool tsdb dump` prints, as data.
fn parse_dump(dump: &str) -> Data {
    let mut data = Data::new();
    for line in dump.lines() {
        let (rest, timestamp_ms) = line.rsplit_once(' ').unwrap();
        let (labels, value) = rest.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let sample = (timestamp_ms.parse().unwrap(), value.to_bits());
        data.entry(parse_labels(labels)).or_default().push(sample);
    }
    data
}

/// Undoes the printing of labels: `{name="value", …}` with Go's quotes.
fn parse_labels(text: &str) -> Labels {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches('{');
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (end, '"') => break end,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        pairs.push((name.to_owned(), value));
        rest = quoted[end + 1..].trim_start_matches([',', ' ']);
    }
    Labels::from_pairs(pairs)
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn blocks_of_promtool_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    let mut text = String::new();
    for (labels, samples) in data() {
        for (timestamp_ms, bits) in samples {
            let quoted = labels.without_metric_name().to_string();
            let quoted = quoted.replace("\", ", "\",");
            let value = f64::from_bits(bits);
            let value = if value.is_infinite() {
                format!("{}Inf", if value > 0.0 { '+' } else { '-' })
            } else {
                format!("{value:e}")
            };
            let seconds = timestamp_ms as f64 / 1000.0;
            writeln!(
                text,
                "{}{quoted} {value} {seconds:.3}",
                labels.metric_name()
            )
            .unwrap();
        }
    }
    text.push_str("# EOF\n");
    fs::write(&input, text).unwrap();
    let blocks = dir.path().join("blocks");
    let args = [
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        path_text(&input),
        path_text(&blocks),
    ];
    if promtool(&args).is_none() {
        return;
    }

    let mut dirs: Vec<_> = fs::read_dir(&blocks)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    dirs.sort();
    let mut read = Data::new();
    let mut stats = 0;
    for dir in dirs {
        let block = BlockReader::open(dir).unwrap();
        stats += block.meta().stats.num_samples;
        read_block(&block, &mut read);
    }
    read.values_mut()
        .for_each(|samples| samples.sort_unstable());
    // A NaN that was read from text is the one of Prometheus.
    let mut expected = data();
    for sample in expected
        .values_mut()
        .flatten()
        .filter(|it| f64::from_bits(it.1).is_nan())
    {
        sample.1 = isobar_model::sample::NORMAL_NAN_BITS;
    }
    assert_eq!(read.values().map(Vec::len).sum::<usize>() as u64, stats);
    assert!(read == expected, "samples differ");

    expected.values_mut().flatten().for_each(any_nan);
    let mut dumped = parse_dump(&dump(&blocks));
    dumped.values_mut().flatten().for_each(any_nan);
    assert!(dumped == expected, "samples differ from the dump");
}

/// A dump shows all NaNs alike.
fn any_nan(sample: &mut (i64, u64)) {
    if f64::from_bits(sample.1).is_nan() {
        sample.1 = f64::NAN.to_bits();
    }
}

#[test]
fn promtool_reads_our_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = data();
    let end_ms = START_MS + 180 * MINUTE_MS;
    let part = |late: bool| -> Data {
        let samples = |samples: &Vec<(i64, u64)>| {
            samples
                .iter()
                .filter(|it| (it.0 >= end_ms) == late)
                .copied()
                .collect()
        };
        data.iter()
            .map(|(labels, all)| (labels.clone(), samples(all)))
            .collect()
    };
    let early = write_block(dir.path(), Ulid::from_parts(1, 1), &part(false)).unwrap();
    let late = write_block(dir.path(), Ulid::from_parts(2, 2), &part(true)).unwrap();
    let Some(list) = promtool(&["tsdb", "list", path_text(dir.path())]) else {
        return;
    };
    for block in [&early, &late] {
        let meta = block.meta();
        let line = list
            .lines()
            .find(|line| line.starts_with(&meta.ulid.to_string()))
            .unwrap();
        let columns: Vec<_> = line.split_whitespace().collect();
        assert_eq!(columns[1], meta.min_ms.to_string());
        assert!(
            columns.contains(&meta.stats.num_samples.to_string().as_str()),
            "{line}"
        );
        assert!(
            columns.contains(&meta.stats.num_series.to_string().as_str()),
            "{line}"
        );

        let ulid = meta.ulid.to_string();
        let analysis = promtool(&["tsdb", "analyze", path_text(dir.path()), &ulid]).unwrap();
        assert!(analysis.contains("Series: 40\n"), "{analysis}");
        assert!(analysis.contains("Label names: 3\n"), "{analysis}");
    }
    let mut dumped = parse_dump(&dump(dir.path()));
    dumped.values_mut().flatten().for_each(any_nan);
    data.values_mut().flatten().for_each(any_nan);
    assert!(dumped == data, "samples differ from the dump");
}
