//! raft-rs behind the driver's contract: writes go out as records, messages that need them wait, committed entries
//! come out in order. Elections are drawn from the seeded generator, so that a run replays.

use super::guard;
use super::storage::{Checkpoint, Storage};
use crate::event::Write;
use crate::records;
use nacre_types::{Rng, mutant};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use std::collections::VecDeque;

/// Ticks (100 ms) without a leader before an election: drawn from this range.
const ELECTION_TICKS: (usize, usize) = (10, 20);
const HEARTBEAT_TICKS: usize = 2;
/// Bytes of entries in one append message.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Proposals beyond this many uncommitted bytes are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Ticks that a write may take before a leader hands over to a monitor with a better disk.
const STALLED_TICKS: u32 = 30;

/// One round of what Raft wants done. Carry out in the order of the fields.
#[derive(Default)]
pub(crate) struct Output {
    /// The state is to be replaced by this checkpoint.
    pub install: Option<Checkpoint>,
    /// To persist in one batch under the token; reported back by [`Quorum::persisted`].
    pub persist: Option<(u64, Vec<Write>)>,
    pub messages: Vec<Message>,
    pub committed: Vec<Entry>,
    /// Contexts of reads that may be answered once everything committed so far is applied, with the index to reach.
    pub reads: Vec<(u64, u64)>,
}

/// Messages that wait for a write.
struct Waiting {
    token: u64,
    number: u64,
    messages: Vec<Message>,
}

pub(crate) struct Quorum {
    node: RawNode<Storage>,
    rng: Rng,
    election_ticks: usize,
    /// Term and role the election timeout was drawn for.
    drawn_for: (u64, StateRole),
    /// Ticks until a node that just started stands without waiting for a whole election timeout.
    first_stand: Option<u64>,
    waiting: VecDeque<Waiting>,
    /// Outputs made outside of a ready (released messages).
    released: Vec<Message>,
    next_token: u64,
    members: ConfState,
    applied: (u64, u64),
    /// A checkpoint that arrived and was handed to raft-rs, which keeps only its metadata.
    arrived: Option<Checkpoint>,
    /// Token of the write of an installed checkpoint, and its index: raft-rs hears of it once durable.
    installing: Option<(u64, u64)>,
    /// Token of the write that makes our own newest checkpoint durable, and the index to truncate to then.
    truncate_at: Option<(u64, u64)>,
    entries_since_checkpoint: u64,
    bytes_since_checkpoint: u64,
    /// Ticks since the oldest write that is not durable yet.
    stalled_ticks: u32,
    /// It was shown to have lost what it promised: it neither votes nor stands.
    forgot: bool,
    /// The commit index has moved since it was last written.
    commit_unwritten: bool,
    /// It is to be written without waiting for other writes: it covers a change of the members.
    commit_wanted: bool,
}

