//! Running an operation: full checks, duplicates, data, the change, the answer.

use super::pipeline::{ClientOp, Stage};
use super::{Pg, PgContext};
use crate::log::{FoundRequest, decode_version};
use crate::ops::{self, Executed, Execution, ReadCache, Request, SnapContext, WatchAction};
use crate::replication::InFlight;
use crate::space::used_permille;
use crate::stages::Part;
use crate::token::PgPurpose;
use nacre_maps::Flag;
use nacre_store::StoreError;
use nacre_types::{EVersion, ObjectId, RequestId, mutant};
use nacre_wire::messages::LogLevel;
use nacre_wire::op::{NotifyReply, OpResult, OsdOpReply, UNANSWERED_MAX, Version};
use nacre_wire::{Data, ErrorCode, Transaction};
use prost::Message as _;

impl Pg {
    /// It is the operation's turn.
    pub(crate) fn start(&mut self, ctx: &mut PgContext<'_>, id: u64) {
        let Some(op) = self.pipeline.ops.get(&id) else { return };
        if ctx.map.is_blocklisted(op.request.client) && !mutant!(BlocklistIgnored) {
            let text = format!("client {} is blocklisted", op.request.client);
            return self.fail(ctx, id, ErrorCode::Fenced, &text);
        }
        if op.message.list.is_some() {
            return self.list_objects(ctx, id);
        }
        if op.write {
            if let Some(found) = self.log.find_request(op.request) {
                return self.answer_duplicate(ctx, id, found);
            }
            if self.log.is_answered(op.request) {
                drop(self.forget(id));
                return;
            }
            if let Err((code, reason)) = self.check_space(ctx, op) {
                // Recorded like any refusal of the object's: else a copy of the request that is still on its way would be
                // carried out when there is space again, after its client was told that it was not.
                return self.executed(ctx, id, Executed::refused(code, reason));
            }
        }
        self.run(ctx, id);
    }

    /// Writes that take space are refused when there is none; what frees space always runs.
    fn check_space(&self, ctx: &PgContext<'_>, op: &ClientOp) -> Result<(), (ErrorCode, String)> {
        if op.message.full_try || !ops::needs_space(&op.message.ops) {
            return Ok(());
        }
        let Some(pool) = ctx.map.pool(self.id.pool) else { return Ok(()) };
        if ctx.map.flags().contains(Flag::Full) {
            return Err((ErrorCode::NoSpace, "the cluster is full: delete something or add OSDs".into()));
        }
        if pool.full {
            return Err((ErrorCode::QuotaExceeded, format!("pool {} has reached its quota", pool.name)));
        }
        let own = (self.me, used_permille(ctx.store.usage()));
        let others = self.replicas().into_iter().map(|osd| (osd, ctx.shared.fullness.of(osd)));
        if let Some((osd, _)) =
            others.chain([own]).find(|(_, permille)| *permille >= ctx.map.ratios().full_permille)
        {
            return Err((ErrorCode::NoSpace, format!("{osd} is full: delete something or add OSDs")));
        }
        Ok(())
    }

    fn run(&mut self, ctx: &mut PgContext<'_>, id: u64) {
        let version = self.next_version(ctx);
        let Some(op) = self.pipeline.ops.get(&id) else { return };
        let Some(pool) = ctx.map.pool(self.id.pool) else { return };
        let request = Request {
            pg: self.id,
            object: &op.object,
            ops: &op.message.ops,
            data: &op.data,
            snap_context: SnapContext { seq: op.message.snap_seq, snaps: &op.message.snaps },
            client: op.request.client,
            entity: &op.from.entity,
            request: op.request,
            version,
            wall_ms: ctx.wall_ms,
            pool,
        };
        match ops::execute(&*ctx.store, &request, &op.reads) {
            Ok(Execution::Done(executed)) => self.executed(ctx, id, executed),
            Ok(Execution::NeedData(wanted)) => self.fetch(ctx, id, wanted),
            Err(error) => self.store_failed(ctx, id, error),
        }
    }

