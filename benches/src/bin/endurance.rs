//! How Isobar bears many series for hours: memory per series, the time of writes while blocks are
//! cut and while they are not, and what a restart after a crash takes.
//!
//! ```text
//! cargo build --release -p isobar -p isobar-benches
//! target/release/endurance --series 1000000 --duration-minutes 150
//! ```
//!
//! Data time runs as fast as the server takes it, or at `--pace` samples per second. A part of the
//! pods is replaced by new ones all the time. With `--kind native-histograms` each series is one of
//! native histograms, and none is replaced; with `--prometheus PATH` that Prometheus gets the same
//! afterwards, by itself.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use isobar_benches::client;
use isobar_benches::data::{Pod, SERIES_PER_POD};
use isobar_benches::encode::Batch;
use isobar_benches::histograms::HistogramBatch;
use isobar_benches::host::{machine, stop_servers_on_signals};
use isobar_benches::server::{Kind, Peer, Server};
use isobar_model::Clock;

const INTERVAL_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;

#[derive(Parser)]
struct Arguments {
    /// Active series, rounded down to thousands.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Data time altogether in minutes, ending now; a sample every 15 seconds.
    #[arg(long, default_value_t = 150)]
    duration_minutes: i64,
    /// The part of the series that is replaced in an hour.
    #[arg(long, default_value_t = 0.05)]
    churn: f64,
    /// Samples per second; 0 is as fast as the server takes them.
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// What the series are.
    #[arg(long, value_enum, default_value_t = Samples::Floats)]
    kind: Samples,
    /// A Prometheus that gets the same afterwards.
    #[arg(long)]
    prometheus: Option<PathBuf>,
    /// The isobar program; by default the one that was built beside this program.
    #[arg(long)]
    isobar: Option<PathBuf>,
    /// Where the data directory is made.
    #[arg(long, default_value = ".")]
    parent: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Samples {
    Floats,
    NativeHistograms,
}

/// Series in one request.
const SERIES_PER_REQUEST: usize = 1000;
/// Pods in one request.
const PODS_PER_REQUEST: usize = SERIES_PER_REQUEST / SERIES_PER_POD;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    stop_servers_on_signals();
    let binary = match &arguments.isobar {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .context("find this program")?
            .with_file_name("isobar"),
    };
    println!("{}", machine());
    measure(&arguments, &Peer::new("isobar", Kind::Isobar, binary))?;
    if let Some(prometheus) = &arguments.prometheus {
        let mut peer = Peer::new("prometheus", Kind::Prometheus, prometheus.clone());
        peer.arguments
            .push("--enable-feature=native-histograms".to_owned());
        println!("{}", peer.version());
        measure(&arguments, &peer)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, peer: &Peer) -> anyhow::Result<()> {
    let mut server = Server::start(peer, &arguments.parent)?;
    feed(arguments, &server)?;
    let before = Memory::of(&server)?;
    println!(
        "memory at the end: {before}; {:.2} KB of it resident per active series, peak {:.2} KB",
        before.resident as f64 / arguments.series as f64 / 1e3,
        before.peak as f64 / arguments.series as f64 / 1e3,
    );
    println!("disk: {:.0} MB", server.disk_bytes()? as f64 / 1e6);
    if let Some((bytes, samples)) = server.blocks()? {
        let each = bytes as f64 / samples as f64;
        println!("blocks: {samples} samples, {each:.3} bytes each, index included");
    }
    let took = server.crash_and_restart()?;
    let after = Memory::of(&server)?;
    println!(
        "restart after kill -9: ready after {:.2} s, {after}; peak {:.2} x the resident memory before",
        took.as_secs_f64(),
        after.peak as f64 / before.resident as f64
    );
    Ok(())
}

/// Memory of the server in bytes.
struct Memory {
    resident: u64,
    peak: u64,
}

impl Memory {
    fn of(server: &Server) -> anyhow::Result<Self> {
        Ok(Memory {
            resident: server.memory_bytes("VmRSS")?,
            peak: server.memory_bytes("VmHWM")?,
        })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [resident, peak] = [self.resident, self.peak].map(|it| it as f64 / 1e6);
        write!(f, "{resident:.0} MB resident, {peak:.0} MB at most")
    }
}

/// The requests of all series.
enum Load {
    Pods {
        batches: Vec<Batch>,
        pods: usize,
        due: f64,
        replaced: usize,
    },
    Histograms(Vec<HistogramBatch>),
}

impl Load {
    fn new(arguments: &Arguments, start_ms: i64) -> Load {
        let requests = arguments.series / SERIES_PER_REQUEST;
        if arguments.kind == Samples::NativeHistograms {
            let batches = (0..requests).map(|at| {
                HistogramBatch::new(at * SERIES_PER_REQUEST..(at + 1) * SERIES_PER_REQUEST)
            });
            return Load::Histograms(batches.collect());
        }
        let batches = (0..requests).map(|at| {
            let pods = at * PODS_PER_REQUEST..(at + 1) * PODS_PER_REQUEST;
            Batch::new(pods.map(|it| new_pod(it, start_ms)).collect())
        });
        Load::Pods {
            batches: batches.collect(),
            pods: requests * PODS_PER_REQUEST,
            due: 0.0,
            replaced: 0,
        }
    }

