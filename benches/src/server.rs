//! Starts one server on loopback over an empty directory, measures it from outside, and makes sure
//! that nothing of it is left.
//!
//! What is measured comes from the kernel: CPU time and memory of the process from `/proc`, bytes on
//! disk from the file system. So every server is measured in the same way, whatever it says of itself.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// Linux counts the CPU time that it shows in hundredths of a second, on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long a server may take until it answers that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Who is measured: decides the flags, the paths and what its answers are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prometheus, of any version.
    Prometheus,
    /// A single VictoriaMetrics node. Its functions mean something slightly else, by design.
    VictoriaMetrics,
    /// `isobar standalone`.
    Isobar,
}

/// A program that can be started as a server.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the table calls it.
    pub name: String,
    /// Which kind of server it is.
    pub kind: Kind,
    /// Where the program is.
    pub binary: PathBuf,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The only processor that it may use, if it may not use all.
    pub processor: Option<usize>,
}

impl Peer {
    /// A program with nothing special about it.
    pub fn new(name: &str, kind: Kind, binary: PathBuf) -> Peer {
        Peer {
            name: name.to_owned(),
            kind,
            binary,
            arguments: Vec::new(),
            processor: None,
        }
    }

    /// The line in which the program names its version.
    pub fn version(&self) -> String {
        let flag = if self.kind == Kind::VictoriaMetrics {
            "-version"
        } else {
            "--version"
        };
        let output = Command::new(&self.binary).arg(flag).output();
        let text = output
            .map(|it| [it.stdout, it.stderr].concat())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .find(|it| !it.trim().is_empty())
            .unwrap_or("version unknown")
            .trim()
            .to_owned()
    }

    fn arguments(&self, root: &Path, ports: [u16; 2]) -> Vec<String> {
        let data = root.join("data");
        let data = data.display();
        let http = format!("127.0.0.1:{}", ports[0]);
        let mut arguments = match self.kind {
            Kind::Prometheus => vec![
                format!("--config.file={}", root.join("prometheus.yml").display()),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={http}"),
                "--storage.tsdb.retention.time=10y".to_owned(),
                "--query.max-samples=500000000".to_owned(),
                "--web.enable-remote-write-receiver".to_owned(),
                "--web.enable-admin-api".to_owned(),
            ],
            Kind::VictoriaMetrics => vec![
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={http}"),
                "-retentionPeriod=10y".to_owned(),
                // Every answer is worked out anew and to the last sample, as the others do it.
                "-search.disableCache".to_owned(),
                "-search.latencyOffset=0s".to_owned(),
                "-search.maxQueryDuration=5m".to_owned(),
                "-search.maxSamplesPerQuery=2000000000".to_owned(),
                "-search.maxUniqueTimeseries=10000000".to_owned(),
                "-search.maxSeries=10000000".to_owned(),
            ],
            Kind::Isobar => vec![
                "standalone".to_owned(),
                format!("--data-dir={data}"),
                format!("--http-address={http}"),
                format!("--grpc-address=127.0.0.1:{}", ports[1]),
                "--no-self-monitoring".to_owned(),
                "--web.enable-admin-api".to_owned(),
            ],
        };
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }

    fn command(&self) -> Command {
        let Some(processor) = self.processor else {
            return Command::new(&self.binary);
        };
        // The programs count the processors that they may use, and start as many threads.
        let mut command = Command::new("taskset");
        command.arg("-c").arg(processor.to_string());
        command.arg(&self.binary);
        command
    }

    fn ready_path(&self) -> &'static str {
        if self.kind == Kind::VictoriaMetrics {
            "/health"
        } else {
            "/-/ready"
        }
    }
}

/// A server that runs. It is killed and its directory removed when this goes away.
pub struct Server {
    /// Which program it is.
    pub peer: Peer,
    /// Its root URL.
    pub url: String,
    process: Arc<Running>,
    pid: u32,
    ports: [u16; 2],
}

/// What has to be cleaned up for a server, however this program ends.
struct Running {
    child: Mutex<Child>,
    root: Mutex<Option<TempDir>>,
    path: PathBuf,
}

