//! Random bytes to every endpoint: never a 5xx other than 503, and the process lives on.

use crate::harness::{Random, Server, client};

const PATHS: [&str; 20] = [
    "/",
    "/metrics",
    "/api/v1/write",
    "/api/v1/receive",
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/job/values",
    "/api/v1/metadata",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/status/buildinfo",
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/flags",
    "/api/v1/status/tsdb",
    "/-/healthy",
    "/-/ready",
    "/nothing",
];

impl Random {
    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.next() as usize % len_max;
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Text that looks a little like a query.
    fn words(&mut self) -> String {
        const WORDS: [&str; 24] = [
            "up",
            "{",
            "}",
            "(",
            ")",
            "[5m]",
            "sum",
            "by",
            "\"",
            "1e999",
            "offset",
            "-",
            "@",
            "rate",
            "=~",
            "a",
            ",",
            ":",
            "NaN",
            "\\",
            "\u{fffd}",
            "and",
            "[1y:1ms]",
            "{__name__=~\".*\"}",
        ];
        let count = self.next() % 12;
        (0..count)
            .map(|_| WORDS[self.next() as usize % WORDS.len()])
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[test]
fn random_bytes_to_every_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    let names = [
        "query",
        "start",
        "end",
        "step",
        "time",
        "match[]",
        "limit",
        "timeout",
        "lookback_delta",
    ];
    for round in 0..60 {
        for path in PATHS {
            let url = format!("{}{path}", server.url);
            let body = random.bytes(300);
            let params: Vec<(&str, String)> = (0..random.next() % 5)
                .map(|_| {
                    let name = names[random.next() as usize % names.len()];
                    let value = match random.next() % 3 {
                        0 => String::from_utf8_lossy(&random.bytes(40)).into_owned(),
                        1 => random.words(),
                        _ => (random.next() as i64).to_string(),
                    };
                    (name, value)
                })
                .collect();
            let kinds = [
                "application/x-protobuf",
                "application/x-www-form-urlencoded",
                "\u{1}x",
            ];
            let kind = kinds[random.next() as usize % 2];
            for request in [
                client().get(&url).query(&params),
                client()
                    .post(&url)
                    .header("Content-Type", kind)
                    .query(&params)
                    .body(body.clone()),
                client()
                    .post(&url)
                    .header("Content-Type", kinds[1])
                    .form(&params),
                client().put(&url).body(body.clone()),
            ] {
                let response = request.send().unwrap();
                let status = response.status().as_u16();
                assert!(
                    status < 500 || status == 503,
                    "round {round} {path} {params:?}: {status} {}",
                    response.text().unwrap()
                );
            }
        }
    }
    assert!(server.process.is_running());
    assert!(
        !server.process.log().contains("panicked"),
        "{}",
        server.process.log()
    );
}
