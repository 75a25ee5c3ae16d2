//! The members' side of peering: tell the primary what is here, take over its log, record the start.

use crate::log::{
    BackfillMark, History, Info, MissingSet, PastIntervals, PgLog, decode_missing, decode_version,
    merge_authoritative, persist,
};
use crate::pg::{Pg, PgContext, State};
use crate::replication::lease::{Promise, with_drift};
use crate::space::used_permille;
use crate::token::PgPurpose;
use nacre_types::{Epoch, Instant, OsdId, mutant};
use nacre_wire::Transaction;
use nacre_wire::messages::{GrantedLease, LogEntry, LogLevel, PgActivate, PgActivated, PgNotify, PgQuery};
use std::time::Duration;

impl Pg {
    /// What this copy is, for its primary.
    pub(crate) fn notify(&self, ctx: &PgContext<'_>) -> PgNotify {
        PgNotify {
            interval: self.interval().0,
            info: Some(self.info.encode()),
            past_intervals: if self.past_known { self.past.encode() } else { Default::default() },
            leases: told(ctx.now, self.lease.running(ctx.now)),
            past_known: self.past_known,
            store_since: ctx.store_since.0,
            used_permille: used_permille(ctx.store.usage()),
        }
    }

    pub(crate) fn notify_primary(&mut self, ctx: &mut PgContext<'_>) {
        if let Some(primary) = self.members.primary() {
            let notify = self.notify(ctx);
            self.send(ctx, primary, notify);
        }
    }

    /// A stray makes itself known from time to time, so that a primary that is clean tells it to go.
    pub(crate) fn stray_tick(&mut self, ctx: &mut PgContext<'_>) {
        let calm = if self.members.is_member(self.me) { 2 } else { 8 };
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval * calm;
        self.notify_primary(ctx);
    }

    pub(crate) fn on_query(&mut self, ctx: &mut PgContext<'_>, from: OsdId, query: PgQuery) {
        if self.members.primary() != Some(from) {
            return;
        }
        if let Some(history) = &query.history
            && self.info.history.merge(&History::decode(history))
        {
            self.past.prune(self.info.history.last_epoch_clean);
            self.persist_info(ctx);
        }
        let notify = self.notify(ctx);
        self.send(ctx, from, notify);
    }

    /// The primary makes this OSD a member of the interval.
    pub(crate) fn on_activate(&mut self, ctx: &mut PgContext<'_>, from: OsdId, mut message: PgActivate) {
        if self.members.primary() != Some(from) || from == self.me {
            return;
        }
        match self.state() {
            // The first acknowledgement was lost.
            State::ReplicaActive => return self.acknowledge_activation(ctx),
            State::Stray if self.activation_submitted => return,
            State::Stray => {}
            _ => return,
        }
        let (Some(piece), pieces) = (message.piece, self.incoming.entry(from).or_default()) else { return };
        let entries = std::mem::take(&mut message.entries);
        let Some((entries, _)) = pieces.take(piece, entries, Vec::new()) else { return };
        if let Err(reason) = self.take_activation(ctx, &message, &entries) {
            ctx.log(
                LogLevel::Error,
                format!("PG {}: the activation by {from} does not fit: {reason}", self.id),
            );
            self.notify_primary(ctx);
        }
    }

    fn take_activation(
        &mut self,
        ctx: &mut PgContext<'_>,
        message: &PgActivate,
        entries: &[LogEntry],
    ) -> Result<(), String> {
        let theirs = message.info.as_ref().ok_or("it has no info")?;
        let theirs = Info::decode(theirs).map_err(|e| e.to_string())?;
        if theirs.pg != self.id {
            return Err(format!("it is of PG {}", theirs.pg));
        }
        let past = PastIntervals::decode(&message.past_intervals).map_err(|e| e.to_string())?;
        let auth = PgLog::decode(decode_version(message.tail), entries).and_then(PgLog::unbroken);
        let auth = auth.map_err(|e| e.to_string())?;
        if auth.head() != theirs.last_update {
            return Err(format!("its log ends at {}, not at {}", auth.head(), theirs.last_update));
        }
        self.lease.take_over(ctx.now, heard(ctx, &message.prior_leases));
        let mut t = Transaction::new(self.id);
        if message.start_backfill {
            self.log = auth;
            self.missing = MissingSet::new();
            self.info.last_backfill = BackfillMark::START;
            persist::log(&mut t, &self.log);
            persist::missing(&mut t, &self.missing);
        } else {
            let mark = self.info.last_backfill.clone();
            if self.info.last_epoch_started < Epoch(message.started_before) {
                self.missing.all_seen();
            }
            let seen_to = message.seen_to.map_or(auth.head(), |version| decode_version(Some(version)));
            let merged = merge_authoritative(&mut self.log, &mut self.missing, &mark, &auth, seen_to);
            let merged = merged.map_err(|e| e.to_string())?;
            for record in &message.unseen {
                let (object, unseen) = decode_missing(record).map_err(|e| e.to_string())?;
                self.missing.note_seen(&object, unseen.need, unseen.seen);
            }
            self.note_removals(ctx, &mut t, &merged.remove);
            persist::merged(&mut t, &merged, &self.log, &self.missing);
        }
        self.info.exists = true;
        self.info.history.merge(&theirs.history);
        self.info.history.same_interval_since = self.interval();
        self.info.last_epoch_started = theirs.last_epoch_started;
        self.info.last_interval_started = theirs.last_interval_started;
        self.info.follow(&self.log, &self.missing);
        self.past = past;
        self.past_known = true;
        self.past.prune(self.info.history.last_epoch_clean);
        self.write_info(&mut t);
        self.activation_submitted = true;
        ctx.submit(self.id, self.interval(), PgPurpose::Activation, t);
        if mutant!(ActivatedBeforeDurable) {
            self.on_member_activation_durable(ctx);
        }
        Ok(())
    }

    /// The activation is durable here.
    pub(crate) fn on_member_activation_durable(&mut self, ctx: &mut PgContext<'_>) {
        self.enter(ctx, State::ReplicaActive);
        self.replica_durable = self.log.head();
        self.acknowledge_activation(ctx);
    }

    fn acknowledge_activation(&mut self, ctx: &mut PgContext<'_>) {
        let Some(primary) = self.members.primary() else { return };
        let activated_in = self.info.last_epoch_started.0;
        self.send(ctx, primary, PgActivated { interval: self.interval().0, activated_in });
    }
}

/// Promises as messages carry them.
pub(super) fn told(now: Instant, promises: impl IntoIterator<Item = Promise>) -> Vec<GrantedLease> {
    let told = |promise: Promise| GrantedLease {
        holder: promise.holder.map(|osd| osd.0),
        remaining_ns: promise.end.since(now).as_nanos() as u64,
    };
    promises.into_iter().map(told).collect()
}

/// The promises that a message tells of. No lease is longer than the grace (and its drift): a peer may not stall a failover for
/// as long as it likes.
pub(super) fn heard(ctx: &PgContext<'_>, leases: &[GrantedLease]) -> Vec<Promise> {
    let longest = with_drift(with_drift(ctx.config.tunables.heartbeat_grace));
    let heard = |lease: &GrantedLease| Promise {
        holder: lease.holder.map(OsdId),
        end: ctx.now + Duration::from_nanos(lease.remaining_ns).min(longest),
    };
    leases.iter().map(heard).collect()
}