    fn fetch(&mut self, ctx: &mut PgContext<'_>, id: u64, wanted: Vec<ops::ReadWanted>) {
        let Some(op) = self.pipeline.ops.get_mut(&id) else { return };
        assert!(!wanted.is_empty(), "an operation that needs data says which");
        op.stage = Stage::Reading { outstanding: wanted.len(), failed: None };
        op.arrived = vec![None; wanted.len()];
        op.wanted = wanted.clone();
        if let Some(stopwatch) = &mut op.stopwatch {
            stopwatch.turn(ctx.now, Part::Read);
        }
        let (head, write) = (op.object.head(), op.write);
        let queue = self.queue_of(&head);
        if write {
            queue.executing = true;
        } else {
            queue.readers += 1;
        }
        for (piece, read) in wanted.iter().enumerate() {
            let what = PgPurpose::OpRead { op: id, piece };
            ctx.read(self.id, self.interval(), what, &read.object, read.offset, read.length);
        }
    }

    pub(crate) fn on_op_read(
        &mut self,
        ctx: &mut PgContext<'_>,
        id: u64,
        piece: usize,
        result: Result<Data, StoreError>,
    ) {
        let Some(op) = self.pipeline.ops.get_mut(&id) else { return };
        let Stage::Reading { outstanding, failed } = &mut op.stage else { return };
        *outstanding -= 1;
        match result {
            Ok(data) => op.arrived[piece] = Some(data),
            Err(error) => drop(failed.get_or_insert(error)),
        }
        if *outstanding > 0 {
            return;
        }
        let failed = failed.take();
        op.stage = Stage::Queued;
        let (head, write) = (op.object.head(), op.write);
        let queue = self.queue_of(&head);
        if write {
            queue.executing = false;
        } else {
            queue.readers -= 1;
        }
        if let Some(error) = failed {
            self.read_failed(ctx, id, &head, error);
        } else {
            if let Some(op) = self.pipeline.ops.get_mut(&id) {
                for (wanted, data) in op.wanted.drain(..).zip(op.arrived.drain(..)) {
                    op.reads.insert(wanted, data.expect("all arrived"));
                }
            }
            self.run(ctx, id);
        }
        self.pump(ctx, &head);
    }

    /// The copy here cannot be read: another one is brought, then the operation runs again.
    fn read_failed(&mut self, ctx: &mut PgContext<'_>, id: u64, head: &ObjectId, error: StoreError) {
        let bad = self.pipeline.ops.get_mut(&id).and_then(|op| {
            op.reads = ReadCache::new();
            op.arrived.iter().position(Option::is_none).map(|at| op.wanted[at].object.clone())
        });
        let bad = bad.unwrap_or_else(|| head.clone());
        ctx.log(LogLevel::Error, format!("PG {}: reading {bad} failed: {error}", self.id));
        if self.recover_bad_copy(ctx, &bad, &error) {
            self.queue_of(head).waiting.push_front(id);
        } else {
            let text = format!("{head} cannot be read and has no other copy: {error}");
            self.fail(ctx, id, ErrorCode::Io, &text);
        }
    }

    fn store_failed(&mut self, ctx: &mut PgContext<'_>, id: u64, error: StoreError) {
        match &error {
            StoreError::Kv(_) => drop(ctx.requests.fatal.get_or_insert(error.to_string())),
            StoreError::Corrupt(why) => {
                if let Some(op) = self.pipeline.ops.get(&id) {
                    let object = op.object.head();
                    self.note_inconsistent(ctx, &object, why);
                }
            }
            _ => {}
        }
        self.fail(ctx, id, ErrorCode::Io, &error.to_string());
    }

