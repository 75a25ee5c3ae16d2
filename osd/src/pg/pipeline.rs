//! Client operations on the primary: queues per object, and what an operation must wait for.
//!
//! ```text
//!   admit -> queue of its object -> gate (PG active? lease? recovered?) -> execute --- read: answer
//!                   ^                                                        |
//!                   +--- interval change, bad copy ---+                      +-- write: replicate -> commit -> answer
//! ```
//!
//! Per object operations start in the order they came. Reads run together; writes follow each other without waiting for
//! commits; a read waits until the writes before it are committed by all members, and a write until the reads before it
//! have their data.

use super::{Pg, PgContext, Readiness};
use crate::ops::{self, ReadCache, ReadWanted};
use crate::stages::{Part, Stopwatch};
use nacre_maps::Flag;
use nacre_types::{ClientId, EVersion, Epoch, Instant, Needs, ObjectId, OsdId, RequestId, mutant};
use nacre_wire::op::{OsdOp, OsdOpReply};
use nacre_wire::{Data, ErrorCode, Peer};
use std::collections::{BTreeMap, VecDeque};

/// Most clients whose answered requests a PG keeps track of.
const CLIENTS_MAX: usize = 16_384;

/// Where an operation is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Stage {
    Queued,
    /// Waits for that many pieces of data from the store.
    Reading {
        outstanding: usize,
        failed: Option<nacre_store::StoreError>,
    },
    /// A write, submitted; its answer is ready.
    InFlight {
        reply: Box<OsdOpReply>,
        data: Data,
    },
    /// Seen before as this version, which is not committed by all yet.
    Duplicate(EVersion),
    /// A notification that waits for its watchers.
    Notifying {
        reply: Box<OsdOpReply>,
        op: usize,
    },
}

/// One client request.
#[derive(Clone, Debug)]
pub(crate) struct ClientOp {
    pub from: Peer,
    pub request: RequestId,
    /// The sender's epoch.
    pub sent_in: Epoch,
    pub message: OsdOp,
    pub data: Data,
    /// As named: the head or a snapshot of it.
    pub object: ObjectId,
    pub write: bool,
    pub received: Instant,
    pub stage: Stage,
    pub reads: ReadCache,
    pub wanted: Vec<ReadWanted>,
    pub arrived: Vec<Option<Data>>,
    /// What it waits for while it is queued.
    pub wait: Needs,
    pub watch: Vec<crate::ops::WatchAction>,
    /// If its time is measured.
    pub stopwatch: Option<Box<Stopwatch>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectQueue {
    pub waiting: VecDeque<u64>,
    /// Reads that wait for their data.
    pub readers: usize,
    /// Writes that not all members have committed.
    pub writers: usize,
    /// A write that waits for data it needs.
    pub executing: bool,
}

impl ObjectQueue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.readers == 0 && self.writers == 0 && !self.executing
    }
}

#[derive(Debug, Default)]
pub struct Pipeline {
    pub(crate) next: u64,
    pub(crate) ops: BTreeMap<u64, ClientOp>,
    /// By head.
    pub(crate) objects: BTreeMap<ObjectId, ObjectQueue>,
    pub(crate) requests: BTreeMap<RequestId, u64>,
    /// Below it each client has all its answers: what still arrives of that was sent long ago and must not run again,
    /// although the log may have forgotten it.
    pub(crate) answered: BTreeMap<ClientId, u64>,
    pub(crate) counters: Counters,
}

/// Since the primary took over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub read_ops: u64,
    pub read_bytes: u64,
    pub write_ops: u64,
    pub write_bytes: u64,
}

impl Pipeline {
    /// Whether a write to the object or its clones is being carried out or has not been committed by all.
    pub(crate) fn is_written(&self, object: &ObjectId) -> bool {
        let queue = self.objects.get(&object.head());
        queue.is_some_and(|queue| queue.writers > 0 || queue.executing && !mutant!(ExecutingNotWritten))
    }
}

