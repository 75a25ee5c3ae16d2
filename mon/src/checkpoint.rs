//! Checkpoints on their way between monitors: the state goes in pieces on the recovery lane, Raft's message beside it;
//! the receiver puts them together and hands both to Raft.

use bytes::{Bytes, BytesMut};
use nacre_types::Instant;
use nacre_wire::messages::MonCheckpoint;
use raft::eraftpb::Message;
use std::collections::BTreeMap;
use std::time::Duration;

const PIECE_BYTES: usize = 1 << 20;
/// Largest state that is taken from a peer.
const STATE_BYTES_MAX: u64 = 256 << 20;
/// A checkpoint that has not been acknowledged by then is sent anew.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn pieces(index: u64, term: u64, state: &Bytes) -> Vec<MonCheckpoint> {
    let total = state.len() as u64;
    let count = state.len().div_ceil(PIECE_BYTES).max(1);
    let piece = |at: usize| {
        let (from, to) = (at * PIECE_BYTES, ((at + 1) * PIECE_BYTES).min(state.len()));
        MonCheckpoint { index, term, offset: from as u64, total, piece: state.slice(from..to) }
    };
    (0..count).map(piece).collect()
}

/// What one monitor is sending us.
#[derive(Default)]
struct Arriving {
    at: (u64, u64),
    total: u64,
    state: BytesMut,
    message: Option<Message>,
}

/// Checkpoints under way, both directions, by the other monitor's Raft number.
#[derive(Default)]
pub(crate) struct Checkpoints {
    arriving: Option<(u64, Arriving)>,
    sent: BTreeMap<u64, Instant>,
}

impl Checkpoints {
    pub fn sent(&mut self, to: u64, now: Instant) {
        self.sent.insert(to, now);
    }

    /// The receiver said something about its log: the checkpoint is no longer under way.
    pub fn answered(&mut self, from: u64) {
        self.sent.remove(&from);
    }

    pub fn overdue(&mut self, now: Instant) -> Vec<u64> {
        let overdue: Vec<u64> =
            self.sent.iter().filter(|&(_, &at)| now.since(at) > SEND_TIMEOUT).map(|(&id, _)| id).collect();
        overdue.iter().for_each(|id| {
            self.sent.remove(id);
        });
        overdue
    }

    fn slot(&mut self, from: u64, at: (u64, u64)) -> &mut Arriving {
        let fresh = self.arriving.as_ref().is_none_or(|(who, arriving)| (*who, arriving.at) != (from, at));
        if fresh {
            self.arriving = Some((from, Arriving { at, ..Arriving::default() }));
        }
        match &mut self.arriving {
            Some((_, arriving)) => arriving,
            None => unreachable!("it was just set"),
        }
    }

    /// Takes a piece. Pieces of one sender come in order; whatever does not continue starts over or is dropped.
    pub fn piece(&mut self, from: u64, piece: MonCheckpoint) -> Option<(Message, Bytes)> {
        let end = piece.offset.checked_add(piece.piece.len() as u64)?;
        if piece.total > STATE_BYTES_MAX || end > piece.total {
            return None;
        }
        let arriving = self.slot(from, (piece.index, piece.term));
        if piece.offset == 0 {
            arriving.state.clear();
            arriving.total = piece.total;
        }
        if piece.offset != arriving.state.len() as u64 || piece.total != arriving.total {
            return None;
        }
        arriving.state.extend_from_slice(&piece.piece);
        self.complete()
    }

    pub fn message(&mut self, from: u64, message: Message) -> Option<(Message, Bytes)> {
        let metadata = message.snapshot.as_ref()?.metadata.as_ref()?;
        let arriving = self.slot(from, (metadata.index, metadata.term));
        arriving.message = Some(message);
        self.complete()
    }

    fn complete(&mut self) -> Option<(Message, Bytes)> {
        let (_, arriving) = self.arriving.as_ref()?;
        let whole = arriving.message.is_some() && arriving.total > 0;
        if !whole || arriving.state.len() as u64 != arriving.total {
            return None;
        }
        let (_, arriving) = self.arriving.take()?;
        Some((arriving.message?, arriving.state.freeze()))
    }
}