/// All servers that run, for [`stop_all`].
static RUNNING: Mutex<Vec<Arc<Running>>> = Mutex::new(Vec::new());

impl Server {
    /// Starts `peer` over an empty directory below `parent` and waits until it is ready.
    pub fn start(peer: &Peer, parent: &Path) -> anyhow::Result<Server> {
        Server::start_over(peer, parent, |_| Ok(()))
    }

    /// Starts `peer` over a directory below `parent` that `prepare` fills, and waits until it is
    /// ready.
    pub fn start_over(
        peer: &Peer,
        parent: &Path,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Server> {
        let root = TempDir::with_prefix_in("isobar-versus-", parent).context("make a directory")?;
        let path = root.path().to_owned();
        fs::write(path.join("prometheus.yml"), "global: {}\n").context("write prometheus.yml")?;
        prepare(&path.join("data")).context("fill the data directory")?;
        let ports = [free_port()?, free_port()?];
        let child = spawn(peer, &path, ports)?;
        let pid = child.id();
        let process = Arc::new(Running {
            child: Mutex::new(child),
            root: Mutex::new(Some(root)),
            path,
        });
        lock(&RUNNING).push(Arc::clone(&process));
        let url = format!("http://127.0.0.1:{}", ports[0]);
        let server = Server {
            peer: peer.clone(),
            url,
            process,
            pid,
            ports,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Kills the process as a crash would, starts it again over what it left, and gives the time
    /// until it is ready.
    pub fn crash_and_restart(&mut self) -> anyhow::Result<Duration> {
        let began = {
            let mut child = lock(&self.process.child);
            child.kill().context("kill the server")?;
            child.wait().context("wait for the end of the server")?;
            let began = Instant::now();
            *child = spawn(&self.peer, &self.process.path, self.ports)?;
            self.pid = child.id();
            began
        };
        self.wait_until_ready()?;
        Ok(began.elapsed())
    }

    /// Whether the server is writing a file or directory that will get its name when it is whole.
    pub fn is_writing(&self) -> bool {
        let temporary = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten();
            let mut names = entries.flatten().map(|it| it.file_name());
            names.any(|name| name.to_string_lossy().contains(".tmp"))
        };
        let data = self.process.path.join("data");
        temporary(&data) || temporary(&data.join("isobar-wal"))
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let client = crate::client::client()?;
        let url = format!("{}{}", self.url, self.peer.ready_path());
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if client
                .get(&url)
                .send()
                .is_ok_and(|it| it.status().is_success())
            {
                return Ok(());
            }
            if let Some(status) = lock(&self.process.child)
                .try_wait()
                .context("look after the server")?
            {
                bail!(
                    "{} ended with {status}:\n{}",
                    self.peer.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "{} was not ready in {READY_WITHIN:?}:\n{}",
            self.peer.name,
            self.log_tail()
        )
    }

    /// Where it takes remote write.
    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time that the process has used so far, in seconds, in all threads, in and out of the kernel.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid)
    }

    /// A line of `/proc/PID/status` that counts in kB, in bytes: `VmRSS` is the memory that is resident
    /// now, `VmHWM` the most that ever was.
    pub fn memory_bytes(&self, line: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .context("read /proc/PID/status")?;
        parse_memory_bytes(&status, line).with_context(|| format!("no {line} in /proc/PID/status"))
    }

    /// Bytes of all files in the data directory.
    pub fn disk_bytes(&self) -> anyhow::Result<u64> {
        folder_bytes(&self.process.path.join("data"))
    }

    /// Bytes and samples of all finished blocks, where there are any.
    pub fn blocks(&self) -> anyhow::Result<Option<(u64, u64)>> {
        blocks_in(&self.process.path.join("data"))
    }

    /// As [`Server::blocks`], but where blocks are Prometheus' the head is written as blocks first, so
    /// that all samples are in some.
    pub fn all_in_blocks(&self) -> anyhow::Result<Option<(u64, u64)>> {
        match self.peer.kind {
            Kind::VictoriaMetrics => self.blocks(),
            Kind::Prometheus | Kind::Isobar => blocks_in(&self.snapshot()?),
        }
    }

    /// The number of finished blocks in the data directory.
    pub fn block_count(&self) -> anyhow::Result<usize> {
        let folder = self.process.path.join("data");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        Ok(entries
            .filter_map(Result::ok)
            .filter(|it| it.path().join("meta.json").is_file())
            .count())
    }

    /// Has a Prometheus or Isobar write all that it holds as blocks. Their directory.
    pub fn snapshot(&self) -> anyhow::Result<PathBuf> {
        let url = format!("{}/api/v1/admin/tsdb/snapshot", self.url);
        let answer = crate::client::client()?
            .post(url)
            .send()
            .context("ask for a snapshot")?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer.text().context("read the answer")?)
                .context("parse the answer")?;
        let name = answer["data"]["name"]
            .as_str()
            .context("the snapshot has no name")?;
        Ok(self.process.path.join("data/snapshots").join(name))
    }

