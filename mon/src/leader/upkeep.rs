//! What the leader does about the cluster unasked, twice a second: mark out what stays down, mark down who went silent,
//! watch fullness and quotas, let blocklist entries run out.

use super::{Frame, Memory};
use crate::draft::Draft;
use crate::options::{mon_number, mon_text};
use crate::placement;
use nacre_maps::{Flag, OsdInfo, Pool, WEIGHT_OUT};
use nacre_types::{ClientId, OsdId, PgId, PoolId};
use nacre_wire::messages::LogLevel;
use std::time::Duration;

/// Fullness must fall that far below a limit (in thousandths) before it counts as passed.
const HYSTERESIS_PERMILLE: u64 = 10;

pub(crate) fn look_after(draft: &mut Draft<'_>, memory: &mut Memory, frame: &Frame<'_>) {
    mark_out(draft, memory, frame);
    mark_silent_down(draft, memory, frame);
    watch_full(draft, memory);
    watch_quotas(draft, memory);
    watch_starts(draft, memory);
    expire_blocklist(draft);
}

fn mark_out(draft: &mut Draft<'_>, memory: &Memory, frame: &Frame<'_>) {
    let config = &draft.state.config;
    let interval = mon_number(config, frame.me, "mon_osd_down_out_interval");
    if interval == 0 || draft.flags().contains(Flag::NoOut) {
        return;
    }
    let interval = Duration::from_secs(interval);
    let limit = mon_text(config, frame.me, "mon_osd_down_out_subtree_limit").to_string();
    let min_in = mon_number(config, frame.me, "mon_osd_min_in_ratio");
    let due = |(id, since): (&OsdId, &nacre_types::Instant)| {
        let down = draft.osd(*id).is_some_and(|info| !info.up && info.is_in());
        (down && frame.now.since(*since) >= interval).then_some(*id)
    };
    let due: Vec<OsdId> = memory.down_since.iter().filter_map(due).collect();
    for id in due {
        let all = draft.osds().count() as u64;
        let stay_in = draft.osds().filter(|(_, info)| info.is_in()).count() as u64 - 1;
        if stay_in * 1000 < min_in * all {
            return;
        }
        if placement::subtree_is_down(draft, id, &limit) {
            continue;
        }
        if let Some(info) = draft.osd_mut(id) {
            info.weight_before_out = info.weight;
            info.weight = WEIGHT_OUT;
            info.auto_out = true;
        }
        let text =
            format!("{id} is marked out: down for {} s; its data is copied elsewhere", interval.as_secs());
        draft.log(LogLevel::Warning, "mon", text);
    }
}

/// Peers report who is silent; this is for an OSD that has no peer left.
fn mark_silent_down(draft: &mut Draft<'_>, memory: &Memory, frame: &Frame<'_>) {
    let timeout = Duration::from_secs(mon_number(&draft.state.config, frame.me, "mon_osd_report_timeout"));
    if draft.flags().contains(Flag::NoDown) || frame.now.since(memory.since) < timeout {
        return;
    }
    let silent = |(id, up): (&OsdId, &nacre_types::Instant)| {
        let heard = memory.osds.get(id).map_or(*up, |report| report.at.max(*up));
        (draft.osd(*id).is_some_and(|info| info.up) && frame.now.since(heard) > timeout).then_some(*id)
    };
    let silent: Vec<OsdId> = memory.up_since.iter().filter_map(silent).collect();
    for id in silent {
        let (epoch, at_ms) = (draft.epoch(), draft.at_ms);
        if let Some(info) = draft.osd_mut(id) {
            info.mark_down(epoch, at_ms);
        }
        let text = format!("{id} is marked down: no report from it for {} s", timeout.as_secs());
        draft.log(LogLevel::Warning, "mon", text);
    }
}

