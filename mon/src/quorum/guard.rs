//! What a Raft message from another monitor must satisfy before raft-rs sees it. raft-rs panics on messages no correct
//! peer sends; bytes from a wire must not, so such messages are dropped here, with the reason.

use super::storage::Storage;
use raft::RawNode;
use raft::eraftpb::{ConfState, Message, MessageType};
use std::collections::BTreeSet;

/// Far above any real term or index, far below overflow.
const NUMBER_MAX: u64 = 1 << 56;
/// Entries in one append; raft-rs is configured to send far fewer bytes than would reach it.
const ENTRIES_MAX: usize = 100_000;

/// Whether a message shows that this node has promised more than it knows of: its disk was wiped or put back.
pub(crate) fn shows_loss(node: &RawNode<Storage>, message: &Message) -> bool {
    // A leader tells a follower to commit no more than the follower has acknowledged.
    message.msg_type == MessageType::MsgHeartbeat as i32
        && message.term >= node.raft.term
        && message.commit > node.raft.raft_log.last_index()
}

pub(crate) fn accept(node: &RawNode<Storage>, sender: u64, message: &Message) -> Result<(), String> {
    let log = &node.raft.raft_log;
    let (last, committed) = (log.last_index(), log.committed);
    if message.from != sender || message.to != node.raft.id || sender == node.raft.id {
        return Err(format!("it names sender {} and receiver {}", message.from, message.to));
    }
    let numbers = [message.term, message.index, message.log_term, message.commit, message.commit_term];
    let more = [message.reject_hint, message.request_snapshot];
    if numbers.iter().chain(&more).any(|&n| n > NUMBER_MAX) || message.term == 0 {
        return Err("a number in it is out of range".into());
    }
    match MessageType::from_i32(message.msg_type) {
        Some(MessageType::MsgAppend) => {
            if message.entries.len() > ENTRIES_MAX {
                return Err("it carries too many entries".into());
            }
            let mut term = message.log_term;
            for (entry, index) in message.entries.iter().zip(message.index + 1..) {
                if entry.index != index || entry.term < term || entry.term > message.term {
                    return Err(format!("its entry {} of term {} is out of order", entry.index, entry.term));
                }
                if !(0..=2).contains(&entry.entry_type) {
                    return Err("an entry has an unknown type".into());
                }
                term = entry.term;
                let conflicts = index <= committed
                    && index >= log.first_index()
                    && log.term(index).is_ok_and(|known| known != entry.term);
                if conflicts {
                    return Err(format!("its entry {index} conflicts with a committed one"));
                }
            }
            Ok(())
        }
        Some(MessageType::MsgAppendResponse) if message.index > last && !message.reject => {
            Err(format!("it acknowledges entry {} beyond the last, {last}", message.index))
        }
        Some(MessageType::MsgHeartbeat) if message.commit > last => {
            Err(format!("it commits entry {} beyond the last, {last}", message.commit))
        }
        Some(MessageType::MsgSnapshot) => {
            let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
            let Some(metadata) = metadata else { return Err("it has no checkpoint".into()) };
            let members = metadata.conf_state.as_ref().ok_or("its checkpoint has no members")?;
            let sane = metadata.index > 0 && metadata.index <= NUMBER_MAX && metadata.term <= message.term;
            if !sane || !members_are_sane(members, node.raft.id) {
                return Err("its checkpoint makes no sense".into());
            }
            Ok(())
        }
        Some(
            MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow,
        ) => Ok(()),
        _ => Err(format!("kind {} is not for the wire", message.msg_type)),
    }
}

fn members_are_sane(members: &ConfState, me: u64) -> bool {
    let ids: Vec<u64> = members.voters.iter().chain(&members.learners).copied().collect();
    let unique: BTreeSet<u64> = ids.iter().copied().collect();
    !members.voters.is_empty()
        && unique.len() == ids.len()
        && !unique.contains(&0)
        && unique.contains(&me)
        && members.voters_outgoing.is_empty()
        && members.learners_next.is_empty()
        && !members.auto_leave
}
