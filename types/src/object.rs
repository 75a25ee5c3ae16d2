//! An object's full name and its order.
//!
//! Objects sort by pool, then by **bit-reversed hash**, so that every PG is one contiguous range, stays one when it
//! splits, and backfill can walk it with a single mark.

use crate::{PgId, PoolId, SnapId, object_hash, stable_mod};
use std::cmp::Ordering;
use std::fmt;

/// Longest object name, in bytes. Keeps index keys small; longer ones are refused at the client.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 256;

/// One object, or one clone of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectId {
    pub pool: PoolId,
    /// [`object_hash`] of namespace and name; kept because everything asks for it.
    pub hash: u32,
    pub namespace: String,
    pub name: String,
    pub snap: SnapId,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ObjectIdError {
    #[error("an object name must not be empty")]
    Empty,
    #[error("{what} of {bytes} bytes is too long: at most {max}")]
    TooLong { what: &'static str, bytes: usize, max: usize },
    #[error("{what} must not contain a NUL byte")]
    Nul { what: &'static str },
}

impl ObjectId {
    /// The live object of that name, if the name is legal.
    pub fn new(pool: PoolId, namespace: &str, name: &str) -> Result<ObjectId, ObjectIdError> {
        if name.is_empty() {
            return Err(ObjectIdError::Empty);
        }
        for (what, text, max) in
            [("object name", name, NAME_BYTES_MAX), ("namespace", namespace, NAMESPACE_BYTES_MAX)]
        {
            if text.len() > max {
                return Err(ObjectIdError::TooLong { what, bytes: text.len(), max });
            }
            if text.as_bytes().contains(&0) {
                return Err(ObjectIdError::Nul { what });
            }
        }
        let hash = object_hash(namespace, name);
        Ok(ObjectId { pool, hash, namespace: namespace.into(), name: name.into(), snap: SnapId::HEAD })
    }

    /// The same object at another snapshot.
    pub fn at(&self, snap: SnapId) -> ObjectId {
        ObjectId { snap, ..self.clone() }
    }

    pub fn head(&self) -> ObjectId {
        self.at(SnapId::HEAD)
    }

    /// The PG this object belongs to in a pool of `pg_num` PGs.
    pub fn pg(&self, pg_num: u32) -> PgId {
        let mask = pg_num.next_power_of_two() - 1;
        PgId::new(self.pool, stable_mod(self.hash, pg_num, mask))
    }

    /// A byte key that sorts as the object does: pool, reversed hash, namespace NUL, name NUL, snap; big-endian.
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(18 + self.namespace.len() + self.name.len());
        key.extend_from_slice(&self.pool.0.to_be_bytes());
        key.extend_from_slice(&self.hash.reverse_bits().to_be_bytes());
        key.extend_from_slice(self.namespace.as_bytes());
        key.push(0);
        key.extend_from_slice(self.name.as_bytes());
        key.push(0);
        key.extend_from_slice(&self.snap.0.to_be_bytes());
        key
    }

    /// Reads back what [`ObjectId::key`] wrote; `None` if the bytes are not such a key.
    pub fn from_key(key: &[u8]) -> Option<ObjectId> {
        let (pool, rest) = key.split_first_chunk::<4>()?;
        let (hash, rest) = rest.split_first_chunk::<4>()?;
        let (rest, snap) = rest.split_last_chunk::<8>()?;
        let rest = rest.strip_suffix(&[0])?;
        let nul = rest.iter().position(|&b| b == 0)?;
        let (namespace, name) = (&rest[..nul], &rest[nul + 1..]);
        Some(ObjectId {
            pool: PoolId(u32::from_be_bytes(*pool)),
            hash: u32::from_be_bytes(*hash).reverse_bits(),
            namespace: String::from_utf8(namespace.to_vec()).ok()?,
            name: String::from_utf8(name.to_vec()).ok()?,
            snap: SnapId(u64::from_be_bytes(*snap)),
        })
    }

    /// The half-open range of keys `[first, end)` that holds exactly the objects of `pg` in a pool of `pg_num`.
    /// `end` is `None` for "to the end of all keys", which cannot happen while pools are numbered below 2^32 - 1.
    pub fn pg_key_range(pg: PgId, pg_num: u32) -> (Vec<u8>, Vec<u8>) {
        let mask = pg_num.next_power_of_two() - 1;
        let bits = mask.count_ones();
        // A slice whose sibling does not exist yet also holds the sibling's hashes: one bit fewer in the prefix.
        let half = mask.div_ceil(2);
        let unsplit = bits > 0 && pg.seed < half && pg.seed + half >= pg_num;
        let bits = if unsplit { bits - 1 } else { bits };
        let first = u64::from(pg.seed.reverse_bits());
        let end = first + (1_u64 << (32 - bits));
        let key = |at: u64| {
            let at = (u64::from(pg.pool.0) << 32) + at;
            at.to_be_bytes().to_vec()
        };
        (key(first), key(end))
    }

    fn sort_key(&self) -> (PoolId, u32, &str, &str, SnapId) {
        (self.pool, self.hash.reverse_bits(), &self.namespace, &self.name, self.snap)
    }
}

impl Ord for ObjectId {
    fn cmp(&self, other: &ObjectId) -> Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &ObjectId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.pool.0)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if !self.snap.is_head() {
            write!(f, "@{}", self.snap)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> ObjectId {
        ObjectId::new(PoolId(3), "", name).unwrap()
    }

    #[test]
    fn key_order_is_object_order() {
        let mut objects: Vec<ObjectId> = (0..500).map(|i| object(&format!("o{i}"))).collect();
        objects.push(object("o7").at(SnapId(4)));
        let mut keys: Vec<Vec<u8>> = objects.iter().map(ObjectId::key).collect();
        objects.sort();
        keys.sort();
        let back: Vec<ObjectId> = keys.iter().map(|k| ObjectId::from_key(k).unwrap()).collect();
        assert_eq!(back, objects);
    }

    #[test]
    fn every_object_is_in_exactly_its_pgs_range() {
        for pg_num in [1, 2, 3, 5, 8, 12, 13, 32] {
            for i in 0..300 {
                let object = object(&format!("x{i}"));
                let home = object.pg(pg_num);
                for seed in 0..pg_num {
                    let pg = PgId::new(PoolId(3), seed);
                    let (first, end) = ObjectId::pg_key_range(pg, pg_num);
                    let inside = first <= object.key() && object.key() < end;
                    assert_eq!(inside, pg == home, "{object} {pg} of {pg_num}");
                }
            }
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(ObjectId::new(PoolId(1), "", ""), Err(ObjectIdError::Empty));
        assert!(ObjectId::new(PoolId(1), "", &"x".repeat(1025)).is_err());
        assert!(ObjectId::new(PoolId(1), "", "a\0b").is_err());
    }

    #[test]
    fn garbage_is_not_a_key() {
        for bad in [&b""[..], b"abc", &[0; 17], &[255; 40]] {
            assert_eq!(ObjectId::from_key(bad).filter(|o| o.key() != bad), None);
        }
    }
}
