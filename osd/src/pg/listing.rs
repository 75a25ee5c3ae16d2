//! Listing a PG's objects for a client, in hash order.

use super::{Pg, PgContext};
use crate::ops;
use nacre_store::StoreError;
use nacre_types::ObjectId;
use nacre_types::buggify;
use nacre_wire::op::{LIST_ENTRIES_MAX, ListObjects, ObjectList, OsdOpReply};
use nacre_wire::{Data, ErrorCode, ObjectName};
use std::collections::BTreeSet;

/// Objects looked at per store call.
const SCAN: usize = 512;

impl Pg {
    pub(crate) fn list_objects(&mut self, ctx: &mut PgContext<'_>, id: u64) {
        let list = self.pipeline.ops.get(&id).and_then(|op| op.message.list.clone()).unwrap_or_default();
        match self.listing(ctx, &list) {
            Ok(list) => {
                if let Some(op) = self.forget(id) {
                    let reply = OsdOpReply { list: Some(list), ..OsdOpReply::default() };
                    self.answer(ctx, &op, reply, Data::default());
                }
            }
            Err(error) => self.fail(ctx, id, ErrorCode::Io, &error.to_string()),
        }
    }

    /// On the disk here, but removed by a change that has not been recovered yet.
    fn is_gone(&self, object: &ObjectId) -> bool {
        self.missing.get(object).is_some_and(|missing| missing.is_delete)
    }

    fn listing(&self, ctx: &PgContext<'_>, list: &ListObjects) -> Result<ObjectList, StoreError> {
        let (first, end) = ObjectId::pg_key_range(self.id, self.pg_num);
        let wanted = list.entries_max.clamp(1, LIST_ENTRIES_MAX) as usize;
        let (mut after, mut inclusive) =
            if list.after.is_empty() { (first.clone(), true) } else { (list.after.to_vec(), false) };
        // What the primary misses itself exists all the same.
        let mut missing: BTreeSet<ObjectId> = self
            .missing
            .iter()
            .filter(|(object, missing)| object.snap.is_head() && !missing.is_delete)
            .map(|(object, _)| object.clone())
            .filter(|object| inclusive || object.key() > after)
            .collect();
        let mut objects: Vec<ObjectId> = Vec::new();
        let in_namespace =
            |object: &ObjectId| list.namespace.as_ref().is_none_or(|only| *only == object.namespace);
        while objects.len() <= wanted {
            let most = if buggify("osd: small listing scan") { 3 } else { SCAN };
            let found = ctx.store.list(&after, inclusive, &end, most)?;
            let Some(last) = found.last() else { break };
            (after, inclusive) = (last.key(), false);
            for object in found.into_iter().filter(|object| object.snap.is_head() && !self.is_gone(object)) {
                if missing.remove(&object) || ops::resolve(&*ctx.store, &object)?.is_some() {
                    objects.push(object);
                }
            }
        }
        objects.extend(missing);
        objects.sort();
        let more = objects.len() > wanted;
        objects.truncate(wanted);
        let next = if more {
            objects.last().map(|object| object.key().into()).unwrap_or_default()
        } else {
            Default::default()
        };
        let objects = objects.iter().filter(|object| in_namespace(object)).map(ObjectName::from).collect();
        Ok(ObjectList { objects, next })
    }
}
