//! The cases with which Prometheus measures its own engine, asked of Prometheus and of Isobar over the
//! same blocks through HTTP, and of Isobar's engine in this process.
//!
//! ```text
//! cargo build --release -p isobar -p isobar-benches
//! target/release/cases --prometheus PATH --blocks DIR            # everything
//! target/release/cases --prometheus PATH --blocks DIR --only 1d  # cases whose query holds a text
//! ```
//!
//! Data go by remote write into a Prometheus, whose snapshot both servers then open; with `--blocks`
//! it is kept for the next run. Each server has one processor. CPU time is that of the whole process;
//! every case is asked until it has used some, one server right after the other. Answers have to be the
//! same to 1e-12. Ends with status 1 when one is not.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the command line"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use isobar_benches::answer::{Answer, EXACT};
use isobar_benches::cases::{Case, cases};
use isobar_benches::client;
use isobar_benches::host::{first_line, machine, stop_servers_on_signals};
use isobar_benches::inside::Inside;
use isobar_benches::probe::{MemoryWatch, cpu_time, own_memory, spent};
use isobar_benches::server::{Kind, Peer, Server};
use isobar_benches::sets::{BEGIN_MS, Set, SetKind};
use tempfile::TempDir;

// As in the server, or the figures in process would be those of another allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Features of Prometheus that the cases use.
const FEATURES: &str =
    "--enable-feature=promql-experimental-functions,promql-extended-range-selectors";
/// Samples of a series in one request, and series.
const REQUEST_STEPS: usize = 180;
const REQUEST_SERIES: usize = 250;
/// Compare Isobar's engine with that of Prometheus.
#[derive(Parser)]
struct Arguments {
    /// The Prometheus to compare with, 3.14 or later.
    #[arg(long)]
    prometheus: PathBuf,
    /// The isobar program; by default the one that was built beside this program.
    #[arg(long)]
    isobar: Option<PathBuf>,
    /// Where the data are kept for another run; by default nowhere.
    #[arg(long)]
    blocks: Option<PathBuf>,
    /// Only the sets of this name: range, join, native, info.
    #[arg(long)]
    set: Vec<String>,
    /// Only cases whose query contains one of these.
    #[arg(long)]
    only: Vec<String>,
    /// CPU time that each case has to use on each server before it is believed.
    #[arg(long, default_value_t = 250)]
    cpu_ms: u64,
    /// The processor for the servers.
    #[arg(long, default_value_t = 1)]
    processor: usize,
    /// Leave out the engine in this process.
    #[arg(long)]
    without_inside: bool,
    /// Also measure the engine in this process with two threads.
    #[arg(long)]
    threads: bool,
    /// A tiny run that shows that everything works.
    #[arg(long)]
    smoke: bool,
}

/// How often CPU time is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What a case needed on average.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu_ms: f64,
    wall_ms: f64,
    /// The CPU time of the busier thread where there are two: the one that lives, or the one that
    /// ended with the query.
    longest_ms: f64,
    memory: u64,
}

/// One case, measured.
struct Row {
    case: Case,
    points: usize,
    prometheus: Cost,
    isobar: Cost,
    inside: Option<Cost>,
    two_threads: Option<Cost>,
    wrong: Option<String>,
}

