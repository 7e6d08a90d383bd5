//! Starts processes on free ports of the loopback interface and stops them when dropped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use isobar_model::{Columns, Labels};
use reqwest::blocking::{Client, Response};
use serde_json::Value;
use tempfile::NamedTempFile;

/// How long anything may take that normally takes a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until `done` gives something; panics with `what` when it takes too long.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// One HTTP client for all tests.
pub(crate) fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| Client::builder().timeout(PATIENCE).build().unwrap())
}

/// A process that is killed when dropped; its output lies in a file.
pub(crate) struct Process {
    child: Child,
    log: NamedTempFile,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let log = NamedTempFile::new().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(File::options().append(true).open(log.path()).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        Process { child, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and wait until it is gone; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(killed.success());
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = eventually("the process to end", || self.child.try_wait().unwrap());
        status.code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An HTTP server that speaks the Prometheus API.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    /// `isobar standalone` on `data_dir`, ready to answer.
    pub(crate) fn isobar(data_dir: &Path, flags: &[&str]) -> Self {
        let mut server = Server::isobar_unready(data_dir, flags);
        server.wait_ready();
        server
    }

    /// `isobar standalone` that may not get ready.
    pub(crate) fn isobar_unready(data_dir: &Path, flags: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command
            .arg("standalone")
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--http-address=127.0.0.1:{port}"))
            .arg(format!("--grpc-address=127.0.0.1:{}", free_port()))
            .args(flags);
        Server {
            process: Process::start(&mut command),
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    pub(crate) fn wait_ready(&mut self) {
        let url = format!("{}/-/ready", self.url);
        eventually("the server to be ready", || {
            assert!(
                self.process.is_running(),
                "the server stopped:\n{}",
                self.process.log()
            );
            client()
                .get(&url)
                .send()
                .ok()
                .filter(|r| r.status().is_success())
        });
    }

    pub(crate) fn get(&self, path: &str, params: &[(&str, &str)]) -> Response {
        client()
            .get(format!("{}{path}", self.url))
            .query(params)
            .send()
            .unwrap()
    }

    /// The answer to an API request, which must be a success.
    pub(crate) fn api(&self, path: &str, params: &[(&str, &str)]) -> Value {
        let response = self.get(path, params);
        let status = response.status();
        let text = response.text().unwrap();
        assert!(status.is_success(), "{path} {params:?}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The result of an instant query.
    pub(crate) fn query(&self, query: &str, time: &str) -> Value {
        self.api("/api/v1/query", &[("query", query), ("time", time)])["data"].take()
    }

    /// Sends series by remote write; the status and the answer's text.
    pub(crate) fn write(&self, series: &[(Labels, Columns)]) -> reqwest::Result<(u16, String)> {
        let mut message = Vec::new();
        for (labels, columns) in series {
            isobar_proto::remote::encode_series(&mut message, labels, columns);
        }
        let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
        self.write_body(body)
    }

    /// Sends a body as remote write.
    pub(crate) fn write_body(&self, body: Vec<u8>) -> reqwest::Result<(u16, String)> {
        let response = client()
            .post(format!("{}/api/v1/write", self.url))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .body(body)
            .send()?;
        Ok((response.status().as_u16(), response.text()?))
    }
}

/// Labels with a metric's name and one more label.
pub(crate) fn labels(metric: &str, name: &str, value: &str) -> Labels {
    Labels::from_pairs([("__name__", metric), (name, value)])
}

/// Columns from pairs.
pub(crate) fn columns(samples: &[(i64, f64)]) -> Columns {
    let mut columns = Columns::default();
    samples
        .iter()
        .for_each(|(timestamp_ms, value)| columns.push(*timestamp_ms, *value));
    columns
}

/// A program on the path. `None`, after saying so, when it is not installed; a failure instead
/// when `ISOBAR_REQUIRE_PEERS=1`.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("ISOBAR_REQUIRE_PEERS").is_none_or(|v| v != "1"),
            "{name} is not installed and ISOBAR_REQUIRE_PEERS=1"
        );
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A small generator of numbers; the same in every run.
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of a seed; neighbouring seeds give unlike ones.
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = (seed ^ (seed >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut random = Random(mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}
