//! GetLog: take over the authoritative log.

use super::LOG_PIECE;
use crate::log::{MissingSet, PgLog, decode_version, encode_version, merge_authoritative, persist};
use crate::pg::{Pg, PgContext, State};
use nacre_types::buggify;
use nacre_types::{EVersion, Needs, OsdId};
use nacre_wire::Transaction;
use nacre_wire::messages::{self, LogLevel, PgLogRequest};

impl Pg {
    pub(crate) fn start_get_log(&mut self, ctx: &mut PgContext<'_>, auth: OsdId) {
        self.full_log_wanted = false;
        self.incoming.clear();
        if auth == self.me {
            return self.start_get_missing(ctx);
        }
        self.enter(ctx, State::GetLog { from: auth });
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        self.request_log(ctx);
    }

    pub(crate) fn request_log(&mut self, ctx: &mut PgContext<'_>) {
        let State::GetLog { from } = *self.state() else { return };
        let request = PgLogRequest {
            interval: self.interval().0,
            since: encode_version(self.log_wanted_since(from)),
            full: self.full_log_wanted,
        };
        self.send(ctx, from, request);
    }

    /// The oldest head among those who will be brought up to date by log: from there on the entries are needed.
    fn log_wanted_since(&self, auth: OsdId) -> EVersion {
        let tail = self.peers.get(&auth).map_or(EVersion::ZERO, |peer| peer.info.log_tail);
        let members = self.members.acting.iter().chain(&self.members.up);
        let heads = members.filter_map(|osd| self.peers.get(osd)).map(|peer| peer.info.last_update);
        let reachable = heads.chain([self.info.last_update]).filter(|&head| head >= tail);
        reachable.min().unwrap_or(tail)
    }

    /// No client has seen what the authoritative log names after it.
    pub(super) fn seen_to(&self) -> EVersion {
        self.best.map_or(self.log.head(), |best| best.seen_to)
    }

    /// Any copy: the primary wants the log and what is missing here.
    pub(crate) fn on_log_request(&mut self, ctx: &mut PgContext<'_>, from: OsdId, request: PgLogRequest) {
        if self.members.primary() != Some(from) {
            return;
        }
        let since = decode_version(request.since);
        let since = (!request.full && self.log.reaches(since)).then_some(since);
        let (tail, entries) = self.log.encode_after(since);
        let missing = self.missing.encode();
        let most = if buggify("osd: log sent in small pieces") { 2 } else { LOG_PIECE };
        let count = entries.len().max(missing.len()).div_ceil(most).max(1);
        let (mut entries, mut missing) = (entries.into_iter(), missing.into_iter());
        let transfer = ctx.rng.next_u64();
        for index in 0..count {
            let reply = messages::PgLog {
                interval: self.interval().0,
                info: Some(self.info.encode()),
                entries: entries.by_ref().take(most).collect(),
                tail: encode_version(tail),
                missing: missing.by_ref().take(most).collect(),
                piece: Some(messages::Piece { transfer, index: index as u32, last: index + 1 == count }),
            };
            self.send(ctx, from, reply);
        }
    }

    /// Primary: a piece of a log that was asked for.
    pub(crate) fn on_log(&mut self, ctx: &mut PgContext<'_>, from: OsdId, message: messages::PgLog) {
        let wanted = match self.state() {
            State::GetLog { from: auth } => *auth == from,
            State::GetMissing { waiting } => waiting.contains(&from),
            _ => false,
        };
        if !wanted {
            return;
        }
        let (Some(piece), pieces) = (message.piece, self.incoming.entry(from).or_default()) else { return };
        let Some((entries, missing)) = pieces.take(piece, message.entries, message.missing) else { return };
        let log = PgLog::decode(decode_version(message.tail), &entries).and_then(PgLog::unbroken);
        let missing = MissingSet::decode(&missing);
        let (log, missing) = match (log, missing) {
            (Ok(log), Ok(missing)) => (log, missing),
            (Err(error), _) | (_, Err(error)) => {
                let text = format!("PG {}: the log of {from} is damaged: {error}", self.id);
                return ctx.log(LogLevel::Error, text);
            }
        };
        match self.state() {
            State::GetLog { .. } => self.take_authoritative_log(ctx, from, &log, missing),
            _ => self.take_member_log(ctx, from, log, missing),
        }
    }

    fn take_authoritative_log(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        auth: &PgLog,
        auth_missing: MissingSet,
    ) {
        let peer_info = self.peers.get(&from).map(|peer| peer.info.clone());
        let Some(peer_info) = peer_info.filter(|info| info.last_update == auth.head()) else {
            // Not the answer of the copy that was chosen: ask anew.
            return self.start_get_info(ctx);
        };
        let mark = self.info.last_backfill.clone();
        let seen_to = self.seen_to();
        match merge_authoritative(&mut self.log, &mut self.missing, &mark, auth, seen_to) {
            Ok(merged) => {
                let mut t = Transaction::new(self.id);
                self.note_removals(ctx, &mut t, &merged.remove);
                persist::merged(&mut t, &merged, &self.log, &self.missing);
                if !self.info.exists {
                    self.info.exists = true;
                    self.info.history.merge(&peer_info.history);
                }
                // With its log, what that copy knew is known here: else an interval too small to write in would record less.
                let info = &mut self.info;
                info.last_epoch_started = info.last_epoch_started.max(peer_info.last_epoch_started);
                info.last_interval_started = info.last_interval_started.max(peer_info.last_interval_started);
                self.info.follow(&self.log, &self.missing);
                self.write_info(&mut t);
                ctx.submit_unwatched(t);
            }
            Err(error) if !self.full_log_wanted => {
                ctx.log(LogLevel::Info, format!("PG {}: asking {from} for its whole log: {error}", self.id));
                self.full_log_wanted = true;
                return self.request_log(ctx);
            }
            Err(error) => {
                let text = format!("PG {}: the log of {from} does not meet the one here: {error}", self.id);
                ctx.log(LogLevel::Error, text);
                return self.enter(ctx, State::Incomplete { needs: Needs::MatchingLog(from) });
            }
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.missing = auth_missing;
            peer.missing_known = true;
        }
        self.start_get_missing(ctx);
    }
}