    fn executed(&mut self, ctx: &mut PgContext<'_>, id: u64, executed: Executed) {
        let Executed { code, message, results, data, version, mutation, watch } = executed;
        let reply = OsdOpReply {
            code: code as i32,
            message,
            results,
            version: Some(wire(version)),
            ..OsdOpReply::default()
        };
        let Some(op) = self.pipeline.ops.get_mut(&id) else { return };
        if !op.write {
            let counters = &mut self.pipeline.counters;
            counters.read_ops += 1;
            counters.read_bytes += data.bytes.len() as u64;
            return self.answer_read(ctx, id, reply, data, watch);
        }
        op.watch = watch;
        let (head, request, bytes) = (op.object.head(), op.request, op.data.bytes.len() as u64);
        self.pipeline.counters.write_ops += 1;
        self.pipeline.counters.write_bytes += bytes;
        let (transaction, mut entries) = match mutation {
            Some(mutation) => (mutation.transaction, mutation.entries),
            // It changed nothing, and saw what may not be committed yet: its answer takes its place among the writes.
            None => {
                let at = self.next_version(ctx);
                let mut entry = crate::replication::answer_entry(&head, at, request);
                entry.modified_ms = ctx.wall_ms;
                entry.code = code;
                (Transaction::new(self.id), vec![entry.encode()])
            }
        };
        if let (Some(last), Some(op)) = (entries.last_mut(), self.pipeline.ops.get(&id)) {
            last.answered_below = op.message.answered_below;
            // Part of a list would say of the rest that it is answered.
            if op.message.unanswered.len() <= UNANSWERED_MAX {
                last.unanswered.clone_from(&op.message.unanswered);
            }
        }
        if let Some(last) = entries.last_mut()
            && last.answer.is_empty()
            && reply.encoded_len() <= ANSWER_BYTES_MAX
            && (!reply.results.is_empty() || !reply.message.is_empty())
        {
            last.answer = reply.encode_to_vec().into();
        }
        if let Some(op) = self.pipeline.ops.get_mut(&id) {
            if let (Some(stopwatch), Some(last)) = (&mut op.stopwatch, entries.last()) {
                stopwatch.turn(ctx.now, Part::Commit);
                self.measured.lead(decode_version(last.version), ctx.now);
            }
            op.stage = Stage::InFlight { reply: Box::new(reply), data };
        }
        self.replicate(ctx, head, transaction, entries, Some(id));
    }

    /// All members have committed a write.
    pub(crate) fn finish_write(&mut self, ctx: &mut PgContext<'_>, write: InFlight) {
        self.queue_of(&write.object).writers -= 1;
        let measured = self.measured.take(write.version);
        if let Some(mut op) = write.op.and_then(|id| self.forget(id))
            && let Stage::InFlight { reply, data } = std::mem::replace(&mut op.stage, Stage::Queued)
        {
            if let (Some(stopwatch), Some(measured)) = (&mut op.stopwatch, measured) {
                stopwatch.committed(self.me, ctx.now, measured);
            }
            for action in &op.watch {
                if *action == WatchAction::ObjectRemoved {
                    self.watch.object_removed(&write.object);
                }
            }
            self.answer(ctx, &op, *reply, data);
        }
        self.pump(ctx, &write.object);
    }

    fn answer_read(
        &mut self,
        ctx: &mut PgContext<'_>,
        id: u64,
        reply: OsdOpReply,
        data: Data,
        watch: Vec<WatchAction>,
    ) {
        let Some(op) = self.pipeline.ops.get(&id) else { return };
        let (head, client, session, request) =
            (op.object.head(), op.request.client, op.from.session, op.request);
        let mut notifying = None;
        let mut refused = None;
        for action in watch {
            let done = match action {
                WatchAction::Watch { cookie, timeout_ms } => {
                    self.watch.watch(ctx.now, &head, client, cookie, session, timeout_ms)
                }
                WatchAction::Unwatch { cookie } => {
                    self.watch.unwatch(&head, client, cookie);
                    Ok(())
                }
                WatchAction::Ack { notify_id, cookie, reply } => {
                    self.watch.ack(notify_id, client, cookie, reply);
                    Ok(())
                }
                WatchAction::Notify { op, payload, timeout_ms } => {
                    notifying = Some(op);
                    self.watch.notify(ctx.now, &head, request, payload, timeout_ms)
                }
                WatchAction::ObjectRemoved => Ok(()),
            };
            if let Err(error) = done {
                refused = Some(error);
            }
        }
        if let Some(error) = refused {
            self.fail(ctx, id, error.code, &error.message);
        } else if let Some(op) = notifying {
            if let Some(client) = self.pipeline.ops.get_mut(&id) {
                // How long watchers take says nothing of the cluster.
                client.stopwatch = None;
                client.stage = Stage::Notifying { reply: Box::new(reply), op };
            }
        } else if let Some(op) = self.forget(id) {
            self.answer(ctx, &op, reply, data);
        }
        self.deliver_watch(ctx);
    }

