//! The first descents of several replicas, in lock step. A draw is one long chain of operations, so wide registers mostly
//! wait; three chains beside each other take little longer than one.
//!
//! Where a first attempt leads depends on no other replica, so what is found here is just what each would have found in
//! its turn. What the turn decides (collisions, OSDs that are out, further attempts) is left to it.

use super::{Chosen, Context};
use crate::compile::{DEVICE, Slot};
use crate::map::Alg;
use crate::straw2::{Draws, GROUP};

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
pub(super) fn look(context: &Context<'_>, start: Slot, rep: u32) -> Option<[Attempt; REPLICAS]> {
    if !context.wide {
        return None;
    }
    let r = [rep, rep + 1, rep + 2];
    let items = descend(context, [start; REPLICAS], r, context.type_id)?;
    let hosts = items.map(|descent| descent.item.slot);
    let leaves = match context.leaf && context.stable && !hosts.contains(&DEVICE) {
        true => descend(context, hosts, r.map(|r| context.leaf_r(r, 0)), 0),
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
        let positions = Draws::choose_each(draws, context.level, context.x, r);
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
