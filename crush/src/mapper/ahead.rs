//! The first descents of several replicas, in lock step. A draw is one long chain of operations, so wide registers mostly
//! wait; three chains beside each other take little longer than one.
//!
//! Where a first attempt leads depends on no other replica, so what is found here is just what each would have found in
//! its turn. What the turn decides (collisions, OSDs that are out, further attempts) is left to it.

use super::{Chosen, Context};
use crate::compile::{DEVICE, Slot};
use crate::map::Alg;
use crate::straw2::{Draws, GROUP, Vectors};
use fearless_simd::Level;

/// Replicas at once.
pub(super) const REPLICAS: usize = 3;

/// Where one descent ends.
#[derive(Clone, Copy)]
pub(super) struct Descent {
    pub item: Chosen,
    /// The bucket that drew it.
    pub at: Slot,
    /// What its draws cost.
    pub price: u32,
}

/// The first attempt of one replica.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub item: Descent,
    /// Below it, where the step asks for leaves.
    pub leaf: Option<Descent>,
}

/// The first attempts of replica `rep` and those after it. `None` where they do not run in lock step: the map is not as
/// regular as that, or the machine gains nothing by it.
pub(super) fn look(
    context: &Context<'_>,
    vectors: Vectors,
    start: Slot,
    rep: u32,
) -> Option<[Attempt; REPLICAS]> {
    if !vectors.wide {
        return None;
    }
    let r = [rep, rep + 1, rep + 2];
    let items = descend(context, vectors.level, [start; REPLICAS], r, context.type_id)?;
    let hosts = items.map(|descent| descent.item.slot);
    let leaves = match context.leaf && context.stable && !hosts.contains(&DEVICE) {
        true => descend(context, vectors.level, hosts, r.map(|r| context.leaf_r(r, 0)), 0),
        false => None,
    };
    let mut attempts = items.map(|item| Attempt { item, leaf: None });
    for (attempt, leaf) in attempts.iter_mut().zip(leaves.into_iter().flatten()) {
        attempt.leaf = Some(leaf);
    }
    Some(attempts)
}

/// Down from each start to an item of the type, all by equally many steps.
fn descend(
    context: &Context<'_>,
    level: Level,
    mut at: [Slot; REPLICAS],
    r: [u32; REPLICAS],
    type_id: u32,
) -> Option<[Descent; REPLICAS]> {
    let mut prices = [0; REPLICAS];
    loop {
        let buckets = at.map(|slot| context.bucket(slot));
        // A bucket of one item draws nothing.
        let even = |len: u32| (2..=GROUP as u32).contains(&len);
        if !buckets.iter().all(|bucket| bucket.alg == Alg::Straw2 && even(bucket.len) && bucket.draw_len > 0)
        {
            return None;
        }
        let draws = buckets.map(|bucket| context.map.draws(bucket));
        let positions = Draws::choose_each(draws, level, context.x, r);
        let mut ended = 0;
        let mut found = [Descent { item: Chosen::NONE, at: DEVICE, price: 0 }; REPLICAS];
        for k in 0..REPLICAS {
            prices[k] += buckets[k].price();
            let item = context.item(buckets[k], positions[k]);
            let ends = match item.slot {
                DEVICE if type_id != 0 => return None,
                DEVICE => true,
                slot => context.bucket(slot).type_id == type_id,
            };
            ended += usize::from(ends);
            found[k] = Descent { item, at: at[k], price: prices[k] };
        }
        match ended {
            REPLICAS => return Some(found),
            0 => at = found.map(|descent| descent.item.slot),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CrushMap, Scratch, WEIGHT_ONE};
    use nacre_types::Rng;
    use std::fmt::Write;

    /// Racks of hosts of OSDs, as many as the numbers say, with the weights and tunables that `rng` draws.
    fn text(rng: &mut Rng, racks: u64, hosts: u64, osds: u64) -> (String, u32) {
        let (mut buckets, mut root, mut devices) = (String::new(), String::new(), 0);
        for rack in 0..racks {
            let mut items = String::new();
            for host in 0..rng.range(1, hosts + 1) {
                write!(buckets, "host h{rack}x{host} {{ alg straw2").unwrap();
                for _ in 0..rng.range(1, osds + 1) {
                    write!(buckets, " item osd.{devices} weight {}.5", rng.below(4)).unwrap();
                    devices += 1;
                }
                buckets.push_str(" }\n");
                write!(items, " item h{rack}x{host} weight {}.0", rng.range(1, 4)).unwrap();
            }
            writeln!(buckets, "rack r{rack} {{ alg straw2{items} }}").unwrap();
            write!(root, " item r{rack} weight {}.0", rng.range(1, 4)).unwrap();
        }
        let mut text = String::from("tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\n");
        writeln!(text, "tunable choose_total_tries {}", rng.range(2, 50)).unwrap();
        for tunable in ["chooseleaf_descend_once", "chooseleaf_stable"] {
            writeln!(text, "tunable {tunable} {}", rng.below(2)).unwrap();
        }
        writeln!(text, "tunable chooseleaf_vary_r {}", rng.below(4)).unwrap();
        (0..devices).for_each(|osd| writeln!(text, "device {osd} osd.{osd}").unwrap());
        text.push_str("type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n");
        writeln!(text, "{buckets}root default {{ alg straw2{root} }}").unwrap();
        let steps =
            ["chooseleaf firstn 0 type host", "chooseleaf firstn 0 type rack", "choose firstn 0 type osd"];
        for (id, step) in steps.iter().enumerate() {
            writeln!(
                text,
                "rule r{id} {{ id {id} type replicated step take default step {step} step emit }}"
            )
            .unwrap();
        }
        (text, devices)
    }

    #[test]
    fn lock_step_changes_nothing() {
        let mut rng = Rng::new(11);
        let scratch = |wide| Scratch { vectors: Vectors { wide, ..Vectors::default() }, ..Scratch::new() };
        let (mut ahead, mut in_turn) = (scratch(true), scratch(false));
        let (mut out, mut wanted) = (Vec::new(), Vec::new());
        for round in 0..300 {
            // Some wider than a register, some in steps of unlike length.
            let most = if round % 4 == 0 { 20 } else { 8 };
            let (racks, hosts, osds) = (rng.range(1, most), rng.range(1, most), rng.range(1, most));
            let (text, devices) = text(&mut rng, racks, hosts, osds);
            let map = CrushMap::parse(&text).unwrap().compile().unwrap();
            let weights: Vec<u32> =
                (0..devices).map(|_| [0, WEIGHT_ONE / 2, WEIGHT_ONE][rng.below(3) as usize]).collect();
            for _ in 0..60 {
                let (rule, x) = (rng.below(3) as u32, rng.next_u64() as u32);
                let replicas = rng.range(1, 9) as usize;
                map.map(rule, x, replicas, &weights, &mut ahead, &mut out);
                map.map(rule, x, replicas, &weights, &mut in_turn, &mut wanted);
                assert_eq!(out, wanted, "rule {rule}, {x}, {replicas} of\n{text}");
                assert_eq!(ahead.asked(), in_turn.asked(), "whom it asked");
                assert_eq!(ahead.work, in_turn.work, "what it cost");
            }
        }
    }
}