/// One full OSD stops writes that need space: no replica may run out in the middle of one.
fn watch_full(draft: &mut Draft<'_>, memory: &Memory) {
    let full = u64::from(draft.ratios().full_permille);
    let permille = |id: &OsdId| {
        let stats = &memory.osds.get(id)?.stats;
        (stats.total_bytes > 0)
            .then(|| (u128::from(stats.used_bytes) * 1000 / u128::from(stats.total_bytes)) as u64)
    };
    let used = |(id, info): (OsdId, &OsdInfo)| {
        permille(&id).filter(|_| info.up && info.is_in()).map(|used| (used, id))
    };
    let Some((worst, osd)) = draft.osds().filter_map(used).max() else { return };
    let flags = draft.flags();
    let was = flags.contains(Flag::Full);
    if worst >= full && !was {
        draft.step.flags = Some(flags.with(Flag::Full));
        let text =
            format!("the cluster is full: {osd} is at {}.{} %; deletes still work", worst / 10, worst % 10);
        draft.log(LogLevel::Error, "mon", text);
    } else if was && worst + HYSTERESIS_PERMILLE <= full && all_reported(draft, memory) {
        draft.step.flags = Some(flags.without(Flag::Full));
        draft.log(LogLevel::Info, "mon", "the cluster is no longer full");
    }
}

fn all_reported(draft: &Draft<'_>, memory: &Memory) -> bool {
    draft.osds().all(|(id, info)| !(info.up && info.is_in()) || memory.osds.contains_key(&id))
}

fn watch_quotas(draft: &mut Draft<'_>, memory: &Memory) {
    let with_quota: Vec<(PoolId, u64, u64, bool, u32)> = draft
        .pools()
        .filter(|(_, pool)| pool.quota_bytes_max > 0 || pool.quota_objects_max > 0 || pool.full)
        .map(|(id, pool)| (id, pool.quota_bytes_max, pool.quota_objects_max, pool.full, pool.pg_num))
        .collect();
    if with_quota.is_empty() {
        return;
    }
    let usage = memory.pool_use();
    for (id, bytes_max, objects_max, was, pg_num) in with_quota {
        let used = usage.get(&id).copied().unwrap_or_default();
        let over =
            (bytes_max > 0 && used.bytes >= bytes_max) || (objects_max > 0 && used.objects >= objects_max);
        let reported = memory.pgs.keys().filter(|pg| pg.pool == id).count() as u32;
        // What has not been reported cannot be taken for empty.
        if over == was || (was && reported < pg_num && (bytes_max > 0 || objects_max > 0)) {
            continue;
        }
        if let Some(pool) = draft.pool_mut(id) {
            pool.full = over;
            let what =
                if over { "has reached its quota: writes get an error" } else { "is below its quota again" };
            let text = format!("pool '{}' {what}", pool.name);
            draft.log(LogLevel::Warning, "mon", text);
        }
    }
}

/// Once all PGs of a pool have been active, none of them is made anew because nobody has a copy. One that was, by order,
/// is like the others again.
fn watch_starts(draft: &mut Draft<'_>, memory: &Memory) {
    let is_active = |pg: PgId, since: u64| {
        memory.pgs.get(&pg).is_some_and(|report| {
            report.stat.reported_epoch >= since && report.stat.state.split('+').any(|word| word == "active")
        })
    };
    let mut changed: Vec<(PoolId, Pool)> = Vec::new();
    for (id, pool) in draft.pools().filter(|(_, pool)| !pool.started || !pool.begun_anew.is_empty()) {
        let mut next = pool.clone();
        next.started |= (0..pool.pg_num).all(|seed| is_active(PgId::new(id, seed), 0));
        next.begun_anew.retain(|&seed, &mut since| !is_active(PgId::new(id, seed), since));
        if next != *pool {
            changed.push((id, next));
        }
    }
    for (id, next) in changed {
        if let Some(pool) = draft.pool_mut(id) {
            *pool = next;
        }
    }
}

fn expire_blocklist(draft: &mut Draft<'_>) {
    let at_ms = draft.at_ms;
    let gone: Vec<ClientId> = draft
        .state
        .osdmap
        .blocklist()
        .iter()
        .filter(|&(_, &until)| until <= at_ms)
        .map(|(&client, _)| client)
        .collect();
    for client in gone {
        if !draft.step.blocklist.contains_key(&client) {
            draft.blocklist(client, None);
        }
    }
}
