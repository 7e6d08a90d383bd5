//! How to talk to a Prometheus: the YAML of `--prometheus.http-client`.
//! Source: `HTTPClientConfig` in `pkg/clientconfig/http.go` of Thanos.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Credentials, proxy, TLS and connections. All keys may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpClientConfig {
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// A token for the `Authorization` header.
    pub bearer_token: String,
    /// A file with the token, read for each request.
    pub bearer_token_file: Option<PathBuf>,
    /// A proxy; without it none is used, whatever the environment says.
    pub proxy_url: String,
    /// Certificates.
    pub tls_config: TlsConfig,
    /// Connections and how long to wait for them.
    pub transport_config: TransportConfig,
}

/// User and password.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// A file with the password, read for each request.
    pub password_file: Option<PathBuf>,
}

/// Certificates, as files in PEM. They are read again when they have changed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Who may have signed the server's certificate; the system's authorities otherwise.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show to the server.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate is for, when it is not that of the URL.
    pub server_name: String,
    /// Whether any certificate is taken.
    pub insecure_skip_verify: bool,
}

/// Connections and how long to wait for them. Durations are nanoseconds in YAML, as Thanos has them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// Taken, without effect: there is one host.
    pub max_idle_conns: u32,
    /// Most connections that are kept for later.
    pub max_idle_conns_per_host: u32,
    /// How long such a connection is kept; 0 for ever.
    #[serde(deserialize_with = "nanoseconds")]
    pub idle_conn_timeout: Duration,
    /// How long the first line of an answer may take; 0 for no bound.
    #[serde(deserialize_with = "nanoseconds")]
    pub response_header_timeout: Duration,
    /// Taken, without effect: requests do not ask before they send.
    #[serde(deserialize_with = "nanoseconds")]
    pub expect_continue_timeout: Duration,
    /// Taken, without effect.
    pub max_conns_per_host: u32,
    /// Taken, without effect: answers are not asked for in compressed form.
    pub disable_compression: bool,
    /// How long to wait for the TLS handshake; together with `dialer_timeout`.
    #[serde(deserialize_with = "nanoseconds")]
    pub tls_handshake_timeout: Duration,
    /// How long to wait for a connection.
    #[serde(deserialize_with = "nanoseconds")]
    pub dialer_timeout: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            max_idle_conns: 100,
            max_idle_conns_per_host: 2,
            idle_conn_timeout: Duration::from_secs(90),
            response_header_timeout: Duration::ZERO,
            expect_continue_timeout: Duration::from_secs(10),
            max_conns_per_host: 0,
            disable_compression: false,
            tls_handshake_timeout: Duration::from_secs(10),
            dialer_timeout: Duration::from_secs(5),
        }
    }
}

impl HttpClientConfig {
    /// Reads YAML; an empty text is the default.
    ///
    /// # Errors
    /// What is wrong with the text, or which two settings contradict each other.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(HttpClientConfig::default());
        }
        let config: HttpClientConfig =
            serde_yaml_ng::from_str(text).map_err(|why| why.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let bearer = !self.bearer_token.is_empty();
        if bearer && self.bearer_token_file.is_some() {
            return Err("at most one of bearer_token and bearer_token_file may be given".into());
        }
        let bearer = bearer || self.bearer_token_file.is_some();
        if let Some(basic) = &self.basic_auth {
            if bearer {
                return Err("at most one of basic_auth and a bearer token may be given".into());
            }
            if !basic.password.is_empty() && basic.password_file.is_some() {
                return Err("at most one of basic_auth's password and password_file".into());
            }
        }
        if self.tls_config.cert_file.is_some() != self.tls_config.key_file.is_some() {
            return Err("tls_config's cert_file and key_file are given together".into());
        }
        if !self.tls_config.server_name.is_empty() {
            return Err(
                "tls_config's server_name is not supported: name the server so in the URL".into(),
            );
        }
        Ok(())
    }
}

fn nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let number = i64::deserialize(from)?;
    Ok(Duration::from_nanos(u64::try_from(number).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example() {
        let text = "\
basic_auth:
  username: me
  password_file: /etc/secret
proxy_url: http://proxy:3128
tls_config:
  ca_file: ca.pem
  insecure_skip_verify: true
transport_config:
  idle_conn_timeout: 1000000000
";
        let config = HttpClientConfig::from_yaml(text).expect("an example");
        assert_eq!(config.basic_auth.expect("given").username, "me");
        assert_eq!(config.proxy_url, "http://proxy:3128");
        assert!(config.tls_config.insecure_skip_verify);
        let transport = config.transport_config;
        assert_eq!(transport.idle_conn_timeout, Duration::from_secs(1));
        assert_eq!(transport.dialer_timeout, Duration::from_secs(5));
    }

    #[test]
    fn nothing_is_the_default() {
        let config = HttpClientConfig::from_yaml("").expect("nothing");
        assert_eq!(config, HttpClientConfig::default());
    }

    #[test]
    fn what_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = HttpClientConfig::from_yaml(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("basic_auht: {}", "unknown field");
        check("{bearer_token: a, bearer_token_file: b}", "at most one");
        check(
            "{bearer_token: a, basic_auth: {username: b}}",
            "at most one",
        );
        check("tls_config: {cert_file: a}", "together");
        check("tls_config: {server_name: a}", "server_name");
        check("[", "");
    }
}
