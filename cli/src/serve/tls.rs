//! TLS of servers: certificates from files, read again when those change, and clients' certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use crate::flags::server::{GrpcTlsFlags, TlsVersion};

/// What HTTP/2 is called while a connection is set up.
const HTTP2: &[u8] = b"h2";

/// Accepts TLS connections of gRPC clients; `None` when the server is to speak plain text.
///
/// # Errors
/// When flags contradict each other or a file cannot be used; the message names it.
pub(crate) fn acceptor(flags: &GrpcTlsFlags) -> anyhow::Result<Option<TlsAcceptor>> {
    if flags.cert.is_empty() && flags.key.is_empty() {
        ensure!(
            flags.client_ca.is_empty(),
            "--grpc-server-tls-client-ca needs --grpc-server-tls-cert and --grpc-server-tls-key"
        );
        return Ok(None);
    }
    ensure!(
        !flags.cert.is_empty() && !flags.key.is_empty(),
        "--grpc-server-tls-cert and --grpc-server-tls-key need each other"
    );
    let provider = Arc::new(provider(flags)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(flags.min_version))
        .context("no cipher suite is left for the versions of TLS")?;
    let builder = if flags.client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(Path::new(&flags.client_ca))?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .with_context(|| format!("client CA {}", flags.client_ca))?;
        builder.with_client_cert_verifier(verifier)
    };
    let certificate = FromFiles::open(
        PathBuf::from(&flags.cert),
        PathBuf::from(&flags.key),
        provider,
    )?;
    let mut config = builder.with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// The newest version alone.
static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::Tls13 => &NEWEST,
        TlsVersion::Tls10 | TlsVersion::Tls11 | TlsVersion::Tls12 => rustls::ALL_VERSIONS,
    }
}

/// The algorithms that the flags leave. As in Go, the suites of TLS 1.3 cannot be chosen.
fn provider(flags: &GrpcTlsFlags) -> anyhow::Result<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !flags.ciphers.is_empty() {
        let known: Vec<String> = provider.cipher_suites.iter().map(go_name).collect();
        for name in &flags.ciphers {
            ensure!(
                known.contains(name),
                "--grpc-server-tls-ciphers {name}: not one of {}",
                known.join(", ")
            );
        }
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || flags.ciphers.contains(&go_name(suite)));
    }
    if !flags.curves.is_empty() {
        let curve = |name: &String| -> anyhow::Result<&'static dyn SupportedKxGroup> {
            Ok(match name.as_str() {
                "X25519" => ring::kx_group::X25519,
                "CurveP256" => ring::kx_group::SECP256R1,
                "CurveP384" => ring::kx_group::SECP384R1,
                _ => bail!(
                    "--grpc-server-tls-curves {name}: not one of X25519, CurveP256, CurveP384"
                ),
            })
        };
        provider.kx_groups = flags.curves.iter().map(curve).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// The name of a cipher suite in Go's `crypto/tls`.
pub(super) fn go_name(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("client CA {}", path.display()))?;
    }
    Ok(roots)
}

pub(super) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.with_context(|| format!("certificate {}", path.display()))?;
    ensure!(
        !certificates.is_empty(),
        "certificate {}: there is none in the file",
        path.display()
    );
    Ok(certificates)
}

/// A certificate that follows its files.
#[derive(Debug)]
struct FromFiles {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    changed: [Option<SystemTime>; 2],
    key: Arc<CertifiedKey>,
}

impl FromFiles {
    fn open(cert: PathBuf, key: PathBuf, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let current = Current {
            changed: changed(&cert, &key),
            key: read(&cert, &key, &provider)?,
        };
        Ok(FromFiles {
            cert,
            key,
            provider,
            current: Mutex::new(current),
        })
    }
}

fn changed(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|path| fs::metadata(path).and_then(|it| it.modified()).ok())
}

fn read(cert: &Path, key: &Path, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = certificates(cert)?;
    let der =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("key {}", key.display()))?;
    let pair = CertifiedKey::from_der(chain, der, provider)
        .with_context(|| format!("key {} for {}", key.display(), cert.display()))?;
    Ok(Arc::new(pair))
}

impl ResolvesServerCert for FromFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        let now = changed(&self.cert, &self.key);
        if now != current.changed {
            // While only one of the two files is new they do not fit; the next client tries again.
            match read(&self.cert, &self.key, &self.provider) {
                Ok(key) => {
                    tracing::info!(cert = %self.cert.display(), "certificate read again");
                    *current = Current { changed: now, key };
                }
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "the new certificate cannot be used, going on with the old one"
                ),
            }
        }
        Some(Arc::clone(&current.key))
    }
}
