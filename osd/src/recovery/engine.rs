//! The life of one object's recovery at the primary, and the sending side at whoever is asked.

use super::source::{Next, PushPurpose, Transfer, sequence, split_sequence, stored_version};
use super::{Active, STALL, Stage, Waiting, family};
use crate::log::{Entry, Missing, decode_version, encode_missing, encode_version, persist};
use crate::pg::{Pg, PgContext};
use crate::token::PgPurpose;
use nacre_store::StoreError;
use nacre_types::{EVersion, ObjectId, OsdId, mutant};
use nacre_wire::messages::{LogLevel, Pull, Push, PushReply};
use nacre_wire::{Data, ErrorCode, ObjectName, Transaction};
use std::collections::BTreeMap;

impl Pg {
    /// The store cannot answer: the OSD must stop.
    pub(crate) fn recovery_store_failed(&self, ctx: &mut PgContext<'_>, error: &StoreError) {
        ctx.requests.fatal.get_or_insert_with(|| format!("PG {}: {error}", self.id));
    }

    /// Peers that take this PG's writes and miss the object.
    pub(super) fn lacking(&self, object: &ObjectId) -> Vec<OsdId> {
        let misses = |osd: &OsdId| self.peers.get(osd).is_some_and(|peer| peer.missing.contains(object));
        self.replicas().into_iter().filter(misses).collect()
    }

    /// Where a missing object may be fetched from, best first.
    pub(super) fn sources(&self, ctx: &PgContext<'_>, object: &ObjectId, need: EVersion) -> Vec<OsdId> {
        let tried = self.recovery.tried.get(object);
        let reverts_to = self.missing.get(object).map_or(EVersion::ZERO, |missing| missing.reverts_to);
        let mut sources: Vec<OsdId> = self
            .peers
            .iter()
            .filter(|(osd, peer)| {
                let has = match peer.missing.get(object) {
                    None => {
                        let covers = peer.info.last_backfill.covers(object);
                        !covers || self.members.is_acting(**osd) || peer.info.last_update >= need
                    }
                    Some(missing) => {
                        let may_have = missing.holds(reverts_to) || missing.may_be_read(need);
                        may_have || mutant!(OldVersionPushed)
                    }
                };
                ctx.map.is_up(**osd)
                    && peer.info.exists
                    && has
                    && tried.is_none_or(|tried| !tried.sources.contains(*osd))
            })
            .map(|(&osd, _)| osd)
            .collect();
        // Beyond its backfill mark a copy has leftovers, of which one may be just what is wanted.
        let covers = |osd| self.peers.get(&osd).is_some_and(|peer| peer.info.last_backfill.covers(object));
        let failed = |osd| self.peers.get(&osd).is_some_and(|peer| peer.missing.contains(object));
        let silent = |osd| tried.and_then(|tried| tried.silent.get(&osd)).copied();
        sources.sort_by_key(|&osd| (silent(osd), failed(osd), !covers(osd), !self.members.is_acting(osd)));
        sources
    }

    /// Whether a transfer stands still; it is given up then.
    pub(crate) fn drop_if_stalled(&mut self, ctx: &PgContext<'_>, transfer: u64) -> bool {
        let stalled = self
            .recovery
            .transfers
            .get(&transfer)
            .is_none_or(|transfer| ctx.now.since(transfer.progress) >= STALL);
        if stalled {
            self.recovery.transfers.remove(&transfer);
        }
        stalled
    }

    pub(crate) fn forget_transfer(&mut self, transfer: u64) {
        self.recovery.transfers.remove(&transfer);
    }

    /// A write was applied here. What it deleted is not missing any more.
    pub(super) fn forget_deleted(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        if self.missing.is_empty() {
            return;
        }
        let deleted = |object: &&ObjectId| {
            let last = self.log.entries().rev().find(|entry| !entry.is_error() && entry.object == **object);
            last.is_some_and(Entry::is_delete)
        };
        let gone: Vec<ObjectId> = self.missing.family(family(object)).filter(deleted).cloned().collect();
        for object in gone {
            let mut t = Transaction::new(self.id);
            persist::remove_missing(&mut t, &object);
            self.missing.remove(&object);
            // Nobody sends the rest of it.
            if let Some(sink) = self.recovery.sinks.remove(&object) {
                t.remove(sink.temp());
            }
            self.recovery.tried.remove(&object);
            ctx.submit_unwatched(t);
        }
        self.info.follow(&self.log, &self.missing);
    }

