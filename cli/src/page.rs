//! The start page: what runs here, since when, with how much data, and where to go from here.

use std::sync::Arc;

use axum::response::Html;
use isobar_model::Clock;
use isobar_model::time::rfc3339;
use isobar_tsdb::db::Db;

use crate::flags::standalone::StandaloneFlags;

/// What the page needs to know.
#[derive(Clone)]
pub(crate) struct StartPage {
    data_dir: String,
    clock: Clock,
    started_ms: i64,
    db: Arc<Db>,
}

impl StartPage {
    /// The page of a process that starts now.
    pub(crate) fn new(flags: &StandaloneFlags, clock: Clock, db: Arc<Db>) -> Self {
        StartPage {
            data_dir: flags.data_dir.display().to_string(),
            started_ms: clock.now_ms(),
            clock,
            db,
        }
    }

    /// The page as it is now. It loads nothing and runs no script.
    pub(crate) fn render(&self) -> Html<String> {
        let stats = self.db.head_stats(None);
        let blocks = self.db.blocks();
        let newest = stats
            .range_ms
            .map_or_else(|| "none yet".to_owned(), |(_, max)| rfc3339(max));
        let mut tenants = String::new();
        for (tenant, series) in self.db.tenants() {
            tenants.push_str(&format!(
                "<tr><td>{}</td><td class=n>{series}</td></tr>\n",
                escape(tenant.as_str())
            ));
        }
        Html(format!(
            r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Isobar</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: .5rem 0; }}
th, td {{ text-align: left; padding: .15rem 1.5rem .15rem 0; vertical-align: top; font-weight: normal; }}
th {{ opacity: .7; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
code {{ font-size: .9em; }}
</style>
</head>
<body>
<main>
<h1>Isobar</h1>
<p>This is <strong>isobar standalone</strong> {version}, running since {since} ({uptime}).</p>
<table>
<tr><th scope="row">Series being written</th><td class=n>{series}</td></tr>
<tr><th scope="row">Samples taken since start</th><td class=n>{samples}</td></tr>
<tr><th scope="row">Newest sample</th><td>{newest}</td></tr>
<tr><th scope="row">Blocks on disk</th><td class=n>{blocks}</td></tr>
<tr><th scope="row">Data directory</th><td><code>{data_dir}</code></td></tr>
</table>
<h2>Tenants</h2>
<table>
<tr><th scope="col">Tenant</th><th scope="col">Series being written</th></tr>
{tenants}</table>
<h2>Use it</h2>
<ul>
<li>Prometheus remote write goes to <code>/api/v1/write</code>.</li>
<li>Grafana: add a data source of type Prometheus with this server's address.</li>
<li>Ask: <a href="/api/v1/query?query=up"><code>up</code></a>,
<a href="/api/v1/query?query=topk(10,+count+by+(__name__)+(%7B__name__!%3D%22%22%7D))">the metrics with most series</a>,
<a href="/api/v1/labels">label names</a>,
<a href="/api/v1/label/__name__/values">metric names</a>.</li>
</ul>
<h2>About this server</h2>
<ul>
<li><a href="/metrics">Own metrics</a>, <a href="/api/v1/status/tsdb">cardinality</a>,
<a href="/api/v1/status/flags">flags</a>, <a href="/api/v1/status/runtimeinfo">runtime</a>,
<a href="/api/v1/status/buildinfo">build</a></li>
<li><a href="/-/healthy">Healthy?</a> <a href="/-/ready">Ready?</a></li>
</ul>
</main>
</body>
</html>
"#,
            version = env!("CARGO_PKG_VERSION"),
            since = rfc3339(self.started_ms),
            uptime = uptime(self.clock.now_ms() - self.started_ms),
            series = stats.series,
            samples = stats.samples_appended,
            blocks = blocks.len(),
            data_dir = escape(&self.data_dir),
        ))
    }
}

fn uptime(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(uptime(59_000), "59 s");
        assert_eq!(uptime(3 * 3_600_000 + 120_000), "3 h 2 min");
        assert_eq!(uptime(50 * 3_600_000), "2 d 2 h");
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
