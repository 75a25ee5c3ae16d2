//! The credentials file: all a daemon or client needs to join its cluster.
//!
//! ```toml
//! fsid = "5d0c…"
//! entity = "client.admin"
//! ca = """-----BEGIN CERTIFICATE-----…"""
//! cert = """-----BEGIN CERTIFICATE-----…"""
//! key = """-----BEGIN PRIVATE KEY-----…"""
//! [[mon]]
//! name = "a"
//! address = "10.0.0.1:6789"
//! ```
//!
//! The file holds a private key: it is written with mode 0600, and replaced as a whole or not at all.

use super::certificate::{self, CertificateInfo, CertificateProblem};
use nacre_types::EntityName;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A real file is about 3 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One monitor to talk to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonAddress {
    pub name: String,
    /// `host:port`.
    pub address: String,
}

/// Who we are, in which cluster, and where its monitors are.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub fsid: String,
    pub entity: EntityName,
    pub monitors: Vec<MonAddress>,
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

/// Why credentials cannot be used. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the credentials file {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the credentials file {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the credentials file {path} is not valid: {reason}")]
    Invalid { path: PathBuf, reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    fsid: String,
    entity: String,
    ca: String,
    cert: String,
    key: String,
    #[serde(default, rename = "mon")]
    monitors: Vec<MonAddress>,
}

impl Credentials {
    /// Reads and checks a file: the certificate must name the entity and cluster the file names.
    pub fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        let read = |source| CredentialsError::Read { path: path.into(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(read)?;
        Credentials::from_toml(&text)
            .map_err(|reason| CredentialsError::Invalid { path: path.into(), reason })
    }

    /// The credentials a TOML text holds, or a sentence on what is wrong with it.
    pub fn from_toml(text: &str) -> Result<Credentials, String> {
        let text: Text = toml::from_str(text).map_err(|e| match e.span() {
            // The error's own text quotes the line, which may be the key.
            Some(span) => {
                let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                format!("line {line}: {}", e.message())
            }
            None => e.message().to_string(),
        })?;
        let entity = text.entity.parse::<EntityName>().map_err(|e| e.to_string())?;
        let credentials = Credentials {
            fsid: text.fsid,
            entity,
            monitors: text.monitors,
            ca_pem: text.ca,
            cert_pem: text.cert,
            key_pem: text.key,
        };
        credentials.check()?;
        Ok(credentials)
    }

    /// Checks that the parts belong together. Expiry is the other side's to judge, whose clock counts.
    pub fn check(&self) -> Result<(), String> {
        let info = CertificateInfo::from_pem(&self.cert_pem)
            .and_then(|info| info.of_cluster(&self.fsid))
            .map_err(|problem| match problem {
                CertificateProblem::Malformed(reason) => format!("cert: {reason}"),
                other => format!("cert: {other}"),
            })?;
        if info.entity != self.entity {
            return Err(format!("cert: it names {}, not {}", info.entity, self.entity));
        }
        let ca = certificate::der_from_pem(&self.ca_pem).map_err(|e| format!("ca: {e}"))?;
        let (fsid, _) = certificate::ca_subject(&ca).map_err(|e| format!("ca: {e}"))?;
        if fsid != self.fsid {
            return Err(format!("ca: it is of cluster {fsid}, not {}", self.fsid));
        }
        super::Identity::from_pem(&self.key_pem).map_err(|_| "key: it is not a private key")?;
        Ok(())
    }

    pub fn to_toml(&self) -> String {
        let text = Text {
            fsid: self.fsid.clone(),
            entity: self.entity.to_string(),
            ca: self.ca_pem.clone(),
            cert: self.cert_pem.clone(),
            key: self.key_pem.clone(),
            monitors: self.monitors.clone(),
        };
        toml::to_string_pretty(&text).expect("strings and tables are TOML")
    }

    /// Writes the file, mode 0600, and makes it durable. An older file is replaced at once and whole.
    pub fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        let write = |source| CredentialsError::Write { path: path.into(), source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(temporary);
        replace(path, &temporary, self.to_toml().as_bytes()).map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            write(error)
        })
    }
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl std::fmt::Debug for Credentials {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("fsid", &self.fsid)
            .field("entity", &self.entity)
            .field("monitors", &self.monitors)
            .finish_non_exhaustive()
    }
}
