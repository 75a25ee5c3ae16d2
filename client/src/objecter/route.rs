//! From an object or PG to the OSD that serves it now, by the cached osdmap.

use super::call::Ask;
use nacre_maps::{Flag, OsdMap};
use nacre_types::{Needs, OsdId, PgId};
use nacre_wire::{ErrorCode, OpError};

/// Where a call goes, and all that may change about it: another route means that it must be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) pg: Option<PgId>,
    pub(crate) osd: OsdId,
    /// Which run of the OSD.
    instance: u64,
    /// Stands for the PG's interval: its up and acting set.
    interval: u64,
}

pub(crate) enum Routed {
    To(Route),
    /// Not now, and what for.
    Wait(Needs),
    Never(OpError),
}

pub(crate) fn route(map: &OsdMap, ask: &Ask) -> Routed {
    let pg = match ask {
        Ask::Object { object, .. } => match map.object_pg(object) {
            Some(pg) => pg,
            None => return no_pool(object.pool.0),
        },
        Ask::Pg { pg, .. } | Ask::PgAdmin { pg, .. } => *pg,
        Ask::Osd { osd, .. } | Ask::OsdAt { osd, .. } => return to_osd(map, *osd),
        Ask::Monitors(_) | Ask::Map(_) | Ask::Sleep => unreachable!("no OSD serves it"),
    };
    if map.flags().contains(Flag::Pause) && !matches!(ask, Ask::PgAdmin { .. }) {
        return Routed::Wait(Needs::Flag(Flag::Pause.as_str().into()));
    }
    let Some(placement) = map.pg(pg) else {
        return match map.pool(pg.pool) {
            None => no_pool(pg.pool.0),
            Some(pool) => Routed::Never(OpError::new(
                ErrorCode::NotFound,
                format!("there is no PG {pg}: its pool has {} PGs", pool.pg_num),
            )),
        };
    };
    let Some(primary) = placement.primary() else { return Routed::Wait(nobody_up(map, pg)) };
    let Some(info) = map.osd(primary).filter(|info| info.up) else {
        return Routed::Wait(Needs::OsdUp { osd: primary, pg: Some(pg) });
    };
    let members = placement.up.iter().map(|osd| u64::from(osd.0));
    let members = members.chain([u64::MAX]).chain(placement.acting.iter().map(|osd| u64::from(osd.0)));
    let interval = members.fold(0xcbf2_9ce4_8422_2325_u64, |hash, member| {
        (hash ^ member.wrapping_add(1)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Routed::To(Route { pg: Some(pg), osd: primary, instance: info.instance, interval })
}

fn to_osd(map: &OsdMap, osd: OsdId) -> Routed {
    match map.osd(osd) {
        None => Routed::Never(OpError::new(ErrorCode::NotFound, format!("there is no {osd}"))),
        Some(info) if !info.up => Routed::Wait(Needs::OsdUp { osd, pg: None }),
        Some(info) => Routed::To(Route { pg: None, osd, instance: info.instance, interval: 0 }),
    }
}

fn no_pool(pool: u32) -> Routed {
    Routed::Never(OpError::new(ErrorCode::NotFound, format!("pool {pool} does not exist any more")))
}

fn nobody_up(map: &OsdMap, pg: PgId) -> Needs {
    Needs::AnyOsdUp { pg, down: map.osds().filter(|(_, info)| !info.up).map(|(id, _)| id).collect() }
}
