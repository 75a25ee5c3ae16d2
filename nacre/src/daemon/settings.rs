//! `settings.toml` in a daemon's directory: what must be known before the cluster can be asked. Everything else is central
//! configuration.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `ip:port` to listen on; port 0 takes a free one (OSDs only).
    pub listen: SocketAddr,
    /// What others reach this daemon by, where that is not what it listens on (0.0.0.0, address translation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Name of this machine in the CRUSH map (OSDs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// CRUSH location where it is not just the host, for example `{ rack = "r1", root = "default" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub location: BTreeMap<String, String>,
    /// Bytes of index blocks kept in memory (OSDs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_cache_bytes: Option<usize>,
    /// Whether the device is told what it need not keep, where it cares; true if absent (OSDs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<bool>,
}

const FILE: &str = "settings.toml";

impl Settings {
    pub fn new(listen: SocketAddr) -> Settings {
        Settings {
            listen,
            advertise: None,
            host: None,
            device_class: None,
            location: BTreeMap::new(),
            index_cache_bytes: None,
            discard: None,
        }
    }

    pub fn load(dir: &Path) -> anyhow::Result<Settings> {
        let path = dir.join(FILE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Settings::parse(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    pub fn parse(text: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(text)
    }

    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        std::fs::write(&path, toml::to_string(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What to tell others, given where the socket really is.
    pub fn advertised(&self, bound: SocketAddr) -> anyhow::Result<String> {
        match &self.advertise {
            Some(address) => Ok(address.clone()),
            None if bound.ip().is_unspecified() => anyhow::bail!(
                "{FILE}: nobody can reach {bound}; set 'listen' to an address of this machine, or 'advertise' to what \
                 others reach it by"
            ),
            None => Ok(bound.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_and_unknown_keys_are_errors() {
        let dir = std::env::temp_dir().join(format!("nacre-settings-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let settings = Settings { host: Some("h".into()), ..Settings::new("127.0.0.1:0".parse().unwrap()) };
        settings.save(&dir).unwrap();
        assert_eq!(Settings::load(&dir).unwrap(), settings);
        std::fs::write(dir.join(FILE), "listen = \"127.0.0.1:0\"\nlisten_port = 3\n").unwrap();
        let error = format!("{:#}", Settings::load(&dir).unwrap_err());
        assert!(error.contains("listen_port") && error.contains(FILE), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
