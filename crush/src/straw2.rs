//! The straw2 draw: every item of a bucket draws a straw whose length is the logarithm of a hash divided by the
//! item's weight; the longest wins, the first of equals.
//!
//! Same answers as drawing one by one, with less work: hashes of the whole bucket come in one vectorised loop, and
//! among items of equal weight the highest hash wins, so that one logarithm and one division per distinct weight
//! are enough (none, where all weights are equal). Exactness where different hashes draw equal straws is by
//! [`ties_below`] and [`settle`].

use crate::hash::hash3;
use crate::ln::{DISTINCT_WEIGHT_MAX, cost, ties_below};

/// Most items a bucket may have: a key has 16 bits for the position.
pub(crate) const POSITIONS_MAX: usize = 1 << 16;

/// Items of one weight, a range of the bucket's lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub start: u32,
    pub end: u32,
    pub weight: u32,
}

/// One bucket's drawing tables: items sorted by weight, then position; those of weight zero left out; padded to
/// whole lanes with copies of the last item.
#[derive(Clone, Copy)]
pub(crate) struct Draws<'a> {
    pub ids: &'a [u32],
    /// `0xffff - position`, so that of equal hashes the first position has the highest key.
    pub low: &'a [u32],
    pub groups: &'a [Group],
}

/// A hash in the high half, the inverted position in the low half: the highest key wins its group.
type Key = u32;

fn hash_of(key: Key) -> u16 {
    (key >> 16) as u16
}

fn position_of(key: Key) -> u32 {
    0xffff - (key & 0xffff)
}

impl Draws<'_> {
    /// The position that wins for input `x` and attempt `r`. `keys` is scratch for at least `ids.len()` keys.
    #[inline]
    pub(crate) fn choose(&self, x: u32, r: u32, keys: &mut [Key]) -> usize {
        let Some(keys) = keys.get_mut(..self.ids.len()) else { return 0 };
        match self.groups {
            // No item has weight: the first one is what a bucket falls back to.
            [] => 0,
            [only] => {
                let best = self.draw(x, r, keys);
                let u = hash_of(best);
                if is_alone(keys, u, only.weight) {
                    return position_of(best) as usize;
                }
                settle(keys, best, only.weight).1 as usize
            }
            groups => {
                self.draw(x, r, keys);
                let mut winner = (u64::MAX, u32::MAX);
                for group in groups {
                    let keys = &keys[group.start as usize..group.end as usize];
                    let best = keys.iter().copied().max().unwrap_or(0);
                    let u = hash_of(best);
                    let drawn = if is_alone(keys, u, group.weight) {
                        (cost(u, group.weight), position_of(best))
                    } else {
                        settle(keys, best, group.weight)
                    };
                    winner = winner.min(drawn);
                }
                winner.1 as usize
            }
        }
    }

    /// Fills `keys` and returns the highest.
    #[inline(always)]
    fn draw(&self, x: u32, r: u32, keys: &mut [Key]) -> Key {
        draw_keys(x, r, self.ids, self.low, keys)
    }
}

/// A plain loop over whole lanes, and a function of its own: compilers vectorise this, and not what is unrolled by
/// hand.
#[inline(never)]
fn draw_keys(x: u32, r: u32, ids: &[u32], low: &[u32], keys: &mut [Key]) -> Key {
    let mut best = 0;
    for ((&id, &low), key) in ids.iter().zip(low).zip(keys) {
        *key = hash3(x, id, r) << 16 | low;
        best = best.max(*key);
    }
    best
}

/// Whether the highest hash `u` among the keys draws better than every other hash there.
#[inline(always)]
fn is_alone(keys: &[Key], u: u16, weight: u32) -> bool {
    let below = u32::from(u).wrapping_sub(1);
    weight <= DISTINCT_WEIGHT_MAX && (!ties_below(u) || keys.iter().all(|&key| key >> 16 != below))
}

/// The lowest cost and first position among the keys whose hashes draw as well as, or better than, the highest.
#[cold]
fn settle(keys: &[Key], best: Key, weight: u32) -> (u64, u32) {
    let best_cost = cost(hash_of(best), weight);
    let mut floor = hash_of(best);
    while floor > 0 && cost(floor - 1, weight) <= best_cost {
        floor -= 1;
    }
    keys.iter()
        .filter(|&&key| hash_of(key) >= floor)
        .map(|&key| (cost(hash_of(key), weight), position_of(key)))
        .min()
        .unwrap_or((best_cost, position_of(best)))
}
