//! A Prometheus and what is known of it: its external labels, where its data begin, which labels its
//! series have.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use isobar_model::Labels;
use parking_lot::RwLock;
use serde::Deserialize;

use super::client::{Client, ClientError};

/// The time of its first sample, as Prometheus tells it.
const LOWEST: &str = "prometheus_tsdb_lowest_timestamp_seconds";

/// A Prometheus and what is known of it.
pub struct Peer {
    client: Client,
    known: RwLock<Arc<Known>>,
    /// Data before this are not shown, unix milliseconds.
    min_time: Box<dyn Fn() -> i64 + Send + Sync>,
}

/// What is known of a Prometheus.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its external labels.
    pub labels: Labels,
    /// The time of its first sample, unix milliseconds; `i64::MIN` as long as that is not known.
    pub lowest_ms: i64,
    /// Its version as far as it can be told: major and minor.
    pub version: Option<(u32, u32)>,
    /// All label names of its series; none as long as they are not known.
    pub names: Option<HashSet<String>>,
}

impl Known {
    /// Whether it answers label requests that have matchers: since 2.24.
    pub fn matches_in_label_calls(&self) -> bool {
        self.version.is_some_and(|version| version >= (2, 24))
    }
}

/// The flags of a Prometheus that matter to who stands beside it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Flags {
    /// How long a block is at least.
    #[serde(rename = "storage.tsdb.min-block-duration", default)]
    pub block_duration_min: String,
    /// How long a block is at most.
    #[serde(rename = "storage.tsdb.max-block-duration", default)]
    pub block_duration_max: String,
    /// The file that says which blocks may be compacted.
    #[serde(rename = "storage.tsdb.delay-compact-file.path", default)]
    pub delay_compact_file: String,
    /// Whether it can be reloaded over HTTP: `true` or `false`.
    #[serde(rename = "web.enable-lifecycle", default)]
    pub lifecycle: String,
}

#[derive(Deserialize)]
struct ConfigAnswer {
    yaml: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigYaml {
    global: Option<GlobalYaml>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GlobalYaml {
    external_labels: Option<BTreeMap<String, serde_yaml_ng::Value>>,
}

#[derive(Deserialize)]
struct BuildInfo {
    version: String,
}

impl Peer {
    /// The Prometheus that `client` asks. Data before `min_time()` are not shown.
    pub fn new(client: Client, min_time: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let known = Known {
            lowest_ms: i64::MIN,
            ..Known::default()
        };
        Peer {
            client,
            known: RwLock::new(Arc::new(known)),
            min_time: Box::new(min_time),
        }
    }

    /// Asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What is known of it.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read())
    }

    /// Where what is shown begins, unix milliseconds.
    pub fn min_ms(&self) -> i64 {
        self.known.read().lowest_ms.max((self.min_time)())
    }

    /// Asks whether it is ready.
    ///
    /// # Errors
    /// When it is not, or does not answer.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.client.get("/-/ready", &[]).await.map(drop)
    }

