//! Small queries are answered on the thread that asks, and nobody can tell by the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use futures::stream::StreamExt;
use isobar_store::api::{Names, SeriesStream};
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo};
use parking_lot::Mutex;

use crate::fixture::{Memory, Server};

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// It has one series.
    Small,
    /// It has many.
    Large,
    /// It has one, which it has to wait for.
    Slow,
    /// It has one, and panics when it is asked.
    Broken,
}

/// A store that changes its habits, and remembers which threads asked.
struct Moody {
    small: Arc<Memory>,
    large: Arc<Memory>,
    habit: Mutex<Habit>,
    on_pool: AtomicUsize,
    on_the_spot: AtomicUsize,
}

impl Store for Moody {
    fn info(&self) -> StoreInfo {
        StoreInfo::default()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let thread = std::thread::current();
        let on_pool = thread.name().is_some_and(|name| name.starts_with("test-"));
        let asked = if on_pool {
            &self.on_pool
        } else {
            &self.on_the_spot
        };
        asked.fetch_add(1, Ordering::SeqCst);
        match *self.habit.lock() {
            Habit::Small => self.small.series(request),
            Habit::Large => self.large.series(request),
            Habit::Slow => {
                let wait = async {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                };
                let series = self.small.series(request);
                futures::stream::once(wait)
                    .filter_map(|()| async { None })
                    .chain(series)
                    .boxed()
            }
            Habit::Broken => panic!("on purpose"),
        }
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.small.label_names(request)
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.small.label_values(name, request)
    }
}

const QUERY: &str = "/api/v1/query?query=count(m)";

/// A server over a store, and the store.
fn server() -> (Server, Arc<Moody>) {
    let store = Arc::new(Moody {
        small: Memory::hour(1),
        large: Memory::hour(1_000),
        habit: Mutex::new(Habit::Small),
        on_pool: AtomicUsize::new(0),
        on_the_spot: AtomicUsize::new(0),
    });
    (Server::new(store.clone()), store)
}

/// Asks until the next time is on the spot. A busy machine may make a small query a large one.
async fn learn(server: &Server, store: &Moody) {
    *store.habit.lock() = Habit::Small;
    for _ in 0..10_000 {
        let before = store.on_the_spot.load(Ordering::SeqCst);
        assert_eq!(value(server).await, "1");
        if store.on_the_spot.load(Ordering::SeqCst) > before {
            return;
        }
    }
    panic!("all of them on the pool");
}

async fn value(server: &Server) -> String {
    let answer = server.get(QUERY).await.json();
    let value = answer["data"]["result"][0]["value"][1].as_str();
    value.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn the_first_time_is_on_the_pool() {
    let (server, store) = server();
    assert_eq!(value(&server).await, "1");
    assert_eq!(store.on_pool.load(Ordering::SeqCst), 1);
    assert_eq!(store.on_the_spot.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_has_grown_goes_to_the_pool() {
    for (habit, expected) in [(Habit::Large, "1000"), (Habit::Slow, "1")] {
        let (server, store) = server();
        learn(&server, &store).await;
        *store.habit.lock() = habit;
        let before = store.on_pool.load(Ordering::SeqCst);
        assert_eq!(value(&server).await, expected, "{habit:?}");
        assert_eq!(store.on_pool.load(Ordering::SeqCst), before + 1);
        learn(&server, &store).await;
    }
}

#[tokio::test]
async fn a_panic_ends_the_query_and_nothing_else() {
    let (server, store) = server();
    learn(&server, &store).await;
    *store.habit.lock() = Habit::Broken;
    let answer = server.get(QUERY).await;
    assert_eq!(answer.status, 500);
    learn(&server, &store).await;
}
