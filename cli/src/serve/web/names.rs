//! Names in clients' certificates: only those that are allowed (`client_allowed_sans`).

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use webpki::EndEntityCert;

/// Takes certificates that another verifier takes, when one of their alternative names is allowed: a name in
/// the DNS, an address or a URI, as it is written.
#[derive(Debug)]
pub(super) struct AllowedNames {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) allowed: Vec<String>,
}

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
#[error("no name in the certificate of the client is allowed")]
struct NoAllowedName;

impl AllowedNames {
    fn allows(&self, certificate: &EndEntityCert<'_>) -> bool {
        let allowed = |name: &str| self.allowed.iter().any(|it| it == name);
        let has_address = |name: &String| {
            let address = name.parse::<IpAddr>().ok();
            address.is_some_and(|it| {
                let name = ServerName::IpAddress(it.into());
                certificate.verify_is_valid_for_subject_name(&name).is_ok()
            })
        };
        certificate.valid_dns_names().any(allowed)
            || certificate.valid_uri_names().any(allowed)
            || self.allowed.iter().any(has_address)
    }
}

impl ClientCertVerifier for AllowedNames {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(certificate, intermediates, now)?;
        let parsed = EndEntityCert::try_from(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match self.allows(&parsed) {
            true => Ok(verified),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::Other(
                OtherError(Arc::new(NoAllowedName)),
            ))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn one_allowed_name_is_enough() {
        let names = ["client.example".to_owned(), "10.0.0.7".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        let uri = "spiffe://here/client".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let certificate = EndEntityCert::try_from(made.der()).unwrap();
        let check = |allowed: &[&str], expected: bool| {
            let names = AllowedNames {
                inner: rustls::server::WebPkiClientVerifier::no_client_auth(),
                allowed: allowed.iter().map(|&it| it.to_owned()).collect(),
            };
            assert_eq!(names.allows(&certificate), expected, "{allowed:?}");
        };
        check(&["client.example"], true);
        check(&["other", "10.0.0.7"], true);
        check(&["spiffe://here/client"], true);
        check(
            &["example", "*.example", "10.0.0.8", "spiffe://here"],
            false,
        );
        check(&[], false);
    }
}
