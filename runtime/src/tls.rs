//! Identity: the cluster's certificate authority, key pairs and certificates of entities, credentials files, and the
//! TLS settings of the messenger.
//!
//! Every cluster has its own CA, whose subject carries the cluster's fsid. An entity's certificate names it (SAN, for
//! example `osd.3`) and its cluster (subject O). Both ends of every connection show one and check the other's: chain,
//! validity, fsid, and that it names exactly one entity. What an entity may do is not in its certificate but in the
//! `AuthMap`, so that it can be changed at once.

mod ca;
mod certificate;
mod credentials;
mod verifier;

pub use ca::{CaError, ClusterCa, Identity, Validity};
pub use certificate::{CertificateInfo, CertificateProblem};
pub use credentials::{Credentials, CredentialsError, MonAddress};
pub(crate) use verifier::{client_config, server_config};

#[cfg(test)]
mod tests;
