//! What the kernel says of a process: CPU time to the microsecond, and the most memory it had while
//! something ran.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::server::cpu_seconds;

/// How often memory is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(2);

/// Bytes of a page, on every architecture we run on.
const PAGE_BYTES: u64 = 4096;

/// What `/proc/PID/stat` may be off by between two readings: it cuts user and system time to
/// hundredths of a second.
const STAT_ERROR: Duration = Duration::from_millis(20);

/// CPU time that a process has used so far.
pub struct CpuTime {
    /// Of each thread that lives.
    threads: BTreeMap<u32, Duration>,
    /// Of all threads, also those that have ended, in hundredths of a second.
    process: Duration,
}

/// Reads the CPU time of a process.
pub fn cpu_time(pid: u32) -> anyhow::Result<CpuTime> {
    Ok(CpuTime {
        threads: thread_times(pid)?,
        process: Duration::from_secs_f64(cpu_seconds(pid)?),
    })
}

fn thread_times(pid: u32) -> anyhow::Result<BTreeMap<u32, Duration>> {
    let mut times = BTreeMap::new();
    let folder = format!("/proc/{pid}/task");
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let entry = entry.with_context(|| format!("list {folder}"))?;
        // A thread may end meanwhile: then it is not there.
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
            continue;
        };
        let nanoseconds = text.split(' ').next().and_then(|it| it.parse().ok());
        let thread = entry.file_name().to_str().and_then(|it| it.parse().ok());
        let (Some(thread), Some(nanoseconds)) = (thread, nanoseconds) else {
            bail!("no CPU time in {text:?}");
        };
        times.insert(thread, Duration::from_nanos(nanoseconds));
    }
    Ok(times)
}

/// CPU time between two readings: of all threads, and of the one that had most of those that live.
/// Where many threads have ended meanwhile, it is only known to a hundredth of a second.
pub fn spent(before: &CpuTime, after: &CpuTime) -> (Duration, Duration) {
    let each = after.threads.iter().map(|(thread, after)| {
        let before = before.threads.get(thread).copied().unwrap_or_default();
        after.saturating_sub(before)
    });
    let (sum, most) = each.fold((Duration::ZERO, Duration::ZERO), |(sum, most), it| {
        (sum + it, most.max(it))
    });
    let process = after.process.saturating_sub(before.process);
    (sum.max(process.saturating_sub(STAT_ERROR)), most)
}

/// Memory that belongs to the process alone (neither mapped files nor shared), in bytes.
pub fn own_memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/statm");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut fields = text.split(' ').skip(1).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(resident)), Some(Ok(shared))) => Ok(resident.saturating_sub(shared) * PAGE_BYTES),
        _ => bail!("no memory in {text:?}"),
    }
}

/// Looks at [`own_memory`] of a process until it is asked for the most that it saw.
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Begins to watch.
    pub fn start(pid: u32) -> MemoryWatch {
        let (stop, most) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(own_memory(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(WATCH_INTERVAL);
            }
        });
        MemoryWatch {
            stop,
            most,
            thread: Some(thread),
        }
    }

    /// The most bytes that were seen.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and nothing is lost if it did.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let watch = MemoryWatch::start(pid);
        let mut sum = 0_u64;
        while spent(&before, &cpu_time(pid).unwrap()).0 < Duration::from_millis(10) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(watch.most() > 0);
    }
}
