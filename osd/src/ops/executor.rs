//! Runs a request's operations one after the other over the view, collecting the transaction.

mod mutate;
mod observe;

use super::info::{INFO_ATTR, ObjectInfo, SNAPSET_ATTR, wire_version};
use super::limits::fail;
use super::view::View;
use super::{Executed, Execution, Mutation, ReadCache, ReadWanted, Request, WatchAction};
use crate::snaps::{self, COMMON_ATTR, Common, SnapSet};
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{EVersion, mutant};
use nacre_wire::messages::{LogEntry, LogKind};
use nacre_wire::op::{Extent, OBJECT_OPS_MAX, ObjectOpKind, OpResult};
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, ErrorCode, ObjectName, OpError, Transaction};

/// More changed extents than this are recorded as "the whole object".
const LOG_EXTENTS_MAX: usize = 16;
/// Answers up to here are kept in the log for duplicates.
const LOG_ANSWER_BYTES_MAX: usize = 1024;

/// Why an operation gave no answer.
enum Stop {
    /// It failed: the request's answer.
    Failed(OpError),
    /// The store failed: nobody can say.
    Store(StoreError),
}

impl From<OpError> for Stop {
    fn from(error: OpError) -> Stop {
        Stop::Failed(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Store(error)
    }
}

/// What an operation answers.
enum Answer {
    Nothing,
    Data { offset: u64, data: Data },
    Encoded(Bytes),
}

struct Executor<'a> {
    request: &'a Request<'a>,
    reads: &'a ReadCache,
    store: &'a dyn ObjectStore,
    view: View<'a>,
    /// The head's snapshot set, once something asked for it.
    snaps: Option<SnapSet>,
    snaps_changed: bool,
    /// What the head has in common with its newest clone, once it is to be changed.
    common: Option<Common>,
    common_changed: bool,
    /// Clone-on-write is done: the transaction may change the head.
    prepared: bool,
    transaction: Transaction,
    entries: Vec<LogEntry>,
    extents: Vec<Extent>,
    whole: bool,
    omap_changed: bool,
    written_bytes: u64,
    read_bytes: u64,
    wanted: Vec<ReadWanted>,
    watch: Vec<WatchAction>,
}

/// Executes a request. See the module's description.
pub fn execute(
    store: &dyn ObjectStore,
    request: &Request<'_>,
    reads: &ReadCache,
) -> Result<Execution, StoreError> {
    let view = if request.object.snap.is_head() {
        View::load(store, request.object.clone())?
    } else {
        match super::resolve(store, request.object)? {
            Some(object) => View::load(store, object)?,
            None => View::nothing(store, request.object.clone()),
        }
    };
    let mut executor = Executor {
        request,
        reads,
        store,
        view,
        snaps: None,
        snaps_changed: false,
        common: None,
        common_changed: false,
        prepared: false,
        transaction: Transaction::new(request.pg),
        entries: Vec::new(),
        extents: Vec::new(),
        whole: false,
        omap_changed: false,
        written_bytes: 0,
        read_bytes: 0,
        wanted: Vec::new(),
        watch: Vec::new(),
    };
    executor.run()
}

