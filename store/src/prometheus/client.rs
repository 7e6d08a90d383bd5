//! Requests to the HTTP API of a Prometheus.
//!
//! Answers are bounded, whatever the server sends. What went wrong is told by what a caller can do
//! about it; which gRPC code or [`StoreError`](crate::StoreError) that is, others decide.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Identity, Proxy, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::HttpClientConfig;

/// The most bytes of an answer that is read as a whole.
pub const ANSWER_BYTES_MAX: usize = 512 << 20;
/// How much of an error's text is passed on.
const ERROR_BYTES_MAX: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server was not reached, or the connection broke.
    #[error("{what}: {why}")]
    Unreachable {
        /// Method and URL.
        what: String,
        /// The whole chain of causes.
        why: String,
    },
    /// The server refused.
    #[error("{what}: status {status}: {text}")]
    Refused {
        /// Method and URL.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the server said, cut.
        text: String,
    },
    /// The answer is not what was asked for.
    #[error("{what}: {why}")]
    Unexpected {
        /// Method and URL.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The answer is too large.
    #[error("{what}: the answer has more than {max} bytes")]
    TooLarge {
        /// Method and URL.
        what: String,
        /// The bound.
        max: usize,
    },
    /// A file with a certificate or password cannot be used, or another setting.
    #[error("{0}")]
    Config(String),
}

/// One Prometheus. It is cheap to ask and keeps connections.
pub struct Client {
    base: Url,
    config: HttpClientConfig,
    http: Mutex<Connections>,
}

/// The connections and the certificates that they were made with.
struct Connections {
    http: reqwest::Client,
    certificates: Certificates,
}

#[derive(Default, PartialEq)]
struct Certificates {
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    own: Option<Vec<u8>>,
}

/// What Prometheus wraps around its answers.
#[derive(Deserialize)]
struct Envelope<T> {
    status: String,
    data: Option<T>,
    #[serde(default)]
    error: String,
}

impl Client {
    /// A client of the Prometheus at `url`, whose path is a prefix of all paths.
    ///
    /// # Errors
    /// When the URL or the config make no sense, or a file of it cannot be read.
    pub fn new(url: &str, config: HttpClientConfig) -> Result<Self, ClientError> {
        let base = Url::parse(url).map_err(|why| ClientError::Config(format!("{url}: {why}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            let why = format!("{url}: neither an http nor an https URL");
            return Err(ClientError::Config(why));
        }
        let certificates = Certificates::read(&config)?;
        let http = connect(&config, &certificates)?;
        Ok(Client {
            base,
            config,
            http: Mutex::new(Connections { http, certificates }),
        })
    }

    /// Reads certificates again and takes new ones, if there are, for all connections from now on.
    ///
    /// # Errors
    /// When they cannot be used; the old ones stay.
    pub fn refresh(&self) -> Result<(), ClientError> {
        let tls = &self.config.tls_config;
        if tls.ca_file.is_none() && tls.cert_file.is_none() {
            return Ok(());
        }
        let certificates = Certificates::read(&self.config)?;
        let mut held = self.http.lock();
        if held.certificates != certificates {
            held.http = connect(&self.config, &certificates)?;
            held.certificates = certificates;
        }
        Ok(())
    }

    /// The URL of the Prometheus as it may be shown: without the password.
    pub fn shown_url(&self) -> Url {
        shown(&self.base)
    }

    /// The URL of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = self.base.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// The URL of the values of a label.
    pub(super) fn values_path(label: &str) -> String {
        let label =
            percent_encoding::utf8_percent_encode(label, percent_encoding::NON_ALPHANUMERIC);
        format!("/api/v1/label/{label}/values")
    }

    /// The body of an answer with status 2xx.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, path: &str, params: &[(&str, String)]) -> Result<Bytes, ClientError> {
        let mut url = self.url(path);
        if !params.is_empty() {
            url.query_pairs_mut().extend_pairs(params);
        }
        let what = format!("GET {}", shown(&url));
        let http = self.http.lock().http.clone();
        let response = self.send(http.get(url), &what).await?;
        body(response, &what, ANSWER_BYTES_MAX).await
    }

    /// The `data` of an answer of the API.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn api<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let text = self.get(path, params).await?;
        let unexpected = |why: String| ClientError::Unexpected {
            what: format!("GET {}", shown(&self.url(path))),
            why,
        };
        let answer: Envelope<T> =
            serde_json::from_slice(&text).map_err(|why| unexpected(why.to_string()))?;
        if answer.status != "success" {
            return Err(unexpected(answer.error));
        }
        answer
            .data
            .ok_or_else(|| unexpected("the answer has no data".into()))
    }

