//! The monmap: who the monitors are.

use crate::MapError;
use bytes::Bytes;
use nacre_types::Epoch;
use prost::Message;
use std::collections::BTreeMap;

/// One monitor.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MonInfo {
    /// `ip:port`.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Its number in the Raft group, never reused.
    #[prost(uint64, tag = "2")]
    pub raft_id: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MonMap {
    pub fsid: String,
    pub epoch: Epoch,
    /// By name (`a` of `mon.a`).
    pub mons: BTreeMap<String, MonInfo>,
    /// Highest Raft number ever given.
    pub last_raft_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MonMapBytes {
    #[prost(string, tag = "1")]
    fsid: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(btree_map = "string, message", tag = "3")]
    mons: BTreeMap<String, MonInfo>,
    #[prost(uint64, tag = "4")]
    last_raft_id: u64,
}

impl MonMap {
    /// The first map of a cluster: epoch 1, Raft numbers in the order of the names.
    pub fn initial(fsid: &str, mons: &BTreeMap<String, String>) -> MonMap {
        let info = |(at, (name, address)): (usize, (&String, &String))| {
            (name.clone(), MonInfo { address: address.clone(), raft_id: at as u64 + 1 })
        };
        MonMap {
            fsid: fsid.into(),
            epoch: Epoch(1),
            mons: mons.iter().enumerate().map(info).collect(),
            last_raft_id: mons.len() as u64,
        }
    }

    pub fn name_of(&self, raft_id: u64) -> Option<&str> {
        self.mons.iter().find(|(_, info)| info.raft_id == raft_id).map(|(name, _)| name.as_str())
    }

    pub fn encode(&self) -> Bytes {
        let bytes = MonMapBytes {
            fsid: self.fsid.clone(),
            epoch: self.epoch.0,
            mons: self.mons.clone(),
            last_raft_id: self.last_raft_id,
        };
        bytes.encode_to_vec().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<MonMap, MapError> {
        let raw = MonMapBytes::decode(bytes).map_err(|e| MapError::malformed("monmap", e))?;
        let MonMapBytes { fsid, epoch, mons, last_raft_id } = raw;
        Ok(MonMap { fsid, epoch: Epoch(epoch), mons, last_raft_id })
    }
}
