//! What does a sample cost on its way into the head and the log, and a series in memory?
//!
//! Data: SERIES series (default 100000) of ten labels, one sample each every 15 s for an hour, in
//! requests of REQUEST series (default 1000), half counters and half gauges. Every request is
//! durable before the next is sent; there is one sender.
//!
//! `cargo run --release -p isobar-tsdb --example append_cost [SERIES] [REQUEST] [ROUNDS]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Instant;

use isobar_model::{Labels, Matcher, Tenant, TimeRange};
use isobar_tsdb::db::{Db, DbConfig};
use isobar_tsdb::head::incoming::IncomingSeries;

struct Series<'a> {
    encoded: &'a [u8],
    sample: (i64, f64),
}

impl IncomingSeries for Series<'_> {
    fn encoded_labels(&self) -> &[u8] {
        self.encoded
    }

    fn labels(&self) -> Result<Labels, String> {
        let text = std::str::from_utf8(self.encoded).map_err(|e| e.to_string())?;
        Ok(Labels::from_pairs(
            text.split(',').filter_map(|pair| pair.split_once('=')),
        ))
    }

    fn samples(&self, mut each: impl FnMut(i64, f64)) {
        each(self.sample.0, self.sample.1);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let series = arguments.next().transpose()?.unwrap_or(100_000);
    let request = arguments.next().transpose()?.unwrap_or(1000);
    let rounds = arguments.next().transpose()?.unwrap_or(240);
    let dir = std::env::temp_dir().join(format!("isobar-append-cost-{}", std::process::id()));
    let labels: Vec<String> = (0..series)
        .map(|i| {
            format!(
                "__name__=http_request_duration_seconds_{}_total,cluster=eu-west-1,\
                 container=server,endpoint=metrics,handler=/api/v1/{},instance=10.0.{}.{}:9090,\
                 job=kubernetes-pods,method=GET,namespace=production-{},pod=server-{:08x}",
                i % 200,
                i / 200 % 50,
                i / 10_000 % 256,
                i / 40 % 250,
                i / 1000 % 20,
                i / 40,
            )
        })
        .collect();
    let rss_before = rss_bytes();
    let db = Db::open(DbConfig::new(&dir))?;
    let tenant = Tenant::default();
    let (mut cpu, mut wall) = (cpu_seconds(), Instant::now());
    for round in 0..rounds {
        let now = 1_700_000_000_000 + round as i64 * 15_000;
        for (chunk, at) in labels.chunks(request).zip(0..) {
            let batch: Vec<Series<'_>> = chunk
                .iter()
                .zip(at * request..)
                .map(|(labels, i)| {
                    let value = if i % 2 == 0 {
                        (round * (i % 97)) as f64
                    } else {
                        ((round * 7919 + i * 31) % 1000) as f64 * 0.013
                    };
                    Series {
                        encoded: labels.as_bytes(),
                        sample: (now + (i % 200) as i64, value),
                    }
                })
                .collect();
            let append = db.append(&tenant, &batch)?;
            assert!(append.rejected.is_empty());
            db.commit_wait(append.ticket)?;
        }
        if round == 0 {
            let us = (cpu_seconds() - cpu) * 1e6 / series as f64;
            println!("first sight of a series: {us:.2} us CPU");
            (cpu, wall) = (cpu_seconds(), Instant::now());
        }
    }
    let samples = ((rounds - 1) * series) as f64;
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    println!(
        "a sample: {:.3} us CPU, {:.3} us wall",
        cpu * 1e6 / samples,
        wall * 1e6 / samples
    );
    let stats = db.head_stats(None);
    println!(
        "memory: {} bytes a series resident, of them {} in chunks and slots; log {:.2} bytes a sample",
        (rss_bytes() - rss_before) / series as u64,
        stats.chunk_bytes / stats.series,
        db.wal_bytes()? as f64 / (samples + series as f64),
    );
    let start = Instant::now();
    let count = db.select(None, &[], TimeRange::ALL)?.count();
    println!(
        "select of {count} series: {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let name = Matcher::equal("__name__", "http_request_duration_seconds_7_total");
    let start = Instant::now();
    let count = db.select(None, &[name], TimeRange::ALL)?.count();
    println!(
        "select of {count} series: {:.2} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let start = Instant::now();
    let pod = Matcher::new("pod", isobar_model::MatchOp::Regexp, "server-0000.[0-3].")?;
    let count = db.select(None, &[pod], TimeRange::ALL)?.count();
    println!(
        "select of {count} series: {:.2} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    drop(db);
    let start = Instant::now();
    let db = Db::open(DbConfig::new(&dir))?;
    let replayed = db.replayed();
    println!(
        "replay: {} series, {} samples in {:.2} s",
        replayed.series,
        replayed.samples,
        start.elapsed().as_secs_f64()
    );
    drop(db);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