fn main() -> ExitCode {
    stop_servers_on_signals();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all answers agree.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let isobar = match &arguments.isobar {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .context("find this program")?
            .with_file_name("isobar"),
    };
    ensure!(isobar.is_file(), "there is no {}", isobar.display());
    let mut prometheus = Peer::new("prometheus", Kind::Prometheus, arguments.prometheus.clone());
    prometheus.arguments = [
        FEATURES,
        "--storage.tsdb.min-block-duration=24h",
        "--storage.tsdb.max-block-duration=24h",
    ]
    .map(str::to_owned)
    .to_vec();
    let isobar = Peer::new("isobar", Kind::Isobar, isobar);
    println!("    Machine: {}", machine());
    println!(
        "    Commit: {}",
        first_line("git", &["describe", "--always", "--dirty"])
    );
    println!("    {}\n    {}\n", prometheus.version(), isobar.version());

    let kept = TempDir::with_prefix("isobar-cases-").context("make a directory")?;
    let blocks = arguments.blocks.as_deref().unwrap_or(kept.path());
    let part = if arguments.smoke { 40 } else { 1 };
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    print_heading();
    for kind in SetKind::ALL {
        if !arguments.set.is_empty() && !arguments.set.iter().any(|it| it == kind.name()) {
            continue;
        }
        let set = kind.set(part);
        let wanted = |case: &Case| {
            arguments.only.is_empty() || arguments.only.iter().any(|it| case.query.contains(it))
        };
        let cases: Vec<Case> = cases(&set, part).into_iter().filter(wanted).collect();
        if cases.is_empty() {
            continue;
        }
        let folder = blocks.join(format!("{}-{part}", kind.name()));
        if !folder.is_dir() {
            make_blocks(&set, &prometheus, &folder)?;
        }
        let pinned = |peer: &Peer| Peer {
            processor: Some(arguments.processor),
            ..peer.clone()
        };
        let measured = measure_set(
            &cases,
            &folder,
            [pinned(&prometheus), pinned(&isobar)],
            arguments,
        )?;
        memory.push((kind, measured.1));
        rows.extend(measured.0);
    }
    print_summary(&rows, &memory);
    Ok(rows.iter().all(|it| it.wrong.is_none()))
}

/// Has Prometheus write the blocks of a set into `folder`.
fn make_blocks(set: &Set, prometheus: &Peer, folder: &Path) -> anyhow::Result<()> {
    eprintln!(
        "{}: writing {} series, {} samples …",
        set.kind.name(),
        set.series_count(),
        set.sample_count()
    );
    let parent = folder.parent().context("no parent directory")?;
    fs::create_dir_all(parent).context("make the directory of blocks")?;
    let server = Server::start(prometheus, parent)?;
    let http = client::client()?;
    for first in (0..set.steps).step_by(REQUEST_STEPS) {
        let steps = first..(first + REQUEST_STEPS).min(set.steps);
        for first in (0..set.series_count()).step_by(REQUEST_SERIES) {
            let series = first..(first + REQUEST_SERIES).min(set.series_count());
            let body = set.request(series, steps.clone())?;
            client::post(&http, &server.write_url(), body)?;
        }
    }
    let snapshot = server.snapshot()?;
    fs::rename(&snapshot, folder).context("keep the snapshot")
}

/// The rows of all cases, and what each server grew to at most over what it had at first.
fn measure_set(
    cases: &[Case],
    folder: &Path,
    peers: [Peer; 2],
    arguments: &Arguments,
) -> anyhow::Result<(Vec<Row>, [u64; 2])> {
    let parent = folder.parent().context("no parent directory")?;
    let start = |peer: &Peer| Server::start_over(peer, parent, |data| link_blocks(folder, data));
    let servers = [start(&peers[0])?, start(&peers[1])?];
    let idle = [own_memory(servers[0].pid())?, own_memory(servers[1].pid())?];
    let inside_folder =
        TempDir::with_prefix_in("isobar-cases-", parent).context("make a directory")?;
    let mut inside = Vec::new();
    for threads in 1..=2 {
        let data = inside_folder.path().join(threads.to_string());
        link_blocks(folder, &data)?;
        let wanted = !arguments.without_inside && (threads == 1 || arguments.threads);
        inside.push(wanted.then(|| Inside::open(&data, threads)).transpose()?);
    }
    let http = client::client()?;
    let enough = Duration::from_millis(if arguments.smoke { 1 } else { arguments.cpu_ms });
    let mut rows = Vec::new();
    for case in cases {
        eprintln!("{} ({} steps) …", case.query, case.steps());
        let mut asked = Vec::new();
        for (server, idle) in servers.iter().zip(idle) {
            asked.push(ask(&http, server, case, enough, idle).with_context(|| {
                format!(
                    "{}: {}\n{}",
                    server.peer.name,
                    case.query,
                    server.log_tail()
                )
            })?);
        }
        let [(prometheus, theirs), (isobar, ours)] = &asked[..] else {
            bail!("two servers were asked");
        };
        let expected = Answer::parse(theirs)?;
        let wrong = if ours == theirs {
            None
        } else {
            expected.difference(&Answer::parse(ours)?, EXACT)
        };
        let engine = |it: &Option<Inside>| {
            let engine = it.as_ref()?;
            Some(repeat(std::process::id(), enough, || engine.run(case)))
        };
        let row = Row {
            case: case.clone(),
            points: expected.points(),
            prometheus: *prometheus,
            isobar: *isobar,
            inside: engine(&inside[0]).transpose()?,
            two_threads: engine(&inside[1]).transpose()?,
            wrong,
        };
        print_row(&row);
        rows.push(row);
    }
    let grown = |at: usize| -> anyhow::Result<u64> {
        Ok(rows
            .iter()
            .map(|row| [row.prometheus, row.isobar][at].memory)
            .max()
            .unwrap_or(0))
    };
    let grown = [grown(0)?, grown(1)?];
    Ok((rows, grown))
}

