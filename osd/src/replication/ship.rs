//! The primary's side: ship, count commits, answer, send again, trim.

use crate::log::{Entry, encode_version, persist};
use crate::pg::{Pg, PgContext, State};
use crate::token::PgPurpose;
use crate::watch::WatchOutput;
use bytes::Bytes;
use nacre_store::StoreError;
use nacre_types::{EVersion, Instant, ObjectId, OsdId, mutant};
use nacre_wire::messages::{LogEntry, LogKind, LogLevel, RepOp};
use nacre_wire::stages::ReplicaTimes;
use nacre_wire::{Data, Transaction};
use prost::Message as _;
use std::collections::BTreeSet;

/// A write that not all members have committed.
#[derive(Clone, Debug)]
pub struct InFlight {
    pub version: EVersion,
    /// The head it belongs to.
    pub object: ObjectId,
    /// The client's operation that it answers, if one.
    pub op: Option<u64>,
    pub since: Instant,
    sent: Instant,
    body: Bytes,
    payload: Data,
    /// Encoded.
    entries: Vec<Bytes>,
    /// Those who get only the entries: they miss the object, or backfill has not come to it.
    entries_only: BTreeSet<OsdId>,
}

impl Pg {
    /// The version of the next log entry.
    pub(crate) fn next_version(&self, ctx: &PgContext<'_>) -> EVersion {
        EVersion::new(ctx.epoch(), self.log.head().seq + 1)
    }

    /// Makes a change on all members: sends it first, then submits it here. `entries` carry versions from
    /// [`Pg::next_version`] on, without gaps; the last one's answer goes to `op` once all have committed.
    pub(crate) fn replicate(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: ObjectId,
        transaction: Transaction,
        entries: Vec<LogEntry>,
        op: Option<u64>,
    ) {
        assert!(self.is_active() && self.is_primary(), "only an active primary accepts writes");
        let decoded: Vec<Entry> =
            entries.iter().map(|entry| Entry::decode(entry).expect("made here")).collect();
        let first = decoded.first().expect("a change has an entry").version;
        let version = decoded.last().expect("a change has an entry").version;
        assert_eq!(first, self.next_version(ctx), "versions are given in order");
        let tunables = &ctx.config.tunables;
        let keep = if self.clean { tunables.log_entries_clean } else { tunables.log_entries_degraded };
        let trim_to =
            self.log.trim_target(keep, tunables.log_trim_batch, self.trim_limit(tunables.log_entries_held));
        let replicas = self.replicas();
        let to_come: BTreeSet<OsdId> =
            replicas.iter().copied().filter(|&osd| !self.backfill_ships(osd, &object)).collect();
        if decoded.iter().any(Entry::is_delete) {
            self.backfill_removed(&to_come);
        }
        let lacking = self.lacking_family(&object, &decoded);
        for entry in decoded.iter().filter(|entry| entry.is_delete()) {
            self.recovery_on_removal(ctx, &entry.object, &lacking);
        }
        self.note_lacking(&lacking, &decoded);
        let entries_only = to_come.union(&lacking).copied().collect();
        let encoded: Vec<Bytes> = entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
        let in_flight = InFlight {
            version,
            object: object.head(),
            op,
            since: ctx.now,
            sent: ctx.now,
            body: transaction.encode_body().into(),
            payload: transaction.payload(),
            entries: encoded.clone(),
            entries_only,
        };
        for osd in replicas {
            self.ship(ctx, osd, &in_flight, trim_to);
        }
        self.in_flight.push_back(in_flight);
        self.queue_of(&object.head()).writers += 1;
        let touched: Vec<ObjectId> = match self.clean {
            true => Vec::new(),
            false => {
                decoded.iter().filter(|entry| !entry.is_error()).map(|entry| entry.object.clone()).collect()
            }
        };
        self.apply(ctx, transaction, decoded, encoded, trim_to, PgPurpose::Write(version));
        if mutant!(PrimaryAckBeforeCommit) {
            self.on_own_commit(ctx, version);
        }
        self.recovery_on_write(ctx, &object, &touched);
    }

