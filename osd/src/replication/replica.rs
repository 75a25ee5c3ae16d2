//! A member's side: take writes in unbroken order, promise them once durable.

use crate::log::{Entry, decode_version};
use crate::pg::{Pg, PgContext, State};
use crate::token::PgPurpose;
use nacre_types::{EVersion, OsdId, mutant};
use nacre_wire::messages::{LogLevel, RepOp};
use nacre_wire::{Data, Transaction};

impl Pg {
    pub(crate) fn on_rep_op(&mut self, ctx: &mut PgContext<'_>, from: OsdId, message: RepOp, data: Data) {
        if self.members.primary() != Some(from) || *self.state() != State::ReplicaActive {
            return;
        }
        let refuse = |ctx: &mut PgContext<'_>, id, reason: String| {
            ctx.log(LogLevel::Error, format!("PG {id}: a write from {from} is refused: {reason}"));
        };
        let entries: Result<Vec<Entry>, _> = message.entries.iter().map(Entry::decode_bytes).collect();
        let entries = match entries {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) => return refuse(ctx, self.id, "it has no log entry".into()),
            Err(error) => return refuse(ctx, self.id, error.to_string()),
        };
        let head = self.log.head();
        let (first, last) = (entries[0].version, entries[entries.len() - 1].version);
        if last <= head {
            // Sent again: the acknowledgement may have been lost.
            if last <= self.replica_durable {
                self.acknowledge(ctx);
            }
            return;
        }
        let in_sequence = entries.iter().zip(head.seq + 1..).all(|(entry, seq)| entry.version.seq == seq)
            && entries.windows(2).all(|pair| pair[0].version < pair[1].version)
            && first > head
            && decode_version(message.version) == last;
        if !(in_sequence || mutant!(GapAccepted) && first > head) {
            // One before it was lost; the primary sends both again.
            return;
        }
        let bare = message.transaction.is_empty();
        let transaction = if bare {
            Ok(Transaction::new(self.id))
        } else {
            Transaction::decode(&message.transaction, data)
        };
        let mut transaction = match transaction {
            Ok(transaction) if transaction.pg() == self.id => transaction,
            Ok(other) => return refuse(ctx, self.id, format!("it changes PG {}", other.pg())),
            Err(error) => return refuse(ctx, self.id, error.to_string()),
        };
        let trim_to = message.trim_to.map(|version| decode_version(Some(version)));
        self.committed_to = self.committed_to.max(decode_version(message.committed_to));
        let object = entries[0].object.head();
        if bare {
            self.note_not_applied(ctx, &mut transaction, &entries);
        }
        self.apply(ctx, transaction, entries, message.entries, trim_to, PgPurpose::Replica(last));
        match bare {
            true => self.scrub_retry(ctx),
            false => self.recovery_on_write(ctx, &object, &[]),
        }
        if message.measured {
            self.measured.follow(last, ctx.now);
        }
        if mutant!(ReplicaAckBeforeCommit) {
            self.on_replica_commit(ctx, last);
        }
    }

    pub(crate) fn on_replica_commit(&mut self, ctx: &mut PgContext<'_>, version: EVersion) {
        self.replica_durable = self.replica_durable.max(version);
        self.acknowledge(ctx);
        let Some(primary) = self.members.primary() else { return };
        while let Some(times) = self.measured.durable(version, ctx.now, &ctx.stages.journal) {
            ctx.requests.times.push((primary, self.id, times));
        }
    }

    fn acknowledge(&self, ctx: &mut PgContext<'_>) {
        if let Some(primary) = self.members.primary() {
            ctx.requests.acks.insert((primary, self.id), (self.interval(), self.replica_durable));
        }
    }
}