impl Executor<'_> {
    fn run(&mut self) -> Result<Execution, StoreError> {
        let request = self.request;
        let mut results = Vec::with_capacity(request.ops.len());
        let mut pieces: Vec<Data> = Vec::new();
        let outcome = self.run_ops(&mut results, &mut pieces);
        if let Err(Stop::Store(error)) = outcome {
            return Err(error);
        }
        if !self.wanted.is_empty() {
            // Whatever was computed over missing data means nothing yet.
            return Ok(Execution::NeedData(std::mem::take(&mut self.wanted)));
        }
        let stored = self.view.stored.as_ref();
        let before = stored.filter(|info| !info.whiteout).map_or(EVersion::ZERO, ObjectInfo::version);
        if let Err(Stop::Failed(error)) = outcome {
            if results.len() < request.ops.len() {
                results.push(OpResult { code: error.code as i32, ..OpResult::default() });
            }
            let data = Data::concat(&pieces);
            let (code, message) = (error.code, self.explain(error, results.len().saturating_sub(1)));
            let (mutation, watch) = (None, Vec::new());
            return Ok(Execution::Done(Executed {
                code,
                message,
                results,
                data,
                version: before,
                mutation,
                watch,
            }));
        }
        let mutation = self.finish(&results)?;
        let version = match &mutation {
            None => before,
            Some(_) if !self.view.exists => EVersion::ZERO,
            Some(_) => self.own_version(),
        };
        let watch = std::mem::take(&mut self.watch);
        let data = Data::concat(&pieces);
        let (code, message) = (ErrorCode::Ok, String::new());
        Ok(Execution::Done(Executed { code, message, results, data, version, mutation, watch }))
    }

    fn run_ops(&mut self, results: &mut Vec<OpResult>, pieces: &mut Vec<Data>) -> Result<(), Stop> {
        let request = self.request;
        let count = request.ops.len();
        if count == 0 || count > OBJECT_OPS_MAX {
            let text = format!("a request has 1 to {OBJECT_OPS_MAX} operations, not {count}");
            fail(ErrorCode::InvalidArgument, text)?;
        }
        self.check_snap_context()?;
        let mut payload = request.data.cutter();
        for (at, op) in request.ops.iter().enumerate() {
            let Some(kind) = &op.kind else {
                return fail(ErrorCode::NotSupported, "this OSD does not know the operation")?;
            };
            let piece = match kind.payload() {
                None => Data::default(),
                Some((offset, length)) => {
                    usize::try_from(length).ok().and_then(|length| payload.next(offset, length)).ok_or_else(
                        || OpError::new(ErrorCode::InvalidArgument, "the request's payload is too short"),
                    )?
                }
            };
            if at + 1 == count && !payload.is_done() {
                fail(ErrorCode::InvalidArgument, "the request's payload is longer than its operations say")?;
            }
            let mut result = OpResult { code: ErrorCode::Ok as i32, ..OpResult::default() };
            match self.op(at, kind, piece)? {
                Answer::Nothing => {}
                Answer::Encoded(bytes) => result.answer = bytes,
                Answer::Data { offset, data } => {
                    (result.offset, result.length) = (offset, data.bytes.len() as u64);
                    pieces.push(data);
                }
            }
            results.push(result);
        }
        Ok(())
    }

    fn op(&mut self, at: usize, kind: &ObjectOpKind, data: Data) -> Result<Answer, Stop> {
        use ObjectOpKind::*;
        if !self.request.object.snap.is_head() && needs_head(kind) {
            return fail(ErrorCode::ReadOnly, "a snapshot cannot be changed, locked or watched")?;
        }
        match kind {
            Read(extent) => self.read(extent),
            Stat(_) => self.stat(),
            Compare(extent) => self.compare(extent, data),
            GetXattr(key) => self.get_xattr(key),
            GetXattrs(_) => self.get_xattrs(),
            CompareXattr(compare) => self.compare_xattr(compare),
            OmapGet(keys) => self.omap_get(keys),
            OmapList(list) => self.omap_list(list),
            MapExtents(extent) => self.map_extents(extent),
            GetLock(key) => self.get_lock(key),
            AssertLocked(lock) => self.assert_locked(lock),
            AssertVersion(version) => self.assert_version(version),
            ListSnaps(_) => self.list_snaps(),
            Watch(watch) => self.watch(watch),
            Notify(notify) => self.notify(at, notify),
            NotifyAck(ack) => self.notify_ack(ack),
            Write(extent) => self.write(extent, data),
            WriteFull(extent) => self.write_full(extent, data),
            Append(extent) => self.append(extent, data),
            Truncate(size) => self.truncate(size.size),
            Zero(extent) => self.zero(extent),
            Remove(_) => self.remove(),
            Create(create) => self.create(create.exclusive),
            SetXattr(pair) => self.set_xattr(pair),
            RemoveXattr(key) => self.remove_xattr(key),
            OmapSet(pairs) => self.omap_set(pairs),
            OmapRemove(keys) => self.omap_remove(keys),
            OmapClear(_) => self.omap_clear(),
            Lock(lock) => self.lock(lock),
            Unlock(lock) => self.unlock(lock),
            BreakLock(lock) => self.break_lock(lock),
        }
    }

    /// The failure's sentence: which operation of which object.
    fn explain(&self, error: OpError, at: usize) -> String {
        let object = self.request.object;
        match self.request.ops.len() {
            0 | 1 => format!("{object}: {}", error.message),
            _ => format!("{object}, operation {at}: {}", error.message),
        }
    }

    fn check_snap_context(&self) -> Result<(), OpError> {
        let context = self.request.snap_context;
        let mut last = context.seq.saturating_add(1);
        for &snap in context.snaps {
            if snap == 0 || snap >= last {
                let text = "a snapshot context lists ids newest first, none above its sequence number";
                return fail(ErrorCode::InvalidArgument, text);
            }
            last = snap;
        }
        Ok(())
    }

    /// Version of the request's own log entry: after those of the clones it made.
    fn own_version(&self) -> EVersion {
        let clones = self.entries.iter().filter(|e| e.kind == LogKind::Clone as i32).count() as u64;
        EVersion { seq: self.request.version.seq + clones, ..self.request.version }
    }

    fn snapset(&mut self) -> Result<&mut SnapSet, StoreError> {
        if self.snaps.is_none() {
            let head = self.request.object.head();
            let set = match super::view::load_info(self.store, &head)? {
                Some(info) => snaps::load(self.store, &head, &info)?,
                None => SnapSet::default(),
            };
            self.snaps = Some(set);
        }
        Ok(self.snaps.as_mut().expect("just set"))
    }

    /// Turns what the operations left into a mutation; none if they changed nothing.
    fn finish(&mut self, results: &[OpResult]) -> Result<Option<Mutation>, StoreError> {
        if self.transaction.is_empty() {
            return Ok(None);
        }
        let request = self.request;
        let head = &self.view.object;
        let version = self.own_version();
        let stored = self.view.stored.as_ref();
        let prior = stored.map_or(EVersion::ZERO, ObjectInfo::version);
        // Whatever changes the set, or removes the head, has loaded it.
        let set = self.snaps.take();
        let has_clones = set.as_ref().is_some_and(|set| !set.clones.is_empty());
        let stays = self.view.exists || has_clones && !mutant!(SnapsetDropped);
        if stays {
            let snapped = match &set {
                Some(set) => set.seq > 0 || has_clones,
                None => stored.is_some_and(|info| info.snapped),
            };
            let info = ObjectInfo {
                epoch: version.epoch.0,
                seq: version.seq,
                modified_ms: request.wall_ms,
                whiteout: !self.view.exists,
                snapped,
                ..ObjectInfo::default()
            };
            let mut pairs = Vec::with_capacity(3);
            pairs.push(Pair { key: Bytes::from_static(INFO_ATTR.as_bytes()), value: info.to_attr() });
            if let Some(set) = set.filter(|_| snapped && self.snaps_changed) {
                pairs.push(Pair { key: Bytes::from_static(SNAPSET_ATTR.as_bytes()), value: set.to_attr() });
            }
            if let Some(common) = self.common.take().filter(|_| self.common_changed) {
                pairs.push(Pair { key: Bytes::from_static(COMMON_ATTR.as_bytes()), value: common.to_attr() });
            }
            self.transaction.set_attrs(head, pairs);
        }
        let whole = self.whole || self.extents.len() > LOG_EXTENTS_MAX;
        let answer_bytes: usize = results.iter().map(|r| r.answer.len()).sum();
        let keep = answer_bytes > 0 && answer_bytes <= LOG_ANSWER_BYTES_MAX;
        let kind = if stays { LogKind::Modify } else { LogKind::Delete };
        self.entries.push(LogEntry {
            kind: kind as i32,
            object: Some(ObjectName::from(head)),
            version: Some(wire_version(version)),
            prior_version: Some(wire_version(prior)),
            client: request.request.client.0,
            request: request.request.seq,
            modified_ms: request.wall_ms,
            code: ErrorCode::Ok as i32,
            extents: if whole { Vec::new() } else { std::mem::take(&mut self.extents) },
            whole,
            omap_changed: self.omap_changed,
            answer: if keep { encode_answers(results) } else { Bytes::new() },
            answered_below: 0,
            unanswered: Vec::new(),
            reverts_to: None,
        });
        let transaction = std::mem::replace(&mut self.transaction, Transaction::new(request.pg));
        Ok(Some(Mutation { transaction, entries: std::mem::take(&mut self.entries) }))
    }
}

/// The results as one message, for `LogEntry.answer`: an `OsdOpReply` with nothing else set. Data is not kept; that there
/// was some is, so that a resend's sender knows what it does not get.
fn encode_answers(results: &[OpResult]) -> Bytes {
    use prost::Message as _;
    let results = results.to_vec();
    nacre_wire::op::OsdOpReply { results, ..Default::default() }.encode_to_vec().into()
}

/// Operations that make no sense at a snapshot.
fn needs_head(kind: &ObjectOpKind) -> bool {
    use ObjectOpKind::*;
    kind.is_mutation() || matches!(kind, Watch(_) | Notify(_) | NotifyAck(_) | AssertLocked(_))
}
