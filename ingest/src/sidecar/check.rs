//! Whether Prometheus runs with flags that go with uploading its blocks.
//! Source: `validatePrometheus` in `cmd/thanos/sidecar.go` of Thanos, whose messages are kept.

use std::path::{Component, Path, PathBuf};

use isobar_store::prometheus::Flags;

use super::Config;

/// Remarks on the flags.
///
/// # Errors
/// Why they do not go with uploading.
pub fn flags(config: &Config, flags: &Flags) -> Result<Vec<String>, String> {
    let mut remarks = Vec::new();
    let delayed = &flags.delay_compact_file;
    if !delayed.is_empty() {
        let ours = config.tsdb_path.join(&config.shipper_meta_file);
        if clean(Path::new(delayed)) != clean(&ours) {
            return Err(format!(
                "found that Prometheus and Thanos use different paths for tracking block uploads. \
                 Prometheus uses --storage.tsdb.delay-compact-file.path={delayed} while Thanos will write to {}, \
                 they must both use the same path.",
                ours.display()
            ));
        }
    }
    let (min, max) = (&flags.block_duration_min, &flags.block_duration_max);
    if min != max && delayed.is_empty() {
        if !config.ignore_unequal_block_size {
            return Err(format!(
                "found that TSDB Max time is {max} and Min time is {min}. Compaction needs to be disabled \
                 (storage.tsdb.min-block-duration = storage.tsdb.max-block-duration)"
            ));
        }
        remarks.push(
            "flag to ignore Prometheus min/max block duration flags differing is being used. If the \
             upload of a 2h block fails and a Prometheus compaction happens that block may be missing \
             from your Thanos bucket storage."
                .to_owned(),
        );
    }
    if min != "2h" {
        remarks.push(format!(
            "found that TSDB block time is not 2h but {min}. Only 2h block time is recommended."
        ));
    }
    Ok(remarks)
}

/// A path without `.`, `..` and doubled slashes.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                let inside = matches!(cleaned.components().next_back(), Some(Component::Normal(_)));
                if inside {
                    cleaned.pop();
                } else if !cleaned.has_root() {
                    cleaned.push("..");
                }
            }
            part => cleaned.push(part),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(min: &str, max: &str, delayed: &str, ignore: bool, expected: Result<usize, &str>) {
        let config = Config {
            uploads: true,
            tsdb_path: "/prometheus/./data".into(),
            shipper_meta_file: "thanos.shipper.json".to_owned(),
            ignore_unequal_block_size: ignore,
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let got = flags(
            &config,
            &Flags {
                block_duration_min: min.to_owned(),
                block_duration_max: max.to_owned(),
                delay_compact_file: delayed.to_owned(),
                lifecycle: "true".to_owned(),
            },
        );
        match (got, expected) {
            (Ok(remarks), Ok(count)) => assert_eq!(remarks.len(), count, "{remarks:?}"),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn flags_that_go_with_uploading() {
        check("2h", "2h", "", false, Ok(0));
        check("1h", "1h", "", false, Ok(1));
        check("2h", "36h", "", true, Ok(1));
        let file = "/prometheus//data/x/../thanos.shipper.json";
        check("2h", "36h", file, false, Ok(0));
    }

    #[test]
    fn flags_that_do_not() {
        check(
            "2h",
            "36h",
            "",
            false,
            Err("Max time is 36h and Min time is 2h"),
        );
        check("2h", "2h", "/elsewhere.json", true, Err("different paths"));
    }
}