    /// Posts a body; the answer, whose status is 2xx, is still to be read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> Result<Response, ClientError> {
        let url = self.url(path);
        let what = format!("POST {}", shown(&url));
        let http = self.http.lock().http.clone();
        let mut request = http.post(url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, &what).await
    }

    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, ClientError> {
        let request = match self.authorization()? {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let limit = self.config.transport_config.response_header_timeout;
        let sent = async {
            request
                .send()
                .await
                .map_err(|error| ClientError::Unreachable {
                    what: what.to_owned(),
                    why: chain(&error.without_url()),
                })
        };
        let response = if limit.is_zero() {
            sent.await?
        } else {
            let late = |_| ClientError::Unreachable {
                what: what.to_owned(),
                why: format!("no answer within {limit:?}"),
            };
            tokio::time::timeout(limit, sent).await.map_err(late)??
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = match first_bytes(response).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) => format!("(its text broke off: {})", chain(&error)),
        };
        Err(ClientError::Refused {
            what: what.to_owned(),
            status: status.as_u16(),
            text,
        })
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let config = &self.config;
        let text = if let Some(basic) = &config.basic_auth {
            let password = match &basic.password_file {
                Some(file) => secret(file)?,
                None => basic.password.clone(),
            };
            let pair = format!("{}:{password}", basic.username);
            format!("Basic {}", base64(pair.as_bytes()))
        } else if let Some(file) = &config.bearer_token_file {
            format!("Bearer {}", secret(file)?)
        } else if !config.bearer_token.is_empty() {
            format!("Bearer {}", config.bearer_token)
        } else {
            return Ok(None);
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| ClientError::Config("credentials with a line break".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A URL without the password that may stand in it.
fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    if url.password().is_some() {
        // There is a host, so one can be set.
        let _always = url.set_password(Some("xxxxx"));
    }
    url
}

impl Certificates {
    fn read(config: &HttpClientConfig) -> Result<Self, ClientError> {
        let tls = &config.tls_config;
        let read_all = |files: &[&PathBuf]| -> Result<Vec<u8>, ClientError> {
            let mut all = Vec::new();
            for file in files {
                all.extend(read(file)?);
                all.push(b'\n');
            }
            Ok(all)
        };
        let ca = match &tls.ca_file {
            Some(file) => Some(read_all(&[file])?),
            None => None,
        };
        let own = match (&tls.cert_file, &tls.key_file) {
            (Some(certificate), Some(key)) => Some(read_all(&[certificate, key])?),
            _ => None,
        };
        Ok(Certificates { ca, own })
    }
}

fn connect(
    config: &HttpClientConfig,
    certificates: &Certificates,
) -> Result<reqwest::Client, ClientError> {
    let wrong = |error: reqwest::Error| ClientError::Config(chain(&error));
    let transport = &config.transport_config;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("Isobar/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(transport.max_idle_conns_per_host as usize)
        .pool_idle_timeout(Some(transport.idle_conn_timeout).filter(|it| !it.is_zero()))
        .tcp_nodelay(true)
        .no_proxy();
    let patience = transport.dialer_timeout + transport.tls_handshake_timeout;
    if patience > Duration::ZERO {
        builder = builder.connect_timeout(patience);
    }
    if !config.proxy_url.is_empty() {
        builder = builder.proxy(Proxy::all(&config.proxy_url).map_err(wrong)?);
    }
    if let Some(pem) = &certificates.ca {
        builder = builder.tls_built_in_root_certs(false);
        for certificate in Certificate::from_pem_bundle(pem).map_err(wrong)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(pem) = &certificates.own {
        builder = builder.identity(Identity::from_pem(pem).map_err(wrong)?);
    }
    if config.tls_config.insecure_skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    builder.build().map_err(wrong)
}

/// All of a body, which may have `max` bytes.
pub(super) async fn body(
    mut response: Response,
    what: &str,
    max: usize,
) -> Result<Bytes, ClientError> {
    let mut all = BytesMut::new();
    loop {
        let next = response.chunk().await;
        let next = next.map_err(|error| ClientError::Unreachable {
            what: what.to_owned(),
            why: chain(&error.without_url()),
        })?;
        let Some(bytes) = next else {
            return Ok(all.freeze());
        };
        if all.len() + bytes.len() > max {
            let what = what.to_owned();
            return Err(ClientError::TooLarge { what, max });
        }
        all.extend_from_slice(&bytes);
    }
}

async fn first_bytes(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut text = Vec::new();
    while text.len() < ERROR_BYTES_MAX
        && let Some(bytes) = response.chunk().await?
    {
        text.extend_from_slice(&bytes);
    }
    text.truncate(ERROR_BYTES_MAX);
    Ok(text)
}

/// An error with all of its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn read(file: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(file).map_err(|why| ClientError::Config(format!("{}: {why}", file.display())))
}

fn secret(file: &Path) -> Result<String, ClientError> {
    let text = String::from_utf8(read(file)?);
    let text = text.map_err(|_| ClientError::Config(format!("{}: no text", file.display())))?;
    Ok(text.trim().to_owned())
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_length() {
        let check = |text: &str, expected: &str| assert_eq!(base64(text.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foob", "Zm9vYg==");
        check("user:päss?>", "dXNlcjpww6Rzcz8+");
    }

    #[test]
    fn paths_behind_a_prefix() {
        let check = |base: &str, expected: &str| {
            let client = Client::new(base, HttpClientConfig::default()).expect("a client");
            assert_eq!(client.url("/api/v1/read").as_str(), expected);
        };
        check("http://h:1", "http://h:1/api/v1/read");
        check("http://h:1/", "http://h:1/api/v1/read");
        check("http://h:1/a/b/", "http://h:1/a/b/api/v1/read");
        let wrong = Client::new("ftp://h", HttpClientConfig::default());
        assert!(matches!(wrong, Err(ClientError::Config(_))));
    }

    #[test]
    fn values_of_odd_labels() {
        assert_eq!(
            Client::values_path("a/b.c"),
            "/api/v1/label/a%2Fb%2Ec/values"
        );
    }
}
