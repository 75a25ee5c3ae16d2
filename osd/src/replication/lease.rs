//! Read leases (invariant I6).
//!
//! A primary serves reads while every acting member has, within the lease's duration, promised not to help another
//! primary sooner. A new primary waits until the promises it hears of have run out, or their holder has itself joined
//! the new interval (and thereby given them up); while it waits, so do its members, should one of them lead next. Only
//! durations cross the wire; clocks may drift by [`DRIFT_DIVISOR`].
//!
//! A member promises only once it has recorded the interval, and with it whom it promises to: so after a restart it
//! knows who may hold a promise of it, if not until when.

use crate::pg::{Pg, PgContext, State};
use nacre_maps::OsdMap;
use nacre_types::{Instant, OsdId, mutant};
use nacre_wire::messages::{Lease as LeaseMessage, LeaseAck};
use std::collections::BTreeMap;
use std::time::Duration;

/// Clocks are trusted to run at the same speed to within one part in this.
const DRIFT_DIVISOR: u32 = 50;

#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Primary: when the newest lease that each member has acknowledged was sent.
    acked: BTreeMap<OsdId, Instant>,
    next_renewal: Instant,
    /// Primary of a new interval: what members promised in earlier ones, and to whom.
    prior: BTreeMap<OsdId, Vec<Promise>>,
    /// Member: until when, and to whom, this OSD has promised.
    granted: Vec<Promise>,
}

/// Not to help another primary than `holder` before `end`; to whom it was given may not be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    pub holder: Option<OsdId>,
    pub end: Instant,
}

impl Promise {
    /// Of several to one holder only the longest matters. Members and primaries hand each other all they know, over
    /// and over: kept side by side, they would grow with every interval.
    fn join(self, promises: &mut Vec<Promise>) {
        match promises.iter_mut().find(|promise| promise.holder == self.holder) {
            Some(promise) => promise.end = promise.end.max(self.end),
            None => promises.push(self),
        }
    }
}

impl Lease {
    /// What this OSD promised before it was started: all of it to `holders`, if those are known, for as long as may be.
    pub fn after_restart(now: Instant, duration: Duration, holders: Option<Vec<OsdId>>) -> Lease {
        if mutant!(LeaseForgottenAtRestart) {
            return Lease::default();
        }
        let end = now + with_drift(duration);
        let granted = match holders {
            None => vec![Promise { holder: None, end }],
            Some(holders) => holders.into_iter().map(|osd| Promise { holder: Some(osd), end }).collect(),
        };
        Lease { granted, ..Lease::default() }
    }

    /// What this OSD was told of promises is as good as its own: whoever comes next may hear of them here alone.
    pub fn start_interval(&mut self, now: Instant) {
        self.acked.clear();
        let prior = std::mem::take(&mut self.prior);
        let given_up = |holder: Option<OsdId>| holder.is_some_and(|osd| prior.contains_key(&osd));
        for &promise in prior.values().flatten().filter(|promise| !given_up(promise.holder)) {
            promise.join(&mut self.granted);
        }
        self.next_renewal = Instant::ZERO;
        self.granted.retain(|promise| promise.end > now);
    }

    pub fn grant(&mut self, now: Instant, to: OsdId, duration: Duration) {
        let end = now + with_drift(duration);
        self.granted.retain(|promise| promise.end > now);
        Promise { holder: Some(to), end }.join(&mut self.granted);
    }

    /// This OSD's promises that still run.
    pub fn running(&self, now: Instant) -> impl Iterator<Item = Promise> {
        self.granted.iter().copied().filter(move |promise| promise.end > now)
    }

    /// Whoever may hold a promise that this OSD gave or was told of, besides the current primary; `None` if that is not
    /// known.
    pub fn holders(&self) -> Option<Vec<OsdId>> {
        self.granted.iter().chain(self.prior.values().flatten()).map(|promise| promise.holder).collect()
    }

    /// What a primary still waits for, it hands to its members: to the next one they may be all that is left of it.
    pub fn take_over(&mut self, now: Instant, promises: impl IntoIterator<Item = Promise>) {
        self.granted.retain(|promise| promise.end > now);
        for promise in promises.into_iter().filter(|promise| promise.end > now) {
            let end = now + with_drift(promise.end.since(now));
            Promise { end, ..promise }.join(&mut self.granted);
        }
    }

    pub fn note_prior(&mut self, from: OsdId, promises: Vec<Promise>) {
        self.prior.insert(from, promises);
    }

    /// Until when a new primary must not serve; `joined` says who is known to have given up what it held.
    pub fn prior_end(&self, now: Instant, joined: impl Fn(OsdId) -> bool) -> Option<Instant> {
        self.prior_running(now, joined).map(|promise| promise.end).max()
    }