    fn ship(&self, ctx: &mut PgContext<'_>, osd: OsdId, write: &InFlight, trim_to: Option<EVersion>) {
        let bare = write.entries_only.contains(&osd);
        let message = RepOp {
            interval: self.interval().0,
            version: encode_version(write.version),
            transaction: if bare { Bytes::new() } else { write.body.clone() },
            entries: write.entries.clone(),
            committed_to: encode_version(self.committed_to),
            trim_to: trim_to.and_then(encode_version),
            measured: self.measured.leads(write.version),
        };
        let data = if bare { Data::default() } else { write.payload.clone() };
        let packet = ctx.packet(message).on(self.id).with(data);
        self.send_packet(ctx, osd, packet);
    }

    /// Any member: submits a change together with its log entries (`encoded` are the same), info and a trim.
    pub(crate) fn apply(
        &mut self,
        ctx: &mut PgContext<'_>,
        mut transaction: Transaction,
        entries: Vec<Entry>,
        encoded: Vec<Bytes>,
        trim_to: Option<EVersion>,
        what: PgPurpose,
    ) {
        let touched: Vec<ObjectId> = transaction.objects().to_vec();
        let before = self.measure(ctx, &touched);
        self.note_reverts(&mut transaction, &entries);
        for (entry, encoded) in entries.into_iter().zip(encoded) {
            persist::append_encoded(&mut transaction, entry.version, encoded);
            self.log.append(entry);
        }
        if let Some(to) = trim_to {
            let trimmed = self.log.trim(to);
            persist::trim(&mut transaction, &trimmed);
        }
        self.info.follow(&self.log, &self.missing);
        // The counts go into the same transaction, so what it does to them must be known before it is submitted.
        let after = predicted(&transaction, &touched, &before);
        let counted = (self.info.objects, self.info.bytes);
        for (was, is) in before.iter().zip(&after) {
            let bytes = self.info.bytes.saturating_add(is.unwrap_or(0)).saturating_sub(was.unwrap_or(0));
            self.info.bytes = bytes;
            let objects = self.info.objects + u64::from(is.is_some());
            self.info.objects = objects.saturating_sub(u64::from(was.is_some()));
        }
        if (self.info.objects, self.info.bytes) != counted {
            persist::counts(&mut transaction, self.info.objects, self.info.bytes);
        }
        ctx.submit(self.id, self.interval(), what, transaction);
    }

    fn measure(&self, ctx: &mut PgContext<'_>, objects: &[ObjectId]) -> Vec<Option<u64>> {
        let size = |object: &ObjectId| -> Result<Option<u64>, StoreError> {
            Ok(ctx.store.stat(object)?.map(|stat| stat.size))
        };
        let sizes: Result<Vec<_>, _> = objects.iter().map(size).collect();
        sizes.unwrap_or_else(|error| {
            ctx.requests.fatal.get_or_insert(error.to_string());
            vec![None; objects.len()]
        })
    }

    /// Primary: everything up to `version` is durable here.
    pub(crate) fn on_own_commit(&mut self, ctx: &mut PgContext<'_>, version: EVersion) {
        self.own_durable = self.own_durable.max(version);
        self.measured.own_commit(self.me, version, ctx.now, &ctx.stages.journal);
        self.count_commits(ctx);
    }

