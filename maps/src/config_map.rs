//! The central configuration: settings by section, kept by the monitors and pushed to every daemon.
//!
//! Sections are `global`, a kind of daemon (`osd`, `mon`, `mds`, `client`) or one entity (`osd.3`); the more
//! particular one wins.

use crate::MapError;
use bytes::Bytes;
use nacre_types::{EntityName, Epoch};
use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigMap {
    pub epoch: Epoch,
    /// Section, then key, then value.
    pub sections: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, PartialEq, Message)]
struct ConfigMapBytes {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(message, repeated, tag = "2")]
    sections: Vec<SectionBytes>,
}

#[derive(Clone, PartialEq, Message)]
struct SectionBytes {
    #[prost(string, tag = "1")]
    who: String,
    #[prost(btree_map = "string, string", tag = "2")]
    values: BTreeMap<String, String>,
}

impl ConfigMap {
    /// The value in force for an entity and the section it comes from.
    pub fn effective(&self, entity: &EntityName, key: &str) -> Option<(&str, &str)> {
        let name = entity.to_string();
        let kind = name.split('.').next().unwrap_or_default();
        [&name[..], kind, "global"].into_iter().find_map(|who| {
            let (section, values) = self.sections.get_key_value(who)?;
            Some((values.get(key)?.as_str(), section.as_str()))
        })
    }

    /// The value in force for an entity.
    pub fn get(&self, entity: &EntityName, key: &str) -> Option<&str> {
        self.effective(entity, key).map(|(value, _)| value)
    }

    /// Sets a value, or with `None` takes it away.
    pub fn set(&mut self, who: &str, key: &str, value: Option<String>) {
        let section = self.sections.entry(who.into()).or_default();
        match value {
            Some(value) => section.insert(key.into(), value),
            None => section.remove(key),
        };
        self.sections.retain(|_, section| !section.is_empty());
    }

    pub fn encode(&self) -> Bytes {
        let section = |(who, values): (&String, &BTreeMap<String, String>)| SectionBytes {
            who: who.clone(),
            values: values.clone(),
        };
        let sections = self.sections.iter().map(section).collect();
        ConfigMapBytes { epoch: self.epoch.0, sections }.encode_to_vec().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<ConfigMap, MapError> {
        let raw = ConfigMapBytes::decode(bytes).map_err(|e| MapError::malformed("configuration", e))?;
        let sections = raw.sections.into_iter().map(|section| (section.who, section.values)).collect();
        Ok(ConfigMap { epoch: Epoch(raw.epoch), sections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_particular_wins_and_bytes_round_trip() {
        let mut config = ConfigMap { epoch: Epoch(4), ..ConfigMap::default() };
        config.set("global", "a", Some("1".into()));
        config.set("osd", "a", Some("2".into()));
        config.set("osd.3", "a", Some("3".into()));
        let get = |config: &ConfigMap, who: &str| config.get(&who.parse().unwrap(), "a").map(String::from);
        assert_eq!(get(&config, "osd.3").as_deref(), Some("3"));
        assert_eq!(get(&config, "osd.4").as_deref(), Some("2"));
        assert_eq!(get(&config, "mon.a").as_deref(), Some("1"));
        assert_eq!(ConfigMap::decode(&config.encode()), Ok(config.clone()));
        config.set("osd.3", "a", None);
        assert_eq!(get(&config, "osd.3").as_deref(), Some("2"));
        assert!(!config.sections.contains_key("osd.3"));
    }
}
