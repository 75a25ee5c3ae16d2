//! Named situations of peering.

use super::world::World;
use crate::log::{BackfillMark, Info};
use crate::{Choice, Sizes, choose_acting};
use nacre_types::{EVersion, Epoch, OsdId, PgId, PoolId};
use std::collections::BTreeMap;

fn pool(world: &mut World, size: u32, min_size: u32) {
    assert!(world.run_until(20_000, |w| w.mon.map.osds().all(|(_, info)| info.up)), "{}", world.explain());
    world.mon.create_pool(1, size, min_size, 1);
    world.publish();
    assert!(world.run_until(20_000, |w| w.is_clean()), "{}", world.explain());
}

fn info(started: u64, update: u64, tail: u64) -> Info {
    let mut info = Info::created(PgId::new(PoolId(1), 0), Epoch(1));
    info.last_epoch_started = Epoch(started);
    info.last_update = EVersion::new(Epoch(started), update);
    info.log_tail = EVersion::new(Epoch(1), tail);
    info
}

fn choose(infos: &[Info], up: &[u32], acting: &[u32]) -> Choice {
    choose_while_full(infos, up, acting, &[])
}

fn choose_while_full(infos: &[Info], up: &[u32], acting: &[u32], full: &[u32]) -> Choice {
    let map: BTreeMap<OsdId, &Info> =
        infos.iter().enumerate().map(|(id, info)| (OsdId(id as u32), info)).collect();
    let ids = |list: &[u32]| list.iter().map(|&id| OsdId(id)).collect::<Vec<_>>();
    let sizes = Sizes { size: 3, min_size: 2, lag_max: 16 };
    choose_acting(
        OsdId(acting[0]),
        &map,
        &ids(up),
        &ids(acting),
        sizes,
        |_| true,
        |osd| full.contains(&osd.0),
    )
}

#[test]
fn members_that_fell_behind_the_log_are_filled() {
    let infos = [info(5, 90, 50), info(5, 90, 50), info(5, 20, 0), info(5, 90, 50)];
    let mut behind = infos.clone();
    behind[2].last_update = EVersion::new(Epoch(1), 20);
    assert_eq!(choose(&behind, &[0, 1, 2], &[0, 1, 2]), Choice::Want(vec![OsdId(0), OsdId(1), OsdId(3)]));
    let go = choose(&behind, &[0, 1, 2], &[0, 1, 3]);
    let Choice::Go { best, backfill } = go else { panic!("{go:?}") };
    assert_eq!((best.osd, backfill), (OsdId(0), [OsdId(2)].into()));
}

#[test]
fn an_up_primary_without_data_gives_the_lead_away() {
    let mut infos = [info(5, 90, 50), info(5, 90, 50), info(5, 90, 50)];
    infos[0] = Info::absent(infos[0].pg);
    assert_eq!(choose(&infos, &[0, 1], &[0, 1]), Choice::Want(vec![OsdId(1), OsdId(2)]));
    infos[1].last_backfill = BackfillMark::START;
    infos[2].last_backfill = BackfillMark::START;
    assert_eq!(choose(&infos, &[0, 1], &[0, 1]), Choice::Incomplete);
}

#[test]
fn one_that_was_passed_over_for_being_full_does_not_lead_again_while_it_is() {
    let infos = [info(5, 90, 50), info(5, 90, 50), info(5, 90, 50)];
    let leads = |acting: &[u32], full: &[u32]| match choose_while_full(&infos, &[0, 1, 2], acting, full) {
        Choice::Go { .. } => OsdId(acting[0]),
        Choice::Want(want) => want[0],
        Choice::Incomplete => panic!("all are complete"),
    };
    assert_eq!(leads(&[0, 1, 2], &[0]), OsdId(0), "nobody was chosen instead");
    assert_eq!(leads(&[1, 0, 2], &[0]), OsdId(1));
    assert_eq!(leads(&[1, 0, 2], &[1]), OsdId(0));
}