    /// Its flags; none when it has no such page, as before version 2.2.
    ///
    /// # Errors
    /// When it does not answer, or not with flags.
    pub async fn flags(&self) -> Result<Option<Flags>, ClientError> {
        match self.client.api("/api/v1/status/flags", &[]).await {
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Asks for its version.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn refresh_version(&self) -> Result<(), ClientError> {
        let version = match self.client.api("/api/v1/status/buildinfo", &[]).await {
            // Versions before 2.14 have no such page.
            Err(ClientError::Refused {
                status: 404 | 405, ..
            }) => None,
            Err(error) => return Err(error),
            Ok(BuildInfo { version }) => parse_version(&version),
        };
        self.change(|known| known.version = version);
        Ok(())
    }

    /// Asks for all that may change: where its data begin, external labels and label names. Certificates
    /// that have changed are taken, too.
    ///
    /// # Errors
    /// When it does not answer, or not as expected; what was known stays.
    pub async fn refresh(&self) -> Result<(), ClientError> {
        self.client.refresh()?;
        let text = self.client.get("/metrics", &[]).await?;
        let lowest_ms = lowest_ms(&text);
        let config: ConfigAnswer = self.client.api("/api/v1/status/config", &[]).await?;
        let labels = external_labels(&config.yaml).map_err(|why| ClientError::Unexpected {
            what: "the configuration of Prometheus".into(),
            why,
        })?;
        let names: Vec<String> = self.client.api("/api/v1/labels", &[]).await?;
        self.change(|known| {
            known.lowest_ms = lowest_ms;
            known.labels = labels;
            known.names = Some(names.into_iter().collect());
        });
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut held = self.known.write();
        let mut known = Known::clone(&held);
        change(&mut known);
        *held = Arc::new(known);
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next()?.parse().ok()?))
}

/// Where data begin, by the metrics of a Prometheus. It says the end of all times while there is no
/// block; then they may begin anywhere.
fn lowest_ms(metrics: &[u8]) -> i64 {
    let lines = metrics.split(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let value = lines.find_map(|line| {
        let rest = line.strip_prefix(LOWEST)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.split_once('}')?.1,
            None => rest,
        };
        let value = rest.strip_prefix(' ')?.split_whitespace().next()?;
        value.parse::<f64>().ok()
    });
    let ms = value.unwrap_or(f64::INFINITY) * 1000.0;
    if ms >= i64::MAX as f64 || ms.is_nan() {
        return i64::MIN;
    }
    ms as i64
}

/// `global.external_labels` of a configuration.
fn external_labels(yaml: &str) -> Result<Labels, String> {
    // What else stands there is Prometheus' own business.
    let config: ConfigYaml = serde_yaml_ng::from_str(yaml).map_err(|why| why.to_string())?;
    let labels = config.global.unwrap_or_default().external_labels;
    let mut pairs = Vec::new();
    for (name, value) in labels.unwrap_or_default() {
        use serde_yaml_ng::Value;
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::Null => continue,
            _ => return Err(format!("external label {name} is not a text")),
        };
        pairs.push((name, text));
    }
    Ok(Labels::from_pairs(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_of_a_configuration() {
        let check = |yaml: &str, expected: &str| {
            let labels = external_labels(yaml).expect(yaml);
            assert_eq!(labels.to_string(), expected, "{yaml}");
        };
        check("", "{}");
        check("global:\n", "{}");
        check("global:\n  scrape_interval: 1m\n", "{}");
        check(
            "global:\n  external_labels:\n    replica: a\n    cluster: \"1\"\n    n: 7\nscrape_configs: []\n",
            "{cluster=\"1\", n=\"7\", replica=\"a\"}",
        );
        assert!(external_labels("global: [").is_err());
        assert!(external_labels("global: {external_labels: {a: [b]}}").is_err());
    }

    #[test]
    fn where_data_begin() {
        let check = |line: &str, expected: i64| {
            let text = format!("# TYPE {LOWEST} gauge\n{line}\nup 1\n");
            assert_eq!(lowest_ms(text.as_bytes()), expected, "{line}");
        };
        check(
            "prometheus_tsdb_lowest_timestamp_seconds 1.700006402e+09",
            1_700_006_402_000,
        );
        check("prometheus_tsdb_lowest_timestamp_seconds{a=\"b\"} 5", 5000);
        check(
            "prometheus_tsdb_lowest_timestamp_seconds 9.223372036854776e+15",
            i64::MIN,
        );
        check("prometheus_tsdb_lowest_timestamp_seconds NaN", i64::MIN);
        check("", i64::MIN);
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("2.42.0+ds"), Some((2, 42)));
        assert_eq!(parse_version("v3.14.0-rc.1"), Some((3, 14)));
        assert_eq!(parse_version(""), None);
    }
}