    fn prior_running(&self, now: Instant, joined: impl Fn(OsdId) -> bool) -> impl Iterator<Item = Promise> {
        let all = self.granted.iter().chain(self.prior.values().flatten()).copied();
        all.filter(move |promise| promise.end > now && !promise.holder.is_some_and(&joined))
    }

    /// Until when reads may be served; with no other member the lease is the primary's own.
    fn valid_until(&self, others: impl Iterator<Item = OsdId>, duration: Duration) -> Instant {
        let mut end = Instant::MAX;
        for osd in others {
            match self.acked.get(&osd) {
                Some(&sent) => end = end.min(sent + duration),
                None => return Instant::ZERO,
            }
        }
        end
    }
}

/// What a member must assume of a lease of that length.
pub(crate) fn with_drift(duration: Duration) -> Duration {
    duration + duration / DRIFT_DIVISOR
}

impl Pg {
    /// Primary: asks all acting members for another lease.
    pub(crate) fn renew_lease(&mut self, ctx: &mut PgContext<'_>) {
        self.lease.next_renewal = ctx.now + ctx.config.tunables.lease_interval;
        let duration_ns = ctx.config.tunables.lease_duration.as_nanos() as u64;
        let message = LeaseMessage { interval: self.interval().0, sent_ns: ctx.now.0, duration_ns };
        for osd in self.members.acting.clone() {
            if osd != self.me {
                self.send(ctx, osd, message.clone());
            }
        }
    }

    fn leads(&self) -> bool {
        matches!(self.state(), State::Activating { .. } | State::Active)
    }

    pub(crate) fn lease_tick(&mut self, ctx: &mut PgContext<'_>) {
        if self.leads() && self.is_primary() && ctx.now >= self.lease.next_renewal {
            self.renew_lease(ctx);
        }
    }

    pub(crate) fn lease_deadline(&self) -> Option<Instant> {
        (self.leads() && self.members.acting.len() > 1).then_some(self.lease.next_renewal)
    }

    /// Member: promises, if the asker is the primary of this interval and that is written down.
    pub(crate) fn on_lease(&mut self, ctx: &mut PgContext<'_>, from: OsdId, lease: &LeaseMessage) {
        if self.members.primary() != Some(from) || from == self.me || *self.state() != State::ReplicaActive {
            return;
        }
        // Longer than configured here would stall a failover for as long as a peer likes.
        let longest = ctx.config.tunables.heartbeat_grace;
        let duration = Duration::from_nanos(lease.duration_ns);
        if duration > longest {
            return;
        }
        self.lease.grant(ctx.now, from, duration);
        self.send(ctx, from, LeaseAck { interval: lease.interval, sent_ns: lease.sent_ns });
    }

    pub(crate) fn on_lease_ack(&mut self, ctx: &mut PgContext<'_>, from: OsdId, ack: &LeaseAck) {
        if !self.is_primary() || !self.leads() {
            return;
        }
        let had = self.may_serve_reads(ctx);
        let sent = Instant(ack.sent_ns).min(ctx.now);
        let newest = self.lease.acked.entry(from).or_default();
        *newest = (*newest).max(sent);
        if !had && self.may_serve_reads(ctx) {
            ctx.requests.kick.insert(self.id);
        }
    }

    pub(crate) fn may_serve_reads(&self, ctx: &PgContext<'_>) -> bool {
        let others = self.members.acting.iter().copied().filter(|&osd| osd != self.me);
        ctx.now < self.lease.valid_until(others, ctx.config.tunables.lease_duration) || mutant!(LeaseIgnored)
    }

    /// Members whose promise is missing or has run out.
    pub(crate) fn lease_lacks(&self, ctx: &PgContext<'_>) -> Vec<OsdId> {
        let duration = ctx.config.tunables.lease_duration;
        let lacks = |osd: &OsdId| self.lease.acked.get(osd).is_none_or(|&sent| ctx.now >= sent + duration);
        self.members.acting.iter().copied().filter(|osd| *osd != self.me && lacks(osd)).collect()
    }

    /// The promises of earlier intervals that it still waits for.
    pub(crate) fn prior_leases(&self, now: Instant) -> Vec<Promise> {
        let joined = |osd| osd == self.me || self.lease.prior.contains_key(&osd);
        let mut promises = Vec::new();
        self.lease.prior_running(now, joined).for_each(|promise| promise.join(&mut promises));
        promises
    }

    /// Whether this OSD would serve reads of the PG at that instant of its clock: never two at once, says I6.
    pub fn serves_reads_at(&self, now: Instant, map: &OsdMap, duration: Duration) -> bool {
        let others = self.members.acting.iter().copied().filter(|&osd| osd != self.me);
        self.is_primary()
            && self.is_active()
            && self.has_min_size(map)
            && self.prior_lease_end(now).is_none()
            && now < self.lease.valid_until(others, duration)
    }

