//! Intervals from maps, and that what is left out of the list is never needed.

use super::*;
use crate::testing::Cluster;
use nacre_types::Rng;

fn interval(first: u64, acting: &[u32], rw: bool) -> Interval {
    let acting: Vec<OsdId> = acting.iter().copied().map(OsdId).collect();
    Interval {
        first: Epoch(first),
        last: Epoch(first),
        up: acting.clone(),
        primary: acting.first().copied(),
        acting,
        maybe_went_rw: rw,
    }
}

#[test]
fn whoever_satisfies_what_is_kept_satisfies_all_there_was() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let (mut past, mut all) = (PastIntervals::new(), Vec::new());
        for epoch in 1..rng.range(2, 200) {
            let mut osds: Vec<u32> = (0..6).collect();
            rng.shuffle(&mut osds);
            osds.truncate(rng.range(1, 4) as usize);
            let one = interval(epoch, &osds, rng.chance(2, 3));
            past.add(one.clone());
            all.push(one);
        }
        assert!(past.may_have_written(Epoch::ZERO).count() <= 20, "an antichain of sets of at most 3 of 6");
        for _ in 0..50 {
            let since = Epoch(rng.below(200));
            let alive: Vec<OsdId> = (0..6).filter(|_| rng.chance(1, 2)).map(OsdId).collect();
            let heard = |interval: &Interval| interval.acting.iter().any(|osd| alive.contains(osd));
            let kept = past.may_have_written(since).all(heard);
            let really = all.iter().filter(|i| i.maybe_went_rw && i.last >= since).all(heard);
            assert_eq!(kept, really, "seed {seed}");
        }
        assert_eq!(PastIntervals::decode(&past.encode()), Ok(past.clone()));
        let (_, last) = past.span().unwrap();
        past.prune(last.next());
        assert_eq!(past, PastIntervals::new());
    }
}

#[test]
fn hostile_bytes_are_refused_or_read_never_a_panic() {
    let mut rng = Rng::new(1);
    let mut past = PastIntervals::new();
    past.add(interval(3, &[1, 2], true));
    past.add(interval(4, &[2, 3], true));
    let good = past.encode();
    for _ in 0..2000 {
        let mut bytes = good.to_vec();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.next_u64() as u8;
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        let _ = PastIntervals::decode(&bytes);
    }
}

#[test]
fn an_interval_went_rw_only_if_the_primary_was_recorded_alive_in_it() {
    let mut cluster = Cluster::new(3, 3, 1);
    let pg = crate::testing::PG;
    let start = cluster.map.clone();
    let since = start.osd(cluster.primary(pg)).unwrap().up_thru();
    let victim = *start.pg(pg).unwrap().acting.last().unwrap();
    cluster.change(|map, step| {
        let epoch = step.epoch;
        step.osd_mut(map, victim).unwrap().mark_down(epoch, 1);
    });
    let after = cluster.map.clone();
    assert!(is_new_interval(pg, &start, &after));
    let mut past = PastIntervals::new();
    assert!(past.check_new_interval(pg, &start, &after, since, Epoch::ZERO));
    assert!(past.may_have_written(Epoch::ZERO).next().unwrap().maybe_went_rw);
    assert_eq!(past.participants().len(), 3);
    // Had the interval begun later than what is recorded of the primary, it never went active.
    let mut past = PastIntervals::new();
    assert!(past.check_new_interval(pg, &start, &after, since.next(), Epoch::ZERO));
    assert_eq!(past.may_have_written(Epoch::ZERO).count(), 0);
    // A change elsewhere is no new interval.
    cluster.change(|_, _| ());
    assert!(!past.check_new_interval(pg, &after, &cluster.map.clone(), after.epoch(), Epoch::ZERO));
}
