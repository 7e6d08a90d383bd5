//! Answers of Prometheus' HTTP API, and the messages that say the same.

use std::collections::BTreeMap;

use isobar_model::Labels;
use isobar_proto::convert::wire_labels;
use isobar_proto::thanos::{
    ActiveTarget, Alert, AlertInstance, AlertState, DroppedTarget, Exemplar, ExemplarData,
    HeadStatistics, MetricMetadataEntry, PartialResponseStrategy, RecordingRule, Rule, RuleGroup,
    Statistic, TargetDiscovery, TargetHealth, TsdbStatisticsEntry, ZLabelSet, rule,
};
use prost_types::Timestamp;
use serde::{Deserialize, Deserializer};

type LabelMap = BTreeMap<String, String>;

/// `labels` with external labels, which win.
fn with(labels: LabelMap, external: &Labels) -> Option<ZLabelSet> {
    let own = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    Some(wire_labels(&Labels::from_pairs(own.chain(external.iter()))))
}

/// `/api/v1/rules`.
#[derive(Deserialize)]
pub(super) struct RuleGroups {
    #[serde(default)]
    pub(super) groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct Group {
    name: String,
    file: String,
    rules: Vec<AnyRule>,
    interval: f64,
    limit: i64,
    evaluation_time: f64,
    #[serde(deserialize_with = "time")]
    last_evaluation: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AnyRule {
    r#type: String,
    state: String,
    name: String,
    query: String,
    duration: f64,
    keep_firing_for: f64,
    labels: LabelMap,
    annotations: LabelMap,
    alerts: Vec<Firing>,
    health: String,
    last_error: String,
    evaluation_time: f64,
    #[serde(deserialize_with = "time")]
    last_evaluation: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Firing {
    labels: LabelMap,
    annotations: LabelMap,
    state: String,
    #[serde(deserialize_with = "time")]
    active_at: Option<Timestamp>,
    value: String,
}

impl Group {
    pub(super) fn wire(self, external: &Labels) -> RuleGroup {
        RuleGroup {
            name: self.name,
            file: self.file,
            rules: self.rules.into_iter().map(|it| it.wire(external)).collect(),
            interval: self.interval,
            evaluation_duration_seconds: self.evaluation_time,
            last_evaluation: self.last_evaluation,
            // Prometheus knows no partial answers.
            partial_response_strategy: PartialResponseStrategy::Abort.into(),
            limit: self.limit,
        }
    }
}

impl AnyRule {
    fn wire(self, external: &Labels) -> Rule {
        let result = if self.r#type == "recording" {
            rule::Result::Recording(RecordingRule {
                name: self.name,
                query: self.query,
                labels: with(self.labels, external),
                health: self.health,
                last_error: self.last_error,
                evaluation_duration_seconds: self.evaluation_time,
                last_evaluation: self.last_evaluation,
            })
        } else {
            rule::Result::Alert(Alert {
                state: state(&self.state),
                name: self.name,
                query: self.query,
                duration_seconds: self.duration,
                labels: with(self.labels, external),
                annotations: with(self.annotations, &Labels::empty()),
                alerts: self.alerts.into_iter().map(Firing::wire).collect(),
                health: self.health,
                last_error: self.last_error,
                evaluation_duration_seconds: self.evaluation_time,
                last_evaluation: self.last_evaluation,
                keep_firing_for_seconds: self.keep_firing_for,
            })
        };
        Rule {
            result: Some(result),
        }
    }
}

impl Firing {
    fn wire(self) -> AlertInstance {
        AlertInstance {
            labels: with(self.labels, &Labels::empty()),
            annotations: with(self.annotations, &Labels::empty()),
            state: state(&self.state),
            active_at: self.active_at,
            value: self.value,
            partial_response_strategy: PartialResponseStrategy::Warn.into(),
        }
    }
}

fn state(text: &str) -> i32 {
    let state = match text {
        "inactive" => AlertState::Inactive,
        "pending" => AlertState::Pending,
        "firing" => AlertState::Firing,
        _ => AlertState::Unknown,
    };
    state.into()
}

/// `/api/v1/targets`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TargetsPage {
    #[serde(deserialize_with = "or_none")]
    active_targets: Vec<Active>,
    #[serde(deserialize_with = "or_none")]
    dropped_targets: Vec<Dropped>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Active {
    discovered_labels: LabelMap,
    labels: LabelMap,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    #[serde(deserialize_with = "time")]
    last_scrape: Option<Timestamp>,
    last_scrape_duration: f64,
    health: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Dropped {
    discovered_labels: LabelMap,
}

impl TargetsPage {
    pub(super) fn wire(self, external: &Labels) -> TargetDiscovery {
        let active = |it: Active| ActiveTarget {
            discovered_labels: with(it.discovered_labels, external),
            labels: with(it.labels, external),
            scrape_pool: it.scrape_pool,
            scrape_url: it.scrape_url,
            global_url: it.global_url,
            last_error: it.last_error,
            last_scrape: it.last_scrape,
            last_scrape_duration: it.last_scrape_duration,
            health: health(&it.health),
        };
        let dropped = |it: Dropped| DroppedTarget {
            discovered_labels: with(it.discovered_labels, external),
        };
        TargetDiscovery {
            active_targets: self.active_targets.into_iter().map(active).collect(),
            dropped_targets: self.dropped_targets.into_iter().map(dropped).collect(),
        }
    }
}

fn health(text: &str) -> i32 {
    let health = match text {
        "up" => TargetHealth::Up,
        "down" => TargetHealth::Down,
        _ => TargetHealth::Unknown,
    };
    health.into()
}

/// What `/api/v1/metadata` says of a metric.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Meta {
    r#type: String,
    help: String,
    unit: String,
}

pub(super) fn entry(metas: Vec<Meta>) -> MetricMetadataEntry {
    let meta = |it: Meta| isobar_proto::thanos::Meta {
        r#type: it.r#type,
        help: it.help,
        unit: it.unit,
    };
    MetricMetadataEntry {
        metas: metas.into_iter().map(meta).collect(),
    }
}

/// What `/api/v1/query_exemplars` says of a series.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ExemplarsOf {
    series_labels: LabelMap,
    exemplars: Vec<OneExemplar>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OneExemplar {
    labels: LabelMap,
    value: String,
    /// Unix seconds.
    timestamp: f64,
}

impl ExemplarsOf {
    /// The message, or what is wrong with a value.
    pub(super) fn wire(self, external: &Labels) -> Result<ExemplarData, String> {
        let one = |it: OneExemplar| {
            let value = it.value.parse::<f64>();
            Ok(Exemplar {
                labels: with(it.labels, &Labels::empty()),
                value: value
                    .map_err(|_| format!("{:?} is not the value of an exemplar", it.value))?,
                ts: (it.timestamp * 1000.0).round() as i64,
            })
        };
        let exemplars: Result<Vec<_>, String> = self.exemplars.into_iter().map(one).collect();
        Ok(ExemplarData {
            series_labels: with(self.series_labels, external),
            exemplars: exemplars?,
        })
    }
}

/// `/api/v1/status/tsdb`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HeadStatus {
    head_stats: Head,
    #[serde(deserialize_with = "or_none")]
    series_count_by_metric_name: Vec<Count>,
    #[serde(deserialize_with = "or_none")]
    label_value_count_by_label_name: Vec<Count>,
    #[serde(deserialize_with = "or_none")]
    memory_in_bytes_by_label_name: Vec<Count>,
    #[serde(deserialize_with = "or_none")]
    series_count_by_label_value_pair: Vec<Count>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    num_series: u64,
    num_label_pairs: i64,
    chunk_count: i64,
    min_time: i64,
    max_time: i64,
}

#[derive(Deserialize)]
struct Count {
    name: String,
    value: u64,
}

impl HeadStatus {
    /// The message, with at most `most` entries in each list.
    pub(super) fn wire(self, most: usize) -> TsdbStatisticsEntry {
        let counts = |all: Vec<Count>| -> Vec<Statistic> {
            let all = all.into_iter().take(most);
            all.map(|it| Statistic {
                name: it.name,
                value: it.value,
            })
            .collect()
        };
        TsdbStatisticsEntry {
            head_statistics: Some(HeadStatistics {
                num_series: self.head_stats.num_series,
                num_label_pairs: self.head_stats.num_label_pairs,
                chunk_count: self.head_stats.chunk_count,
                min_time: self.head_stats.min_time,
                max_time: self.head_stats.max_time,
            }),
            series_count_by_metric_name: counts(self.series_count_by_metric_name),
            label_value_count_by_label_name: counts(self.label_value_count_by_label_name),
            memory_in_bytes_by_label_name: counts(self.memory_in_bytes_by_label_name),
            series_count_by_label_value_pair: counts(self.series_count_by_label_value_pair),
        }
    }
}

/// Go writes `null` for a list that is not there.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    use serde::de::Error;
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    let time = text.parse::<Timestamp>();
    time.map(Some)
        .map_err(|why| D::Error::custom(format!("{text:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external() -> Labels {
        Labels::from_pairs([("cluster", "us")])
    }

    fn shown(set: &Option<ZLabelSet>) -> String {
        let labels = set
            .as_ref()
            .map(|it| isobar_proto::convert::labels(&it.labels));
        labels.map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn rules() {
        let json = r#"{"groups":[{"name":"g","file":"f","interval":5,"limit":0,
            "evaluationTime":0.5,"lastEvaluation":"2026-11-22T15:55:20.303849449Z","rules":[
            {"type":"recording","name":"a:b","query":"up","health":"ok","evaluationTime":1,
             "lastEvaluation":"0001-01-01T00:00:00Z"},
            {"type":"alerting","state":"firing","name":"A","query":"vector(1)","duration":1,
             "labels":{"severity":"none","cluster":"x"},"annotations":{"s":"t"},"health":"ok",
             "alerts":[{"labels":{"alertname":"A"},"annotations":{},"state":"pending",
             "activeAt":"2026-11-22T15:53:40+01:00","value":"1e+00"}]}]}]}"#;
        let answer: RuleGroups = serde_json::from_str(json).expect("rules");
        let [group] = <[Group; 1]>::try_from(answer.groups).ok().expect("one");
        let group = group.wire(&external());
        assert_eq!(group.partial_response_strategy, 1);
        assert_eq!(group.last_evaluation.expect("a time").nanos, 303_849_449);
        let Some(rule::Result::Recording(recording)) = &group.rules[0].result else {
            panic!("a recording rule")
        };
        assert_eq!(shown(&recording.labels), "{cluster=\"us\"}");
        let Some(rule::Result::Alert(alert)) = &group.rules[1].result else {
            panic!("an alert")
        };
        assert_eq!(shown(&alert.labels), "{cluster=\"us\", severity=\"none\"}");
        assert_eq!(alert.state(), AlertState::Firing);
        assert_eq!(shown(&alert.alerts[0].labels), "{alertname=\"A\"}");
        assert_eq!(alert.alerts[0].state(), AlertState::Pending);
    }