impl Quorum {
    pub fn open(id: u64, storage: Storage, seed: u64) -> Result<Quorum, String> {
        let checkpoint = storage.checkpoint();
        let (applied, members) = ((checkpoint.index, checkpoint.term), checkpoint.members.clone());
        let entries_since_checkpoint = storage.last() - applied.0;
        let config = Config {
            id,
            applied: applied.0,
            election_tick: ELECTION_TICKS.0,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: ELECTION_TICKS.0,
            max_election_tick: ELECTION_TICKS.1,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: 8 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        config.validate().map_err(|e| e.to_string())?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, storage, &logger).map_err(|e| e.to_string())?;
        let mut rng = Rng::new(seed);
        let first_stand = Some(rng.range(1, 5));
        let mut quorum = Quorum {
            drawn_for: (node.raft.term, node.raft.state),
            node,
            rng,
            election_ticks: ELECTION_TICKS.0,
            first_stand,
            waiting: VecDeque::new(),
            released: Vec::new(),
            next_token: 1,
            members,
            applied,
            arrived: None,
            installing: None,
            truncate_at: None,
            entries_since_checkpoint,
            bytes_since_checkpoint: 0,
            stalled_ticks: 0,
            forgot: false,
            commit_unwritten: false,
            commit_wanted: false,
        };
        quorum.draw();
        if quorum.is_sole_voter() {
            quorum.first_stand = None;
            let _ = quorum.node.campaign();
        }
        Ok(quorum)
    }

    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader's id, if this node knows one.
    pub fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|&id| id != 0)
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// A leader that has committed in its own term: its applied state is not behind any earlier leader's.
    pub fn leads_with_committed_term(&self) -> bool {
        self.is_leader() && self.node.raft.apply_to_current_term()
    }

    pub fn members(&self) -> &ConfState {
        &self.members
    }

    pub fn applied(&self) -> u64 {
        self.applied.0
    }

    fn is_sole_voter(&self) -> bool {
        self.members.voters == [self.id()] && self.members.voters_outgoing.is_empty()
    }

    /// raft-rs draws its election timeout from a thread-local generator; ours replaces it before it can matter.
    fn draw(&mut self) {
        self.election_ticks = self.rng.range(ELECTION_TICKS.0 as u64, ELECTION_TICKS.1 as u64) as usize;
        self.drawn_for = (self.node.raft.term, self.node.raft.state);
    }

    /// True if this node leads and has just given that up because its disk does not answer.
    pub fn tick(&mut self) -> bool {
        if self.forgot {
            return false;
        }
        self.stalled_ticks = if self.waiting.is_empty() { 0 } else { self.stalled_ticks + 1 };
        let stalled = self.stalled_ticks >= STALLED_TICKS && self.is_leader() && self.transfer_leadership();
        if stalled {
            self.stalled_ticks = 0;
        }
        if (self.node.raft.term, self.node.raft.state) != self.drawn_for {
            self.draw();
        }
        // A sole voter leads the moment it stands, which raft-rs allows only when nothing is being written.
        if self.is_sole_voter() && !self.is_leader() && !self.waiting.is_empty() {
            return false;
        }
        if let Some(ticks) = self.first_stand {
            self.first_stand = ticks.checked_sub(1).filter(|_| self.leader().is_none());
            if ticks == 0 && self.leader().is_none() && self.node.raft.promotable() {
                let _ = self.node.campaign();
            }
        }
        self.node.raft.set_randomized_election_timeout(self.election_ticks);
        let stood = self.node.tick() && !self.is_leader();
        if stood {
            self.draw();
        }
        stalled
    }

    /// See [`guard::shows_loss`].
    pub fn has_forgotten(&self) -> bool {
        self.forgot
    }

    /// Handles a message of another monitor, after checking that it makes sense.
    pub fn receive(&mut self, sender: u64, message: Message) -> Result<(), String> {
        let accepted = guard::accept(&self.node, sender, &message);
        if accepted.is_err() && message.from == sender && guard::shows_loss(&self.node, &message) {
            self.forgot = true;
        }
        accepted?;
        if self.forgot {
            return Ok(());
        }
        // Refused by raft-rs: from somebody who is no member any more. Nothing to do about it.
        let _ = self.node.step(message);
        Ok(())
    }

    /// Whether the checkpoint behind a snapshot message would be used, so that its state must be fetched first.
    pub fn wants_checkpoint(&self, index: u64) -> bool {
        index > self.node.raft.raft_log.committed
    }

    /// Handles a snapshot message together with the state it stands for, which the caller has found to decode.
    pub fn receive_checkpoint(
        &mut self,
        sender: u64,
        message: Message,
        state: bytes::Bytes,
    ) -> Result<(), String> {
        guard::accept(&self.node, sender, &message)?;
        let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.clone()).unwrap_or_default();
        self.arrived = Some(Checkpoint {
            index: metadata.index,
            term: metadata.term,
            members: metadata.conf_state.unwrap_or_default(),
            state,
        });
        let _ = self.node.step(message);
        Ok(())
    }

    /// A checkpoint sent to a monitor did not get there: Raft tries again.
    pub fn checkpoint_failed(&mut self, to: u64) {
        self.node.report_snapshot(to, SnapshotStatus::Failure);
    }

    /// False if this node does not lead or too much is uncommitted.
    pub fn propose(&mut self, command: Vec<u8>) -> bool {
        self.is_leader() && self.node.propose(Vec::new(), command).is_ok()
    }

    /// Proposes a member change together with a command; one at a time.
    pub fn propose_change(&mut self, kind: ConfChangeType, id: u64, command: Vec<u8>) -> bool {
        if !self.is_leader() || self.node.raft.has_pending_conf() {
            return false;
        }
        let change = ConfChangeSingle { change_type: kind as i32, node_id: id };
        let change = ConfChangeV2 { transition: 0, changes: vec![change], context: Vec::new() };
        self.node.propose_conf_change(command, change).is_ok()
    }

    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Hands leadership to another voter that keeps up. False if there is none.
    pub fn transfer_leadership(&mut self) -> bool {
        let (me, last) = (self.id(), self.last_index());
        let best = self.members.voters.iter().copied().filter(|&id| id != me).filter_map(|id| {
            let progress = self.node.raft.prs().get(id)?;
            (progress.recent_active && progress.matched + 1_000 >= last).then_some((progress.matched, id))
        });
        let Some((_, to)) = best.max() else { return false };
        self.node.transfer_leader(to);
        true
    }

    /// Asks for a proof that this node leads now; comes back in [`Output::reads`]. May be lost.
    pub fn read(&mut self, context: u64) {
        self.node.read_index(context.to_be_bytes().to_vec());
    }

    /// Learners that have nearly everything and could vote.
    pub fn ready_learner(&self) -> Option<u64> {
        let committed = self.node.raft.raft_log.committed;
        let caught_up = |id: &&u64| {
            let progress = self.node.raft.prs().get(**id);
            progress.is_some_and(|p| p.recent_active && p.matched + 10 >= committed)
        };
        self.members.learners.iter().find(caught_up).copied()
    }

    /// Lets raft-rs take a member change into account that was committed with a command that held.
    ///
    /// raft-rs goes by the members as of the last entry that it knows to be committed. A node that starts again without
    /// knowing that would ask the old members for their votes, who may be gone by then. So it is written down.
    pub fn apply_change(&mut self, entry: &Entry) -> bool {
        let Some(change) = decode_change(entry) else { return false };
        match self.node.apply_conf_change(&change) {
            Ok(members) => {
                self.members = members;
                self.commit_wanted = true;
                true
            }
            Err(_) => false,
        }
    }

    /// Everything of the last [`Output::committed`] has been applied.
    pub fn applied_to(&mut self, index: u64, term: u64, bytes: usize) {
        self.applied = (index, term);
        self.entries_since_checkpoint += 1;
        self.bytes_since_checkpoint += bytes as u64;
        self.node.advance_apply_to(index);
    }

    pub fn checkpoint_is_due(&self, entries_max: u64, bytes_max: u64) -> bool {
        let storage = self.node.store();
        let moved = self.applied.0 > storage.checkpoint().index;
        moved
            && self.truncate_at.is_none()
            && (storage.checkpoint_wanted.get()
                || self.entries_since_checkpoint >= entries_max
                || self.bytes_since_checkpoint >= bytes_max)
    }

    /// The state as of everything applied. Returns what to persist.
    pub fn checkpoint(&mut self, state: bytes::Bytes, entries_kept: u64) -> (u64, Vec<Write>) {
        let (index, term) = self.applied;
        let checkpoint = Checkpoint { index, term, members: self.members.clone(), state };
        let write = records::checkpoint(&checkpoint);
        self.node.mut_store().set_checkpoint(checkpoint);
        (self.entries_since_checkpoint, self.bytes_since_checkpoint) = (0, 0);
        let token = self.token();
        self.truncate_at = Some((token, index.saturating_sub(entries_kept)));
        let number = 0;
        self.waiting.push_back(Waiting { token, number, messages: Vec::new() });
        (token, vec![write])
    }

    pub fn newest_checkpoint(&self) -> &Checkpoint {
        self.node.store().checkpoint()
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// The driver has made everything up to `token` durable. Returns more to write, if any.
    pub fn persisted(&mut self, token: u64) -> Option<(u64, Vec<Write>)> {
        let mut number = 0;
        self.stalled_ticks = 0;
        while let Some(waiting) = self.waiting.front()
            && waiting.token <= token
        {
            number = number.max(waiting.number);
            let waiting = self.waiting.pop_front();
            self.released.extend(waiting.into_iter().flat_map(|w| w.messages));
        }
        if number > 0 {
            self.node.on_persist_ready(number);
        }
        if let Some((at, index)) = self.installing
            && at <= token
        {
            self.installing = None;
            if self.node.raft.raft_log.applied() < index {
                self.node.advance_apply_to(index);
            }
        }
        let (_, index) = self.truncate_at.filter(|&(at, _)| at <= token)?;
        self.truncate_at = None;
        let gone = self.node.mut_store().truncate_to(index);
        if gone.is_empty() {
            return None;
        }
        let token = self.token();
        self.waiting.push_back(Waiting { token, number: 0, messages: Vec::new() });
        Some((token, gone.map(records::no_entry).collect()))
    }

    /// The next round of work, `None` if there is none.
    pub fn next(&mut self) -> Option<Output> {
        let mut output = Output { messages: std::mem::take(&mut self.released), ..Output::default() };
        if !self.node.has_ready() {
            if self.commit_unwritten && self.commit_wanted {
                let (token, writes) = (self.token(), vec![self.hard_state()]);
                self.waiting.push_back(Waiting { token, number: 0, messages: Vec::new() });
                output.persist = Some((token, writes));
            }
            return (!output.messages.is_empty() || output.persist.is_some()).then_some(output);
        }
        let mut ready = self.node.ready();
        let mut writes = Vec::new();
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().metadata.clone().unwrap_or_default();
            let checkpoint =
                self.arrived.take().filter(|c| (c.index, c.term) == (metadata.index, metadata.term));
            let checkpoint = checkpoint.expect("raft-rs restores only what receive_checkpoint gave it");
            let gone = self.node.mut_store().install(checkpoint.clone());
            writes.extend(gone.map(records::no_entry));
            writes.push(records::checkpoint(&checkpoint));
            self.members = checkpoint.members.clone();
            self.applied = (checkpoint.index, checkpoint.term);
            (self.entries_since_checkpoint, self.bytes_since_checkpoint) = (0, 0);
            self.truncate_at = None;
            output.install = Some(checkpoint);
        }
        if !ready.entries().is_empty() {
            let entries = ready.take_entries();
            let last = entries.last().map_or(0, |entry| entry.index);
            if let Some(old_last) = self.node.mut_store().append(&entries) {
                writes.extend((last + 1..=old_last).map(records::no_entry));
            }
            writes.extend(entries.iter().map(records::entry));
        }
        if let Some(hard) = ready.hs() {
            let old = &self.node.store().hard;
            let promise = (hard.term, hard.vote) != (old.term, old.vote);
            let hard = hard.clone();
            self.node.mut_store().hard = hard;
            self.commit_unwritten = !mutant!(CommitOfChangeUnwritten) || promise || !writes.is_empty();
            if promise {
                writes.push(self.hard_state());
            }
        }
        // The commit index alone can be found again; it rides along with other writes.
        if self.commit_unwritten && !writes.is_empty() {
            writes.push(self.hard_state());
        }
        output.messages.extend(ready.take_messages());
        output.committed = ready.take_committed_entries();
        for state in ready.take_read_states() {
            if let Ok(context) = <[u8; 8]>::try_from(&state.request_ctx[..]) {
                output.reads.push((u64::from_be_bytes(context), state.index));
            }
        }
        let (number, mut promised) = (ready.number(), ready.take_persisted_messages());
        if mutant!(VoteUnpersisted) {
            output.messages.append(&mut promised);
        }
        self.node.advance_append_async(ready);
        if !writes.is_empty() {
            let token = self.token();
            if let Some(checkpoint) = &output.install {
                self.installing = Some((token, checkpoint.index));
            }
            self.waiting.push_back(Waiting { token, number, messages: promised });
            output.persist = Some((token, writes));
        } else if let Some(last) = self.waiting.back() {
            // Promises made earlier are not durable yet, so neither is anything said after them.
            let token = last.token;
            self.waiting.push_back(Waiting { token, number, messages: promised });
        } else {
            self.node.on_persist_ready(number);
            output.messages.extend(promised);
        }
        Some(output)
    }

    fn hard_state(&mut self) -> Write {
        (self.commit_unwritten, self.commit_wanted) = (false, false);
        records::hard_state(&self.node.store().hard)
    }

    pub fn check(&self) {
        self.node.store().check();
        assert!(self.applied.0 <= self.node.raft.raft_log.committed, "applied what is not committed");
        let mut tokens = self.waiting.iter().map(|w| w.token);
        let mut last = 0;
        assert!(
            tokens.all(|token| std::mem::replace(&mut last, token) <= token),
            "writes are waited for in order"
        );
    }
}

/// The member change of an entry, if it is one.
pub(crate) fn decode_change(entry: &Entry) -> Option<ConfChangeV2> {
    use prost_011::Message as _;
    (entry.entry_type == EntryType::EntryConfChangeV2 as i32)
        .then(|| ConfChangeV2::decode(&entry.data[..]).ok())
        .flatten()
}

/// Whether a message carries a checkpoint.
pub(crate) fn is_checkpoint(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot as i32
}

/// Whether a message says how far its sender's log is.
pub(crate) fn is_append_response(message: &Message) -> bool {
    message.msg_type == MessageType::MsgAppendResponse as i32
}
