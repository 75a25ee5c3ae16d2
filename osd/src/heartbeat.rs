//! Who answers: pings to the OSDs that share PGs with this one and a few others, and reports of those that do not.
//!
//! A driver must not answer pings on the machine's behalf: that a `Pong` left means that the reactor has turned.

use crate::Tunables;
use nacre_maps::OsdMap;
use nacre_types::{Instant, OsdId, Rng};
use nacre_wire::messages::{OsdFailure, Ping, Pong};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
struct Watched {
    instance: u64,
    /// When it was last heard, or began to be watched.
    heard: Instant,
    /// Nothing listens at its address.
    refused: bool,
    reported: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Heartbeat {
    peers: BTreeMap<OsdId, Watched>,
    next_round: Instant,
    extra: BTreeSet<OsdId>,
}

/// What a round comes to.
#[derive(Debug, Default)]
pub struct Round {
    pub pings: Vec<Ping>,
    pub reports: Vec<OsdFailure>,
}

impl Heartbeat {
    pub fn next_deadline(&self) -> Instant {
        self.next_round
    }

    /// Peers with when they were last heard, and whether nothing listens at their address.
    pub fn watched(&self) -> impl Iterator<Item = (OsdId, Instant, bool)> + '_ {
        self.peers.iter().map(|(&osd, watched)| (osd, watched.heard, watched.refused))
    }

    pub fn peers(&self) -> impl Iterator<Item = (OsdId, Instant)> + '_ {
        self.peers.iter().map(|(&osd, watched)| (osd, watched.heard))
    }

    /// Whom to watch from now on: `sharing`, and a few others chosen at random once.
    pub fn watch(
        &mut self,
        me: OsdId,
        map: &OsdMap,
        sharing: &BTreeSet<OsdId>,
        tunables: &Tunables,
        rng: &mut Rng,
        now: Instant,
    ) {
        self.extra.retain(|&osd| map.is_up(osd) && !sharing.contains(&osd));
        if self.extra.len() < tunables.heartbeat_extra_peers {
            let others = map.osds().filter(|(_, info)| info.up).map(|(osd, _)| osd);
            let mut others: Vec<OsdId> = others
                .filter(|osd| *osd != me && !sharing.contains(osd) && !self.extra.contains(osd))
                .collect();
            rng.shuffle(&mut others);
            others.truncate(tunables.heartbeat_extra_peers - self.extra.len());
            self.extra.extend(others);
        }
        let wanted: BTreeMap<OsdId, u64> = sharing
            .iter()
            .chain(&self.extra)
            .filter(|&&osd| osd != me)
            .filter_map(|&osd| map.osd(osd).filter(|info| info.up).map(|info| (osd, info.instance)))
            .collect();
        self.peers.retain(|osd, watched| wanted.get(osd) == Some(&watched.instance));
        for (osd, instance) in wanted {
            let fresh = Watched { instance, heard: now, refused: false, reported: None };
            self.peers.entry(osd).or_insert(fresh);
        }
    }

    /// Pings whose time has come, and reports on the silent.
    pub fn round(&mut self, me: OsdId, instance: u64, tunables: &Tunables, now: Instant) -> Round {
        let mut round = Round::default();
        if now < self.next_round {
            return round;
        }
        self.next_round = now + tunables.heartbeat_interval;
        for (&osd, watched) in &mut self.peers {
            round.pings.push(Ping {
                sent_ns: now.0,
                from: me.0,
                from_instance: instance,
                to: osd.0,
                to_instance: watched.instance,
            });
            let silent = now.since(watched.heard);
            if silent >= tunables.heartbeat_grace || watched.refused {
                watched.reported = Some(now);
                round.reports.push(report(me, osd, watched, now, false));
            }
        }
        round
    }

    /// A peer has answered. Returns what to tell the monitors if it had been reported.
    pub fn on_pong(&mut self, me: OsdId, pong: &Pong, now: Instant) -> Option<OsdFailure> {
        let osd = OsdId(pong.from);
        let watched = self.peers.get_mut(&osd).filter(|watched| watched.instance == pong.from_instance)?;
        // The echo bounds how old the sign of life is.
        watched.heard = watched.heard.max(Instant(pong.sent_ns).min(now));
        watched.refused = false;
        watched.reported.take()?;
        Some(report(me, osd, watched, now, true))
    }

    /// Nothing listens at a peer's address: reported at once.
    pub fn on_refused(&mut self, me: OsdId, osd: OsdId, now: Instant) -> Option<OsdFailure> {
        let watched = self.peers.get_mut(&osd)?;
        let first = !std::mem::replace(&mut watched.refused, true);
        watched.reported = Some(now);
        first.then(|| report(me, osd, watched, now, false))
    }

    /// This OSD was stalled itself: silence until now proves nothing.
    pub fn forgive(&mut self, now: Instant) {
        for watched in self.peers.values_mut() {
            watched.heard = now;
        }
    }
}

fn report(me: OsdId, osd: OsdId, watched: &Watched, now: Instant, recovered: bool) -> OsdFailure {
    OsdFailure {
        reporter: me.0,
        failed: osd.0,
        failed_instance: watched.instance,
        silent_ms: now.since(watched.heard).as_millis() as u64,
        recovered,
        refused: watched.refused && !recovered,
    }
}
