//! What do queries cost a store gateway with 200 blocks of 100,000 series behind an S3 API with 30 ms to the
//! first byte and 50 MB/s for each connection, and does its memory stay inside of `--memory.budget`?
//!
//! Data ([`data`]): 10 blocks of 2 h of 500 metrics of 200 pods, a sample a minute, each under the external
//! labels of 20 clusters; the files of a block are linked and not copied, so they take 0.5 GB. The S3 API
//! ([`bucket`]) runs in this process, `isobar store` ([`process`]) is the program, asked over gRPC. Every
//! question is asked of a gateway that knows nothing but the list of blocks (cold), and once more. Then
//! several at a time, some of which want more memory than there is.
//!
//! ```sh
//! cargo run --release -p isobar-store --example gateway_scale -- DIRECTORY ISOBAR [BUDGET [QUESTION]]
//! ```
//!
//! A directory for the data, which is kept for the next time; the program; `--memory.budget`, 256MiB unless
//! told; only questions whose name contains a text.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use isobar_model::{MatchOp, Matcher, TimeRange};
use isobar_store::api::{LabelsRequest, SeriesBatch, SeriesRequest, Store, StoreError};
use isobar_store::grpc::RemoteStore;

mod bucket;
mod data;
mod process;

use bucket::Bucket;
use data::{BEGIN_MS, END_MS};
use process::Gateway;

