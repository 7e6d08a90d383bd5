//! `isobar store` as a program, and what it takes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isobar_store::grpc::RemoteStore;
use tonic::transport::Endpoint;

use super::Result;
use super::bucket::Bucket;

const START_MAX: Duration = Duration::from_secs(60);
/// When it has asked the bucket for nothing for so long, it has seen all blocks.
const QUIET: Duration = Duration::from_millis(500);
/// The length of a clock tick in `/proc`, on every Linux that matters.
const TICK: Duration = Duration::from_millis(10);

/// The program; it ends when this is dropped.
pub(super) struct Gateway {
    child: Child,
    /// The way to ask it.
    pub(super) store: RemoteStore,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Gateway {
    /// Starts it with an empty data directory, and waits until it knows its blocks.
    pub(super) async fn start(
        program: &Path,
        bucket: &Bucket,
        data_dir: &Path,
        budget: &str,
    ) -> Result<Self> {
        if data_dir.exists() {
            fs::remove_dir_all(data_dir)?;
        }
        let (http, grpc) = (free_address()?, free_address()?);
        let child = Command::new(program)
            .arg("store")
            .arg(format!("--objstore.config={}", bucket.config()))
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--memory.budget={budget}"))
            .arg(format!("--http-address={http}"))
            .arg(format!("--grpc-address={grpc}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .spawn()?;
        let endpoint = Endpoint::from_shared(format!("http://{grpc}"))?;
        let mut gateway = Gateway {
            child,
            store: RemoteStore::new("gateway", endpoint.connect_lazy()),
        };
        let began = Instant::now();
        // It takes calls when it knows its blocks.
        while tokio::net::TcpStream::connect(grpc).await.is_err() {
            if let Some(status) = gateway.child.try_wait()? {
                return Err(format!("{} ended: {status}", program.display()).into());
            }
            if began.elapsed() > START_MAX {
                return Err("the gateway is not ready".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It looks at all blocks once more right behind.
        let mut asked = 0;
        while asked != bucket.counts().0 {
            asked = bucket.counts().0;
            tokio::time::sleep(QUIET).await;
        }
        Ok(gateway)
    }

    fn proc(&self, file: &str) -> std::path::PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(file)
    }

    /// Counts the most memory from here on.
    pub(super) fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(self.proc("clear_refs"), "5")?)
    }

    /// The most memory that was resident, in MiB.
    pub(super) fn peak_mib(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no VmHWM")?.parse::<u64>()? / 1024)
    }

    /// The processor time that it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.proc("stat"))?;
        let fields = stat.rsplit_once(')').ok_or("no fields")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = ticks.map(|it| it.parse::<u32>().unwrap_or(0)).sum();
        Ok(TICK * ticks)
    }
}