    #[test]
    fn lists_that_are_null() {
        let page: TargetsPage =
            serde_json::from_str(r#"{"activeTargets":null,"droppedTargets":[]}"#).expect("targets");
        let page = page.wire(&external());
        assert!(page.active_targets.is_empty() && page.dropped_targets.is_empty());
    }

    #[test]
    fn exemplars() {
        let json = r#"{"seriesLabels":{"a":"b"},"exemplars":[
            {"labels":{"trace":"1"},"value":"6","timestamp":1600096945.479}]}"#;
        let of: ExemplarsOf = serde_json::from_str(json).expect("exemplars");
        let data = of.wire(&external()).expect("good values");
        assert_eq!(shown(&data.series_labels), "{a=\"b\", cluster=\"us\"}");
        assert_eq!(data.exemplars[0].ts, 1_600_096_945_479);
        assert_eq!(data.exemplars[0].value, 6.0);
    }

    #[test]
    fn statistics_are_cut() {
        let json = r#"{"headStats":{"numSeries":3,"numLabelPairs":2,"chunkCount":4,"minTime":1,"maxTime":9},
            "seriesCountByMetricName":[{"name":"a","value":2},{"name":"b","value":1}]}"#;
        let head: HeadStatus = serde_json::from_str(json).expect("statistics");
        let entry = head.wire(1);
        assert_eq!(entry.series_count_by_metric_name.len(), 1);
        assert_eq!(entry.head_statistics.expect("given").num_series, 3);
    }
}