    pub(crate) fn finish_notify(&mut self, ctx: &mut PgContext<'_>, request: RequestId, ended: NotifyReply) {
        let Some(&id) = self.pipeline.requests.get(&request) else { return };
        let Some(op) = self.forget(id) else { return };
        if let Stage::Notifying { mut reply, op: at } = op.stage.clone() {
            if let Some(result) = reply.results.get_mut(at) {
                *result = OpResult { answer: ended.encode_to_vec().into(), ..result.clone() };
            }
            self.answer(ctx, &op, *reply, Data::default());
        }
    }

    fn answer_duplicate(&mut self, ctx: &mut PgContext<'_>, id: u64, found: FoundRequest) {
        if found.version > self.committed_to {
            if let Some(op) = self.pipeline.ops.get_mut(&id) {
                op.stage = Stage::Duplicate(found.version);
                if let Some(stopwatch) = &mut op.stopwatch {
                    stopwatch.turn(ctx.now, Part::Commit);
                }
            }
            return;
        }
        let mut reply = OsdOpReply::decode(&found.answer[..]).unwrap_or_default();
        reply.code = found.code as i32;
        reply.version.get_or_insert(wire(found.version));
        if let Some(op) = self.forget(id) {
            self.answer(ctx, &op, reply, Data::default());
        }
    }

    pub(crate) fn answer_committed_dups(&mut self, ctx: &mut PgContext<'_>) {
        let committed = self.committed_to;
        let due: Vec<u64> = self
            .pipeline
            .ops
            .iter()
            .filter(|(_, op)| matches!(op.stage, Stage::Duplicate(version) if version <= committed))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let found = self.pipeline.ops.get(&id).and_then(|op| self.log.find_request(op.request));
            if let Some(found) = found {
                self.answer_duplicate(ctx, id, found);
            }
        }
    }

    pub(crate) fn fail(&mut self, ctx: &mut PgContext<'_>, id: u64, code: ErrorCode, reason: &str) {
        if let Some(op) = self.forget(id) {
            self.refuse(ctx, &op, code, reason);
        }
    }

    pub(crate) fn refuse(&self, ctx: &mut PgContext<'_>, op: &ClientOp, code: ErrorCode, reason: &str) {
        let reply = OsdOpReply { code: code as i32, message: reason.into(), ..OsdOpReply::default() };
        self.answer(ctx, op, reply, Data::default());
    }

    pub(crate) fn answer(&self, ctx: &mut PgContext<'_>, op: &ClientOp, mut reply: OsdOpReply, data: Data) {
        if reply.code != ErrorCode::TryAgain as i32 {
            let bytes_read = data.bytes.len() as u64;
            if let Some(stopwatch) = &op.stopwatch {
                reply.osd_ns = Some(ctx.stages.answered(ctx.now, op, stopwatch, bytes_read));
            }
            // How long watchers take says nothing of the cluster.
            if !matches!(op.stage, Stage::Notifying { .. }) {
                let bytes = bytes_read + op.data.bytes.len() as u64;
                ctx.shared.client_op_took(ctx.now, ctx.now.since(op.received), bytes);
            }
        }
        let packet = ctx.packet(reply).on(self.id).request(op.request).with(data);
        ctx.reply(op.from.session, packet);
    }
}

/// Answers up to this size are kept in the log for duplicates.
const ANSWER_BYTES_MAX: usize = 2048;

fn wire(version: EVersion) -> Version {
    Version { epoch: version.epoch.0, seq: version.seq }
}