    /// Starts bringing an object to wherever it is missed, unless that is under way or nobody has it.
    pub(crate) fn recover_object(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        // A copy that is found bad may have writes on their way to others, who must not get them twice.
        if self.recovery.active.contains_key(object) || self.pipeline.is_written(object) {
            return;
        }
        match self.missing.get(object) {
            Some(missing) if missing.is_delete => {
                let mut t = Transaction::new(self.id);
                self.note_removals(ctx, &mut t, std::slice::from_ref(object));
                t.remove(object);
                persist::remove_missing(&mut t, object);
                self.missing.remove(object);
                self.info.follow(&self.log, &self.missing);
                ctx.submit_unwatched(t);
                self.recovery.recovered_objects += 1;
                self.start_pushes(ctx, object);
                if !self.recovery.active.contains_key(object) {
                    self.object_recovered(ctx, object);
                    self.recovery_changed(ctx);
                }
            }
            Some(missing) if missing.holds(missing.reverts_to) => {
                if self.take_reverted(ctx, object) {
                    self.recovery.recovered_objects += 1;
                    self.start_pushes(ctx, object);
                    self.recovery_changed(ctx);
                } else {
                    self.recover_object(ctx, object);
                }
            }
            Some(missing) => self.start_pull(ctx, object, missing),
            None => self.start_pushes(ctx, object),
        }
    }

    fn start_pull(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId, missing: Missing) {
        let Some(&from) = self.sources(ctx, object, missing.need).first() else {
            return self.is_unfound(ctx, object, missing.need);
        };
        if self.older_is_active(object) {
            return;
        }
        if let Some(clone) = self.clone_before_head(object, &[self.me]) {
            return self.recover_object(ctx, &clone);
        }
        let differences = !self.recovery.in_full.contains(&(self.me, object.clone()));
        let family = self.missing.family(family(object)).filter(|_| differences);
        let family = family.filter_map(|one| Some(encode_missing(one, &self.missing.get(one)?))).collect();
        let theirs = self.peers.get(&from).and_then(|peer| peer.missing.get(object));
        let held = theirs.is_some_and(|theirs| theirs.holds(missing.reverts_to));
        let transfer = self.recovery.next_number();
        let pull = Pull {
            interval: self.interval().0,
            object: Some(ObjectName::from(object)),
            version: encode_version(missing.need),
            sequence: transfer,
            base: encode_version(missing.have).filter(|_| missing.have != EVersion::ZERO && !held),
            held_as: encode_version(missing.reverts_to).filter(|_| held),
            differences,
            family,
            ..Pull::default()
        };
        let stage = Stage::Pull { from, transfer, need: missing.need };
        self.recovery.active.insert(object.clone(), Active { stage, counted: false, progress: ctx.now });
        self.send(ctx, from, pull);
    }

    fn start_pushes(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        let lacking = self.lacking(object);
        if lacking.is_empty() {
            return;
        }
        if self.older_is_active(object) {
            return;
        }
        if let Some(clone) = self.clone_before_head(object, &lacking) {
            return self.recover_object(ctx, &clone);
        }
        let mut transfers = BTreeMap::new();
        for &osd in &lacking {
            let Some(missing) = self.peers.get(&osd).and_then(|peer| peer.missing.get(object)) else {
                continue;
            };
            let (have, need) = (missing.have, missing.need);
            match self.start_transfer(ctx, osd, object, have, need, PushPurpose::Recovery) {
                Some(transfer) => drop(transfers.insert(osd, transfer)),
                None => return,
            }
        }
        let active =
            Active { stage: Stage::Push { transfers: transfers.clone() }, counted: false, progress: ctx.now };
        self.recovery.active.insert(object.clone(), active);
        for transfer in transfers.into_values() {
            self.pump_transfer(ctx, transfer);
        }
    }