impl Pg {
    /// A request that this OSD may serve: it is primary, and the sender is allowed to.
    pub(crate) fn admit(&mut self, ctx: &mut PgContext<'_>, mut op: ClientOp) {
        if let Some(&id) = self.pipeline.requests.get(&op.request)
            && let Some(known) = self.pipeline.ops.get_mut(&id)
        {
            // Sent again while the first is under way: one answer, to where it was asked last.
            known.from = op.from;
            return;
        }
        let answered = self.pipeline.answered.entry(op.request.client).or_default();
        *answered = (*answered).max(op.message.answered_below);
        if op.request.seq < *answered {
            return;
        }
        if self.pipeline.answered.len() > CLIENTS_MAX {
            self.pipeline.answered.pop_first();
        }
        let since = self.members.primary_since;
        if op.sent_in < since {
            // Others have been primary since, and may have answered it so long ago that no log remembers it.
            let text = format!(
                "sent in epoch {}, but {} is primary of PG {} since epoch {since}",
                op.sent_in, self.me, self.id
            );
            return self.refuse(ctx, &op, ErrorCode::TryAgain, &text);
        }
        if op.message.no_wait
            && let Err(reason) = self.gate(ctx, op.write)
        {
            return self.refuse(ctx, &op, ErrorCode::TryAgain, &format!("it would wait for {reason}"));
        }
        if self.pipeline.ops.len() >= ctx.config.tunables.queued_ops_max {
            let text = format!("PG {} has {} requests waiting", self.id, self.pipeline.ops.len());
            return self.refuse(ctx, &op, ErrorCode::TryAgain, &text);
        }
        let id = self.pipeline.next;
        self.pipeline.next += 1;
        op.stage = Stage::Queued;
        let head = op.object.head();
        self.pipeline.requests.insert(op.request, id);
        self.pipeline.ops.insert(id, op);
        self.pipeline.objects.entry(head.clone()).or_default().waiting.push_back(id);
        self.pump(ctx, &head);
    }

