//! The fixed set of questions that every server is asked: what dashboards, alerts and people exploring
//! their labels ask, over the data of [`crate::data`].

use crate::client::Load;
use crate::data::{SERIES_PER_POD, metric_names, namespace, pod_name};

/// Steps of a range query, where the data lasts long enough.
const RANGE_STEPS: i64 = 240;

/// One question: what to call it, where to ask it, with which parameters.
#[derive(Debug, Clone)]
pub struct Question {
    /// What the table calls it: the kind and the expression.
    pub name: String,
    /// The path below the server's root.
    pub path: String,
    /// The parameters of the request.
    pub parameters: Vec<(&'static str, String)>,
}

/// The range queries, over all of the data.
const RANGES: &[&str] = &[
    // The mark of issue "Foundation": with 100k series, these are 10k series × 240 steps.
    "sum by (namespace) (rate(http_requests_total[5m]))",
    "rate(http_requests_total{pod=\"POD\"}[5m])",
    "process_start_time_seconds{pod=\"POD\",container=\"app-0\"}",
    "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    "histogram_quantile(0.9, sum by (cluster, le) (rate(http_request_duration_seconds_bucket{namespace=~\"team-0.*\"}[5m])))",
    "avg by (node) (container_load_average_10s)",
    "max_over_time(container_memory_working_set_bytes{namespace=\"NAMESPACE\"}[10m])",
    "avg_over_time(container_load_average_10s{node=~\"ip-10-0-1.*\"}[15m])",
    "topk(5, rate(container_cpu_usage_seconds_total[5m]))",
    "sum by (app) (rate(http_requests_total{code=~\"5..\"}[5m])) / sum by (app) (rate(http_requests_total[5m]))",
    "sum by (node) (container_memory_working_set_bytes * on (pod, container) group_left (service) kube_pod_container_info)",
    "quantile by (namespace) (0.5, container_memory_working_set_bytes)",
    "sum by (cluster) (changes(process_start_time_seconds[15m]))",
    "max_over_time(sum(rate(http_requests_total{namespace=\"NAMESPACE\"}[1m]))[10m:30s])",
    "container_memory_working_set_bytes{namespace=\"NAMESPACE\"} / 1024 / 1024 > 100",
];

/// The instant queries, at the end of the data.
const INSTANTS: &[&str] = &[
    "sum by (namespace) (rate(http_requests_total[5m]))",
    "count by (__name__) ({__name__=~\".+\"})",
    "topk(10, container_memory_working_set_bytes)",
    "sum(increase(http_requests_total[30m]))",
    "kube_pod_container_info{pod=~\"web-1.-.*-0000.\"}",
    "count(workqueue_depth > 1) by (name)",
];

/// All questions for data of this shape.
pub fn questions(load: &Load) -> Vec<Question> {
    // Seven seconds past, so that neither the start of a step nor that of a subquery lies on the edge
    // of a window.
    let start_s = load.start_ms / 1000 + 7;
    let duration_s = load.steps as i64 * load.interval_ms / 1000;
    let step_s = ((duration_s / RANGE_STEPS + 14) / 15 * 15).max(15);
    let steps = (duration_s / step_s).clamp(1, RANGE_STEPS);
    let end_s = start_s + (steps - 1) * step_s;
    let pod = load.series / SERIES_PER_POD / 2;
    let fill = |it: &str| {
        it.replace("POD", &pod_name(pod))
            .replace("NAMESPACE", &namespace(pod))
    };

    let mut all = Vec::new();
    for template in RANGES {
        all.push(Question {
            name: format!("range: {template}"),
            path: "/api/v1/query_range".to_owned(),
            parameters: vec![
                ("query", fill(template)),
                ("start", start_s.to_string()),
                ("end", end_s.to_string()),
                ("step", step_s.to_string()),
            ],
        });
    }
    for template in INSTANTS {
        all.push(Question {
            name: format!("instant: {template}"),
            path: "/api/v1/query".to_owned(),
            parameters: vec![("query", fill(template)), ("time", end_s.to_string())],
        });
    }
    let span = || vec![("start", start_s.to_string()), ("end", end_s.to_string())];
    let mut ask = |name: &str, path: &str, matching: Option<&str>| {
        let mut parameters = span();
        parameters.extend(matching.map(|it| ("match[]", fill(it))));
        all.push(Question {
            name: name.to_owned(),
            path: path.to_owned(),
            parameters,
        });
    };
    ask("label names", "/api/v1/labels", None);
    ask("values of `pod`", "/api/v1/label/pod/values", None);
    let matching = "kube_pod_container_info{namespace=\"NAMESPACE\"}";
    ask(
        "values of `pod` in a namespace",
        "/api/v1/label/pod/values",
        Some(matching),
    );
    ask(
        "series of a metric in a namespace",
        "/api/v1/series",
        Some(matching),
    );
    all
}

/// One question for each metric, whose answers add up to every sample of the load. A function over a
/// range drops the name, so the metrics cannot be counted together.
pub fn count_samples(load: &Load) -> Vec<Question> {
    let seconds = load.steps as i64 * load.interval_ms / 1000;
    let question = |name: String| Question {
        path: "/api/v1/query".to_owned(),
        parameters: vec![
            ("query", format!("sum(count_over_time({name}[{seconds}s]))")),
            ("time", (load.end_ms() / 1000).to_string()),
        ],
        name,
    };
    metric_names().into_iter().map(question).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(steps: usize) -> Load {
        Load {
            seed: 1,
            series: 1000,
            interval_ms: 15_000,
            start_ms: 1_700_000_000_000 / 15_000 * 15_000,
            steps,
            samples_per_series: 1,
            series_per_request: 1000,
            connections: 1,
        }
    }

    #[test]
    fn an_hour_at_fifteen_seconds_gives_240_steps() {
        let questions = questions(&load(240));
        assert!(questions.len() >= 20);
        let number = |at: usize| questions[0].parameters[at].1.parse::<i64>().unwrap();
        assert_eq!((number(2) - number(1)) / number(3) + 1, 240);
        assert_eq!(number(3), 15);
    }

    #[test]
    fn no_evaluation_lies_on_the_grid_of_a_subquery() {
        for steps in [20, 240, 960, 5760] {
            let questions = questions(&load(steps));
            let number = |at: usize| questions[0].parameters[at].1.parse::<i64>().unwrap();
            assert_ne!(number(1) % 15, 0);
            assert_eq!(number(3) % 15, 0);
        }
    }
}
