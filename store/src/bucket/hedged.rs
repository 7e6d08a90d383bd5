//! A second request for one whose answer takes longer than most (`hedging_config`): the first answer
//! counts. Only reading is hedged.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};
use parking_lot::Mutex;

use super::config::Hedging;

/// How many of the latest requests tell what takes long.
const TIMES_MAX: usize = 256;
/// Nothing is hedged before so many requests.
const TIMES_MIN: usize = 16;

const _: () = assert!(TIMES_MIN <= TIMES_MAX);

/// A client that asks again when an answer takes long.
#[derive(Debug)]
pub(super) struct Hedged {
    inner: HttpClient,
    config: Hedging,
    times: Mutex<Times>,
}

/// How long the latest requests took until their answers began.
#[derive(Debug, Default)]
struct Times {
    latest: Vec<Duration>,
    next: usize,
}

impl Times {
    fn add(&mut self, time: Duration) {
        if self.latest.len() < TIMES_MAX {
            self.latest.push(time);
        } else if let Some(oldest) = self.latest.get_mut(self.next) {
            *oldest = time;
        }
        self.next = (self.next + 1) % TIMES_MAX;
    }

    /// The time that the part `quantile` of requests does not exceed.
    fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.latest.len() < TIMES_MIN {
            return None;
        }
        let mut sorted = self.latest.clone();
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        let rank = (quantile.clamp(0.0, 1.0) * last as f64).ceil() as usize;
        sorted.get(rank.min(last)).copied()
    }
}

impl Hedged {
    pub(super) fn new(inner: HttpClient, config: Hedging) -> Self {
        Hedged {
            inner,
            config,
            times: Mutex::default(),
        }
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let began = Instant::now();
        let response = self.inner.execute(request).await?;
        self.times.lock().add(began.elapsed());
        Ok(response)
    }
}

#[async_trait]
impl HttpService for Hedged {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let delay = self.times.lock().quantile(self.config.quantile);
        let Some(delay) = delay.filter(|_| reads) else {
            return self.ask(request).await;
        };
        let mut flying = FuturesUnordered::new();
        flying.push(self.ask(request.clone()));
        for _ in 1..self.config.up_to {
            match tokio::time::timeout(delay, flying.next()).await {
                Ok(Some(Ok(response))) => return Ok(response),
                // Whether an error is worth another try is decided by who asks.
                Ok(Some(Err(error))) if flying.is_empty() => return Err(error),
                Ok(_) => {}
                Err(_elapsed) => flying.push(self.ask(request.clone())),
            }
        }
        loop {
            match flying.next().await {
                Some(Err(_)) if !flying.is_empty() => {}
                Some(result) => return result,
                // It was not empty, and an error that empties it is returned.
                None => return self.ask(request).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::client::{HttpRequestBody, HttpResponseBody};

    use super::*;

    /// Answers the first request after `slow` never, and all others at once.
    #[derive(Debug)]
    struct Server {
        requests: Arc<AtomicUsize>,
        slow: usize,
    }

    #[async_trait]
    impl HttpService for Server {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            if self.requests.fetch_add(1, Ordering::Relaxed) == self.slow {
                std::future::pending::<()>().await;
            }
            Ok(http::Response::new(HttpResponseBody::from(Vec::new())))
        }
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_asked_for_again() {
        let requests = Arc::new(AtomicUsize::new(0));
        let server = Server {
            requests: Arc::clone(&requests),
            slow: TIMES_MIN,
        };
        let config = Hedging {
            enabled: true,
            ..Hedging::default()
        };
        let client = Hedged::new(HttpClient::new(server), config);
        for _ in 0..=TIMES_MIN {
            let request = http::Request::new(HttpRequestBody::empty());
            client.call(request).await.unwrap();
        }
        let asked = requests.load(Ordering::Relaxed);
        assert!(asked > TIMES_MIN + 1, "{asked}");
    }

    #[test]
    fn quantiles_of_the_latest_times() {
        let mut times = Times::default();
        for ms in 0..1000 {
            assert_eq!(times.quantile(0.5).is_some(), ms >= TIMES_MIN as u64);
            times.add(Duration::from_millis(ms));
        }
        let check = |quantile: f64, expected: u64| {
            assert_eq!(
                times.quantile(quantile),
                Some(Duration::from_millis(expected))
            );
        };
        check(0.0, 744);
        check(1.0, 999);
        check(0.5, 872);
        check(7.0, 999);
    }
}