/// So long a large answer is waited for.
const PATIENCE: Duration = Duration::from_secs(45);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is asked.
#[derive(Clone)]
enum Ask {
    Series(SeriesRequest),
    Values(&'static str, LabelsRequest),
    Names(LabelsRequest),
}

/// What came of it.
#[derive(Default)]
struct Answer {
    /// Series, or texts.
    count: usize,
    chunks: usize,
    first: Duration,
    all: Duration,
    /// Requests to the bucket of which each began after the one before had ended, until the first series.
    trips: u64,
    /// The same among the requests for one block.
    of_block: u64,
}

fn matchers(selector: &str) -> Vec<Matcher> {
    let operators = [
        ("!~", MatchOp::NotRegexp),
        ("=~", MatchOp::Regexp),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let matcher = |text: &str| {
        let mut found = operators.into_iter().filter_map(|(sign, op)| {
            let (name, value) = text.split_once(sign)?;
            Matcher::new(name, op, value).ok()
        });
        found.next().expect("selectors of this program are valid")
    };
    let texts = selector.split(' ').filter(|it| !it.is_empty());
    texts.map(matcher).collect()
}

fn hours(last: i64) -> TimeRange {
    TimeRange::new((END_MS - last * 3_600_000).max(BEGIN_MS), END_MS - 1)
}

/// Name, what is asked, selector, hours: what panels of a dashboard ask, what somebody asks who looks for
/// something, and what fills the boxes to choose from.
const QUESTIONS: &str = "\
metric, cluster, 1 h | series | __name__=metric_007_total cluster=c03 | 1
metric, cluster, 20 h | series | __name__=metric_008_total cluster=c03 | 20
metric, cluster, namespace, 20 h | series | __name__=metric_009_total cluster=c05 namespace=team-3 | 20
one series, 20 h | series | __name__=metric_010_total cluster=c05 instance=10.0.2.7:9100 | 20
metric, all clusters, 1 h | series | __name__=metric_011_total | 1
metric, all clusters, 20 h | series | __name__=metric_012_total | 20
metric, pods by expression, all, 20 h | series | __name__=metric_013_total pod=~app-1.* | 20
5 metrics, cluster, 20 h | series | __name__=~metric_02[0-4]_total cluster=c07 | 20
metric, namespace, all, 20 h | series | __name__=metric_030_total namespace=team-4 | 20
10 metrics of a node, cluster, 6 h | series | __name__=~metric_04[0-9]_total cluster=c01 node=node-05 | 6
2 metrics, all clusters, 6 h | series | __name__=~metric_05[01]_total | 6
metric, instance, all, 20 h | series | __name__=metric_060_total instance=10.0.1.3:9100 | 20
pod, any metric, cluster, 20 h | series | instance=10.0.1.3:9100 cluster=c02 | 20
pod, any metric, all, 1 h | series | instance=10.0.1.4:9100 | 1
{pod!=\"\"}, cluster, 2 h | series | pod!= cluster=c02 | 2
{pod!=\"\"}, cluster, 20 h | series | pod!= cluster=c02 | 20
{pod!=\"\"}, all clusters, 2 h | series | pod!= | 2
{pod!=\"\"}, cluster, 20 h, labels only | labels only | pod!= cluster=c04 | 20
label_values(pod), 20 h | values of pod | | 20
label_values(cluster), 20 h | values of cluster | | 20
label_values(metric, pod), all, 20 h | values of pod | __name__=metric_070_total | 20
label_values(pod of namespace), 6 h | values of pod | namespace=team-2 cluster=c03 | 6
label names, 20 h | names | | 20";

fn questions() -> Result<Vec<(&'static str, Ask)>> {
    let question = |line: &'static str| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, what, selector, last] = *fields.as_slice() else {
            return Err(format!("no question: {line}").into());
        };
        let range = hours(last.parse()?);
        let series = SeriesRequest::new(matchers(selector), range);
        let labels = LabelsRequest::new(matchers(selector), range);
        let ask = match what.strip_prefix("values of ") {
            Some(label) => Ask::Values(label, labels),
            None if what == "names" => Ask::Names(labels),
            None => Ask::Series(SeriesRequest {
                skip_chunks: what == "labels only",
                ..series
            }),
        };
        Ok((name, ask))
    };
    QUESTIONS.lines().map(question).collect()
}

/// Asks, and counts what comes.
async fn ask(
    store: &RemoteStore,
    bucket: &Bucket,
    ask: Ask,
) -> std::result::Result<Answer, StoreError> {
    let started = Instant::now();
    let mut answer = Answer::default();
    bucket.begin_trips();
    match ask {
        Ask::Series(request) => {
            let mut series = store.series(request);
            while let Some(batch) = series.next().await {
                match batch? {
                    SeriesBatch::Series(batch) => {
                        if answer.count == 0 {
                            answer.first = started.elapsed();
                            answer.trips = bucket.trips();
                            answer.of_block = bucket.trips_of_block();
                        }
                        answer.count += batch.len();
                        answer.chunks += batch.iter().map(|it| it.chunks.len()).sum::<usize>();
                    }
                    SeriesBatch::Warnings(remarks) => {
                        return Err(StoreError::Unavailable(format!("{remarks:?}")));
                    }
                }
            }
        }
        Ask::Values(name, request) => {
            answer.count = store
                .label_values(name.to_owned(), request)
                .await?
                .values
                .len();
        }
        Ask::Names(request) => answer.count = store.label_names(request).await?.values.len(),
    }
    answer.all = started.elapsed();
    if answer.first.is_zero() {
        answer.first = answer.all;
        answer.trips = bucket.trips();
        answer.of_block = bucket.trips_of_block();
    }
    Ok(answer)
}

struct Bench {
    bucket: Bucket,
    program: PathBuf,
    dir: PathBuf,
    budget: String,
}

impl Bench {
    async fn gateway(&self) -> Result<Gateway> {
        let data_dir = self.dir.join("gateway");
        Gateway::start(&self.program, &self.bucket, &data_dir, &self.budget).await
    }

    /// Each question alone.
    async fn one_by_one(&self, only: &str) -> Result<()> {
        println!(
            "| {:<38} | {:>8} | {:>8} | {:>5} | {:>8} | {:>8} | {:>8} | {:>8} | {:>6} | {:>8} | {:>8} | {:>8} | {:>8} |",
            "question",
            "series",
            "chunks",
            "trips",
            "of block",
            "first",
            "all",
            "requests",
            "MB",
            "CPU",
            "peak MiB",
            "again",
            "peak MiB"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (name, question) in questions()? {
            if !name.contains(only) {
                continue;
            }
            let gateway = self.gateway().await?;
            self.bucket.forget();
            gateway.reset_peak()?;
            let cpu = gateway.cpu()?;
            let cold = ask(&gateway.store, &self.bucket, question.clone()).await;
            let (requests, bytes) = self.bucket.counts();
            let (peak, cpu) = (gateway.peak_mib()?, gateway.cpu()? - cpu);
            gateway.reset_peak()?;
            let warm = ask(&gateway.store, &self.bucket, question).await;
            let again = gateway.peak_mib()?;
            match (cold, warm) {
                (Ok(cold), Ok(warm)) => println!(
                    "| {name:<38} | {:>8} | {:>8} | {:>5} | {:>8} | {:>8.0?} | {:>8.0?} | {requests:>8} | {:>6.1} | {:>8.0?} | {peak:>8} | {:>8.1?} | {again:>8} |",
                    cold.count,
                    cold.chunks,
                    cold.trips,
                    cold.of_block,
                    cold.first,
                    cold.all,
                    bytes as f64 / 1e6,
                    cpu,
                    warm.all
                ),
                (Err(error), _) | (_, Err(error)) => {
                    println!("| {name:<38} | {error}; peak {peak} MiB |")
                }
            }
        }
        Ok(())
    }

    /// Small questions again and again while large ones run, of which some want too much.
    async fn beside(&self) -> Result<()> {
        let gateway = self.gateway().await?;
        let small = SeriesRequest::new(
            matchers("__name__=metric_008_total cluster=c03 namespace=team-1"),
            hours(24),
        );
        ask(&gateway.store, &self.bucket, Ask::Series(small.clone())).await?;
        let sorting = SeriesRequest {
            // All series of a cluster have to be put into another order.
            without_labels: vec!["namespace".to_owned()],
            ..SeriesRequest::new(matchers("pod!="), hours(24))
        };
        let streamed = SeriesRequest::new(matchers("pod!= cluster=c09"), hours(4));
        let everything = SeriesRequest {
            skip_chunks: true,
            ..SeriesRequest::new(matchers("pod!="), hours(4))
        };
        let all = SeriesRequest::new(matchers("pod!="), hours(24));
        let cases: [(&str, usize, &SeriesRequest); 5] = [
            ("nothing", 0, &small),
            ("1 that sorts 20 h of all clusters", 1, &sorting),
            ("6 × {pod!=\"\"} of a cluster, 4 h", 6, &streamed),
            ("3 × labels of {pod!=\"\"}, all clusters", 3, &everything),
            ("2 × {pod!=\"\"}, all clusters, 20 h", 2, &all),
        ];
        println!(
            "\n| beside | small: asked | failed | median | slowest | large: done | failed | given up | peak MiB |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (name, count, large) in cases {
            gateway.reset_peak()?;
            let done = Arc::new(AtomicBool::new(false));
            let until = Arc::clone(&done);
            let (store, bucket) = (gateway.store.clone(), self.bucket.clone());
            let question = Ask::Series(small.clone());
            let asking = tokio::spawn(async move {
                let (mut times, mut failed) = (Vec::new(), Vec::new());
                while times.is_empty() || !until.load(Ordering::Relaxed) {
                    match ask(&store, &bucket, question.clone()).await {
                        Ok(answer) => times.push(answer.all),
                        Err(error) => failed.push(error.to_string()),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (times, failed)
            });
            let large = || ask(&gateway.store, &self.bucket, Ask::Series(large.clone()));
            let larges = (0..count).map(|_| tokio::time::timeout(PATIENCE, large()));
            let answers = futures::future::join_all(larges).await;
            let given_up = answers.iter().filter(|it| it.is_err()).count();
            let answers: Vec<_> = answers.into_iter().flatten().collect();
            if count == 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            done.store(true, Ordering::Relaxed);
            let (mut times, failed) = asking.await?;
            times.sort();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            let slowest = times.last().copied().unwrap_or_default();
            let refused = answers.iter().filter_map(|it| it.as_ref().err());
            let refused: Vec<&StoreError> = refused.collect();
            println!(
                "| {name} | {} | {} | {middle:.1?} | {slowest:.1?} | {} | {} | {given_up} | {} |",
                times.len() + failed.len(),
                failed.len(),
                answers.len() - refused.len(),
                refused.len(),
                gateway.peak_mib()?
            );
            for error in refused
                .iter()
                .map(ToString::to_string)
                .chain(failed)
                .take(3)
            {
                println!("  {error}");
            }
            if let Some(other) = refused
                .iter()
                .find(|it| !matches!(it, StoreError::LimitExceeded(_)))
            {
                return Err(format!("not the error of a limit: {other}").into());
            }
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: gateway_scale DIRECTORY ISOBAR [BUDGET [QUESTION]]";
    let dir = PathBuf::from(arguments.next().ok_or(usage)?);
    let program = PathBuf::from(arguments.next().ok_or(usage)?);
    let budget = arguments.next().unwrap_or_else(|| "256MiB".to_owned());
    let only = arguments.next();
    let blocks = data::write(&dir)?;
    println!("{blocks} blocks, --memory.budget={budget}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let bench = Bench {
            bucket: Bucket::serve(&dir.join("bucket")).await?,
            program,
            dir,
            budget,
        };
        bench
            .one_by_one(only.as_deref().unwrap_or_default())
            .await?;
        if only.is_none_or(|it| it == "beside") {
            bench.beside().await?;
        }
        Ok(())
    })
}