    /// Whether the PG serves at all now, and if not, what that waits for.
    pub(crate) fn gate(&self, ctx: &PgContext<'_>, write: bool) -> Result<(), Needs> {
        if !self.is_active() || !self.is_primary() {
            return Err(Needs::ActivePg { pg: self.id, state: self.state().name().into() });
        }
        if !self.is_writeable(ctx) {
            let min_size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.min_size);
            return Err(Needs::Members { have: self.members.acting.len() as u32, min_size });
        }
        if let Some(end) = self.prior_lease_end(ctx.now) {
            return Err(Needs::EarlierLease { left_ms: end.since(ctx.now).as_millis() as u64 });
        }
        if ctx.map.flags().contains(Flag::Pause) {
            return Err(Needs::Flag(Flag::Pause.as_str().into()));
        }
        if !write && !self.may_serve_reads(ctx) {
            return Err(Needs::Lease(self.lease_lacks(ctx)));
        }
        Ok(())
    }

    /// Starts whatever can start.
    pub(crate) fn pump_all(&mut self, ctx: &mut PgContext<'_>) {
        let waiting = |(_, queue): &(&ObjectId, &ObjectQueue)| !queue.waiting.is_empty();
        let objects: Vec<ObjectId> =
            self.pipeline.objects.iter().filter(waiting).map(|(object, _)| object.clone()).collect();
        for object in objects {
            self.pump(ctx, &object);
        }
    }

    pub(crate) fn pump(&mut self, ctx: &mut PgContext<'_>, head: &ObjectId) {
        while let Some(queue) = self.pipeline.objects.get(head) {
            let Some(&id) = queue.waiting.front() else { break };
            let (readers, writers, executing) = (queue.readers, queue.writers, queue.executing);
            let Some(op) = self.pipeline.ops.get(&id) else {
                self.leave_queue(head, id);
                continue;
            };
            let (write, no_wait) = (op.write, op.message.no_wait);
            let removes = write && self.only_removes(ctx, op);
            let wait = if executing || (write && readers > 0) {
                Some(Needs::EarlierOperations)
            } else if !write && writers > 0 && !mutant!(ReadsUncommitted) {
                Some(Needs::EarlierWrites)
            } else if let Err(reason) = self.gate(ctx, write) {
                Some(reason)
            } else {
                let ready = match write {
                    true if removes => self.ready_to_remove(ctx, head),
                    true => self.ready_to_write(ctx, head),
                    false => self.ready_to_read(ctx, head),
                };
                match ready {
                    Readiness::Ready => None,
                    Readiness::Wait(needs) => Some(needs),
                    Readiness::Unfound if no_wait => {
                        self.fail(
                            ctx,
                            id,
                            ErrorCode::TryAgain,
                            &format!("no good copy of {head} is reachable"),
                        );
                        continue;
                    }
                    Readiness::Unfound => Some(self.needs_found(head)),
                    Readiness::Failed(code, reason) => {
                        self.fail(ctx, id, code, &reason);
                        continue;
                    }
                }
            };
            if let Some(wait) = wait {
                if let Some(op) = self.pipeline.ops.get_mut(&id) {
                    if let Some(stopwatch) = &mut op.stopwatch {
                        stopwatch.waits(ctx.now, &wait);
                    }
                    op.wait = wait;
                }
                break;
            }
            self.leave_queue(head, id);
            self.start(ctx, id);
        }
        if self.pipeline.objects.get(head).is_some_and(ObjectQueue::is_idle) {
            self.pipeline.objects.remove(head);
        }
    }

    /// Whether an operation does nothing but remove a head that leaves nothing behind.
    fn only_removes(&self, ctx: &PgContext<'_>, op: &ClientOp) -> bool {
        ops::only_removes(&op.message.ops)
            && op.message.snaps.is_empty()
            && matches!(ops::load_info(ctx.store, &op.object), Ok(Some(info)) if !info.snapped)
    }

    fn leave_queue(&mut self, head: &ObjectId, id: u64) {
        if let Some(queue) = self.pipeline.objects.get_mut(head) {
            queue.waiting.retain(|&other| other != id);
        }
    }

    pub(crate) fn queue_of(&mut self, head: &ObjectId) -> &mut ObjectQueue {
        self.pipeline.objects.entry(head.clone()).or_default()
    }

    /// An interval ended, and the next one has the same primary: whatever was under way starts over in it, in the order it
    /// came. What had been logged is found there as a duplicate.
    pub(crate) fn reset_pipeline(&mut self, ctx: &mut PgContext<'_>) {
        self.in_flight.clear();
        self.measured.clear();
        self.pipeline.objects.clear();
        self.pipeline.counters = Counters::default();
        self.watch = crate::watch::Registry::new(ctx.epoch().0 << 24);
        for (&id, op) in &mut self.pipeline.ops {
            op.stage = Stage::Queued;
            op.reads = ReadCache::new();
            (op.wanted, op.arrived, op.watch) = Default::default();
            op.wait = Needs::Turn;
            if let Some(stopwatch) = &mut op.stopwatch {
                stopwatch.turn(ctx.now, Part::Pg);
            }
            self.pipeline.objects.entry(op.object.head()).or_default().waiting.push_back(id);
        }
    }

    /// This OSD is no longer primary, or was not for a while: clients find the new one with a newer map.
    pub(crate) fn drop_all_ops(&mut self, ctx: &mut PgContext<'_>) {
        let ops = std::mem::take(&mut self.pipeline.ops);
        self.pipeline.objects.clear();
        self.pipeline.requests.clear();
        let text = format!("{} is not the primary of PG {} any more", self.me, self.id);
        for op in ops.values() {
            self.refuse(ctx, op, ErrorCode::TryAgain, &text);
        }
    }

    /// Drops an operation that has ended, for whatever reason.
    pub(crate) fn forget(&mut self, id: u64) -> Option<ClientOp> {
        let op = self.pipeline.ops.remove(&id)?;
        self.pipeline.requests.remove(&op.request);
        self.leave_queue(&op.object.head(), id);
        Some(op)
    }

    /// Members that have not committed the oldest write in flight.
    pub(crate) fn lagging(&self) -> Vec<OsdId> {
        let Some(oldest) = self.in_flight.front() else { return Vec::new() };
        let behind = |osd: &OsdId| self.peers.get(osd).is_none_or(|p| p.durable < oldest.version);
        let mut lagging: Vec<_> = self.replicas().into_iter().filter(behind).collect();
        if self.own_durable < oldest.version {
            lagging.push(self.me);
        }
        lagging
    }
}
