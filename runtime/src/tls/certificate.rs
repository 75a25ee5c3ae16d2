//! Reading certificates: who is named in one, and of which cluster.

use nacre_types::EntityName;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a certificate says of its holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateInfo {
    pub entity: EntityName,
    pub fsid: String,
    /// Unix seconds.
    pub not_after: i64,
}

/// Why a certificate with a good signature is of no use here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateProblem {
    #[error("the certificate does not decode: {0}")]
    Malformed(String),
    #[error("the certificate names no entity of Nacre")]
    NoEntity,
    #[error("the certificate names no cluster")]
    NoCluster,
    #[error("the certificate is of cluster {found}, this is cluster {expected}")]
    OtherCluster { found: String, expected: String },
}

impl CertificateInfo {
    pub fn from_pem(pem: &str) -> Result<CertificateInfo, CertificateProblem> {
        CertificateInfo::from_der(&der_from_pem(pem).map_err(CertificateProblem::Malformed)?)
    }

    pub fn from_der(der: &[u8]) -> Result<CertificateInfo, CertificateProblem> {
        let certificate = parse(der).map_err(CertificateProblem::Malformed)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| CertificateProblem::Malformed(e.to_string()))?
            .ok_or(CertificateProblem::NoEntity)?;
        let entity = match names.value.general_names.as_slice() {
            [GeneralName::DNSName(name)] => name.parse().map_err(|_| CertificateProblem::NoEntity)?,
            _ => return Err(CertificateProblem::NoEntity),
        };
        let fsid = organization(&certificate).ok_or(CertificateProblem::NoCluster)?;
        Ok(CertificateInfo { entity, fsid, not_after: certificate.validity().not_after.timestamp() })
    }

    /// Refuses the certificate of another cluster.
    pub fn of_cluster(self, expected: &str) -> Result<CertificateInfo, CertificateProblem> {
        if self.fsid != expected {
            return Err(CertificateProblem::OtherCluster { found: self.fsid, expected: expected.into() });
        }
        Ok(self)
    }
}

/// The only certificate of a PEM text.
pub(super) fn der_from_pem(pem: &str) -> Result<CertificateDer<'static>, String> {
    // The error's own text shows the bytes it tripped over as numbers.
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "there is no certificate in PEM form".to_string())
}

/// The fsid and raw public key of a CA's certificate.
pub(super) fn ca_subject(der: &[u8]) -> Result<(String, Vec<u8>), String> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err("it is not the certificate of a CA".into());
    }
    let fsid = organization(&certificate).ok_or("its subject names no cluster")?;
    Ok((fsid, certificate.public_key().subject_public_key.data.to_vec()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there are bytes after it".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn organization(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_organization();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}