#[test]
fn whoever_lacks_much_has_no_seat_while_enough_others_have_all() {
    let seats = |infos: &[Info], acting: &[u32]| match choose(infos, &[0, 1, 2], acting) {
        Choice::Go { best, .. } => (acting.to_vec(), Some(best.osd.0)),
        Choice::Want(want) => (want.iter().map(|osd| osd.0).collect(), None),
        Choice::Incomplete => panic!("all are complete"),
    };
    let whole = info(5, 90, 10);
    // It was down for long, or not.
    let late = |update| Info { last_update: EVersion::new(Epoch(4), update), ..info(4, update, 10) };
    assert_eq!(seats(&[late(30), whole.clone(), whole.clone()], &[0, 1, 2]), (vec![1, 2], None));
    assert_eq!(seats(&[whole.clone(), late(30), whole.clone()], &[0, 1, 2]), (vec![0, 2], None));
    assert_eq!(seats(&[late(88), whole.clone(), whole.clone()], &[0, 1, 2]), (vec![0, 1, 2], Some(1)));
    // It has the log again, and then the objects.
    let lacks = |count| Info { missing_count: count, ..info(5, 90, 10) };
    assert_eq!(seats(&[lacks(100), whole.clone(), whole.clone()], &[2, 1]), (vec![2, 1], Some(2)));
    assert_eq!(seats(&[lacks(3), whole.clone(), whole.clone()], &[2, 1]), (vec![0, 1, 2], None));
    // Two are the least to accept writes, and nobody is better.
    assert_eq!(seats(&[lacks(100), lacks(90), whole.clone()], &[2, 1]), (vec![2, 0], None));
    assert_eq!(seats(&[lacks(100), lacks(90), whole.clone()], &[2, 0]), (vec![2, 0], Some(2)));
    assert_eq!(seats(&[lacks(100), lacks(1), lacks(100)], &[0, 1, 2]), (vec![0, 1, 2], Some(0)));
}

/// F16: two copies, one allowed to serve alone. What it wrote alone must not be lost by starting the other one.
#[test]
fn a_copy_that_missed_writes_waits_for_the_one_that_has_them() {
    let mut world = World::new(2, 7);
    pool(&mut world, 2, 1);
    let pg = PgId::new(PoolId(1), 0);
    let [a, b] = [0, 1].map(|at| world.mon.map.pg(pg).expect("placed").acting[at].0);
    world.kill(b);
    assert!(
        world.run_until(20_000, |w| w.mon.stats.get(&pg).is_some_and(|s| s.starts_with("active+undersized")))
    );
    world.kill(a);
    world.mon.mark_down(OsdId(a));
    world.publish();
    world.run(3000);
    world.start(b);
    world.run(20_000);
    assert_eq!(world.mon.stats[&pg], "down", "{}", world.explain());
    world.start(a);
    assert!(world.run_until(30_000, |w| w.is_clean()), "{}", world.explain());
}

/// F18: an interval too short to activate does not count.
#[test]
fn an_interval_without_up_thru_does_not_block() {
    let mut world = World::new(2, 11);
    pool(&mut world, 2, 1);
    let pg = PgId::new(PoolId(1), 0);
    let [a, b] = [0, 1].map(|at| world.mon.map.pg(pg).expect("placed").acting[at].0);
    world.kill(b);
    world.mon.mark_down(OsdId(b));
    world.mon.commit();
    world.kill(a);
    world.mon.mark_down(OsdId(a));
    world.publish();
    world.run(500);
    world.start(b);
    let active = |w: &mut World| w.mon.stats.get(&pg).is_some_and(|s| s.starts_with("active"));
    world.mon.stats.clear();
    assert!(world.run_until(20_000, active), "{}", world.explain());
}