    fn requests(&self) -> usize {
        match self {
            Load::Pods { batches, .. } => batches.len(),
            Load::Histograms(batches) => batches.len(),
        }
    }

    /// The number of series that were replaced by others until now; some are before `step_ms`.
    fn replace(&mut self, churn: f64, step_ms: i64) -> usize {
        let Load::Pods {
            batches,
            pods,
            due,
            replaced,
        } = self
        else {
            return 0;
        };
        *due += *pods as f64 * churn * INTERVAL_MS as f64 / HOUR_MS as f64;
        while *due >= 1.0 {
            *due -= 1.0;
            let (batch, at) = (
                *replaced / PODS_PER_REQUEST % batches.len(),
                *replaced % PODS_PER_REQUEST,
            );
            batches[batch].replace(at, new_pod(*pods + *replaced, step_ms));
            *replaced += 1;
        }
        *replaced * SERIES_PER_POD
    }

    /// Body and number of series of a request.
    fn request(&mut self, at: usize, step_ms: i64) -> anyhow::Result<(Vec<u8>, usize)> {
        Ok(match self {
            Load::Pods { batches, .. } => {
                let batch = &mut batches[at];
                (batch.next_request(&[step_ms])?.to_vec(), batch.series())
            }
            Load::Histograms(batches) => {
                let batch = &mut batches[at];
                (batch.next_request(&[step_ms])?.to_vec(), batch.series())
            }
        })
    }
}

fn new_pod(number: usize, start_ms: i64) -> Pod {
    Pod::new(1, number, INTERVAL_MS, start_ms)
}

/// Writes everything, and tells of memory, CPU and time every half hour of data.
fn feed(arguments: &Arguments, server: &Server) -> anyhow::Result<()> {
    let now_ms = Clock::system().now_ms();
    let steps = arguments.duration_minutes * 60_000 / INTERVAL_MS;
    let start_ms = (now_ms / 1000 * 1000) - steps * INTERVAL_MS;
    let mut load = Load::new(arguments, start_ms);
    let client = client::client()?;
    let url = server.write_url();

    let writing = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicBool::new(false));
    let mut took: [Vec<Duration>; 2] = Default::default();
    let began = Instant::now();
    let mut sent: u64 = 0;
    std::thread::scope(|scope| {
        let (writing, ended) = (&*writing, &*ended);
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                writing.store(server.is_writing(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let all = (0..steps).try_for_each(|step| {
            let step_ms = start_ms + step * INTERVAL_MS;
            let replaced = load.replace(arguments.churn, step_ms);
            for at in 0..load.requests() {
                let (body, series) = load.request(at, step_ms)?;
                let before = writing.load(Ordering::Relaxed);
                let at = Instant::now();
                client::post(&client, &url, body)?;
                let while_writing = before || writing.load(Ordering::Relaxed);
                took[usize::from(while_writing)].push(at.elapsed());
                sent += series as u64;
                pause(arguments.pace, sent, began);
            }
            if (step + 1) % 120 == 0 {
                println!(
                    "{} min of data, {:.0} s: {sent} samples, {} series replaced, {:.2} us CPU per sample, {}",
                    (step + 1) * INTERVAL_MS / 60_000,
                    began.elapsed().as_secs_f64(),
                    replaced,
                    server.cpu_seconds()? * 1e6 / sent as f64,
                    Memory::of(server)?
                );
            }
            anyhow::Ok(())
        });
        ended.store(true, Ordering::Relaxed);
        all
    })?;
    for (name, took) in ["otherwise", "while blocks and snapshots are written"]
        .iter()
        .zip(&mut took)
    {
        took.sort_unstable();
        let quantile = |q: f64| {
            let at = (took.len() as f64 * q) as usize;
            took.get(at).map_or(0.0, |it| it.as_secs_f64() * 1e3)
        };
        println!(
            "{} writes {name}: median {:.2} ms, p99 {:.2} ms, most {:.2} ms",
            took.len(),
            quantile(0.5),
            quantile(0.99),
            took.last().map_or(0.0, |it| it.as_secs_f64() * 1e3)
        );
    }
    Ok(())
}

/// Waits until it is time for the next sample.
fn pause(pace: u64, sent: u64, began: Instant) {
    if pace > 0 {
        let due = Duration::from_secs_f64(sent as f64 / pace as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}
