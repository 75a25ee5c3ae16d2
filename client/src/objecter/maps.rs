//! Following the osdmap and the monmap: subscribing at whichever monitor answers, applying what comes.

use super::Objecter;
use super::call::{Ask, Call, State};
use crate::ClientEffect;
use nacre_maps::{Incremental, MonMap, OsdMap};
use nacre_types::{Epoch, Instant, Outbox};
use nacre_wire::messages::{LogLevel, MapRequest, Maps, Subscribe};
use nacre_wire::{Address, ErrorCode, OpError, Packet, SessionId};
use std::rc::Rc;
use std::time::Duration;

/// How often a client without a map asks for one.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// How often it renews its subscription, in case its monitor was replaced unnoticed.
const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// Least time between two requests for a newer map that somebody has mentioned.
const CATCH_UP_PERIOD: Duration = Duration::from_millis(200);
/// One monitor may not know yet a client that was made a moment ago; what is refused so often is meant.
const REFUSALS_BELIEVED: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Following {
    pub(super) osdmap: Option<Rc<OsdMap>>,
    pub(super) monmap: Option<MonMap>,
    pub(super) next_subscribe: Instant,
    /// Newest epoch anybody has mentioned.
    pub(super) newest_seen: Epoch,
    /// The map has to come whole: an incremental did not fit.
    pub(super) need_full: bool,
    /// When a monitor last said anything.
    pub(super) mon_heard: Option<Instant>,
    /// Why no monitor could be reached, if that was so lately.
    pub(super) unreachable: Option<String>,
    /// And whether because certificates are not accepted.
    pub(super) rejected: bool,
    /// Subscriptions refused since maps last came.
    pub(super) refusals: u32,
}

impl Following {
    pub(super) fn epoch(&self) -> Epoch {
        self.osdmap.as_ref().map_or(Epoch::ZERO, |map| map.epoch())
    }
}

impl Objecter {
    pub(super) fn subscribe(&mut self, now: Instant, out: &mut Outbox<ClientEffect>) {
        let following = &mut self.following;
        let settled = following.osdmap.is_some() && following.newest_seen <= following.epoch();
        following.next_subscribe = now + if settled { RENEW_PERIOD } else { ASK_PERIOD };
        let epoch = following.epoch();
        let message = Subscribe {
            osdmap: if following.need_full { 0 } else { epoch.0 },
            monmap: following.monmap.as_ref().map_or(0, |map| map.epoch.0),
            ..Subscribe::default()
        };
        out.push(ClientEffect::Send { to: Address::AnyMon, packet: Packet::new(epoch, message) });
    }

    /// Somebody's map is at `epoch`: gets it, from there if it is an OSD, and from the monitors.
    pub(super) fn heard_of(
        &mut self,
        now: Instant,
        epoch: Epoch,
        osd: Option<SessionId>,
        out: &mut Outbox<ClientEffect>,
    ) {
        let mine = self.following.epoch();
        if epoch <= mine || epoch <= self.following.newest_seen {
            return;
        }
        self.following.newest_seen = epoch;
        if let Some(session) = osd
            && mine > Epoch::ZERO
        {
            let packet = Packet::new(mine, MapRequest { after: mine.0, full: false });
            out.push(ClientEffect::Send { to: Address::Session(session), packet });
        }
        let soon = now + CATCH_UP_PERIOD;
        self.following.next_subscribe = self.following.next_subscribe.min(soon);
    }

    /// What needs the monitors keeps trying, unless it is certain that they will not have us.
    pub(super) fn on_unreachable(
        &mut self,
        now: Instant,
        reason: String,
        rejected: bool,
        out: &mut Outbox<ClientEffect>,
    ) {
        if rejected {
            let text = format!("no monitor can be used: {reason}");
            self.fail_waiting(now, &OpError::new(ErrorCode::NotPermitted, text), out);
        }
        self.following.unreachable = Some(reason);
        self.following.rejected = rejected;
    }

    /// The monitors give us no maps: what waits for one waits in vain.
    pub(super) fn subscription_refused(
        &mut self,
        now: Instant,
        error: &OpError,
        out: &mut Outbox<ClientEffect>,
    ) {
        self.following.refusals += 1;
        if self.following.refusals < REFUSALS_BELIEVED {
            return;
        }
        self.fail_waiting(now, error, out);
    }

    /// Fails what waits for the monitors. Operations that an osdmap is there for may yet be done.
    fn fail_waiting(&mut self, now: Instant, error: &OpError, out: &mut Outbox<ClientEffect>) {
        let mapless = self.following.osdmap.is_none();
        let waits = |call: &Call| match call.ask {
            Ask::Map(_) | Ask::Monitors(_) => true,
            _ => mapless && matches!(call.state, State::Unroutable(_)),
        };
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| waits(call)).map(|(seq, _)| *seq).collect();
        for seq in waiting {
            self.finish(now, seq, Err(error.clone()), out);
        }
    }

    pub(super) fn on_maps(&mut self, now: Instant, maps: Maps, out: &mut Outbox<ClientEffect>) {
        if !maps.fsid.is_empty() && maps.fsid != self.config.fsid {
            let text = format!("ignored maps of another cluster ({}): wrong monitor address?", maps.fsid);
            out.push(ClientEffect::Log { level: LogLevel::Error, text });
            return;
        }
        self.following.refusals = 0;
        if let Some(bytes) = &maps.monmap {
            match MonMap::decode(bytes) {
                Ok(map) if self.following.monmap.as_ref().is_none_or(|mine| mine.epoch < map.epoch) => {
                    self.following.monmap = Some(map);
                }
                Ok(_) => {}
                Err(error) => log(out, format!("ignored a monmap: {error}")),
            }
        }
        let before = self.following.epoch();
        let mut map = self.following.osdmap.clone();
        if let Some(bytes) = &maps.osdmap {
            match OsdMap::decode(bytes) {
                Ok(full) if full.epoch() > before || self.following.need_full => {
                    map = Some(Rc::new(full));
                    self.following.need_full = false;
                }
                Ok(_) => {}
                Err(error) => log(out, format!("ignored an osdmap: {error}")),
            }
        }
        for bytes in &maps.incrementals {
            let step = match Incremental::decode(bytes) {
                Ok(step) => step,
                Err(error) => {
                    log(out, format!("ignored an osdmap incremental: {error}"));
                    break;
                }
            };
            let Some(base) = &map else { break };
            if step.epoch <= base.epoch() {
                continue;
            }
            match base.apply(&step) {
                Ok(next) => map = Some(Rc::new(next)),
                Err(error) => {
                    log(out, format!("asks for a whole osdmap: {error}"));
                    self.following.need_full = true;
                    self.following.next_subscribe = now;
                    break;
                }
            }
        }
        self.following.newest_seen = self.following.newest_seen.max(Epoch(maps.newest));
        let Some(map) = map else { return };
        if map.epoch() != before {
            self.following.osdmap = Some(map);
            self.map_changed(now, out);
        }
    }
}

fn log(out: &mut Outbox<ClientEffect>, text: String) {
    out.push(ClientEffect::Log { level: LogLevel::Warning, text });
}
