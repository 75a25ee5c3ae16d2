//! Removing a PG's copy: first a mark that it means nothing, then its objects in small transactions, then its metadata.

use super::lifecycle::REMOVING;
use super::{Pg, PgContext, State};
use crate::log::persist;
use crate::token::PgPurpose;
use nacre_types::ObjectId;
use nacre_wire::Transaction;
use nacre_wire::messages::LogLevel;

impl Pg {
    /// The pool is gone, or the primary says that nobody needs this copy.
    pub(crate) fn start_removal(&mut self, ctx: &mut PgContext<'_>) {
        self.drop_all_ops(ctx);
        self.recovery_reset(ctx);
        self.in_flight.clear();
        ctx.shared.forget(self.id);
        ctx.requests.pg_temp.remove(&self.id);
        self.enter(ctx, State::Removing);
        if !self.info.exists {
            ctx.requests.removed.insert(self.id);
            return;
        }
        ctx.log(LogLevel::Info, format!("PG {}: removing this copy", self.id));
        let mut t = Transaction::new(self.id);
        t.meta_set(REMOVING, &b"1"[..]);
        self.members.since = ctx.epoch();
        ctx.submit(self.id, self.interval(), PgPurpose::Removal, t);
    }

    /// A removal that a restart cut short.
    pub(crate) fn resume_removal(&mut self, ctx: &mut PgContext<'_>) {
        self.continue_removal(ctx);
    }

    /// A batch is gone: the next one.
    pub(crate) fn continue_removal(&mut self, ctx: &mut PgContext<'_>) {
        let (first, end) = ObjectId::pg_key_range(self.id, self.pg_num);
        let batch = ctx.config.tunables.remove_objects_batch.max(1);
        let objects = match ctx.store.list(&first, true, &end, batch) {
            Ok(objects) => objects,
            Err(error) => return Pg::store_error(ctx, &error),
        };
        let mut t = Transaction::new(self.id);
        if objects.is_empty() {
            persist::remove_all(&mut t);
            ctx.submit_unwatched(t);
            ctx.requests.removed.insert(self.id);
            return;
        }
        for object in &objects {
            t.remove(object);
        }
        ctx.submit(self.id, self.interval(), PgPurpose::Removal, t);
    }
}
