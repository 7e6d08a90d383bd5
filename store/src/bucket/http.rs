//! Connections to a store with the timeouts and certificates of the configuration. Requests carry
//! no total timeout: a large body may take as long as it keeps coming.

use std::time::Duration;

use object_store::client::{ClientConfigKey, ClientOptions, HttpClient, HttpConnector};
use reqwest::{Certificate, ClientBuilder, Identity};

use super::config::{Hedging, HttpConfig};
use super::hedged::Hedged;

/// How long it may take to reach the server.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// What cannot be used of `http_config`.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A file cannot be read.
    #[error("http_config: {path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates or keys do not fit.
    #[error("http_config: {what}: {source}")]
    Tls {
        /// Of what.
        what: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A field that cannot be followed.
    #[error("http_config: {0}")]
    Unsupported(&'static str),
}

/// Makes clients for `object_store`.
#[derive(Debug)]
pub(super) struct Connector {
    config: HttpConfig,
    hedging: Hedging,
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Connector {
    /// Reads the files of the configuration.
    pub(super) fn new(config: &HttpConfig, hedging: &Hedging) -> Result<Self, HttpError> {
        let tls = &config.tls_config;
        if !tls.server_name.is_empty() {
            return Err(HttpError::Unsupported(
                "tls_config.server_name is not supported; use the name of the certificate in the endpoint",
            ));
        }
        let bad = |what: &str| {
            let what = what.to_owned();
            move |source| HttpError::Tls { what, source }
        };
        let roots = match tls.ca_file.as_str() {
            "" => Vec::new(),
            path => Certificate::from_pem_bundle(&read(path)?).map_err(bad(path))?,
        };
        let identity = match (tls.cert_file.as_str(), tls.key_file.as_str()) {
            ("", "") => None,
            ("", _) | (_, "") => {
                return Err(HttpError::Unsupported(
                    "tls_config.cert_file and tls_config.key_file go together",
                ));
            }
            (cert, key) => {
                let mut pem = read(cert)?;
                pem.push(b'\n');
                pem.extend_from_slice(&read(key)?);
                Some(Identity::from_pem(&pem).map_err(bad(cert))?)
            }
        };
        Ok(Connector {
            config: config.clone(),
            hedging: hedging.clone(),
            roots,
            identity,
        })
    }

    /// `options` are those of the request's kind: the service that knows the role of an instance
    /// is asked with a short timeout.
    fn client(&self, options: &ClientOptions) -> Result<reqwest::Client, reqwest::Error> {
        let config = &self.config;
        let option = |key| options.get_config_value(&key);
        let dial = option(ClientConfigKey::ConnectTimeout)
            .and_then(|text| text.strip_suffix('s')?.parse().ok())
            .map_or(DIAL_TIMEOUT, Duration::from_secs)
            .min(DIAL_TIMEOUT);
        let mut builder = ClientBuilder::new()
            .user_agent(concat!("isobar/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_gzip()
            .pool_idle_timeout(config.idle_conn_timeout)
            .pool_max_idle_per_host(config.max_idle_conns_per_host)
            .tcp_nodelay(true)
            .connect_timeout(dial + config.tls_handshake_timeout)
            .danger_accept_invalid_certs(config.insecure_skip_verify);
        if !config.response_header_timeout.is_zero() {
            builder = builder.read_timeout(config.response_header_timeout);
        }
        if !self.roots.is_empty() {
            builder = builder.tls_built_in_root_certs(false);
        }
        for root in &self.roots {
            builder = builder.add_root_certificate(root.clone());
        }
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        builder.build()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, object_store::Error> {
        let client = self
            .client(options)
            .map_err(|e| object_store::Error::Generic {
                store: "http",
                source: Box::new(e),
            })?;
        let client = HttpClient::new(client);
        Ok(match self.hedging.enabled {
            true => HttpClient::new(Hedged::new(client, self.hedging.clone())),
            false => client,
        })
    }
}

fn read(path: &str) -> Result<Vec<u8>, HttpError> {
    std::fs::read(path).map_err(|source| HttpError::File {
        path: path.to_owned(),
        source,
    })
}
