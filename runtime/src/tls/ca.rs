//! The cluster's certificate authority and the key pairs it vouches for.

use nacre_types::EntityName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::time::Duration;
use time::OffsetDateTime;

/// The CA outlives every disk of the cluster.
const CA_YEARS: u32 = 20;
/// Certificates are made anew with the daemon or client, seldom otherwise.
const ENTITY_YEARS: u32 = 10;
/// Clocks of hosts differ: a certificate is valid a day before it is made.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600 + 6 * 3600);

/// Why the CA could not be made or used, or a request not be signed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the cluster CA's key is not usable: {0}")]
    Key(rcgen::Error),
    #[error("the cluster CA's certificate is not usable: {0}")]
    Certificate(String),
    #[error("the certificate signing request of {entity} is not usable: {reason}")]
    Request { entity: EntityName, reason: String },
    #[error("cannot make a key pair: {0}")]
    Generate(rcgen::Error),
    #[error("cannot sign a certificate for {entity}: {reason}")]
    Sign { entity: EntityName, reason: String },
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From now (less some clock skew) for `lifetime`.
    pub fn lasting(lifetime: Duration) -> Validity {
        let now = OffsetDateTime::now_utc();
        Validity { not_before: now - CLOCK_SKEW, not_after: now + lifetime }
    }
}

impl Default for Validity {
    fn default() -> Validity {
        Validity::lasting(YEAR * ENTITY_YEARS)
    }
}

/// The key and certificate that make a cluster: whoever holds the key can be anybody in it.
pub struct ClusterCa {
    fsid: String,
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// A new CA for the cluster `fsid`.
    pub fn create(fsid: &str) -> Result<ClusterCa, CaError> {
        let key = KeyPair::generate().map_err(CaError::Generate)?;
        let mut params = CertificateParams::default();
        let validity = Validity::lasting(YEAR * CA_YEARS);
        (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
        params.distinguished_name = subject(fsid, "Nacre cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(|e| CaError::Certificate(e.to_string()))?;
        ClusterCa::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// The CA out of its two PEM texts.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<ClusterCa, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Key)?;
        let refuse = |reason: String| CaError::Certificate(reason);
        let der = super::certificate::der_from_pem(certificate_pem).map_err(refuse)?;
        let (fsid, public_key) = super::certificate::ca_subject(&der).map_err(refuse)?;
        if public_key != key.public_key_raw() {
            return Err(CaError::Certificate("it belongs to another key".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| CaError::Certificate(e.to_string()))?;
        Ok(ClusterCa { fsid, certificate_pem: certificate_pem.into(), key_pem: key_pem.into(), issuer })
    }

    pub fn fsid(&self) -> &str {
        &self.fsid
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate (PEM) for `entity` with the public key of the request. Nothing else in the request counts, and its
    /// signature proves that the requester holds the key.
    pub fn sign(&self, csr_pem: &str, entity: &EntityName, validity: Validity) -> Result<String, CaError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| CaError::Request { entity: entity.clone(), reason: e.to_string() })?;
        let sign =
            |reason: rcgen::Error| CaError::Sign { entity: entity.clone(), reason: reason.to_string() };
        let name = entity.to_string();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into().map_err(sign)?)];
        params.distinguished_name = subject(&self.fsid, &name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&request.public_key, &self.issuer).map_err(sign)?.pem())
    }

    /// A key pair and its certificate in one go, for bootstrap and tests: certificate and key, PEM.
    pub fn issue(&self, entity: &EntityName, validity: Validity) -> Result<(String, String), CaError> {
        let identity = Identity::generate()?;
        let certificate = self.sign(&identity.signing_request(entity)?, entity, validity)?;
        Ok((certificate, identity.key_pem()))
    }
}

impl std::fmt::Debug for ClusterCa {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCa").field("fsid", &self.fsid).finish_non_exhaustive()
    }
}

fn subject(fsid: &str, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, fsid);
    name.push(DnType::CommonName, common_name);
    name
}

/// A key pair of an entity. The private half never leaves the host that made it: the CA sees a signing request.
pub struct Identity {
    key: KeyPair,
}

impl Identity {
    pub fn generate() -> Result<Identity, CaError> {
        Ok(Identity { key: KeyPair::generate().map_err(CaError::Generate)? })
    }

    pub fn from_pem(key_pem: &str) -> Result<Identity, CaError> {
        Ok(Identity { key: KeyPair::from_pem(key_pem).map_err(CaError::Key)? })
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The PEM text of a request to certify this key for `entity`.
    pub fn signing_request(&self, entity: &EntityName) -> Result<String, CaError> {
        let refuse = |e: rcgen::Error| CaError::Request { entity: entity.clone(), reason: e.to_string() };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, entity.to_string());
        params.serialize_request(&self.key).and_then(|csr| csr.pem()).map_err(refuse)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}