    /// Plans a transfer; a removal, if the object does not exist here. [`Pg::pump_transfer`] sets it going.
    pub(crate) fn start_transfer(
        &mut self,
        ctx: &mut PgContext<'_>,
        to: OsdId,
        object: &ObjectId,
        base: EVersion,
        need: EVersion,
        purpose: PushPurpose,
    ) -> Option<u64> {
        let planned = self.origin_of(ctx, to, object).and_then(|origin| {
            Transfer::plan(ctx.store, &self.log, object, base, origin, to, purpose as u32, ctx.now)
        });
        let number = self.recovery.next_number();
        let transfer = match planned {
            Ok(Some(transfer)) => transfer,
            Ok(None) => {
                let push = Push {
                    interval: self.interval().0,
                    object: Some(ObjectName::from(object)),
                    version: encode_version(need),
                    first: true,
                    last: true,
                    delete: true,
                    sequence: sequence(number, 0),
                    purpose: purpose as u32,
                    ..Push::default()
                };
                self.send(ctx, to, push);
                Transfer::removal(object, need, to, purpose as u32, ctx.now)
            }
            Err(error @ StoreError::Corrupt(_)) => {
                // Only this object is damaged: another copy may replace it.
                let last =
                    self.log.entries().rev().find(|entry| !entry.is_error() && entry.object == *object);
                let version = last.map_or(need, |entry| entry.version);
                self.found_bad(ctx, object, version, &error);
                return None;
            }
            Err(error) => {
                self.recovery_store_failed(ctx, &error);
                return None;
            }
        };
        self.recovery.transfers.insert(number, transfer);
        Some(number)
    }

    /// Reads and sends whatever a transfer has room for.
    pub(crate) fn pump_transfer(&mut self, ctx: &mut PgContext<'_>, number: u64) {
        let interval = self.interval();
        loop {
            let Some(transfer) = self.recovery.transfers.get_mut(&number) else { return };
            let next = match transfer.next(ctx.store, interval) {
                Ok(next) => next,
                Err(error) => return self.recovery_store_failed(ctx, &error),
            };
            let (to, object, version) = (transfer.to, transfer.object.clone(), transfer.stored);
            match next {
                Next::Wait => return,
                Next::Read(extents) => {
                    let mut tokens = Vec::with_capacity(extents.len());
                    for extent in extents {
                        let token = self.recovery.number(Waiting::Read { transfer: number });
                        let what = PgPurpose::Recovery(token);
                        ctx.read(self.id, interval, what, &object, extent.offset, extent.length);
                        tokens.push(token);
                    }
                    if let Some(transfer) = self.recovery.transfers.get_mut(&number) {
                        transfer.reading(tokens);
                    }
                }
                Next::Send(mut push, data) => {
                    match stored_version(ctx.store, &object) {
                        Ok(stored) if stored == version => {}
                        Ok(_) | Err(StoreError::Corrupt(_)) => {
                            return self.transfer_failed(ctx, number, ErrorCode::TryAgain);
                        }
                        Err(error) => return self.recovery_store_failed(ctx, &error),
                    }
                    push.sequence = sequence(number, push.sequence as u32);
                    let packet = ctx.packet(*push).on(self.id).with(data);
                    self.send_packet(ctx, to, packet);
                }
            }
        }
    }

