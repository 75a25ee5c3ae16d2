//! rustls settings: TLS 1.3, AES-128-GCM first, both sides show a certificate of this cluster.
//!
//! Host names mean nothing here: what is verified is the entity. These verifiers check everything but *which* entity;
//! whoever dials compares that afterwards, before anything is sent.

use super::certificate::{self, CertificateInfo};
use super::credentials::Credentials;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;

/// The protocol's name in the handshake: its number changes when peers could not understand each other at all.
const ALPN: &[u8] = b"nacre/1";

pub(crate) fn client_config(credentials: &Credentials) -> Result<rustls::ClientConfig, String> {
    let parts = Parts::new(credentials)?;
    let mut config = rustls::ClientConfig::builder_with_provider(parts.provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(parts.verifier))
        .with_client_auth_cert(parts.chain, parts.key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    // A resumed session would not look at certificates again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

pub(crate) fn server_config(credentials: &Credentials) -> Result<rustls::ServerConfig, String> {
    let parts = Parts::new(credentials)?;
    let mut config = rustls::ServerConfig::builder_with_provider(parts.provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(Arc::new(parts.verifier))
        .with_single_cert(parts.chain, parts.key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

struct Parts {
    provider: Arc<CryptoProvider>,
    verifier: ClusterVerifier,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Parts {
    fn new(credentials: &Credentials) -> Result<Parts, String> {
        credentials.check()?;
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        let ca = certificate::der_from_pem(&credentials.ca_pem)?;
        roots.add(ca).map_err(|e| format!("ca: {e}"))?;
        let roots = Arc::new(roots);
        let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| format!("ca: {e}"))?;
        let algorithms = provider.signature_verification_algorithms;
        let verifier = ClusterVerifier { fsid: credentials.fsid.clone(), roots, algorithms, client };
        let chain = vec![certificate::der_from_pem(&credentials.cert_pem)?];
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).map_err(|e| e.to_string())?;
        Ok(Parts { provider, verifier, chain, key })
    }
}

/// Accepts certificates that this cluster's CA signed for one of its entities.
#[derive(Debug)]
struct ClusterVerifier {
    fsid: String,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    client: Arc<dyn ClientCertVerifier>,
}

impl ClusterVerifier {
    fn check_entity(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        CertificateInfo::from_der(certificate)
            .and_then(|info| info.of_cluster(&self.fsid))
            .map(|_| ())
            .map_err(|problem| {
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
            })
    }
}

/// A CA of the same name with another key is another CA.
fn unknown_issuer(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        }
        other => other,
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
            .map_err(unknown_issuer)?;
        self.check_entity(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ClusterVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Everybody has one certificate and shows it: the reason of a refusal is then the certificate's.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified =
            self.client.verify_client_cert(end_entity, intermediates, now).map_err(unknown_issuer)?;
        self.check_entity(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
