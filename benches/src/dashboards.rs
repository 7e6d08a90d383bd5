//! Fifty questions as dashboards ask them, over the data of [`crate::data`]: ten each about nodes,
//! Kubernetes and service levels, ten that touch many series, and ten over all of the time.
//!
//! A panel asks for the last hour or three or for everything, with the step that a browser of some
//! hundred pixels gives. With six hours of data the last hour is in the head, and the rest in blocks.

use crate::client::Load;
use crate::data::{SERIES_PER_POD, namespace, node, pod_name};
use crate::queries::Question;

/// What a panel shows: hours back from the end and seconds between steps.
#[derive(Clone, Copy)]
struct Span(i64, i64);

const HOUR: Span = Span(1, 15);
const THREE_HOURS: Span = Span(3, 30);
const ALL: Span = Span(6, 60);

/// `NODE`, `POD`, `NAMESPACE` stand for one of each.
const GROUPS: [(&str, &[(Span, &str)]); 5] = [
    ("node", NODE),
    ("kubernetes", KUBERNETES),
    ("slo", SLO),
    ("wide", WIDE),
    ("long", LONG),
];

const NODE: &[(Span, &str)] = &[
    (
        HOUR,
        "sum by (cpu) (rate(container_cpu_usage_seconds_total{node=\"NODE\"}[1m]))",
    ),
    (
        HOUR,
        "1 - avg by (node) (rate(container_cpu_usage_seconds_total{node=~\"ip-10-0-1.*\"}[1m])) / 10",
    ),
    (
        HOUR,
        "sum by (node) (container_memory_working_set_bytes{node=~\"ip-10-0-1.*\"})",
    ),
    (HOUR, "container_load_average_10s{node=\"NODE\"}"),
    (THREE_HOURS, "max by (node) (container_load_average_10s)"),
    (
        THREE_HOURS,
        "sum by (node) (go_memstats_heap_alloc_bytes) / 1024 / 1024",
    ),
    (HOUR, "time() - max by (node) (process_start_time_seconds)"),
    (
        THREE_HOURS,
        "topk(5, sum by (node) (rate(container_cpu_usage_seconds_total[5m])))",
    ),
    (
        HOUR,
        "avg_over_time(container_load_average_10s{node=\"NODE\"}[5m])",
    ),
    (
        HOUR,
        "count by (node) (kube_pod_container_info{node=~\"ip-10-0-2.*\"})",
    ),
];

const KUBERNETES: &[(Span, &str)] = &[
    (
        HOUR,
        "sum by (pod) (rate(container_cpu_usage_seconds_total{namespace=\"NAMESPACE\"}[2m]))",
    ),
    (
        HOUR,
        "sum by (pod, container) (container_memory_working_set_bytes{namespace=\"NAMESPACE\",container!=\"app-9\"})",
    ),
    (
        HOUR,
        "sum(rate(container_cpu_usage_seconds_total{namespace=\"NAMESPACE\"}[2m])) / count(kube_pod_container_info{namespace=\"NAMESPACE\"})",
    ),
    (HOUR, "container_memory_working_set_bytes{pod=\"POD\"}"),
    (
        THREE_HOURS,
        "sum by (namespace) (container_memory_working_set_bytes)",
    ),
    (
        THREE_HOURS,
        "count by (namespace) (count by (namespace, pod) (kube_pod_container_info))",
    ),
    (
        HOUR,
        "sum by (namespace) (changes(process_start_time_seconds[15m]))",
    ),
    (
        HOUR,
        "max_over_time(container_memory_working_set_bytes{namespace=\"NAMESPACE\"}[10m])",
    ),
    (
        HOUR,
        "sum by (service) (container_memory_working_set_bytes{namespace=\"NAMESPACE\"} * on (pod, container) group_left () kube_pod_container_info{namespace=\"NAMESPACE\"})",
    ),
    (
        HOUR,
        "sum by (name) (workqueue_depth{namespace=~\"team-0.*\"}) > 0",
    ),
];

const SLO: &[(Span, &str)] = &[
    (
        HOUR,
        "sum(rate(http_requests_total{code=~\"5..\"}[5m])) / sum(rate(http_requests_total[5m]))",
    ),
    (
        HOUR,
        "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        HOUR,
        "histogram_quantile(0.9, sum by (le, app) (rate(http_request_duration_seconds_bucket{namespace=\"NAMESPACE\"}[5m])))",
    ),
    (
        HOUR,
        "sum(rate(http_request_duration_seconds_bucket{le=\"0.25\"}[5m])) / sum(rate(http_request_duration_seconds_count[5m]))",
    ),
    (
        HOUR,
        "sum by (handler) (rate(http_request_duration_seconds_sum[5m])) / sum by (handler) (rate(http_request_duration_seconds_count[5m]))",
    ),
    (
        THREE_HOURS,
        "sum by (code) (rate(http_requests_total{app=\"web-7\"}[5m]))",
    ),
    (
        THREE_HOURS,
        "1 - (sum(increase(http_requests_total{code=~\"5..\"}[1h])) / sum(increase(http_requests_total[1h]))) > 0",
    ),
    (
        HOUR,
        "sum by (app) (rate(http_requests_total{code!~\"5..\"}[5m])) / sum by (app) (rate(http_requests_total[5m]))",
    ),
    (
        THREE_HOURS,
        "histogram_quantile(0.5, sum by (le, cluster) (rate(http_request_duration_seconds_bucket[10m])))",
    ),
    (
        HOUR,
        "max_over_time(sum(rate(http_requests_total{namespace=\"NAMESPACE\"}[1m]))[10m:30s])",
    ),
];

