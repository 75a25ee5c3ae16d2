//! What the index keeps per object, apart from its extent map's shards and its omap.

use bytes::Bytes;
use nacre_wire::transaction::{OBJECT_BYTES_MAX, Pair};
use prost::Message as _;

/// An onode beyond this is damage, not an object: far above the largest that a transaction may make.
const SIZE_MAX: u64 = 8 * OBJECT_BYTES_MAX;

/// An object's size, xattrs, and the numbers under which the rest is found.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Onode {
    /// Names the shards. Changes when the object is removed and created again, not when it is renamed.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Mapped blocks, shared ones included.
    #[prost(uint64, tag = "3")]
    pub blocks: u64,
    /// Names the omap; zero if there never was one.
    #[prost(uint64, tag = "4")]
    pub omap: u64,
    /// In key order.
    #[prost(message, repeated, tag = "5")]
    pub attrs: Vec<Pair>,
    /// How the data is laid out: zero is plain replication; erasure-coded layouts will have ids.
    #[prost(uint32, tag = "6")]
    pub layout: u32,
    /// Reserved: compression algorithm.
    #[prost(uint32, tag = "7")]
    pub compression: u32,
    /// Reserved: id of the key the data is encrypted with.
    #[prost(uint32, tag = "8")]
    pub encryption_key: u32,
}

impl Onode {
    pub fn load(bytes: &[u8]) -> Option<Onode> {
        Onode::decode(bytes).ok().filter(|onode| onode.size <= SIZE_MAX)
    }

    pub fn store(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub fn attr(&self, name: &[u8]) -> Option<&Bytes> {
        let at = self.attrs.binary_search_by(|p| p.key.as_ref().cmp(name)).ok()?;
        Some(&self.attrs[at].value)
    }

    pub fn set_attr(&mut self, pair: Pair) {
        match self.attrs.binary_search_by(|p| p.key.cmp(&pair.key)) {
            Ok(at) => self.attrs[at].value = pair.value,
            Err(at) => self.attrs.insert(at, pair),
        }
    }

    pub fn remove_attr(&mut self, name: &[u8]) {
        if let Ok(at) = self.attrs.binary_search_by(|p| p.key.as_ref().cmp(name)) {
            self.attrs.remove(at);
        }
    }
}
