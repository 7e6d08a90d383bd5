//! What the operating system and the allocator say about this process, under the names that
//! Prometheus' client libraries use.

use std::fmt;

use isobar_model::Clock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self` and the allocator's counters whenever metrics are asked for.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    start_s: f64,
}

impl ProcessCollector {
    /// A collector in a process that starts now.
    pub(crate) fn new(clock: &Clock) -> Self {
        ProcessCollector {
            start_s: clock.now_ms() as f64 / 1000.0,
        }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            let help = "Total user and system CPU time spent in seconds";
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                metric.metric_type(),
            )?;
            metric.encode(encoder)?;
        }
        let mut gauge = |name, help, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds",
            self.start_s,
        )?;
        if let Some((virtual_bytes, resident_bytes)) = memory_bytes() {
            gauge(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                virtual_bytes,
            )?;
            gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                resident_bytes,
            )?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            gauge(
                "process_open_fds",
                "Number of open file descriptors",
                files.count() as f64,
            )?;
        }
        if let Some(bytes) = allocated_bytes() {
            gauge(
                "isobar_heap_allocated_bytes",
                "Memory that the program holds",
                bytes,
            )?;
        }
        Ok(())
    }
}

/// Clock ticks per second of `/proc/self/stat`; Linux has no other value on any platform today.
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name stands in parentheses and may hold anything; count from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn memory_bytes() -> Option<(f64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key| -> Option<f64> {
        status_field(&status, key)?
            .strip_suffix(" kB")?
            .trim()
            .parse()
            .ok()
    };
    Some((kib("VmSize:")? * 1024.0, kib("VmRSS:")? * 1024.0))
}

/// The number of threads of this process, 0 where it cannot be told.
pub(crate) fn thread_count() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_field(&status, "Threads:")
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// The bytes of memory that this process may use: the limit of its control group (version 2, or
/// 1), or what the machine has. 4 GiB where neither can be told.
pub(crate) fn memory_usable() -> u64 {
    let read = |path| std::fs::read_to_string(path).ok();
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let group = limits
        .into_iter()
        .filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    let machine = read("/proc/meminfo")
        .and_then(|text| {
            let kib = status_field(&text, "MemTotal:")?.strip_suffix(" kB")?;
            kib.trim().parse::<u64>().ok()
        })
        .map(|kib| kib * 1024);
    group.chain(machine).min().unwrap_or(4 << 30)
}

fn status_field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

/// Lets the allocator give back memory that has not been used for some seconds by a thread of its own. Without
/// it that happens only beside further allocations, and a process that is idle keeps what it needed once.
pub(crate) fn return_idle_memory() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "memory is given back only while more is asked for");
    }
}

fn allocated_bytes() -> Option<f64> {
    tikv_jemalloc_ctl::epoch::advance().ok()?;
    Some(tikv_jemalloc_ctl::stats::allocated::read().ok()? as f64)
}
