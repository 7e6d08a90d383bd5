//! TLS of an HTTP server as its configuration says.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, ring, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio_rustls::TlsAcceptor;

use super::config::{ClientAuth, Pem, TlsConfig, Version};
use super::names::AllowedNames;
use crate::serve::tls::{certificates, go_name};

/// What HTTP/1.1 is called while a connection is set up.
const HTTP1: &[u8] = b"http/1.1";
/// Cipher suites that Go speaks beside ours.
const OTHER_CIPHERS: [&str; 4] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];
/// Curves that Go speaks beside ours.
const OTHER_CURVES: [&str; 1] = ["CurveP521"];

/// Reads certificates and key; what has no effect is added to `remarks`.
///
/// # Errors
/// When a file cannot be used, or nothing is left to agree on.
pub(super) fn acceptor(
    config: &TlsConfig,
    remarks: &mut Vec<String>,
) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(provider(config, remarks)?);
    let versions: Vec<_> = rustls::ALL_VERSIONS
        .iter()
        .copied()
        .filter(|it| {
            let version = match it.version {
                rustls::ProtocolVersion::TLSv1_3 => Version::Tls13,
                _ => Version::Tls12,
            };
            (config.min_version..=config.max_version).contains(&version)
        })
        .collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .context("no cipher suite is left for the versions of TLS")?;
    let verifier = verifier(config, &provider)?;
    let verifier = verifier.map(|inner| match &config.allowed_names {
        Some(allowed) => Arc::new(AllowedNames {
            inner,
            allowed: allowed.clone(),
        }),
        None => inner,
    });
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = chain(&config.cert)?;
    let key = match &config.key {
        Pem::File(path) => {
            PrivateKeyDer::from_pem_file(path).with_context(|| format!("key {}", path.display()))
        }
        Pem::Text(text) => PrivateKeyDer::from_pem_slice(text.as_bytes()).context("key"),
    };
    let mut server = builder
        .with_single_cert(chain, key?)
        .context("certificate and key")?;
    server.ignore_client_order = config.own_order;
    server.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn provider(config: &TlsConfig, remarks: &mut Vec<String>) -> anyhow::Result<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !config.ciphers.is_empty() {
        // As in Go, the suites of TLS 1.3 cannot be chosen.
        let ours = provider.cipher_suites.clone();
        provider.cipher_suites.retain(|it| it.tls13().is_some());
        for name in &config.ciphers {
            let suite = ours.iter().find(|it| go_name(it) == *name);
            match suite {
                Some(suite) if suite.tls13().is_none() => provider.cipher_suites.push(*suite),
                Some(_) => {}
                None => {
                    let known = OTHER_CIPHERS.contains(&name.as_str());
                    ensure!(known, "unknown cipher: {name}");
                    remarks.push(format!("cipher_suites: {name} is not spoken here"));
                }
            }
        }
    }
    if !config.curves.is_empty() {
        let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
        for name in &config.curves {
            match name.as_str() {
                "X25519" => groups.push(ring::kx_group::X25519),
                "CurveP256" => groups.push(ring::kx_group::SECP256R1),
                "CurveP384" => groups.push(ring::kx_group::SECP384R1),
                name => {
                    ensure!(OTHER_CURVES.contains(&name), "unknown curve: {name}");
                    remarks.push(format!("curve_preferences: {name} is not spoken here"));
                }
            }
        }
        ensure!(
            !groups.is_empty(),
            "curve_preferences: none of them is spoken here"
        );
        provider.kx_groups = groups;
    }
    Ok(provider)
}

fn chain(pem: &Pem) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    match pem {
        Pem::File(path) => certificates(path),
        Pem::Text(text) => {
            let read = CertificateDer::pem_slice_iter(text.as_bytes());
            let chain: Vec<_> = read.collect::<Result<_, _>>().context("certificate")?;
            ensure!(!chain.is_empty(), "certificate: there is none in the text");
            Ok(chain)
        }
    }
}

fn verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let any = |mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate {
            mandatory,
            algorithms: provider.signature_verification_algorithms,
        })
    };
    let mandatory = match config.client_auth {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => return Ok(Some(any(false))),
        ClientAuth::RequireAnyClientCert => return Ok(Some(any(true))),
        ClientAuth::VerifyClientCertIfGiven => false,
        ClientAuth::RequireAndVerifyClientCert => true,
    };
    let mut roots = RootCertStore::empty();
    for certificate in chain(config.client_ca.as_ref().context("client CA")?)? {
        roots.add(certificate).context("client CA")?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match mandatory {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    Ok(Some(builder.build().context("client CA")?))
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