/// The blocks of `folder` once more, without their bytes being copied.
fn link_blocks(folder: &Path, data: &Path) -> anyhow::Result<()> {
    let list = || fs::read_dir(folder).with_context(|| format!("list {}", folder.display()));
    for entry in list()? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        // Whatever else is there is not ours to open twice.
        if entry.path().join("meta.json").is_file() {
            link_all(&entry.path(), &data.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn link_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            link_all(&from, &to)?;
        } else {
            fs::hard_link(&from, &to).with_context(|| format!("link {}", from.display()))?;
        }
    }
    Ok(())
}

/// Asks a server the case: what it needed, and what it answered.
fn ask(
    http: &reqwest::blocking::Client,
    server: &Server,
    case: &Case,
    enough: Duration,
    idle: u64,
) -> anyhow::Result<(Cost, String)> {
    let url = format!("{}/api/v1/query_range", server.url);
    let seconds = |ms: i64| format!("{}", ms as f64 / 1e3);
    let parameters = [
        ("query", case.query.clone()),
        ("start", seconds(case.start_ms)),
        ("end", seconds(case.end_ms)),
        ("step", seconds(case.step_ms)),
    ];
    let watch = MemoryWatch::start(server.pid());
    let mut answer = client::ask(http, &url, &parameters)?.0;
    let mut cost = repeat(server.pid(), enough, || {
        answer = client::ask(http, &url, &parameters)?.0;
        Ok(())
    })?;
    cost.memory = watch.most().saturating_sub(idle);
    Ok((cost, answer))
}

