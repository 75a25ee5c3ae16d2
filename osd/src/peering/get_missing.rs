//! GetMissing: learn what each member will lack once it has merged the authoritative log.

use crate::log::{BackfillMark, MissingSet, PeerLog, PgLog, encode_version, process_replica_log};
use crate::pg::{Pg, PgContext, State};
use nacre_types::{EVersion, OsdId};
use nacre_wire::messages::{LogLevel, PgLogRequest};
use std::collections::BTreeSet;

impl Pg {
    pub(crate) fn start_get_missing(&mut self, ctx: &mut PgContext<'_>) {
        let mut waiting = BTreeSet::new();
        for osd in self.replicas() {
            if self.is_filled_anew(osd) {
                continue;
            }
            let head = self.log.head();
            let Some(peer) = self.peers.get_mut(&osd) else { continue };
            if peer.info.last_update == head && peer.info.missing_count == 0 {
                (peer.missing, peer.missing_known) = (MissingSet::new(), true);
                peer.common = Some(head);
            } else if peer.info.last_update == EVersion::ZERO && peer.info.missing_count == 0 {
                let log = PgLog::new(EVersion::ZERO);
                let last_backfill = peer.info.last_backfill.clone();
                if !self.judge(ctx, osd, PeerLog { log, missing: MissingSet::new(), last_backfill }) {
                    return;
                }
            } else {
                waiting.insert(osd);
            }
        }
        // Others may hold an earlier version of what the members will find nowhere, or know that it was never shown.
        let (members, started) = (self.replicas(), self.best.map(|best| best.started));
        let others = self.peers.iter().filter(|(osd, peer)| {
            !members.contains(osd)
                && peer.info.missing_count > 0
                && Some(peer.info.last_epoch_started) >= started
        });
        waiting.extend(others.map(|(&osd, _)| osd));
        self.enter(ctx, State::GetMissing { waiting: waiting.clone() });
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        self.request_missing(ctx);
        if waiting.is_empty() {
            self.missing_is_known(ctx);
        }
    }

    /// Whether a peer starts with nothing: all of it comes by backfill.
    pub(crate) fn is_filled_anew(&self, osd: OsdId) -> bool {
        self.backfill_targets.contains(&osd)
            && self.peers.get(&osd).is_none_or(|peer| {
                peer.info.last_update < self.log.tail() || peer.info.last_backfill == BackfillMark::START
            })
    }

    pub(crate) fn request_missing(&mut self, ctx: &mut PgContext<'_>) {
        let State::GetMissing { waiting } = self.state().clone() else { return };
        for osd in waiting {
            let Some(peer) = self.peers.get(&osd) else { continue };
            // Everything since its last start, so that diverged entries are seen; at least down to where both logs reach.
            let since = EVersion::new(peer.info.last_epoch_started, 0).min(self.log.head());
            let full = self.full_log_wanted || since < peer.info.log_tail || since < self.log.tail();
            let request = PgLogRequest { interval: self.interval().0, since: encode_version(since), full };
            self.send(ctx, osd, request);
        }
    }

    pub(crate) fn take_member_log(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        log: PgLog,
        mut missing: MissingSet,
    ) {
        let State::GetMissing { mut waiting } = self.state().clone() else { return };
        let Some(peer) = self.peers.get(&from) else { return };
        if self.best.is_none_or(|best| peer.info.last_epoch_started < best.started) {
            missing.all_seen();
        }
        let last_backfill = peer.info.last_backfill.clone();
        if !self.judge(ctx, from, PeerLog { log, missing, last_backfill }) {
            return;
        }
        waiting.remove(&from);
        let done = waiting.is_empty();
        self.enter(ctx, State::GetMissing { waiting });
        if done {
            self.missing_is_known(ctx);
        }
    }

    /// Works out what a member will miss. False if its log does not meet the authoritative one (yet).
    fn judge(&mut self, ctx: &mut PgContext<'_>, osd: OsdId, theirs: PeerLog) -> bool {
        match process_replica_log(&self.log, theirs, self.seen_to()) {
            Ok(state) => {
                if let Some(peer) = self.peers.get_mut(&osd) {
                    (peer.missing, peer.missing_known) = (state.missing, true);
                    peer.common = Some(state.common);
                }
                true
            }
            // It takes no part: nobody relies on it.
            Err(_) if !self.replicas().contains(&osd) => true,
            Err(error) => {
                let text =
                    format!("PG {}: {osd} cannot follow by log, it is to be filled anew: {error}", self.id);
                if self.full_log_wanted || self.peers.get(&osd).is_none_or(|peer| !peer.info.exists) {
                    ctx.log(LogLevel::Warning, text);
                    if let Some(peer) = self.peers.get_mut(&osd) {
                        // As if it had nothing: the next choice makes it a backfill target.
                        peer.info.last_update = EVersion::ZERO;
                        peer.info.last_backfill = BackfillMark::START;
                    }
                    self.start_get_info(ctx);
                } else {
                    self.full_log_wanted = true;
                    self.request_missing(ctx);
                }
                false
            }
        }
    }

    fn missing_is_known(&mut self, ctx: &mut PgContext<'_>) {
        if self.has_up_thru(ctx) {
            self.activate(ctx);
        } else {
            self.enter(ctx, State::WaitUpThru);
            self.want_up_thru(ctx);
        }
    }
}
