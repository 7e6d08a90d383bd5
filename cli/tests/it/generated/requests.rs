//! How a query is asked: at one time or over a range, at whole and at odd times.

use crate::harness::Random;

use super::Setting;

/// The milliseconds of the odd times that an older Prometheus is asked.
pub(super) const ODD_MS: i64 = 503;

/// A path of the API and its parameters.
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) params: Vec<(&'static str, String)>,
}

impl Request {
    /// A request for `query`; only odd times when it has a subquery and the peer is old.
    pub(super) fn draw(query: String, setting: &Setting, random: &mut Random) -> Self {
        let odd_only = !setting.modern && query.contains(':');
        let time_ms = time_ms(setting, odd_only, random);
        if setting.modern && random.chance(6) {
            let path = match random.chance(50) {
                true => "/api/v1/format_query",
                false => "/api/v1/parse_query",
            };
            return Request {
                path,
                params: vec![("query", query)],
            };
        }
        let stats = setting.modern && random.chance(10);
        let stats = stats.then(|| ("stats", "all".to_owned()));
        if random.chance(45) {
            let params = [("query", query), ("time", seconds(time_ms))];
            return Request {
                path: "/api/v1/query",
                params: params.into_iter().chain(stats).collect(),
            };
        }
        let steps_ms: &[i64] = if setting.modern {
            &[
                1000, 12_345, 15_000, 30_000, 60_000, 61_001, 300_000, 3_600_000,
            ]
        } else {
            &[1000, 13_000, 15_000, 30_000, 60_000, 300_000, 3_600_000]
        };
        let step_ms = *random.pick(steps_ms);
        let count = 1 + random.below(40) as i64;
        let end_ms = time_ms + step_ms * count + i64::from(random.chance(20)) * 1000;
        Request {
            path: "/api/v1/query_range",
            params: [
                ("query", query),
                ("start", seconds(time_ms)),
                ("end", seconds(end_ms)),
                ("step", seconds(step_ms)),
            ]
            .into_iter()
            .chain(stats)
            .collect(),
        }
    }

    /// The parameters as the client takes them.
    pub(super) fn borrowed(&self) -> Vec<(&str, &str)> {
        self.params.iter().map(|(k, v)| (*k, v.as_str())).collect()
    }

    pub(super) fn query(&self) -> &str {
        &self.params[0].1
    }
}

/// A time within the data or shortly before or after.
fn time_ms(setting: &Setting, odd_only: bool, random: &mut Random) -> i64 {
    let span_ms = setting.end_ms - setting.start_ms + 600_000;
    let whole = (setting.start_ms - 120_000 + random.below(span_ms as u64) as i64) / 1000 * 1000;
    match random.below(4) {
        0 if !odd_only => whole,
        1 if !odd_only => whole / 60_000 * 60_000,
        2 if setting.modern => whole + random.below(1000) as i64,
        _ => whole + ODD_MS,
    }
}

/// Milliseconds as the API takes them.
pub(super) fn seconds(ms: i64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        rest => format!("{}.{rest:03}", ms / 1000),
    }
}
