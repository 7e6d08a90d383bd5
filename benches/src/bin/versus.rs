//! Isobar beside Prometheus and VictoriaMetrics on this machine: feeds all the same data, one after the
//! other, and prints one Markdown table of what each needed.
//!
//! `cargo run --release -p isobar-benches --bin versus -- --help` lists the flags. What the figures mean
//! and what they were is in `benches/RESULTS.md`. Ends with status 1 when a server lost a sample or
//! gave another answer than Prometheus.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the command line"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use isobar_benches::answer::{Answer, CLOSE};
use isobar_benches::client::{self, Load};
use isobar_benches::dashboards::dashboards;
use isobar_benches::data::SERIES_PER_POD;
use isobar_benches::host::{first_line, in_path, machine, stop_servers_on_signals};
use isobar_benches::probe::{MemoryWatch, cpu_time, own_memory, spent};
use isobar_benches::queries::{Question, count_samples, questions};
use isobar_benches::report::{Row, table};
use isobar_benches::server::{Kind, Peer, Server};
use isobar_model::Clock;

/// Servers flush and collect in the background; what that costs belongs to the samples that were sent.
const SETTLE: Duration = Duration::from_secs(3);

/// A question is asked until the server has used this much CPU time, or for so long.
const CPU_ENOUGH: Duration = Duration::from_millis(200);
const ASK_MAX: Duration = Duration::from_secs(2);

/// No server waits as long as this before it writes the next block that is due.
const BLOCKS_QUIET: Duration = Duration::from_secs(75);

/// Compare Isobar with its peers: CPU, memory and disk per sample, and the time that queries take.
#[derive(Parser)]
struct Arguments {
    /// Active series, rounded up to hundreds.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Data time between two samples of a series.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    interval: Duration,
    /// Data time altogether, ending now.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    duration: Duration,
    /// Samples of each series in one request. One is what arrives live, more is a sender that catches up.
    #[arg(long, default_value_t = 1)]
    samples_per_series: usize,
    /// Series in one request, rounded down to hundreds.
    #[arg(long, default_value_t = 1000)]
    series_per_request: usize,
    /// Requests under way at once.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Decides all labels and values.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each query is asked at least; the table gives the median. One more run before is not
    /// counted.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// The isobar program; by default the one that was built beside this program.
    #[arg(long)]
    isobar: Option<PathBuf>,
    /// One more Prometheus to compare with, such as a newer version.
    #[arg(long = "peer", value_name = "NAME=PATH", value_parser = parse_peer)]
    peers: Vec<Peer>,
    /// Leave out a server by its name.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Ask fifty questions as dashboards do, once part of the data is in blocks, instead of the fixed
    /// set. Meant for `--series 20000 --duration 6h --samples-per-series 20`.
    #[arg(long)]
    dashboards: bool,
    /// Where the servers keep their data while they run.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    temp_dir: PathBuf,
    /// A tiny run that shows that everything works: 200 series, 5 minutes, one run of each query.
    #[arg(long)]
    smoke: bool,
}

