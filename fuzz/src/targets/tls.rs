//! The sources of `nacre-runtime`'s `tls` that parse, compiled here without RocksDB.

#[path = "../../../runtime/src/tls/ca.rs"]
mod ca;
#[path = "../../../runtime/src/tls/certificate.rs"]
mod certificate;
#[path = "../../../runtime/src/tls/credentials.rs"]
mod credentials;

pub use ca::{ClusterCa, Identity, Validity};
pub use certificate::CertificateInfo;
pub use credentials::{Credentials, MonAddress};
