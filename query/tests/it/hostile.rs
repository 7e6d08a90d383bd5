//! Bytes that nobody should send. No request is answered with a server error other than 503, and
//! every answer of the API is JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, header};

use crate::fixture::{Memory, Server};

const PATHS: &[&str] = &[
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/i/values",
    "/api/v1/metadata",
    "/api/v1/status/buildinfo",
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/flags",
    "/api/v1/status/tsdb",
    "/version",
    "/-/healthy",
    "/-/ready",
];

const NAMES: &[&str] = &[
    "query",
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "match[]",
    "lookback_delta",
    "stats",
    "metric",
    "limit_per_metric",
];

/// Pieces that get further than random bytes do.
const PIECES: &[&str] = &[
    "m",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "5m",
    ":",
    "1m",
    "rate",
    "sum",
    " by ",
    "i",
    "=",
    "=~",
    "\"",
    "\\",
    ".*",
    " + ",
    " offset ",
    " @ ",
    "end()",
    "1e308",
    "-1",
    "0",
    "NaN",
    "Inf",
    "1e18",
    "9223372036854775807",
    "1700049600",
    "2023-11-15T12:00:00Z",
    "topk",
    ",",
    "m[1h:1s]",
    " or ",
    " on ",
    "label_replace",
    "histogram_quantile",
    "\u{0}",
    "\u{fffd}",
    "é",
    "'",
    "#",
    "\n",
    "count_values",
    "quantile",
    "true",
    "all",
    "10",
    "15",
    "__name__",
    "==",
    "bool",
    "%",
    "^",
];

/// Values that are right, to be answered or to be damaged.
const WHOLE: &[&str] = &[
    "m",
    "sum by (i) (rate(m[5m]))",
    "topk(2, m) or m offset 5m",
    "max_over_time(m[1h:1m] @ end())",
    "label_replace(m, \"j\", \"$1\", \"i\", \"(.*)\")",
    "m / on (i) group_left () m > bool 1",
    "{__name__=~\"m|n\", i!=\"\"}",
    "1700049600",
    "1700046000",
    "60",
    "5m",
];

/// A generator of numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.below(40);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => self.bytes(),
            1 => self.pick(PIECES).as_bytes().to_vec(),
            2..6 => self.pick(WHOLE).as_bytes().to_vec(),
            6..9 => {
                let mut value = self.pick(WHOLE).as_bytes().to_vec();
                let at = self.below(value.len() + 1);
                let piece = self.pick(PIECES).bytes();
                let end = value.len().min(at + self.below(4));
                value.splice(at..end, piece);
                value
            }
            _ => {
                let count = self.below(8);
                (0..count).flat_map(|_| self.pick(PIECES).bytes()).collect()
            }
        }
    }

    /// Parameters, most of them well escaped.
    fn form(&mut self) -> Vec<u8> {
        let mut form = Vec::new();
        for _ in 0..self.below(6) {
            form.extend_from_slice(self.pick(NAMES).as_bytes());
            form.push(b'=');
            let value = self.value();
            if self.below(8) == 0 {
                form.extend(value);
            } else {
                let all = percent_encoding::NON_ALPHANUMERIC;
                form.extend(percent_encoding::percent_encode(&value, all).flat_map(str::bytes));
            }
            form.push(b'&');
        }
        form
    }

    fn request(&mut self) -> Option<Request<Body>> {
        let method = self.pick(&[
            "GET", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW",
        ]);
        let mut path = self.pick(PATHS).to_owned();
        if self.below(10) == 0 {
            let name = self.value();
            let all = percent_encoding::NON_ALPHANUMERIC;
            path = format!(
                "/api/v1/label/{}/values",
                percent_encoding::percent_encode(&name, all)
            );
        }
        let query: String = self
            .form()
            .into_iter()
            .filter(|b| b.is_ascii_graphic())
            .map(char::from)
            .collect();
        let body = if self.below(4) == 0 {
            self.bytes()
        } else {
            self.form()
        };
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).ok()?)
            .uri(format!("{path}?{query}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_never_break_the_server() {
    let store: Arc<Memory> = Memory::hour(3);
    let server = Server::new(store);
    let mut succeeded = 0;
    for seed in 1..=4_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let Some(request) = random.request() else {
            continue;
        };
        let told = format!("seed {seed}: {} {}", request.method(), request.uri());
        let answer = server.send(request).await;
        let code = answer.status.as_u16();
        assert!(
            code < 500 || code == 503,
            "{told}: {code} {}",
            String::from_utf8_lossy(&answer.body)
        );
        if answer.header(header::CONTENT_TYPE) == "application/json"
            && answer.header(header::CONTENT_ENCODING).is_empty()
        {
            let json = answer.json();
            assert_eq!(json["status"] == "success", code == 200, "{told}");
            succeeded += usize::from(code == 200);
        }
    }
    assert!(
        succeeded > 300,
        "only {succeeded} requests got through to an answer"
    );
}
