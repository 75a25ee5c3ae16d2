//! An object's name as it is encoded.

use nacre_types::{ObjectId, ObjectIdError, PoolId, SnapId};

/// [`ObjectId`] on the wire. The hash is not sent: whoever decodes computes it, so it cannot lie.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ObjectName {
    #[prost(uint32, tag = "1")]
    pub pool: u32,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub name: String,
    /// One more than the snapshot's id, so that the head is 0 and costs nothing.
    #[prost(uint64, tag = "4")]
    pub snap_plus_one: u64,
}

pub type NameError = ObjectIdError;

impl ObjectName {
    pub fn decode(&self) -> Result<ObjectId, NameError> {
        let head = ObjectId::new(PoolId(self.pool), &self.namespace, &self.name)?;
        Ok(ObjectId { snap: SnapId(self.snap_plus_one.wrapping_sub(1)), ..head })
    }
}

impl From<&ObjectId> for ObjectName {
    fn from(object: &ObjectId) -> ObjectName {
        ObjectName {
            pool: object.pool.0,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            snap_plus_one: object.snap.0.wrapping_add(1),
        }
    }
}