    /// Until when leases of earlier intervals keep this primary from serving.
    pub(crate) fn prior_lease_end(&self, now: Instant) -> Option<Instant> {
        let end = self.lease.prior_end(now, |osd| osd == self.me || self.lease.prior.contains_key(&osd));
        end.filter(|_| !mutant!(PriorLeaseIgnored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DURATION: Duration = Duration::from_millis(3200);

    #[test]
    fn a_new_primary_waits_for_promises_to_others_unless_they_joined() {
        let now = Instant::from_millis(10_000);
        let promise = |holder, end| Promise { holder: Some(OsdId(holder)), end };
        let mut lease = Lease::default();
        lease.note_prior(OsdId(1), vec![promise(7, now + SECOND), promise(6, now + SECOND / 2)]);
        assert_eq!(lease.prior_end(now, |_| false), Some(now + SECOND));
        assert_eq!(lease.prior_end(now, |osd| osd == OsdId(7)), Some(now + SECOND / 2));
        assert_eq!(lease.prior_end(now, |osd| osd >= OsdId(6)), None);
        assert_eq!(lease.prior_end(now + SECOND, |_| false), None);
        lease.grant(now, OsdId(8), DURATION);
        assert!(lease.prior_end(now, |osd| osd == OsdId(7)).is_some_and(|end| end > now + DURATION));
    }

    #[test]
    fn what_a_primary_waits_for_outlives_its_interval() {
        let now = Instant::from_millis(10_000);
        let promise = |holder, end| Promise { holder: Some(OsdId(holder)), end };
        let mut lease = Lease::default();
        lease.note_prior(OsdId(1), vec![promise(7, now + SECOND)]);
        assert_eq!(lease.holders(), Some(vec![OsdId(7)]));
        lease.start_interval(now);
        assert_eq!(lease.prior_end(now, |_| false), Some(now + SECOND));
        assert_eq!(lease.running(now).collect::<Vec<_>>(), [promise(7, now + SECOND)]);
        let mut member = Lease::default();
        member.take_over(now, [promise(7, now + SECOND), promise(8, now)]);
        assert!(member.running(now).all(|promise| promise.end > now + SECOND));
        assert_eq!(member.prior_end(now, |osd| osd == OsdId(7)), None);
        // Who took part itself has given up what it held.
        lease.note_prior(OsdId(2), vec![promise(8, now + SECOND * 2)]);
        lease.note_prior(OsdId(8), Vec::new());
        lease.start_interval(now);
        assert_eq!(lease.prior_end(now, |_| false), Some(now + SECOND));
    }

    #[test]
    fn promises_handed_on_again_and_again_do_not_multiply() {
        let mut now = Instant::from_millis(10_000);
        let mut lease = Lease::default();
        lease.grant(now, OsdId(9), DURATION);
        for _ in 0..20 {
            let told: Vec<Promise> = lease.running(now).chain(lease.running(now)).collect();
            lease.note_prior(OsdId(1), told.clone());
            lease.note_prior(OsdId(2), told.clone());
            lease.start_interval(now);
            lease.take_over(now, told);
            now = now + DURATION / 100;
            assert_eq!(lease.running(now).count(), 1);
        }
        assert!(lease.prior_end(now, |_| false).is_some_and(|end| end >= now + DURATION * 3 / 4));
    }

    #[test]
    fn after_a_restart_all_who_may_hold_a_promise_may_hold_a_whole_one() {
        let now = Instant::from_millis(5);
        let unknown = Lease::after_restart(now, DURATION, None);
        assert_eq!(unknown.holders(), None);
        assert!(unknown.prior_end(now, |_| true).is_some());
        let known = Lease::after_restart(now, DURATION, Some(vec![OsdId(3), OsdId(4)]));
        assert!(known.running(now).all(|promise| promise.end > now + DURATION));
        assert!(known.prior_end(now, |osd| osd == OsdId(3)).is_some());
        assert_eq!(known.prior_end(now, |osd| osd == OsdId(3) || osd == OsdId(4)), None);
        assert_eq!(Lease::after_restart(now, DURATION, Some(Vec::new())).prior_end(now, |_| false), None);
    }

    #[test]
    fn reads_need_the_promise_of_every_member() {
        let mut lease = Lease::default();
        let others = || [OsdId(1), OsdId(2)].into_iter();
        lease.acked.insert(OsdId(1), Instant::from_millis(1000));
        assert_eq!(lease.valid_until(others(), DURATION), Instant::ZERO);
        lease.acked.insert(OsdId(2), Instant::from_millis(400));
        assert_eq!(lease.valid_until(others(), DURATION), Instant::from_millis(3600));
        assert_eq!(lease.valid_until([].into_iter(), DURATION), Instant::MAX);
    }
}
