//! Which requests are logged, by the YAML behind `--request.logging-config`. Source: `pkg/logging` of Thanos,
//! whose keys and messages are kept.
//!
//! A request is logged when it begins, at debug, and when it ends: at error when the server is at fault, else
//! at debug. What `--log.level` leaves out is not seen here either. The level in the YAML leaves out what is
//! less important, for HTTP and gRPC alike, and a path is compared without the query behind it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Deserialize;
use tonic::Code;

/// Which requests are logged. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestLog(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    http: Rule<Path>,
    grpc: Rule<Method>,
}

/// When requests of one kind are logged.
#[derive(Debug)]
struct Rule<T> {
    start: bool,
    end: bool,
    /// Errors alone, or everything.
    errors_only: bool,
    /// The requests that are logged; all when there is none.
    only: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Yaml {
    http: Part<Path>,
    grpc: Part<Method>,
    options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct Part<T> {
    options: Options,
    config: Vec<T>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Part {
            options: Options::default(),
            config: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    level: String,
    decision: Decision,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Decision {
    log_start: bool,
    log_end: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Path {
    path: String,
    port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Method {
    service: String,
    method: String,
}

impl Options {
    /// Whether they say something.
    fn says(&self) -> anyhow::Result<bool> {
        let decides = self.decision != Decision::default();
        ensure!(!(self.level.is_empty() && decides), "level field is empty");
        Ok(!self.level.is_empty())
    }
}

impl<T> Rule<T> {
    /// Options of the kind count more than those of all.
    fn of(part: Part<T>, all: &Options) -> anyhow::Result<Self> {
        let mut options = Options {
            level: "ERROR".to_owned(),
            decision: Decision::default(),
        };
        for given in [all, &part.options] {
            if given.says()? {
                options = given.clone();
            }
        }
        let Decision { log_start, log_end } = options.decision;
        ensure!(log_end || !log_start, "log start call is not supported");
        let errors_only = match options.level.as_str() {
            "DEBUG" => false,
            // A request is logged at debug or at error.
            "INFO" | "WARNING" | "ERROR" => true,
            level => bail!(
                "the format of level is invalid. Expected INFO/DEBUG/ERROR/WARNING, got this {level}"
            ),
        };
        Ok(Rule {
            start: log_start,
            end: log_end,
            errors_only,
            only: part.config,
        })
    }

    fn tells(&self, is: impl Fn(&T) -> bool) -> bool {
        self.end && (self.only.is_empty() || self.only.iter().any(is))
    }
}

/// A request that is logged when it ends.
#[derive(Debug)]
pub(crate) struct Logged {
    errors_only: bool,
    fields: Fields,
}

/// What is known of a request when it comes.
#[derive(Debug, Clone)]
pub(crate) enum Fields {
    /// Over HTTP.
    Http {
        /// Such as `GET /api/v1/blocks?view=loaded`.
        method: String,
        /// What answers it.
        handler: String,
        request_id: String,
        user_agent: String,
        remote: String,
    },
    /// Over gRPC.
    Grpc {
        service: String,
        method: String,
        kind: &'static str,
        request_id: String,
        remote: String,
    },
}

impl RequestLog {
    /// As the YAML says; none is logged without one.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(crate) fn parse(yaml: Option<&str>) -> anyhow::Result<Self> {
        let Some(yaml) = yaml else {
            return Ok(RequestLog::default());
        };
        let yaml: Option<Yaml> = serde_yaml_ng::from_str(yaml)?;
        let yaml = yaml.unwrap_or_default();
        Ok(RequestLog(Some(Arc::new(Rules {
            http: Rule::of(yaml.http, &yaml.options)?,
            grpc: Rule::of(yaml.grpc, &yaml.options)?,
        }))))
    }

    /// Logs that a request to `path` has come, if that is wanted, and whether its end is.
    pub(crate) fn http(
        &self,
        path: &str,
        port: Option<u16>,
        fields: impl FnOnce() -> Fields,
    ) -> Option<Logged> {
        let rule = &self.0.as_ref()?.http;
        let is = |it: &Path| it.path == path && (it.port == 0 || Some(it.port) == port);
        rule.tells(is).then(|| rule.begin(fields()))
    }

    /// Logs that a method of a service is called, if that is wanted, and whether its end is.
    pub(crate) fn grpc(
        &self,
        service: &str,
        method: &str,
        fields: impl FnOnce() -> Fields,
    ) -> Option<Logged> {
        let rule = &self.0.as_ref()?.grpc;
        let is = |it: &Method| it.service == service && it.method == method;
        rule.tells(is).then(|| rule.begin(fields()))
    }
}

impl<T> Rule<T> {
    fn begin(&self, fields: Fields) -> Logged {
        if self.start && !self.errors_only {
            fields.started();
        }
        Logged {
            errors_only: self.errors_only,
            fields,
        }
    }
}

impl Logged {
    /// Logs the end of a request over HTTP.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        self.end(!(200..500).contains(&status), &status.to_string(), took);
    }

    /// Logs the end of a call over gRPC, whose code has this name.
    pub(crate) fn ended(&self, code: Code, name: &str, took: Duration) {
        let fault = [
            Code::Unknown,
            Code::Unimplemented,
            Code::Internal,
            Code::DataLoss,
        ];
        self.end(fault.contains(&code), name, took);
    }

    fn end(&self, is_error: bool, code: &str, took: Duration) {
        if self.errors_only && !is_error {
            return;
        }
        // To the microsecond, as Thanos has it.
        let time_ms = took.as_micros() as f64 / 1000.0;
        self.fields.finished(is_error, code, time_ms);
    }
}

/// A message at error or at debug.
macro_rules! at {
    ($is_error:expr, $($fields:tt)+) => {
        match $is_error {
            true => tracing::error!($($fields)+),
            false => tracing::debug!($($fields)+),
        }
    };
}

impl Fields {
    fn started(&self) {
        match self {
            Fields::Http {
                method,
                handler,
                request_id,
                user_agent,
                ..
            } => tracing::debug!(
                protocol = "http",
                http.component = "server",
                http.method = method,
                http.request_id = request_id,
                http.user_agent = user_agent,
                thanos.method_name = handler,
                "started call"
            ),
            Fields::Grpc {
                service,
                method,
                kind,
                request_id,
                remote,
            } => tracing::debug!(
                protocol = "grpc",
                grpc.component = "server",
                grpc.service = service,
                grpc.method = method,
                grpc.method_type = kind,
                requestID = request_id,
                peer.address = remote,
                "started call"
            ),
        }
    }

    fn finished(&self, is_error: bool, code: &str, time_ms: f64) {
        match self {
            Fields::Http {
                method,
                handler,
                request_id,
                user_agent,
                remote,
            } => at!(
                is_error,
                protocol = "http",
                http.component = "server",
                http.method = method,
                http.request_id = request_id,
                http.user_agent = user_agent,
                http.status_code = code,
                http.time_ms = time_ms,
                http.remote_addr = remote,
                thanos.method_name = handler,
                "finished call"
            ),
            Fields::Grpc {
                service,
                method,
                kind,
                request_id,
                remote,
            } => at!(
                is_error,
                protocol = "grpc",
                grpc.component = "server",
                grpc.service = service,
                grpc.method = method,
                grpc.method_type = kind,
                requestID = request_id,
                peer.address = remote,
                grpc.code = code,
                grpc.time_ms = time_ms,
                "finished call"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields::Grpc {
            service: String::new(),
            method: String::new(),
            kind: "unary",
            request_id: String::new(),
            remote: String::new(),
        }
    }

    /// Whether a request and a call are logged.
    fn check(yaml: &str, http: bool, grpc: bool) {
        let log = RequestLog::parse(Some(yaml)).expect(yaml);
        let got = log.http("/api/v1/blocks", Some(10902), fields).is_some();
        assert_eq!(got, http, "http: {yaml}");
        let got = log.grpc("thanos.Store", "Series", fields).is_some();
        assert_eq!(got, grpc, "grpc: {yaml}");
    }

    #[test]
    fn which_requests_are_logged() {
        check("", false, false);
        check("{}", false, false);
        let all = "options: {level: DEBUG, decision: {log_start: true, log_end: true}}";
        check(all, true, true);
        check("options: {level: DEBUG}", false, false);
        let off = format!("{all}\nhttp: {{options: {{level: ERROR}}}}");
        check(&off, false, true);
        for (config, logged) in [
            ("{path: /api/v1/blocks}", true),
            ("{path: /api/v1/blocks, port: 10902}", true),
            ("{path: /api/v1/blocks, port: 1}", false),
            ("{path: /api/v1}", false),
        ] {
            check(
                &format!("{all}\nhttp: {{config: [{config}]}}"),
                logged,
                true,
            );
        }
        for (config, logged) in [
            ("{service: thanos.Store, method: Series}", true),
            ("{service: thanos.Store, method: LabelNames}", false),
        ] {
            check(
                &format!("{all}\ngrpc: {{config: [{config}]}}"),
                true,
                logged,
            );
        }
        assert!(RequestLog::parse(None).expect("none").0.is_none());
    }

    #[test]
    fn the_example_is_taken() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/request-logging.yml");
        let log = RequestLog::parse(Some(&std::fs::read_to_string(path).unwrap())).unwrap();
        assert!(log.http("/api/v1/blocks/mark", None, fields).is_some());
        assert!(log.http("/api/v1/blocks", None, fields).is_none());
        assert!(log.grpc("thanos.Store", "Series", fields).is_some());
        assert!(log.grpc("thanos.Store", "LabelNames", fields).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (yaml, part) in [
            ("some: thing", "unknown field"),
            (
                "options: {decision: {log_end: true}}",
                "level field is empty",
            ),
            (
                "options: {level: DEBUG, decision: {log_start: true}}",
                "log start call is not supported",
            ),
            (
                "options: {level: info, decision: {log_end: true}}",
                "the format of level is invalid",
            ),
        ] {
            let error = RequestLog::parse(Some(yaml)).expect_err(yaml).to_string();
            assert!(error.contains(part), "{yaml}: {error}");
        }
    }
}