    pub(super) fn on_pull(&mut self, ctx: &mut PgContext<'_>, from: OsdId, pull: &Pull) {
        let Some(Ok(object)) = pull.object.as_ref().map(ObjectName::decode) else { return };
        let version = decode_version(pull.version);
        let refuse = |pg: &Pg, ctx: &mut PgContext<'_>| {
            pg.reply_push(ctx, from, &object, version, sequence(pull.sequence, 0), ErrorCode::NotFound);
        };
        let held_as = decode_version(pull.held_as);
        // What lies beyond the backfill mark tells by its version what it is: one version is one content for ever.
        let may_have = |missing: &Missing| missing.holds(held_as) || missing.may_be_read(version);
        let lacks = self.missing.get(&object).is_some_and(|missing| !may_have(&missing));
        if lacks && !mutant!(OldVersionPushed) {
            return refuse(self, ctx);
        }
        let base = decode_version(pull.base);
        let planned = self.origin_for_pull(ctx, &object, pull).and_then(|origin| {
            Transfer::plan(ctx.store, &self.log, &object, base, origin, from, pull.purpose, ctx.now)
        });
        match planned {
            Ok(Some(transfer)) if held_as != EVersion::ZERO && transfer.version != version => {
                match transfer.renumbered(held_as, version) {
                    Some(transfer) => self.send_pulled(ctx, from, pull.sequence, transfer),
                    None => refuse(self, ctx),
                }
            }
            Ok(Some(transfer)) if transfer.version == version || mutant!(OldVersionPushed) => {
                self.send_pulled(ctx, from, pull.sequence, transfer);
            }
            Ok(_) => refuse(self, ctx),
            Err(error @ StoreError::Corrupt(_)) => {
                self.found_bad(ctx, &object, version, &error);
                refuse(self, ctx);
            }
            Err(error) => self.recovery_store_failed(ctx, &error),
        }
    }

    fn send_pulled(&mut self, ctx: &mut PgContext<'_>, to: OsdId, number: u64, transfer: Transfer) {
        self.recovery.transfers.retain(|_, other| other.object != transfer.object || other.to != to);
        self.recovery.transfers.insert(number, transfer);
        self.pump_transfer(ctx, number);
    }

    pub(super) fn on_push_reply(&mut self, ctx: &mut PgContext<'_>, from: OsdId, reply: &PushReply) {
        let (number, _) = split_sequence(reply.sequence);
        let code = ErrorCode::from_raw(reply.code);
        let Some(transfer) = self.recovery.transfers.get_mut(&number).filter(|t| t.to == from) else {
            if let Some(Ok(object)) = reply.object.as_ref().map(ObjectName::decode)
                && code != ErrorCode::Ok
            {
                self.pull_refused(ctx, from, &object, number, code, reply.unread);
            }
            return;
        };
        if code != ErrorCode::Ok {
            return self.transfer_failed(ctx, number, code);
        }
        transfer.acknowledged(ctx.now);
        if let Some(active) = self.recovery.active.get_mut(&transfer.object) {
            active.progress = ctx.now;
        }
        if !transfer.is_done() {
            return self.pump_transfer(ctx, number);
        }
        let Some(transfer) = self.recovery.transfers.remove(&number) else { return };
        self.recovery.recovered_bytes += transfer.bytes_sent;
        if self.is_primary() {
            self.push_done(ctx, &transfer);
        }
    }

    fn push_done(&mut self, ctx: &mut PgContext<'_>, transfer: &Transfer) {
        let (to, object) = (transfer.to, &transfer.object);
        self.recovery.ways_given.remove(&object.head());
        if transfer.purpose == PushPurpose::Backfill as u32 {
            self.recovery.recovered_objects += 1;
            return self.backfill_pushed(ctx, to, object);
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.missing.got(object, transfer.version);
        }
        let Some(Active { stage: Stage::Push { transfers }, .. }) = self.recovery.active.get_mut(object)
        else {
            return;
        };
        transfers.remove(&to);
        if transfers.is_empty() {
            self.recovery.recovered_objects += 1;
            self.end_object(ctx, object);
        }
    }

    /// The object is out of recovery's hands, for better or worse.
    fn end_object(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        let Some(active) = self.recovery.active.remove(object) else { return };
        if active.counted {
            ctx.shared.throttle.object_finished(ctx.now);
        }
        self.object_recovered(ctx, object);
        self.recovery_changed(ctx);
    }

    /// The object goes on without a place in the OSD's throttle.
    fn give_place_back(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        if let Some(active) = self.recovery.active.get_mut(object)
            && std::mem::take(&mut active.counted)
        {
            ctx.shared.throttle.object_finished(ctx.now);
        }
    }

    /// The object need not be brought to anybody any more.
    pub(super) fn cancel_object(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        let Some(Active { stage: Stage::Push { transfers }, .. }) = self.recovery.active.get(object) else {
            return;
        };
        for transfer in transfers.values() {
            self.recovery.transfers.remove(transfer);
        }
        self.end_object(ctx, object);
    }

    /// A piece that came in is durable.
    pub(super) fn piece_committed(
        &mut self,
        ctx: &mut PgContext<'_>,
        to: OsdId,
        object: &ObjectId,
        version: EVersion,
        number: u64,
        last: bool,
    ) {
        self.reply_push(ctx, to, object, version, number, ErrorCode::Ok);
        let (transfer, _) = split_sequence(number);
        let Some(active) = self.recovery.active.get_mut(object) else { return };
        let Stage::Pull { transfer: pulled, .. } = active.stage else { return };
        if pulled != transfer {
            return;
        }
        active.progress = ctx.now;
        if !last {
            return;
        }
        self.recovery.recovered_objects += 1;
        // Readers go on now; writers when everybody has it.
        let counted = active.counted;
        self.recovery.active.remove(object);
        self.start_pushes(ctx, object);
        match self.recovery.active.get_mut(object) {
            Some(active) => {
                active.counted = counted;
                self.object_recovered(ctx, object);
            }
            None => {
                if counted {
                    ctx.shared.throttle.object_finished(ctx.now);
                }
                self.object_recovered(ctx, object);
                self.recovery_changed(ctx);
            }
        }
    }

    pub(super) fn read_for_transfer(
        &mut self,
        ctx: &mut PgContext<'_>,
        number: u64,
        token: u64,
        result: Result<Data, StoreError>,
    ) {
        let Some(transfer) = self.recovery.transfers.get_mut(&number) else { return };
        match result {
            Ok(data) => {
                transfer.read_done(token, data);
                self.pump_transfer(ctx, number);
            }
            Err(error) => {
                let (object, version) = (transfer.object.clone(), transfer.version);
                self.found_bad(ctx, &object, version, &error);
                self.transfer_failed(ctx, number, ErrorCode::Io);
            }
        }
    }

    /// A transfer cannot go on. The primary tries another way; a source tells the primary.
    fn transfer_failed(&mut self, ctx: &mut PgContext<'_>, number: u64, code: ErrorCode) {
        let Some(transfer) = self.recovery.transfers.remove(&number) else { return };
        let (to, object) = (transfer.to, transfer.object);
        let made_of_another = transfer.origin.is_some();
        if code == ErrorCode::Canceled && made_of_another {
            // It does not have what it was to be made of.
            self.recovery.in_full.insert((to, object.clone()));
        }
        if !self.is_primary() {
            return self.reply_push(ctx, to, &object, transfer.version, sequence(number, 0), code);
        }
        if transfer.purpose == PushPurpose::Backfill as u32 {
            if code == ErrorCode::NoSpace {
                self.gate_too_full(ctx, to);
            }
            return self.backfill_push_failed(ctx, to, &object);
        }
        if code == ErrorCode::Canceled
            && !made_of_another
            && let Some(peer) = self.peers.get_mut(&to)
            && let Some(missing) = peer.missing.get(&object)
        {
            // It does not hold what the changes were based on: all of it, then.
            peer.missing.add(object.clone(), missing.without_base());
        }
        if code == ErrorCode::NoSpace || code == ErrorCode::InvalidArgument {
            ctx.log(LogLevel::Warning, format!("PG {}: {to} does not take {object}: {code}", self.id));
            if code == ErrorCode::NoSpace {
                self.gate_too_full(ctx, to);
            }
            // The stall timer tries again. Until then it keeps nobody else from going.
            return self.give_place_back(ctx, &object);
        }
        self.restart_object(ctx, &object);
    }

    fn restart_object(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        let Some(active) = self.recovery.active.remove(object) else { return };
        match active.stage {
            Stage::Push { transfers } => {
                transfers.values().for_each(|transfer| drop(self.recovery.transfers.remove(transfer)));
            }
            Stage::Pull { .. } => drop(self.recovery.sinks.remove(object)),
        }
        self.recover_object(ctx, object);
        match self.recovery.active.get_mut(object) {
            Some(again) => again.counted = active.counted,
            None if active.counted => {
                ctx.shared.throttle.object_finished(ctx.now);
                self.object_recovered(ctx, object);
            }
            None => self.object_recovered(ctx, object),
        }
    }

    /// A source does not have what was pulled from it.
    fn pull_refused(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        object: &ObjectId,
        number: u64,
        code: ErrorCode,
        unread: bool,
    ) {
        let Some(Active { stage: Stage::Pull { from: source, transfer, need }, .. }) =
            self.recovery.active.get(object)
        else {
            return;
        };
        if (*source, *transfer) != (from, number) {
            return;
        }
        let need = *need;
        if code == ErrorCode::NoSpace {
            // It was this OSD that had no room for it. The stall timer tries again.
            return self.give_place_back(ctx, object);
        }
        if code == ErrorCode::Canceled && self.recovery.in_full.insert((self.me, object.clone())) {
            // It may be something of the family that is not here as it was thought.
            return self.restart_object(ctx, object);
        }
        if code == ErrorCode::Canceled
            && let Some(missing) = self.missing.get(object)
            && missing.have != EVersion::ZERO
        {
            // What is here is not what the log says, so changes alone do not help. The source has done nothing wrong.
            self.missing.add(object.clone(), missing.without_base());
            return self.restart_object(ctx, object);
        }
        let tried = self.recovery.tried.entry(object.clone()).or_default();
        if code != ErrorCode::TryAgain {
            tried.sources.insert(from);
            match unread {
                true => tried.not_read(ctx.now),
                false => tried.damaged |= code == ErrorCode::Io,
            }
            self.recovery.in_full.insert((from, object.clone()));
            if let Some(peer) = self.peers.get_mut(&from)
                && peer.info.last_backfill.covers(object)
            {
                peer.missing.add(object.clone(), Missing { unread, ..Missing::of(need, EVersion::ZERO) });
            }
        }
        self.restart_object(ctx, object);
    }

    /// Starts over what stands still.
    pub(super) fn restart_stalled(&mut self, ctx: &mut PgContext<'_>) {
        let now = ctx.now;
        let stalled: Vec<ObjectId> = self
            .recovery
            .active
            .iter()
            .filter(|(_, active)| now.since(active.progress) >= STALL)
            .map(|(object, _)| object.clone())
            .collect();
        for object in stalled {
            if let Some(Active { stage: Stage::Pull { from, .. }, .. }) = self.recovery.active.get(&object) {
                let from = *from;
                // Another source if there is one; if not, this one again.
                self.recovery.tried.entry(object.clone()).or_default().silent.insert(from, now);
            }
            self.restart_object(ctx, &object);
        }
        // Whoever is silent keeps nobody else from being brought anything.
        let silent = |active: &Active| now.since(active.progress) >= ctx.config.tunables.resend_interval;
        let silent = self.recovery.active.iter().filter(|(_, active)| silent(active));
        for object in silent.map(|(object, _)| object.clone()).collect::<Vec<_>>() {
            self.give_place_back(ctx, &object);
        }
        if !self.is_primary() {
            self.recovery.transfers.retain(|_, transfer| now.since(transfer.progress) < STALL * 3);
        }
    }

    /// An object that waits for its turn in log order, the primary's own first. What is being written comes once it is not.
    pub(super) fn next_to_recover(&self) -> Option<ObjectId> {
        self.next_idle(|object| !self.pipeline.is_written(object))
    }

    /// The head of an object whose turn it would be if it were not always being written.
    pub(super) fn next_to_drain(&self) -> Option<ObjectId> {
        self.next_idle(|object| self.pipeline.is_written(object)).map(|object| object.head())
    }

    fn next_idle(&self, is_wanted: impl Fn(&ObjectId) -> bool) -> Option<ObjectId> {
        let idle = |object: &&ObjectId| {
            !self.recovery.active.contains_key(*object)
                && !self.recovery.unfound.contains(*object)
                && !self.older_is_active(object)
                && is_wanted(object)
        };
        let own = self.missing.by_need().map(|(_, object)| object).find(idle);
        let theirs = || {
            let replicas = self.replicas();
            let peers: Vec<_> = replicas.iter().filter_map(|osd| self.peers.get(osd)).collect();
            peers.into_iter().find_map(|peer| peer.missing.by_need().map(|(_, object)| object).find(idle))
        };
        own.or_else(theirs).cloned()
    }
}
