//! What reaches a PG: messages of its interval, ends of its store requests, time.

use super::{Pg, PgContext, State};
use crate::token::PgPurpose;
use nacre_store::StoreError;
use nacre_types::{Epoch, Instant, OsdId};
use nacre_wire::messages::{LogLevel, PgRemove};
use nacre_wire::{Data, Message, Packet};

/// The interval a message belongs to, if its kind has one.
pub(crate) fn interval_of(message: &Message) -> Option<Epoch> {
    let interval = match message {
        Message::PgQuery(m) => m.interval,
        Message::PgNotify(m) => m.interval,
        Message::PgLogRequest(m) => m.interval,
        Message::PgLog(m) => m.interval,
        Message::PgActivate(m) => m.interval,
        Message::PgActivated(m) => m.interval,
        Message::PgRemove(m) => m.interval,
        Message::RepOp(m) => m.interval,
        Message::Lease(m) => m.interval,
        Message::LeaseAck(m) => m.interval,
        Message::Push(m) => m.interval,
        Message::PushReply(m) => m.interval,
        Message::Pull(m) => m.interval,
        Message::BackfillScan(m) => m.interval,
        Message::BackfillDigest(m) => m.interval,
        Message::BackfillProgress(m) => m.interval,
        Message::Reserve(m) => m.interval,
        Message::ReserveReply(m) => m.interval,
        Message::ScrubRequest(m) => m.interval,
        Message::ScrubMap(m) => m.interval,
        _ => return None,
    };
    Some(Epoch(interval))
}

impl Pg {
    /// A message from another OSD about this PG, of this interval.
    pub(crate) fn on_message(&mut self, ctx: &mut PgContext<'_>, from: OsdId, packet: Packet) {
        if matches!(self.state(), State::Removing | State::Reset) {
            return;
        }
        match packet.message {
            Message::PgQuery(m) => self.on_query(ctx, from, m),
            Message::PgNotify(m) => self.on_notify(ctx, from, m),
            Message::PgLogRequest(m) => self.on_log_request(ctx, from, m),
            Message::PgLog(m) => self.on_log(ctx, from, m),
            Message::PgActivate(m) => self.on_activate(ctx, from, m),
            Message::PgActivated(m) => self.on_activated(ctx, from, &m),
            Message::PgRemove(m) => self.on_remove(ctx, from, m),
            Message::RepOp(m) => self.on_rep_op(ctx, from, m, packet.data),
            Message::Lease(m) => self.on_lease(ctx, from, &m),
            Message::LeaseAck(m) => self.on_lease_ack(ctx, from, &m),
            _ => self.recovery_on_message(ctx, from, packet),
        }
        self.settle(ctx);
    }

    fn on_remove(&mut self, ctx: &mut PgContext<'_>, from: OsdId, _message: PgRemove) {
        let is_stray = *self.state() == State::Stray && !self.members.is_member(self.me);
        if self.members.primary() == Some(from) && is_stray {
            self.start_removal(ctx);
        }
    }

    pub(crate) fn on_committed(&mut self, ctx: &mut PgContext<'_>, what: PgPurpose) {
        match what {
            PgPurpose::Write(version) => self.on_own_commit(ctx, version),
            PgPurpose::Replica(version) => self.on_replica_commit(ctx, version),
            PgPurpose::Activation if self.is_primary() => {
                let message = nacre_wire::messages::PgActivated {
                    interval: self.interval().0,
                    activated_in: self.info.last_epoch_started.0,
                };
                self.on_activated(ctx, self.me, &message);
            }
            PgPurpose::Activation => self.on_member_activation_durable(ctx),
            PgPurpose::Removal => return self.continue_removal(ctx),
            PgPurpose::Recovery(token) => self.recovery_on_committed(ctx, token),
            PgPurpose::Scrub(token) => self.scrub_on_committed(ctx, token),
            PgPurpose::OpRead { .. } => ctx.log(LogLevel::Error, "a read came back as a commit"),
        }
        self.settle(ctx);
    }

    pub(crate) fn on_read(
        &mut self,
        ctx: &mut PgContext<'_>,
        what: PgPurpose,
        result: Result<Data, StoreError>,
    ) {
        match what {
            PgPurpose::OpRead { op, piece } => self.on_op_read(ctx, op, piece, result),
            PgPurpose::Recovery(token) => self.recovery_on_read(ctx, token, result),
            PgPurpose::Scrub(token) => self.scrub_on_read(ctx, token, result),
            _ => ctx.log(LogLevel::Error, "a commit came back as a read"),
        }
        self.settle(ctx);
    }

    pub(crate) fn tick(&mut self, ctx: &mut PgContext<'_>) {
        if matches!(self.state(), State::Removing | State::Reset) {
            return;
        }
        self.peering_tick(ctx);
        if self.is_primary() {
            self.lease_tick(ctx);
            self.resend_tick(ctx);
            self.watch.tick(ctx.now);
            self.deliver_watch(ctx);
            self.snap_trim_tick(ctx);
        }
        if matches!(self.state(), State::Active | State::ReplicaActive | State::Stray) {
            self.recovery_tick(ctx);
        }
        self.settle(ctx);
    }

    /// After every event: what should always hold is made to hold.
    pub(crate) fn settle(&mut self, ctx: &mut PgContext<'_>) {
        if self.is_active() && self.is_primary() {
            self.check_clean(ctx);
        }
    }

    /// A turn that was asked for: look at everything that waits.
    pub(crate) fn turn(&mut self, ctx: &mut PgContext<'_>) {
        if self.is_active() && self.is_primary() {
            self.recovery_advance(ctx);
            self.pump_all(ctx);
        }
        self.settle(ctx);
    }

    pub(crate) fn next_deadline(&self, resend: std::time::Duration, now: Instant) -> Option<Instant> {
        if matches!(self.state(), State::Removing | State::Reset) {
            return None;
        }
        let waiting = !self.pipeline.ops.is_empty();
        let prior = if waiting && self.is_active() { self.prior_lease_end(now) } else { None };
        // A stray may be the source of what others miss.
        let works = matches!(self.state(), State::Active | State::ReplicaActive | State::Stray);
        let all = [
            self.peering_deadline(),
            self.lease_deadline(),
            self.resend_deadline(resend),
            self.watch.next_deadline(),
            self.recovery_next_deadline().filter(|_| works),
            self.trim_deadline(),
            prior,
        ];
        all.into_iter().flatten().min()
    }

    /// The PG's own invariants.
    pub(crate) fn check(&self) {
        self.log.check();
        assert_eq!(self.log.gap(), None, "no write is missing from the log of {}", self.id);
        if self.is_active() {
            assert!(self.is_primary(), "{}: only the primary is Active", self.id);
            assert!(self.own_durable <= self.log.head());
            assert!(self.committed_to <= self.own_durable, "{}: committed includes this OSD", self.id);
            for write in &self.in_flight {
                assert!(write.version > self.committed_to);
            }
        }
        assert_eq!(self.info.last_update, self.log.head(), "{}: info follows the log", self.id);
    }
}
