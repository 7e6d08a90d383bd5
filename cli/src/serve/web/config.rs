//! The file behind `--http.config`: TLS, passwords and headers of an HTTP server, in the form that
//! Prometheus' exporter toolkit gave it. Source: `web/tls_config.go` and `web/handler.go` there; messages
//! that it has are kept.
//!
//! What a file says that cannot be done here is an error, or a remark where nothing is less safe for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;

/// Headers that may be added to answers, with the values that each may have; none for any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// What the file says, checked.
#[derive(Debug)]
pub(super) struct WebConfig {
    /// TLS; `None` for plain text.
    pub(super) tls: Option<TlsConfig>,
    /// Headers of all answers.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Hashes of passwords by the names of their users. Nobody is asked for one when there is none.
    pub(super) users: BTreeMap<String, String>,
    /// What the file says without an effect.
    pub(super) remarks: Vec<String>,
}

/// TLS of the server.
#[derive(Debug)]
pub(super) struct TlsConfig {
    pub(super) cert: Pem,
    pub(super) key: Pem,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    /// Names of which a client's certificate must have one; any when they are not given.
    pub(super) allowed_names: Option<Vec<String>>,
    pub(super) min_version: Version,
    pub(super) max_version: Version,
    /// Names of cipher suites of TLS 1.2 in Go; all when there is none.
    pub(super) ciphers: Vec<String>,
    /// Names of curves in Go, best first; the usual ones when there is none.
    pub(super) curves: Vec<String>,
    /// Whether the server's order of cipher suites counts.
    pub(super) own_order: bool,
}

/// Where a certificate or key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the configuration.
    Text(String),
}

/// Which clients are served, by the names that Go has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) enum ClientAuth {
    /// All.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// All, and they may show any certificate.
    RequestClientCert,
    /// Those with any certificate.
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    /// Those without a certificate and those with a good one.
    VerifyClientCertIfGiven,
    /// Those with a good certificate.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Version {
    #[serde(rename = "TLS10")]
    Tls10,
    #[serde(rename = "TLS11")]
    Tls11,
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Yaml {
    tls_server_config: Option<TlsYaml>,
    http_server_config: Option<HttpYaml>,
    rate_limit: Option<serde_yaml_ng::Value>,
    basic_auth_users: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsYaml {
    cert: String,
    key: String,
    client_ca: String,
    cert_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: PathBuf,
    client_auth_type: Option<ClientAuth>,
    cipher_suites: Option<Vec<String>>,
    curve_preferences: Option<Vec<String>>,
    min_version: Option<Version>,
    max_version: Option<Version>,
    prefer_server_cipher_suites: Option<bool>,
    client_allowed_sans: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpYaml {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

impl WebConfig {
    /// Checks the text of a file in `directory`, to which the paths in it are relative.
    ///
    /// # Errors
    /// When it is not of that form, or asks for what cannot be done.
    pub(super) fn parse(text: &str, directory: &Path) -> anyhow::Result<Self> {
        // A file with nothing in it is one with nothing to say.
        let yaml: Option<Yaml> = serde_yaml_ng::from_str(text)?;
        let yaml = yaml.unwrap_or_default();
        ensure!(
            yaml.rate_limit.is_none_or(|it| it.is_null()),
            "rate_limit: requests are not limited by their rate here"
        );
        let users = yaml.basic_auth_users.unwrap_or_default();
        for (user, hash) in &users {
            let parts = hash.parse::<bcrypt::HashParts>();
            parts.with_context(|| format!("basic_auth_users: the hash of {user:?}"))?;
        }
        let http = yaml.http_server_config.unwrap_or_default();
        let headers = http.headers.unwrap_or_default();
        let headers = headers.iter().map(|(name, value)| header(name, value));
        let headers = headers.collect::<Result<_, _>>()?;
        let tls = tls(yaml.tls_server_config.unwrap_or_default(), directory)?;
        let mut remarks = Vec::new();
        if tls.is_some() && http.http2 == Some(true) {
            remarks.push("http2 has no effect: HTTP/1.1 is spoken".to_owned());
        }
        Ok(WebConfig {
            tls,
            headers,
            users,
            remarks,
        })
    }

    /// The files that it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter();
        let pems = tls.flat_map(|it| [Some(&it.cert), Some(&it.key), it.client_ca.as_ref()]);
        pems.flatten().filter_map(|it| match it {
            Pem::File(path) => Some(path.as_path()),
            Pem::Text(_) => None,
        })
    }
}

fn header(name: &str, value: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let known = HEADERS.iter().find(|(known, _)| *known == name);
    let Some((_, values)) = known else {
        bail!("HTTP header {name:?} can not be configured");
    };
    ensure!(
        values.is_empty() || values.contains(&value),
        "invalid value for {name}. Expected one of: {values:?}, but got: {value:?}"
    );
    let parsed = value
        .parse()
        .with_context(|| format!("the value of {name}"))?;
    Ok((name.parse()?, parsed))
}

/// A text or the file that stands for it; none when both are empty.
fn pem(text: String, file: PathBuf, directory: &Path) -> Option<Pem> {
    match (text.is_empty(), file.as_os_str().is_empty()) {
        // As in the toolkit, the file counts when both are given.
        (_, false) => Some(Pem::File(directory.join(file))),
        (false, true) => Some(Pem::Text(text)),
        (true, true) => None,
    }
}

fn tls(yaml: TlsYaml, directory: &Path) -> anyhow::Result<Option<TlsConfig>> {
    let cert = pem(yaml.cert, yaml.cert_file, directory);
    let key = pem(yaml.key, yaml.key_file, directory);
    let client_ca = pem(yaml.client_ca, yaml.client_ca_file, directory);
    if cert.is_none() && key.is_none() && client_ca.is_none() && yaml.client_auth_type.is_none() {
        return Ok(None);
    }
    let cert = cert.context("missing one of cert or cert_file")?;
    let key = key.context("missing one of key or key_file")?;
    let client_auth = yaml.client_auth_type.unwrap_or_default();
    ensure!(
        client_ca.is_none() || client_auth != ClientAuth::NoClientCert,
        "client CA's have been configured without a Client Auth Policy"
    );
    let verifies = [
        ClientAuth::VerifyClientCertIfGiven,
        ClientAuth::RequireAndVerifyClientCert,
    ];
    ensure!(
        client_ca.is_some() || !verifies.contains(&client_auth),
        "client_auth_type {client_auth:?} needs client_ca_file: the machine's own certificates are not used"
    );
    let allowed_names = yaml.client_allowed_sans;
    for name in allowed_names.iter().flatten() {
        let is_mail = name.contains('@') && !name.contains("://");
        ensure!(
            !is_mail,
            "client_allowed_sans: {name:?}: addresses of mail in certificates are not looked at here"
        );
    }
    let min_version = yaml.min_version.unwrap_or(Version::Tls12);
    let max_version = yaml.max_version.unwrap_or(Version::Tls13);
    ensure!(
        max_version >= Version::Tls12,
        "max_version: TLS before 1.2 is not spoken"
    );
    ensure!(
        min_version <= max_version,
        "min_version is above max_version"
    );
    Ok(Some(TlsConfig {
        cert,
        key,
        client_ca,
        client_auth,
        allowed_names,
        min_version,
        max_version,
        ciphers: yaml.cipher_suites.unwrap_or_default(),
        curves: yaml.curve_preferences.unwrap_or_default(),
        own_order: yaml.prefer_server_cipher_suites.unwrap_or(true),
    }))
}
