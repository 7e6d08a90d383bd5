//! TLS of the gRPC server: certificates from files, read again when those change, and clients' certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::accept::TlsNow;
use super::stamps::Stamps;
use crate::flags::server::{GrpcTlsFlags, TlsVersion};

/// What HTTP/2 is called while a connection is set up.
const HTTP2: &[u8] = b"h2";

/// What gRPC clients have to agree on, as the files of the flags say at the time; `None` when the server is to
/// speak plain text. While new files cannot be used, the old ones count.
///
/// # Errors
/// When flags contradict each other or a file cannot be used; the message names it.
pub(crate) fn followed(flags: &GrpcTlsFlags) -> anyhow::Result<Option<TlsNow>> {
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
    let flags = flags.clone();
    let named = [&flags.cert, &flags.key, &flags.client_ca].map(PathBuf::from);
    let stamps = move || {
        let files = named.iter().map(PathBuf::as_path);
        Stamps::of(files.filter(|it| !it.as_os_str().is_empty()))
    };
    let seen = stamps();
    let current = Mutex::new((seen, acceptor(&flags)?));
    Ok(Some(Arc::new(move || {
        let mut current = current.lock();
        if !current.0.hold() {
            // While only some of the files are new they do not fit; the last of them changes that.
            current.0 = stamps();
            match acceptor(&flags) {
                Ok(acceptor) => {
                    tracing::info!(cert = flags.cert, "certificates for gRPC read again");
                    current.1 = acceptor;
                }
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "the new certificates for gRPC cannot be used, going on with the old ones"
                ),
            }
        }
        current.1.clone()
    })))
}

fn acceptor(flags: &GrpcTlsFlags) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(provider(flags)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(flags.min_version))
        .context("no cipher suite is left for the versions of TLS")?;
    let builder = if flags.client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(Path::new(&flags.client_ca))?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .with_context(|| format!("client CA {}", flags.client_ca))?;
        builder.with_client_cert_verifier(verifier)
    };
    let chain = certificates(Path::new(&flags.cert))?;
    let key =
        PrivateKeyDer::from_pem_file(&flags.key).with_context(|| format!("key {}", flags.key))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("key {} for {}", flags.key, flags.cert))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
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