fn main() -> ExitCode {
    stop_servers_on_signals();
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured of one server.
struct Figures {
    sent_in: Duration,
    first_cpu: f64,
    cpu: f64,
    memory_max: u64,
    memory: u64,
    disk: u64,
    blocks: Option<(u64, u64)>,
    samples: f64,
    queries: Vec<Result<Asked, String>>,
    queries_memory: u64,
}

/// One question, asked often.
struct Asked {
    /// The median time until the last byte was here.
    took: Duration,
    /// CPU time of the server's process for each time.
    cpu: Duration,
    answer: Answer,
}

/// Whether all samples arrived and all answers agree.
fn run(mut arguments: Arguments) -> anyhow::Result<bool> {
    if arguments.smoke {
        arguments.series = 200;
        arguments.series_per_request = SERIES_PER_POD;
        arguments.duration = Duration::from_secs(300);
        arguments.runs = 1;
    }
    let load = load(&arguments)?;
    let peers = find_peers(&arguments);
    ensure!(!peers.is_empty(), "no server to measure");
    let questions = if arguments.dashboards {
        dashboards(&load)
    } else {
        questions(&load)
    };

    let mut measured = Vec::new();
    for peer in &peers {
        eprintln!(
            "{}: {} series, {} samples …",
            peer.name,
            load.series,
            load.samples()
        );
        measured
            .push(measure(peer, &load, &questions, &arguments).with_context(|| peer.name.clone())?);
    }
    println!("{}", heading(&peers, &load));
    println!("{}", print_table(&peers, &load, &questions, &measured));
    for line in together(&peers, &questions, &measured) {
        println!("- {line}");
    }
    println!();
    let wrong = findings(&peers, &load, &questions, &measured);
    for line in &wrong {
        println!("- {line}");
    }
    if wrong.is_empty() {
        println!(
            "Every sample arrived everywhere, and all but VictoriaMetrics gave the same answers."
        );
    }
    Ok(wrong.is_empty())
}

fn load(arguments: &Arguments) -> anyhow::Result<Load> {
    let interval_ms =
        i64::try_from(arguments.interval.as_millis()).context("--interval is too long")?;
    ensure!(
        interval_ms >= 1000 && interval_ms % 1000 == 0,
        "--interval is in whole seconds"
    );
    let steps = arguments.duration.as_millis() / arguments.interval.as_millis();
    let steps = usize::try_from(steps).context("--duration is too long")?;
    ensure!(steps > 0, "--duration is shorter than --interval");
    let end_ms = Clock::system().now_ms() / 15_000 * 15_000;
    Ok(Load {
        seed: arguments.seed,
        series: arguments
            .series
            .next_multiple_of(SERIES_PER_POD)
            .max(SERIES_PER_POD),
        interval_ms,
        start_ms: end_ms - steps as i64 * interval_ms,
        steps,
        samples_per_series: arguments.samples_per_series.max(1),
        series_per_request: arguments.series_per_request,
        connections: arguments.connections.max(1),
    })
}

/// The servers that are there: Isobar comes last, so that what it must beat is known by then.
fn find_peers(arguments: &Arguments) -> Vec<Peer> {
    let isobar = arguments.isobar.clone().or_else(|| {
        let beside = std::env::current_exe().ok()?.parent()?.join("isobar");
        beside.exists().then_some(beside)
    });
    if isobar.is_none() {
        eprintln!(
            "isobar is not beside this program: build it first, with `cargo build --release`"
        );
    }
    let mut found: Vec<Peer> = in_path("prometheus")
        .map(|it| Peer::new("prometheus", Kind::Prometheus, it))
        .into_iter()
        .collect();
    found.extend(arguments.peers.iter().cloned());
    found.extend(
        in_path("victoria-metrics")
            .map(|it| Peer::new("victoria-metrics", Kind::VictoriaMetrics, it)),
    );
    found.extend(isobar.map(|it| Peer::new("isobar", Kind::Isobar, it)));
    found.retain(|it| !arguments.without.contains(&it.name));
    found
}

fn measure(
    peer: &Peer,
    load: &Load,
    questions: &[Question],
    arguments: &Arguments,
) -> anyhow::Result<Figures> {
    let server = Server::start(peer, &arguments.temp_dir)?;
    let idle_cpu = server.cpu_seconds()?;
    let mut first_cpu = 0.0;
    let sent_in = client::feed(&server.write_url(), load, || {
        first_cpu = server.cpu_seconds()? - idle_cpu;
        Ok(())
    })
    .with_context(|| format!("the server's last words:\n{}", server.log_tail()))?;
    let http = client::client()?;
    if peer.kind == Kind::VictoriaMetrics {
        // Makes what was sent visible to queries and writes it out.
        client::ask(&http, &format!("{}/internal/force_flush", server.url), &[])?;
    }
    std::thread::sleep(SETTLE);
    let cpu = server.cpu_seconds()? - idle_cpu;
    let (memory_max, memory) = (server.memory_bytes("VmHWM")?, server.memory_bytes("VmRSS")?);
    let disk = server.disk_bytes()?;

    if arguments.dashboards && !arguments.smoke {
        wait_for_blocks(&server)?;
    }
    let mut samples = 0.0;
    for question in count_samples(load) {
        samples += ask_once(&http, &server, &question)?
            .1
            .single()
            .unwrap_or(0.0);
    }
    let idle = own_memory(server.pid())?;
    let watch = MemoryWatch::start(server.pid());
    let queries = questions
        .iter()
        .map(|it| ask_often(&http, &server, it, arguments.runs).map_err(|err| format!("{err:#}")))
        .collect();
    let queries_memory = watch.most().saturating_sub(idle);
    drop(watch);
    let blocks = server.all_in_blocks()?;
    Ok(Figures {
        sent_in,
        first_cpu,
        cpu,
        memory_max,
        memory,
        disk,
        blocks,
        samples,
        queries,
        queries_memory,
    })
}

/// Waits until the server has written no further block for a while: Prometheus looks once a minute
/// whether its head is due, Isobar every half a minute.
fn wait_for_blocks(server: &Server) -> anyhow::Result<()> {
    let mut seen = (0, Instant::now());
    while seen.1.elapsed() < BLOCKS_QUIET {
        std::thread::sleep(SETTLE);
        let count = server.block_count()?;
        if count != seen.0 {
            seen = (count, Instant::now());
        }
    }
    eprintln!("{}: {} blocks", server.peer.name, seen.0);
    Ok(())
}

fn ask_once(
    http: &reqwest::blocking::Client,
    server: &Server,
    question: &Question,
) -> anyhow::Result<(Duration, Answer)> {
    let url = format!("{}{}", server.url, question.path);
    let (body, took) = client::ask(http, &url, &question.parameters)?;
    Ok((took, Answer::parse(&body)?))
}

/// The first run, which opens and warms up, is not counted. Asks until the server has used enough
/// CPU time to say what one answer costs.
fn ask_often(
    http: &reqwest::blocking::Client,
    server: &Server,
    question: &Question,
    runs: usize,
) -> anyhow::Result<Asked> {
    let (_, answer) = ask_once(http, server, question)?;
    let url = format!("{}{}", server.url, question.path);
    let before = cpu_time(server.pid())?;
    let mut times = Vec::new();
    let began = Instant::now();
    let cpu = loop {
        times.push(client::ask(http, &url, &question.parameters)?.1);
        let (cpu, _) = spent(&before, &cpu_time(server.pid())?);
        let enough = cpu >= CPU_ENOUGH || began.elapsed() >= ASK_MAX || runs < 2;
        if times.len() >= runs && enough {
            break cpu;
        }
    };
    times.sort();
    Ok(Asked {
        took: times[times.len() / 2],
        cpu: cpu / u32::try_from(times.len()).context("too many runs")?,
        answer,
    })
}

fn heading(peers: &[Peer], load: &Load) -> String {
    let mut lines = vec![
        format!("Machine: {}", machine()),
        format!(
            "Commit: {}",
            first_line("git", &["describe", "--always", "--dirty"])
        ),
        format!(
            "Command: versus {}",
            std::env::args().skip(1).collect::<Vec<_>>().join(" ")
        ),
        format!(
            "Data: {} series × {} samples, {} s apart; {} samples per series and request, {} series per \
             request, {} connections",
            load.series,
            load.steps,
            load.interval_ms / 1000,
            load.samples_per_series,
            load.series_per_request,
            load.connections
        ),
    ];
    lines.extend(
        peers
            .iter()
            .map(|it| format!("{}: {}", it.name, it.version())),
    );
    lines.iter().map(|it| format!("    {it}\n")).collect()
}

fn print_table(
    peers: &[Peer],
    load: &Load,
    questions: &[Question],
    measured: &[Figures],
) -> String {
    let samples = load.samples() as f64;
    let series = load.series as f64;
    let later = samples - series * load.samples_per_series.min(load.steps) as f64;
    let row = |name: &str, figure: &dyn Fn(&Figures) -> Option<f64>| Row {
        name: name.to_owned(),
        figures: measured.iter().map(figure).collect(),
    };
    let mut rows = vec![
        row("ingest: CPU µs per sample", &|it| {
            Some(it.cpu / samples * 1e6)
        }),
        row("… once every series is known", &|it| {
            (later > 0.0).then(|| (it.cpu - it.first_cpu) / later * 1e6)
        }),
        row("… CPU µs per new series", &|it| {
            Some(it.first_cpu / series * 1e6)
        }),
        row("ingest: wall µs per sample", &|it| {
            Some(it.sent_in.as_secs_f64() / samples * 1e6)
        }),
        row("memory: peak bytes per series", &|it| {
            Some(it.memory_max as f64 / series)
        }),
        row("… after ingest", &|it| Some(it.memory as f64 / series)),
        row("disk: bytes per sample, all files", &|it| {
            Some(it.disk as f64 / samples)
        }),
        row("… in blocks", &|it| {
            it.blocks.map(|(bytes, count)| bytes as f64 / count as f64)
        }),
        row("queries: CPU s, each once", &|it| {
            let each = it.queries.iter().filter_map(|it| it.as_ref().ok());
            Some(each.map(|it| it.cpu.as_secs_f64()).sum())
        }),
        row("… peak memory over idle, MB", &|it| {
            Some(it.queries_memory as f64 / 1e6)
        }),
    ];
    for (index, question) in questions.iter().enumerate() {
        for (figure, name) in FIGURES {
            let milliseconds =
                |it: &Figures| Some(figure(it.queries[index].as_ref().ok()?).as_secs_f64() * 1e3);
            rows.push(row(&format!("{name}, {}", question.name), &milliseconds));
        }
    }
    let names: Vec<String> = peers.iter().map(|it| it.name.clone()).collect();
    table(
        &names,
        peers.iter().position(|it| it.kind == Kind::Isobar),
        &rows,
    )
}

/// A figure of a question.
type Figure = fn(&Asked) -> Duration;

/// The two figures of a question, and what the table calls them.
const FIGURES: [(Figure, &str); 2] = [(|it| it.took, "ms"), (|it| it.cpu, "… CPU ms")];

/// What the questions say together: the geometric mean of what each other server needs for one, as a
/// multiple of Isobar's, and how many it answers faster.
fn together(peers: &[Peer], questions: &[Question], measured: &[Figures]) -> Vec<String> {
    let Some(isobar) = peers.iter().position(|it| it.kind == Kind::Isobar) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for other in (0..peers.len()).filter(|it| *it != isobar) {
        for (figure, name) in FIGURES {
            let value = |at: usize, question: usize| {
                let asked: &Asked = measured[at].queries[question].as_ref().ok()?;
                Some(figure(asked).as_secs_f64())
            };
            let ratios: Vec<(f64, &str)> = (0..questions.len())
                .filter_map(|it| {
                    Some((value(other, it)? / value(isobar, it)?, &*questions[it].name))
                })
                .collect();
            let logarithms: f64 = ratios.iter().map(|it| it.0.ln()).sum();
            let slower: Vec<String> = ratios
                .iter()
                .filter(|it| it.0 < 1.0)
                .map(|it| format!("`{}` ({:.2})", it.1, it.0))
                .collect();
            lines.push(format!(
                "{} questions, {} ÷ isobar, {}: geometric mean {:.2}×; isobar is slower in {}: {}",
                ratios.len(),
                peers[other].name,
                name.trim_start_matches("… "),
                (logarithms / ratios.len() as f64).exp(),
                slower.len(),
                slower.join(", ")
            ));
        }
    }
    lines
}

/// Samples that are missing, queries that failed, answers that differ from those of the first server
/// that means the same by them.
fn findings(
    peers: &[Peer],
    load: &Load,
    questions: &[Question],
    measured: &[Figures],
) -> Vec<String> {
    let mut found = Vec::new();
    let exact = |at: &usize| peers[*at].kind != Kind::VictoriaMetrics;
    let reference = (0..peers.len()).find(exact);
    for (at, (peer, figures)) in peers.iter().zip(measured).enumerate() {
        if figures.samples != load.samples() as f64 {
            found.push(format!(
                "{}: {} samples of {} can be read",
                peer.name,
                figures.samples,
                load.samples()
            ));
        }
        for (index, question) in questions.iter().enumerate() {
            let expected = reference.and_then(|it| measured[it].queries[index].as_ref().ok());
            match (&figures.queries[index], expected) {
                (Err(err), _) => found.push(format!("{}: {}: {err}", peer.name, question.name)),
                (Ok(asked), Some(expected)) if exact(&at) => {
                    let difference = expected.answer.difference(&asked.answer, CLOSE);
                    found.extend(
                        difference.map(|it| format!("{}: {}: {it}", peer.name, question.name)),
                    );
                }
                // Two empty answers agree, but show nothing.
                (Ok(asked), _) if asked.answer.is_empty() && reference == Some(at) => {
                    found.push(format!("{}: {}: nothing found", peer.name, question.name));
                }
                _ => {}
            }
        }
    }
    found
}

/// A number with `s`, `m`, `h` or `d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("expected a number with s, m, h or d, such as 15s".to_owned()),
    };
    let number: u64 = number.parse().map_err(|err| format!("{number:?}: {err}"))?;
    number
        .checked_mul(seconds)
        .filter(|it| *it > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "out of range".to_owned())
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    if !Path::new(path).is_file() {
        return Err(format!("there is no file {path}"));
    }
    Ok(Peer::new(name, Kind::Prometheus, PathBuf::from(path)))
}
