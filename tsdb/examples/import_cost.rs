//! What does it cost to take over the log of a Prometheus: how long, and how much memory?
//!
//! Data: a log without checkpoint and chunks, so that all comes from it, of SERIES series (default
//! 100000) of ten labels with a sample each every 15 s for three hours, half counters and half
//! gauges, in segments of 128 MiB, uncompressed. The memory is the peak of the process; what it
//! was before the directory is opened is printed, too.
//!
//! `cargo run --release -p isobar-tsdb --example import_cost [SERIES] [STEPS]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use isobar_tsdb::db::{Db, DbConfig};
use isobar_tsdb::encoding::{crc32c, put_be64, put_uvarint, put_uvarint_str, put_varint};

const PAGE_BYTES: usize = 32 << 10;
const SEGMENT_BYTES: usize = 128 << 20;

/// Writes records into segments.
struct Log {
    dir: PathBuf,
    file: BufWriter<File>,
    segments: usize,
    position: usize,
}

impl Log {
    fn create(dir: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let file = BufWriter::new(File::create(dir.join("00000000"))?);
        Ok(Log {
            dir,
            file,
            segments: 1,
            position: 0,
        })
    }

    fn put(&mut self, record: &[u8]) -> std::io::Result<()> {
        if self.position + record.len() > SEGMENT_BYTES {
            self.file.flush()?;
            let path = self.dir.join(format!("{:08}", self.segments));
            self.file = BufWriter::new(File::create(path)?);
            (self.segments, self.position) = (self.segments + 1, 0);
        }
        let mut rest = record;
        let mut first = true;
        while first || !rest.is_empty() {
            let left = PAGE_BYTES - self.position % PAGE_BYTES;
            if left < 7 {
                self.file.write_all(&[0; 7][..left])?;
                self.position += left;
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(left - 7));
            let kind = match (first, later.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.file.write_all(&[kind])?;
            self.file.write_all(&(now.len() as u16).to_be_bytes())?;
            self.file.write_all(&crc32c(now).to_be_bytes())?;
            self.file.write_all(now)?;
            self.position += 7 + now.len();
            (rest, first) = (later, false);
        }
        Ok(())
    }
}

fn write_log(dir: &Path, series: u64, steps: i64) -> std::io::Result<()> {
    let mut log = Log::create(dir.join("wal"))?;
    for number in 1..=series {
        let mut record = vec![1];
        put_be64(&mut record, number);
        let text = format!(
            "__name__=http_request_duration_seconds_{}_total,cluster=eu-west-1,container=server,\
             endpoint=metrics,handler=/api/v1/{},instance=10.0.{}.{}:9090,job=kubernetes-pods,\
             method=GET,namespace=production-{},pod=server-{number:08x}",
            number % 200,
            number % 37,
            number / 256 % 256,
            number % 256,
            number % 11,
        );
        put_uvarint(&mut record, 10);
        for (name, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
            put_uvarint_str(&mut record, name);
            put_uvarint_str(&mut record, value);
        }
        log.put(&record)?;
    }
    let base_ms = 1_700_000_000_000_i64;
    for step in 0..steps {
        // A scrape of 500 series is a record.
        for from in (1..=series).step_by(500) {
            let mut record = vec![2];
            let ms = base_ms + step * 15_000 + from as i64 % 15_000;
            put_be64(&mut record, from);
            put_be64(&mut record, ms.cast_unsigned());
            for number in from..(from + 500).min(series + 1) {
                let value = match number % 2 {
                    0 => (step * (number % 50) as i64) as f64,
                    _ => ((step + number as i64) as f64 * 0.01).sin(),
                };
                put_varint(&mut record, (number - from) as i64);
                put_varint(&mut record, 0);
                put_be64(&mut record, value.to_bits());
            }
            log.put(&record)?;
        }
    }
    log.file.flush()
}

/// The peak of the memory of this process, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let series = arguments.next().transpose()?.unwrap_or(100_000);
    let steps = arguments.next().transpose()?.unwrap_or(720);
    let dir = std::env::temp_dir().join(format!("isobar-import-cost-{}", std::process::id()));
    write_log(&dir, series, steps.cast_signed())?;
    println!("{series} series, {steps} steps; {} MiB before", peak_mib());
    let mut config = DbConfig::new(&dir);
    config.events = std::sync::Arc::new(|event| println!("{event}"));
    let began = Instant::now();
    let db = Db::open(config)?;
    let seconds = began.elapsed().as_secs_f64();
    let samples: u64 = db
        .blocks()
        .iter()
        .map(|it| it.meta().stats.num_samples)
        .sum();
    assert_eq!(samples, series * steps);
    let bytes: u64 = db.blocks().iter().map(|it| it.size_bytes()).sum();
    println!(
        "{seconds:.1} s, {:.0} ns a sample, {:.2} bytes a sample in {} blocks, peak {} MiB",
        seconds * 1e9 / samples as f64,
        bytes as f64 / samples as f64,
        db.blocks().len(),
        peak_mib()
    );
    drop(db);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