    /// The last lines that the server logged.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.process.path.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Starts the program in its directory.
fn spawn(peer: &Peer, path: &Path, ports: [u16; 2]) -> anyhow::Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(path.join("log"))
        .context("create the log")?;
    peer.command()
        .args(peer.arguments(path, ports))
        .current_dir(path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", peer.binary.display()))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.stop();
        lock(&RUNNING).retain(|it| !Arc::ptr_eq(it, &self.process));
    }
}

impl Running {
    /// Best effort, since there is no one left to tell: the process may have ended by itself.
    fn stop(&self) {
        let mut child = lock(&self.child);
        if child.kill().is_ok() && child.wait().is_ok() {
            drop(lock(&self.root).take());
        }
    }
}

/// Stops every server that still runs, for the case that this program is interrupted.
pub fn stop_all() {
    for process in lock(&RUNNING).drain(..) {
        process.stop();
    }
}

/// A poisoned lock still holds what has to be cleaned up.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that was free a moment ago. Another program may take it first; then the server says so.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr().context("read the port")?.port())
}

/// As [`Server::cpu_seconds`], of any process.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc/PID/stat")?;
    parse_cpu_seconds(&stat).with_context(|| format!("no CPU time in {stat:?}"))
}

/// Fields 14 and 15, counted after the name, which may hold spaces and brackets.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn parse_memory_bytes(status: &str, line: &str) -> Option<u64> {
    let (_, rest) = status.split_once(&format!("{line}:"))?;
    let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Neither space that is reserved behind the end of a file counts, nor holes in it.
fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        // A file may be renamed or removed meanwhile: then it is not there.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            sum += folder_bytes(&entry.path())?;
        } else {
            sum += metadata.len().min(metadata.blocks() * 512);
        }
    }
    Ok(sum)
}

fn blocks_in(folder: &Path) -> anyhow::Result<Option<(u64, u64)>> {
    let mut total = (0, 0);
    add_blocks(folder, &mut total)?;
    Ok((total.1 > 0).then_some(total))
}

fn add_blocks(folder: &Path, total: &mut (u64, u64)) -> anyhow::Result<()> {
    if let Ok(meta) = fs::read_to_string(folder.join("meta.json")) {
        let meta: serde_json::Value = serde_json::from_str(&meta).context("parse meta.json")?;
        total.0 += folder_bytes(folder)?;
        total.1 += meta["stats"]["numSamples"].as_u64().unwrap_or(0);
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("list {}", folder.display()))?
            .path();
        if path.is_dir() {
            add_blocks(&path, total)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 100 200 300";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert_eq!(parse_cpu_seconds("12 (a"), None);
        assert_eq!(
            parse_memory_bytes("Name:\ta\nVmHWM:\t  12 kB\nVmRSS:\t 7 kB\n", "VmRSS"),
            Some(7168)
        );
        assert_eq!(parse_memory_bytes("", "VmRSS"), None);
    }
}
