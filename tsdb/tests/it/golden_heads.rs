//! What past versions of Prometheus left of their heads is taken over as they answered from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::merge::read_samples;
use serde_json::Value;

use crate::support::{config, copy_dir};

/// By name and series, time and value of each float.
type Floats = BTreeMap<(String, String), Vec<(i64, f64)>>;

fn check(name: &str, histogram_series: usize) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&golden, dir.path());
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    let events = events.lock().unwrap().clone();
    assert_eq!(events.len(), 1, "{events:?}");
    let mut floats = Floats::new();
    let mut histograms = 0;
    for series in db.select(None, &[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        let mut columns = Columns::default();
        read_samples(&series.chunks, TimeRange::ALL, &mut columns).unwrap();
        if !columns.histograms.is_empty() {
            histograms += 1;
            assert_eq!((columns.histograms.len(), columns.len()), (150, 0));
            continue;
        }
        let label = |name: &str| series.labels.get(name).to_owned();
        let samples = columns.timestamps.into_iter().zip(columns.values);
        floats.insert((label("__name__"), label("series")), samples.collect());
    }
    assert_eq!(histograms, histogram_series);
    assert!(floats == answer(&golden), "other floats");
    let found = db.exemplars(None, &[vec![]], TimeRange::ALL);
    let exemplars: usize = found.series.iter().map(|(_, all)| all.len()).sum();
    assert_eq!((found.series.len(), exemplars), (3, 45));
}

fn answer(golden: &Path) -> Floats {
    let json = fs::read(golden.join("answer.json")).unwrap();
    let answer: Value = serde_json::from_slice(&json).unwrap();
    let series = answer["data"]["result"].as_array().unwrap().iter();
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    series
        .map(|one| {
            let labels = &one["metric"];
            let samples = one["values"].as_array().unwrap().iter().map(|sample| {
                let ms = (sample[0].as_f64().unwrap() * 1000.0).round() as i64;
                (ms, text(&sample[1]).parse().unwrap())
            });
            let name = (text(&labels["__name__"]), text(&labels["series"]));
            (name, samples.collect())
        })
        .collect()
}

#[test]
fn heads_of_past_versions_are_taken_over() {
    check("head-prometheus-2.42", 2);
    check("head-prometheus-3.14", 3);
}
