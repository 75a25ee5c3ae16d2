//! Reading commands: answered from the applied state once a majority has confirmed, after the command came in, that this
//! monitor leads. A deposed leader cannot get that proof, so it never answers with an old state.

use super::{Mon, Out};
use crate::commands::{self, Handler, reply_of};
use crate::leader::{CommandWork, Frame, ReadWork};
use nacre_types::Instant;
use std::time::Duration;

/// A proof that did not come by then was lost on the way.
const PROOF_RETRY: Duration = Duration::from_millis(300);

impl Mon {
    pub(super) fn queue_read(&mut self, work: CommandWork) {
        if let Some(leader) = &mut self.leader {
            // A proof asked for earlier says nothing about what happened since.
            let round = leader.read_rounds + 1;
            leader.reads.push_back(ReadWork { round, work });
        }
    }

    pub(super) fn retry_reads(&mut self, now: Instant) {
        if let Some(leader) = &mut self.leader
            && let Some((round, asked, None)) = leader.proof
            && now.since(asked) >= PROOF_RETRY
        {
            leader.proof = Some((round, now, None));
            self.quorum.read(round);
        }
    }

    pub(super) fn read_proven(&mut self, round: u64, index: u64) {
        if let Some(leader) = &mut self.leader
            && let Some((asked_round, asked, None)) = leader.proof
            && asked_round == round
        {
            leader.proof = Some((round, asked, Some(index)));
        }
    }

    /// Answers the reads that have their proof, and asks for the next one.
    pub(super) fn serve_reads(&mut self, now: Instant, out: Out<'_>) {
        loop {
            let Some(leader) = &mut self.leader else { return };
            let Some((round, _, proven)) = leader.proof else {
                if leader.reads.is_empty() {
                    return;
                }
                leader.read_rounds += 1;
                leader.proof = Some((leader.read_rounds, now, None));
                self.quorum.read(leader.read_rounds);
                return;
            };
            let Some(index) = proven else { return };
            if self.quorum.applied() < index {
                return;
            }
            leader.proof = None;
            let ready = leader.reads.iter().take_while(|read| read.round <= round).count();
            let reads: Vec<ReadWork> = leader.reads.drain(..ready).collect();
            for read in reads {
                self.serve_read(now, read.work, out);
            }
        }
    }

    fn serve_read(&mut self, now: Instant, work: CommandWork, out: Out<'_>) {
        let Handler::Read(handler) = work.parsed.handler else { return };
        let Some(leader) = &self.leader else { return };
        let frame = Frame {
            now,
            wall_ms: self.wall_ms(now),
            quorum: self.quorum_view(now),
            version: &self.config.version,
            me: &self.me,
        };
        // It may have lost its rights while it waited.
        let permitted = commands::permit(&self.service, &work.entity, &work.parsed);
        let result = permitted.and_then(|()| {
            handler(&self.service, &frame.command_context(&leader.memory, &work), &work.parsed.args)
        });
        self.answer(work.origin, reply_of(result), out);
    }
}
