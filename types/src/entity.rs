//! Who somebody is: the name in a certificate's SAN, in caps, in logs.

use crate::OsdId;
use std::fmt;
use std::str::FromStr;

/// A daemon or a client. Text form `mon.a`, `osd.3`, `mds.x`, `client.admin`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EntityName {
    Mon(String),
    Osd(OsdId),
    Mds(String),
    Client(String),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is not an entity name: expected mon.NAME, osd.NUMBER, mds.NAME or client.NAME, \
     with 1 to 64 letters, digits, '-', '_' or '.' in NAME"
)]
pub struct EntityNameError(pub String);

/// Fits a DNS label, which is where certificates carry it.
const ENTITY_ID_BYTES_MAX: usize = 64;

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntityName::Mon(name) => write!(f, "mon.{name}"),
            EntityName::Osd(id) => write!(f, "{id}"),
            EntityName::Mds(name) => write!(f, "mds.{name}"),
            EntityName::Client(name) => write!(f, "client.{name}"),
        }
    }
}

impl FromStr for EntityName {
    type Err = EntityNameError;

    fn from_str(text: &str) -> Result<EntityName, EntityNameError> {
        let error = || EntityNameError(text.chars().take(100).collect());
        let (kind, id) = text.split_once('.').ok_or_else(error)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > ENTITY_ID_BYTES_MAX || !id.chars().all(legal) {
            return Err(error());
        }
        match kind {
            "mon" => Ok(EntityName::Mon(id.into())),
            "mds" => Ok(EntityName::Mds(id.into())),
            "client" => Ok(EntityName::Client(id.into())),
            "osd" => id.parse().map(|n| EntityName::Osd(OsdId(n))).map_err(|_| error()),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        for good in ["mon.a", "osd.12", "client.admin", "client.k8s-1.x", "mds.m"] {
            assert_eq!(good.parse::<EntityName>().unwrap().to_string(), good);
        }
        let long = format!("client.{}", "x".repeat(65));
        for bad in ["", "mon", "mon.", "osd.x", "osd.-1", "tree.a", "client.a b", "client.a/b", &long] {
            assert!(bad.parse::<EntityName>().is_err(), "{bad}");
        }
    }
}
