//! The authmap: which entities there are and what each may do. Daemons follow it, so that a change of caps or a removed
//! entity takes effect at once; clients never get it.

use crate::{Access, Caps, MapError};
use bytes::Bytes;
use nacre_types::{EntityName, Epoch};
use prost::Message;
use std::collections::BTreeMap;

/// What an entity may do, by the kind of daemon that checks it (`mon`, `osd`, `mds`), as text and parsed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthEntry {
    pub caps: BTreeMap<String, Caps>,
    pub created_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthMap {
    pub epoch: Epoch,
    pub entities: BTreeMap<EntityName, AuthEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct AuthMapBytes {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(message, repeated, tag = "2")]
    entities: Vec<EntityBytes>,
}

#[derive(Clone, PartialEq, Message)]
struct EntityBytes {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    caps: BTreeMap<String, String>,
    #[prost(uint64, tag = "3")]
    created_ms: u64,
}

impl AuthMap {
    pub fn contains(&self, entity: &EntityName) -> bool {
        self.entities.contains_key(entity)
    }

    /// What `entity` may do at a daemon of kind `service`; nothing if it is unknown.
    pub fn caps(&self, entity: &EntityName, service: &str) -> Option<&Caps> {
        self.entities.get(entity)?.caps.get(service)
    }

    /// Whether an object operation is allowed.
    pub fn allow_object(&self, entity: &EntityName, needed: Access, pool: &str, namespace: &str) -> bool {
        self.caps(entity, "osd").is_some_and(|caps| caps.allow(needed, pool, namespace))
    }

    pub fn encode(&self) -> Bytes {
        let entity = |(name, entry): (&EntityName, &AuthEntry)| EntityBytes {
            name: name.to_string(),
            caps: entry.caps.iter().map(|(service, caps)| (service.clone(), caps.to_string())).collect(),
            created_ms: entry.created_ms,
        };
        let entities = self.entities.iter().map(entity).collect();
        AuthMapBytes { epoch: self.epoch.0, entities }.encode_to_vec().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<AuthMap, MapError> {
        let bad = |e: &dyn ToString| MapError::malformed("authmap", e.to_string());
        let raw = AuthMapBytes::decode(bytes).map_err(|e| bad(&e))?;
        let mut entities = BTreeMap::new();
        for entity in raw.entities {
            let name: EntityName = entity.name.parse().map_err(|e| bad(&e))?;
            let mut caps = BTreeMap::new();
            for (service, text) in entity.caps {
                caps.insert(service, text.parse().map_err(|e| bad(&e))?);
            }
            entities.insert(name, AuthEntry { caps, created_ms: entity.created_ms });
        }
        Ok(AuthMap { epoch: Epoch(raw.epoch), entities })
    }
}
