//! What an OSD keeps beside an object's data: the names of xattrs, and the object info.
//!
//! | xattr | on | holds |
//! |---|---|---|
//! | `_` | every object | [`ObjectInfo`] |
//! | `ss` | heads that ever saw a snapshot | [`SnapSet`](crate::snaps::SnapSet) |
//! | `sc` | heads and clones that have a clone before them | [`Common`](crate::snaps::Common) |
//! | `lock.NAME` | heads | one advisory lock's holders |
//! | `u.NAME` | heads, clones | a user's xattr NAME |

use bytes::Bytes;
use nacre_types::{EVersion, Epoch};
use nacre_wire::op::Version;
use prost::Message;

/// Xattr of the object info.
pub const INFO_ATTR: &str = "_";
/// Xattr of a head's snapshot set.
pub const SNAPSET_ATTR: &str = "ss";
/// In front of users' xattr names, so that they never meet the OSD's own.
pub const USER_PREFIX: &[u8] = b"u.";
/// In front of lock names.
pub const LOCK_PREFIX: &[u8] = b"lock.";

/// What is known of an object's state as a whole. An object without one does not exist.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ObjectInfo {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(uint64, tag = "3")]
    pub modified_ms: u64,
    /// The head was removed but has clones: it exists only to carry their snapshot set.
    #[prost(bool, tag = "4")]
    pub whiteout: bool,
    /// The object has a snapshot set beside this.
    #[prost(bool, tag = "5")]
    pub snapped: bool,
    /// Of a clone: the snapshots it serves, oldest first.
    #[prost(uint64, repeated, tag = "6")]
    pub snaps: Vec<u64>,
    /// How the data is laid out: 0 is replicated as it is. Reserved for erasure coding.
    #[prost(uint32, tag = "7")]
    pub layout: u32,
}

impl ObjectInfo {
    pub fn version(&self) -> EVersion {
        EVersion::new(Epoch(self.epoch), self.seq)
    }

    /// The same object as another version.
    pub fn numbered(self, version: EVersion) -> ObjectInfo {
        ObjectInfo { epoch: version.epoch.0, seq: version.seq, ..self }
    }

    /// Reads an `_` xattr; `None` if it is not one.
    pub fn from_attr(value: &[u8]) -> Option<ObjectInfo> {
        ObjectInfo::decode(value).ok()
    }

    pub fn to_attr(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// A version as it is encoded.
pub fn wire_version(version: EVersion) -> Version {
    Version { epoch: version.epoch.0, seq: version.seq }
}

/// `prefix` and `name` as one key.
pub(crate) fn prefixed(prefix: &[u8], name: &[u8]) -> Bytes {
    [prefix, name].concat().into()
}