const WIDE: &[(Span, &str)] = &[
    (HOUR, "sum by (namespace) (rate(http_requests_total[5m]))"),
    (HOUR, "avg by (app, code) (rate(http_requests_total[1m]))"),
    (
        HOUR,
        "topk(10, rate(container_cpu_usage_seconds_total[5m]))",
    ),
    (
        HOUR,
        "quantile by (namespace) (0.5, container_memory_working_set_bytes)",
    ),
    (HOUR, "rate(http_requests_total{code=\"200\"}[5m])"),
    (
        HOUR,
        "sum by (node) (container_memory_working_set_bytes * on (pod, container) group_left (service) kube_pod_container_info)",
    ),
    (HOUR, "count(container_memory_working_set_bytes > 1e9)"),
    (
        HOUR,
        "sum without (instance, pod) (go_memstats_heap_alloc_bytes)",
    ),
    (HOUR, "stddev by (cluster) (container_load_average_10s)"),
    (
        HOUR,
        "sum by (cluster, method) (rate(http_requests_total{method=~\"GET|POST\"}[5m]))",
    ),
];

const LONG: &[(Span, &str)] = &[
    (ALL, "sum by (namespace) (rate(http_requests_total[5m]))"),
    (ALL, "avg by (node) (container_load_average_10s)"),
    (
        ALL,
        "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (ALL, "sum by (cluster) (increase(http_requests_total[1h]))"),
    (ALL, "container_memory_working_set_bytes{pod=\"POD\"}"),
    (
        ALL,
        "max by (app) (max_over_time(go_memstats_heap_alloc_bytes{namespace=\"NAMESPACE\"}[30m]))",
    ),
    (
        ALL,
        "avg_over_time(container_load_average_10s{node=\"NODE\"}[1h])",
    ),
    (
        ALL,
        "sum(container_memory_working_set_bytes) - sum(container_memory_working_set_bytes offset 1h)",
    ),
    (
        ALL,
        "quantile_over_time(0.95, container_load_average_10s{namespace=\"NAMESPACE\"}[30m])",
    ),
    (ALL, "sum by (name) (avg_over_time(workqueue_depth[10m]))"),
];

/// The questions for data of this shape; spans are cut where the data are shorter.
pub fn dashboards(load: &Load) -> Vec<Question> {
    // Seven seconds past, as in the other questions: neither on a scrape nor on the grid of a
    // subquery.
    let begin_s = load.start_ms / 1000 + 7;
    let end_s = begin_s + load.steps as i64 * load.interval_ms / 1000 - 15;
    let pod = load.series / SERIES_PER_POD / 2;
    let fill = |it: &str| {
        it.replace("POD", &pod_name(pod))
            .replace("NAMESPACE", &namespace(pod))
            .replace("NODE", &node(pod))
    };
    let mut all = Vec::new();
    for (group, panels) in GROUPS {
        for (Span(hours, step_s), query) in panels {
            let steps = (end_s - begin_s).min(hours * 3600) / step_s;
            all.push(Question {
                name: format!("{group}, {hours} h: {query}"),
                path: "/api/v1/query_range".to_owned(),
                parameters: vec![
                    ("query", fill(query)),
                    ("start", (end_s - steps * step_s).to_string()),
                    ("end", end_s.to_string()),
                    ("step", step_s.to_string()),
                ],
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fifty_and_none_begins_before_the_data() {
        let load = Load {
            seed: 1,
            series: 20_000,
            interval_ms: 15_000,
            start_ms: 1_700_000_010_000,
            steps: 1_440,
            samples_per_series: 1,
            series_per_request: 1_000,
            connections: 1,
        };
        let all = dashboards(&load);
        assert_eq!(all.len(), 50);
        for question in all {
            let number = |at: usize| question.parameters[at].1.parse::<i64>().unwrap();
            let (start, end, step) = (number(1), number(2), number(3));
            assert!(start >= 1_700_000_010 && start < end, "{question:?}");
            assert_eq!((end - start) % step, 0);
            assert!((end - start) / step >= 239, "{question:?}");
        }
    }
}