    /// A replica promises everything up to `version`; of measured writes it says where their time went.
    pub(crate) fn on_ack(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        version: EVersion,
        times: &[ReplicaTimes],
    ) {
        if !self.is_active() {
            return;
        }
        if version > self.log.head() {
            let text = format!("PG {}: {from} acknowledges {version}, which was never sent", self.id);
            return ctx.log(LogLevel::Error, text);
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.durable = peer.durable.max(version);
        peer.info.last_update = peer.info.last_update.max(version);
        self.measured.acknowledged(from, version, ctx.now, times);
        self.count_commits(ctx);
        self.settle(ctx);
    }

    /// Answers what all members have committed by now.
    fn count_commits(&mut self, ctx: &mut PgContext<'_>) {
        let durable = |osd: &OsdId| self.peers.get(osd).map_or(EVersion::ZERO, |peer| peer.durable);
        let all = self.replicas().iter().map(durable).chain([self.own_durable]).min();
        let mut committed = all.unwrap_or_default();
        if mutant!(AckBeforeAll) {
            let some = self.replicas().iter().map(durable).max();
            committed = some.unwrap_or(committed).min(self.own_durable);
        }
        if committed <= self.committed_to {
            return;
        }
        assert!(self.is_writeable(ctx), "I1: commits count only with min_size members");
        self.committed_to = committed;
        while let Some(write) = self.in_flight.pop_front_if(|write| write.version <= committed) {
            self.commit_latency = ctx.now.since(write.since);
            self.finish_write(ctx, write);
        }
        self.answer_committed_dups(ctx);
        self.deliver_watch(ctx);
        self.recovery_on_commit(ctx);
    }

    /// Sends again what a member has not acknowledged for a while: its session may have dropped.
    pub(crate) fn resend_tick(&mut self, ctx: &mut PgContext<'_>) {
        let interval = ctx.config.tunables.resend_interval;
        let Some(oldest) = self.in_flight.front() else { return };
        if ctx.now < oldest.sent + interval || *self.state() != State::Active {
            return;
        }
        for osd in self.replicas() {
            let durable = self.peers.get(&osd).map_or(EVersion::ZERO, |peer| peer.durable);
            for write in self.in_flight.iter().filter(|write| write.version > durable) {
                self.ship(ctx, osd, write, None);
            }
        }
        for write in &mut self.in_flight {
            write.sent = ctx.now;
        }
    }

    pub(crate) fn resend_deadline(&self, interval: std::time::Duration) -> Option<Instant> {
        self.in_flight.front().map(|write| write.sent + interval)
    }

    pub(crate) fn deliver_watch(&mut self, ctx: &mut PgContext<'_>) {
        for output in self.watch.take_outputs() {
            match output {
                WatchOutput::Send { session, event } => {
                    let packet = ctx.packet(event).on(self.id);
                    ctx.reply(session, packet);
                }
                WatchOutput::Notified { request, reply } => self.finish_notify(ctx, request, reply),
            }
        }
    }
}

/// An entry that only records a request's answer.
pub(crate) fn answer_entry(object: &ObjectId, version: EVersion, request: nacre_types::RequestId) -> Entry {
    Entry {
        request,
        whole: false,
        omap_changed: false,
        ..Entry::new(LogKind::Error, object.clone(), version, EVersion::ZERO)
    }
}

/// Sizes after a transaction, given those before; `None` where the object does not exist.
fn predicted(t: &Transaction, objects: &[ObjectId], before: &[Option<u64>]) -> Vec<Option<u64>> {
    use nacre_wire::transaction::Op;
    let mut sizes = before.to_vec();
    let grow = |size: &mut Option<u64>, end: u64| *size = Some(size.unwrap_or(0).max(end));
    assert_eq!(objects.len(), t.objects().len(), "a transaction names each object once");
    for op in t.ops() {
        match op {
            Op::Create(on) => grow(&mut sizes[on.object as usize], 0),
            Op::Write(on) | Op::Zero(on) => grow(&mut sizes[on.object as usize], on.offset + on.length),
            Op::Truncate(on) => sizes[on.object as usize] = Some(on.size),
            Op::Remove(on) => sizes[on.object as usize] = None,
            Op::SetAttrs(on) | Op::OmapSet(on) => grow(&mut sizes[on.object as usize], 0),
            Op::Clone(on) => sizes[on.to as usize] = sizes[on.from as usize],
            Op::Rename(on) => {
                sizes[on.to as usize] = sizes[on.from as usize].take();
            }
            Op::RemoveAttrs(_) | Op::OmapRemove(_) | Op::OmapClear(_) => {}
            Op::MetaSet(_) | Op::MetaRemove(_) | Op::MetaRemoveRange(_) => {}
        }
    }
    sizes
}