/// Does `work` until the process has used enough CPU time to say what it costs.
fn repeat(
    pid: u32,
    enough: Duration,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Cost> {
    let before = cpu_time(pid)?;
    let mut walls = Vec::new();
    let mut looked = Instant::now();
    loop {
        let began = Instant::now();
        work()?;
        walls.push(began.elapsed());
        // Looking costs this process some of what it may be measuring.
        if looked.elapsed() < LOOK_INTERVAL && walls.len() > 1 {
            continue;
        }
        looked = Instant::now();
        let (cpu, longest) = spent(&before, &cpu_time(pid)?);
        let waited = walls.iter().sum::<Duration>() > 20 * enough;
        if (cpu >= enough && walls.len() >= 3) || waited {
            let count = walls.len() as f64;
            walls.sort();
            return Ok(Cost {
                cpu_ms: cpu.as_secs_f64() * 1e3 / count,
                wall_ms: walls[walls.len() / 2].as_secs_f64() * 1e3,
                longest_ms: longest.max(cpu.saturating_sub(longest)).as_secs_f64() * 1e3 / count,
                memory: 0,
            });
        }
    }
}

fn print_heading() {
    println!(
        "| query | steps | in process: CPU ms | isobar: CPU ms | wall ms | prometheus: CPU ms | wall ms | \
         CPU ÷ | wall ÷ | in process ÷ | memory MB, isobar | prometheus |"
    );
    println!("|---|{}", "---:|".repeat(11));
}

fn print_row(row: &Row) {
    let Row {
        isobar, prometheus, ..
    } = row;
    let own = if row.case.own { "own: " } else { "" };
    println!(
        "| {own}`{}` | {} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {} | {:.1} | {:.1} |",
        row.case.query.replace('|', "\\|"),
        row.case.steps(),
        row.inside
            .map_or("–".to_owned(), |it| format!("{:.3}", it.cpu_ms)),
        isobar.cpu_ms,
        isobar.wall_ms,
        prometheus.cpu_ms,
        prometheus.wall_ms,
        prometheus.cpu_ms / isobar.cpu_ms,
        prometheus.wall_ms / isobar.wall_ms,
        row.inside.map_or("–".to_owned(), |it| format!(
            "{:.2}",
            prometheus.cpu_ms / it.cpu_ms
        )),
        megabytes(isobar.memory),
        megabytes(prometheus.memory),
    );
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn mean(ratios: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = ratios.clone().count() as f64;
    (ratios.map(f64::ln).sum::<f64>() / count).exp()
}

fn print_summary(rows: &[Row], memory: &[(SetKind, [u64; 2])]) {
    println!();
    for (name, own) in [("Prometheus' cases", false), ("our own cases", true)] {
        let chosen: Vec<&Row> = rows.iter().filter(|it| it.case.own == own).collect();
        if chosen.is_empty() {
            continue;
        }
        let cpu = |it: &&Row| it.prometheus.cpu_ms / it.isobar.cpu_ms;
        let wall = |it: &&Row| it.prometheus.wall_ms / it.isobar.wall_ms;
        let inside = chosen
            .iter()
            .filter_map(|it| Some(it.prometheus.cpu_ms / it.inside?.cpu_ms));
        println!(
            "- {name}: {}; geometric mean of Prometheus ÷ Isobar: CPU {:.2}, wall {:.2}, CPU in process {:.2}; \
             slower by CPU: {}, by wall time: {}",
            chosen.len(),
            mean(chosen.iter().map(cpu)),
            mean(chosen.iter().map(wall)),
            mean(inside),
            chosen.iter().filter(|it| cpu(it) < 1.0).count(),
            chosen.iter().filter(|it| wall(it) < 1.0).count(),
        );
        for row in chosen.iter().filter(|it| cpu(it) < 1.0) {
            println!(
                "    - slower: `{}`, {} steps",
                row.case.query,
                row.case.steps()
            );
        }
    }
    for (kind, [prometheus, isobar]) in memory {
        println!(
            "- peak memory over idle, all cases of `{}`: Isobar {:.1} MB, Prometheus {:.1} MB: {:.2}×",
            kind.name(),
            megabytes(*isobar),
            megabytes(*prometheus),
            *prometheus as f64 / *isobar as f64
        );
    }
    for row in rows {
        let (Some(one), Some(two)) = (row.inside, row.two_threads) else {
            continue;
        };
        println!(
            "- two threads: {:.2}× by wall time, {:.2}× by the CPU time of the busier thread: `{}`, {} steps",
            one.wall_ms / two.wall_ms,
            one.cpu_ms / two.longest_ms,
            row.case.query,
            row.case.steps(),
        );
    }
    for row in rows {
        if let Some(wrong) = &row.wrong {
            println!(
                "- wrong: `{}`, {} steps: {wrong}",
                row.case.query,
                row.case.steps()
            );
        }
    }
    println!(
        "- {} of {} answers are the same, {} of them empty",
        rows.iter().filter(|it| it.wrong.is_none()).count(),
        rows.len(),
        rows.iter().filter(|it| it.points == 0).count()
    );
}

const _: () = assert!(BEGIN_MS % 86_400_000 == 0, "the data begin with a day");
