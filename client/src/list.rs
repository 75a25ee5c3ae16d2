//! Listing a pool's objects, PG by PG in hash order, across map changes.

use crate::objecter::Ask;
use crate::slot::Reply;
use crate::{ErrorCode, OpError, Pool, Result};
use bytes::Bytes;
use nacre_types::{Epoch, ObjectId, PgId, stable_mod};
use nacre_wire::op::{ListObjects, OsdOp};

/// Where a listing goes on. The beginning by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListCursor {
    /// Everything up to this key has been listed.
    after: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListedObject {
    pub namespace: String,
    pub name: String,
}

impl Pool {
    /// The next objects of the pool (those of this handle's namespace, or of all with `all_namespaces`) and where to go
    /// on; `None` at the end. A page may be empty before that.
    pub async fn list_page(
        &self,
        cursor: ListCursor,
        entries_max: u32,
        all_namespaces: bool,
    ) -> Result<(Vec<ListedObject>, Option<ListCursor>)> {
        let map = self.cluster().osdmap().await?;
        let gone =
            || OpError::new(ErrorCode::NotFound, format!("pool '{}' does not exist any more", self.name()));
        let pool = map.pool(self.id()).ok_or_else(gone)?;
        let Some(pg) = pg_of(&cursor.after, self.id().0, pool.pg_num) else { return Ok((Vec::new(), None)) };
        let namespace = (!all_namespaces).then(|| self.namespace().to_string());
        let list = ListObjects { after: Bytes::from(cursor.after.clone()), entries_max, namespace };
        let op = Box::new(OsdOp { list: Some(list), ..OsdOp::default() });
        let reply = self.cluster().call(Ask::Pg { pg, op }, self.timeout()).await?;
        let Reply::Operation { reply, epoch, .. } = reply else {
            return Err(OpError::new(ErrorCode::Internal, "the answer is of another kind than the request"));
        };
        let code = ErrorCode::from_raw(reply.code);
        if code != ErrorCode::Ok {
            return Err(OpError::new(code, reply.message));
        }
        let list = reply.list.unwrap_or_default();
        let mut objects = Vec::with_capacity(list.objects.len());
        for name in &list.objects {
            let object = name.decode().map_err(|e| OpError::new(ErrorCode::Internal, e.to_string()))?;
            // What a PG that had not split yet has listed already may come again from its sibling.
            if object.key() > cursor.after && object.snap.is_head() {
                objects.push(ListedObject { namespace: object.namespace, name: object.name });
            }
        }
        let after = if list.next.is_empty() {
            // The end of the PG as the OSD that answered knew it.
            let map = self.cluster().wait_for_map(Epoch(epoch)).await?;
            let pool = map.pool(self.id()).ok_or_else(gone)?;
            ObjectId::pg_key_range(pg, pool.pg_num).1
        } else {
            list.next.to_vec()
        };
        let more = pg_of(&after, self.id().0, 1).is_some();
        Ok((objects, more.then_some(ListCursor { after })))
    }

    /// All objects of the pool, in this handle's namespace, whose name starts with `prefix`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let mut all = Vec::new();
        let mut cursor = Some(ListCursor::default());
        while let Some(at) = cursor {
            let (page, next) = self.list_page(at, 1000, false).await?;
            all.extend(page.into_iter().filter(|object| object.name.starts_with(prefix)));
            cursor = next;
        }
        Ok(all)
    }
}

/// The PG that holds the keys right after `after`; `None` beyond the pool's end.
fn pg_of(after: &[u8], pool: u32, pg_num: u32) -> Option<PgId> {
    let mut place = [0; 8];
    let known = after.len().min(8);
    place[..known].copy_from_slice(&after[..known]);
    let place = u64::from_be_bytes(place);
    let first = u64::from(pool) << 32;
    let reversed = match after.is_empty() {
        true => 0,
        false => u32::try_from(place.checked_sub(first)?).ok()?,
    };
    let mask = pg_num.next_power_of_two() - 1;
    let seed = stable_mod(reversed.reverse_bits(), pg_num, mask);
    Some(PgId::new(nacre_types::PoolId(pool), seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    #[test]
    fn ranges_follow_each_other_through_the_whole_pool() {
        for pg_num in [1, 2, 3, 5, 8, 12, 16, 31] {
            let (mut after, mut seen) = (Vec::new(), Vec::new());
            while let Some(pg) = pg_of(&after, 7, pg_num) {
                seen.push(pg.seed);
                let (first, end) = ObjectId::pg_key_range(pg, pg_num);
                assert!(after.is_empty() || after == first, "{pg_num}: no gap");
                after = end;
            }
            seen.sort();
            assert_eq!(seen, (0..pg_num).collect::<Vec<_>>());
            assert_eq!(after, ObjectId::pg_key_range(PgId::new(PoolId(8), 0), 1).0);
        }
    }
}
