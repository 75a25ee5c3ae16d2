//! What OSDs ask for, as changes of the osdmap. Each is checked against the map as it will be: a message that comes
//! late, twice, or from a run that is not the one that is up changes nothing.

use crate::draft::Draft;
use crate::placement;
use nacre_maps::{Flag, WEIGHT_IN};
use nacre_types::{Epoch, OsdId, PgId};
use nacre_wire::messages::{LogLevel, OsdAlive, OsdBoot, OsdPgTemp, OsdStopping};
use raft::eraftpb::ConfChangeType;

/// Members of an acting set that may be asked for.
const ACTING_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Booted {
    Done,
    /// It stays down, and why: for people who ask.
    Refused(String),
    /// Another run of it is up: that goes down in this epoch, so that intervals end, and the boot comes after.
    GoesDownFirst,
}

pub(crate) fn boot(draft: &mut Draft<'_>, boot: &OsdBoot) -> Booted {
    let id = OsdId(boot.osd);
    let Some(info) = draft.osd(id) else {
        let text = format!(
            "{id} wants to boot but was never made or is purged: run `nacre osd format` for its disk"
        );
        draft.log(LogLevel::Warning, "mon", text.clone());
        return Booted::Refused(text);
    };
    if info.uuid != boot.uuid {
        let text = format!(
            "{id} wants to boot with disk {}, but {id} is disk {}: was the disk formatted anew?",
            short(&boot.uuid),
            info.uuid
        );
        draft.log(LogLevel::Warning, "mon", text.clone());
        return Booted::Refused(text);
    }
    if info.up {
        if info.instance == boot.instance && info.address == boot.address {
            return Booted::Done;
        }
        mark_down(draft, id, &format!("{id} goes down: it has been restarted"));
        return Booted::GoesDownFirst;
    }
    // A run that was marked down in this very batch comes up in the next: an epoch must show it down.
    if draft.state.osdmap.is_up(id) {
        return Booted::GoesDownFirst;
    }
    if draft.flags().contains(Flag::NoUp) {
        return Booted::Refused(format!("the flag {} is set", Flag::NoUp.as_str()));
    }
    if boot.address.is_empty() || boot.address.len() > 256 {
        return Booted::Refused(format!("its address has {} bytes", boot.address.len()));
    }
    if let Err(reason) = placement::boot(draft, boot) {
        draft.log(LogLevel::Warning, "mon", format!("{id} is not put into the CRUSH map: {reason}"));
    }
    let (epoch, no_in) = (draft.epoch(), draft.flags().contains(Flag::NoIn));
    let mut text = format!("{id} is up at {} on host {}", boot.address, short(&boot.host));
    if let Some(info) = draft.osd_mut(id) {
        if !info.booted && !no_in && !info.is_in() {
            info.weight = WEIGHT_IN;
            text.push_str(", and in");
        } else if info.auto_out && !info.is_in() {
            info.weight = if info.weight_before_out == 0 { WEIGHT_IN } else { info.weight_before_out };
            text.push_str(", and in again");
        }
        info.auto_out = false;
        info.mark_up(epoch);
        info.address = boot.address.clone();
        info.instance = boot.instance;
        info.host = short(&boot.host);
        info.device_class = short(&boot.device_class);
        info.version = short(&boot.version);
        info.capacity_bytes = boot.capacity_bytes;
    }
    draft.log(LogLevel::Info, "mon", text);
    Booted::Done
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(crate) fn mark_down(draft: &mut Draft<'_>, id: OsdId, text: &str) {
    let (epoch, at_ms) = (draft.epoch(), draft.at_ms);
    if let Some(info) = draft.osd_mut(id) {
        info.mark_down(epoch, at_ms);
        draft.log(LogLevel::Info, "mon", text);
    }
}

pub(crate) fn alive(draft: &mut Draft<'_>, alive: &OsdAlive) {
    let id = OsdId(alive.osd);
    let (epoch, want) = (draft.epoch(), Epoch(alive.want_up_thru));
    let up =
        draft.osd(id).is_some_and(|info| info.up && info.instance == alive.instance && info.up_thru() < want);
    // Nobody is alive in an epoch that does not exist yet.
    if up
        && want < epoch
        && let Some(info) = draft.osd_mut(id)
    {
        info.set_up_thru(want);
    }
}

pub(crate) fn stopping(draft: &mut Draft<'_>, stopping: &OsdStopping) {
    let id = OsdId(stopping.osd);
    if draft.osd(id).is_some_and(|info| info.up && info.instance == stopping.instance) {
        let why: String = stopping.reason.chars().take(200).collect();
        mark_down(draft, id, &format!("{id} goes down in order: {why}"));
    }
}

pub(crate) fn failed(draft: &mut Draft<'_>, id: OsdId, instance: u64, why: &str) {
    let no_down = draft.flags().contains(Flag::NoDown);
    if !no_down && draft.osd(id).is_some_and(|info| info.up && info.instance == instance) {
        let (epoch, at_ms) = (draft.epoch(), draft.at_ms);
        if let Some(info) = draft.osd_mut(id) {
            info.mark_down(epoch, at_ms);
        }
        draft.log(LogLevel::Warning, "mon", format!("{id} is marked down: {why}"));
    }
}

pub(crate) fn pg_temp(draft: &mut Draft<'_>, wants: &OsdPgTemp) {
    let from = OsdId(wants.osd);
    if !draft.osd(from).is_some_and(|info| info.up) {
        return;
    }
    for want in &wants.wants {
        let pg = PgId::from_u64(want.pg);
        let acting: Vec<OsdId> = want.acting.iter().map(|&id| OsdId(id)).collect();
        let unique: std::collections::BTreeSet<OsdId> = acting.iter().copied().collect();
        let known = |id: &OsdId| draft.osd(*id).is_some_and(|info| info.up);
        if !draft.pg_exists(pg)
            || acting.len() > ACTING_MAX
            || unique.len() != acting.len()
            || !acting.iter().all(known)
        {
            continue;
        }
        let map = &draft.state.osdmap;
        // Only who serves the PG, or is to serve it, may ask.
        let Some(place) = map.pg(pg) else { continue };
        if place.primary() != Some(from) && place.up_primary() != Some(from) {
            continue;
        }
        let now = map.pg_temp().get(&pg);
        let acting = if acting == place.up { Vec::new() } else { acting };
        if now.map_or(&[][..], Vec::as_slice) != acting {
            draft.step.pg_temp.insert(pg, acting);
        } else {
            draft.step.pg_temp.remove(&pg);
        }
    }
}

pub(crate) fn promote(draft: &mut Draft<'_>, raft_id: u64) {
    let Some(name) = draft.monmap().name_of(raft_id).map(String::from) else { return };
    let monmap = draft.monmap().clone();
    draft.set_monmap(monmap, ConfChangeType::AddNode, raft_id);
    draft.log(LogLevel::Info, "mon", format!("mon.{name} has caught up and votes from now on"));
}