/// F25: below min_size nothing is acknowledged, above it everything goes on.
#[test]
fn below_min_size_it_is_peered_only() {
    let mut world = World::new(3, 13);
    pool(&mut world, 3, 2);
    let pg = PgId::new(PoolId(1), 0);
    for id in [1, 2] {
        world.kill(id);
    }
    assert!(
        world.run_until(30_000, |w| w.mon.stats.get(&pg).is_some_and(|s| s.starts_with("peered"))),
        "{:?}",
        world.mon.stats
    );
    world.start(1);
    assert!(
        world.run_until(30_000, |w| w.mon.stats.get(&pg).is_some_and(|s| s.starts_with("active+undersized"))),
        "{:?}\n{}",
        world.mon.stats,
        world.explain()
    );
    world.start(2);
    assert!(world.run_until(30_000, |w| w.is_clean()), "{}", world.explain());
}

/// F23: every map an OSD knew is gone when it returns.
#[test]
fn an_osd_that_missed_all_maps_comes_back() {
    let mut world = World::new(4, 17);
    pool(&mut world, 3, 2);
    world.kill(0);
    world.mon.mark_down(OsdId(0));
    world.publish();
    for round in 0..20 {
        world.mon.set_in(OsdId(3), round % 2 == 0);
        world.publish();
        world.run(300);
    }
    world.mon.set_in(OsdId(3), true);
    world.publish();
    let epoch = world.mon.map.epoch();
    world.mon.forget_maps_before(epoch);
    world.start(0);
    assert!(world.run_until(60_000, |w| w.is_clean()), "{}", world.explain());
}

/// A pool made while no OSD was there, and PGs of OSDs that never saw it made.
#[test]
fn a_pool_older_than_its_osds_is_served() {
    let mut world = World::new(3, 19);
    for id in 0..3 {
        world.kill(id);
    }
    world.mon.create_pool(1, 3, 2, 4);
    world.mon.commit();
    world.mon.forget_maps_before(Epoch(1000));
    for id in 0..3 {
        world.start(id);
    }
    assert!(world.run_until(60_000, |w| w.is_clean()), "{}", world.explain());
}

#[test]
fn a_removed_pool_leaves_nothing() {
    let mut world = World::new(3, 23);
    pool(&mut world, 3, 2);
    world.mon.remove_pool(1);
    world.publish();
    world.run(5000);
    for slot in &world.slots {
        let osd = slot.osd.as_ref().expect("alive");
        assert_eq!(osd.pgs().count(), 0);
        assert!(osd.store().live.objects.is_empty());
    }
}

#[test]
fn an_orderly_stop_is_quick() {
    let mut world = World::new(3, 29);
    pool(&mut world, 3, 2);
    world.step_osd(1, crate::OsdEvent::Stop);
    world.run(300);
    assert_eq!(world.slots[1].stopped.as_deref(), Some("stopped in order"));
    assert!(!world.mon.map.is_up(OsdId(1)));
}

/// Whoever held a lease takes part again (as another run), and a restarted member knows to whom alone it may have promised.
#[test]
fn a_restart_makes_nobody_wait_for_leases() {
    for (seed, at) in [(31, 0), (37, 1), (41, 2)] {
        let mut world = World::new(3, seed);
        pool(&mut world, 3, 2);
        world.run(5000);
        let pg = PgId::new(PoolId(1), 0);
        let restarted = world.mon.map.pg(pg).expect("placed").acting[at].0;
        world.kill(restarted);
        world.start(restarted);
        let all_up = |w: &World| w.mon.map.pg(pg).is_some_and(|place| place.acting.len() == 3);
        world.run(100);
        assert!(world.run_until(3000, |w| w.is_clean() && all_up(w)), "{}", world.explain());
        for slot in &world.slots {
            let pg = slot.osd.as_ref().and_then(|osd| osd.pg(pg)).expect("alive");
            assert!(!pg.is_active() || pg.prior_lease_end(world.now).is_none(), "{}", world.explain());
        }
    }
}
