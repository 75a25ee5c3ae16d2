//! The straw2 draw: every item of a bucket draws a straw whose length is the logarithm of a hash divided by the
//! item's weight; the longest wins, the first of equals.
//!
//! Turned round: what a straw is short of the longest there could be is its cost, and the lowest cost wins. A cost
//! takes two look-ups and a division of 64 bits, so each is first bracketed, in a loop that vectorises:
//!
//! ```text
//! hash -> u -> low end <= what ln(u) is short, in octaves <= high end      a polynomial in f32, see `ln::bounds`
//!      * scale: low end <= cost <= high end                                what an octave costs at this weight
//! ```
//!
//! The winner's low end is at most the lowest high end. Where one item alone is that low, it has won; where there are
//! more (one draw in a hundred, of ten items), their exact costs decide. How tight the bounds are decides how often that
//! happens, not who wins.

use crate::hash::{hash3, hash3_of};
use crate::ln::{bounds, cost};

/// Words of one 128-bit register, the widest every x86-64-v2 has.
const LANES: usize = 4;
/// Registers in lock step. Every operation of the hash waits for the one before it: three independent ones fill the
/// wait. Compilers vectorise the loop over three; over one or two they do not, so few items take as many lanes.
const STREAMS: usize = 3;
/// The bits of a high end that give way to its lane.
const LANE_MASK: u32 = 0xff;
/// Most items a bucket may have.
pub(crate) const POSITIONS_MAX: usize = 1 << 16;

/// One bucket's drawing tables, by position; empty where only the first item can win. Lanes of weight zero, which never win,
/// fill the last registers.
#[derive(Clone, Copy)]
pub(crate) struct Draws<'a> {
    pub ids: &'a [u32],
    pub weights: &'a [u32],
    /// What turns octaves into costs, see [`scale`].
    pub scales: &'a [f32],
}

/// The cost of an octave for an item of this weight.
pub(crate) fn scale(weight: u32) -> f32 {
    // Beyond all costs that weights can make.
    if weight == 0 { 1e30 } else { (1_u64 << 44) as f32 / weight as f32 }
}

/// How many lanes a bucket of so many items takes.
pub(crate) fn padded(items: usize) -> usize {
    items.next_multiple_of(STREAMS * LANES)
}

impl Draws<'_> {
    /// The position that wins for input `x` and attempt `r`. `lows` is scratch for at least `ids.len()` words.
    #[inline]
    pub(crate) fn choose(&self, x: u32, r: u32, lows: &mut [f32]) -> usize {
        let Some(lows) = lows.get_mut(..self.ids.len()) else { return 0 };
        let lowest = self.bracket(x, r, lows);
        // Costs are whole numbers, rounded down.
        let limit = f32::from_bits(lowest | LANE_MASK) + 1.0;
        if lows.len() <= LANE_MASK as usize && are_within(lows, limit) == 1 {
            return (lowest & LANE_MASK) as usize;
        }
        self.settle(x, r, lows, limit)
    }

    /// Fills `lows` with the low ends of the costs; returns the lowest high end, with its lane in place of the last
    /// bits.
    #[inline(never)]
    fn bracket(&self, x: u32, r: u32, lows: &mut [f32]) -> u32 {
        let (ids, scales) = (self.ids.as_chunks::<STREAMS>().0, self.scales.as_chunks::<STREAMS>().0);
        let mut lowest = u32::MAX;
        let mut lane = 0;
        for ((lows, &ids), scales) in lows.as_chunks_mut::<STREAMS>().0.iter_mut().zip(ids).zip(scales) {
            let hashes = hash3_of(x, ids, r);
            for s in 0..STREAMS {
                let (low, high) = bounds(hashes[s] & 0xffff);
                lows[s] = low * scales[s];
                // Floats above zero sort as their bits do.
                let key = (high * scales[s]).to_bits() & !LANE_MASK | (lane + s as u32);
                lowest = lowest.min(key);
            }
            lane += STREAMS as u32;
        }
        lowest
    }

    /// The position of the lowest cost among those within `limit`, the first of equals.
    #[cold]
    fn settle(&self, x: u32, r: u32, lows: &[f32], limit: f32) -> usize {
        let lanes = lows.iter().zip(self.ids).zip(self.weights).enumerate();
        let near = lanes.filter(|&(_, ((&low, _), &weight))| weight > 0 && low <= limit);
        let exact = near.map(|(at, ((_, &id), &weight))| (cost(hash3(x, id, r) as u16, weight), at));
        exact.min().map_or(0, |(_, at)| at)
    }
}

/// How many are within `limit`.
#[inline(always)]
fn are_within(lows: &[f32], limit: f32) -> u32 {
    let mut counts = [0; LANES];
    for lows in lows.as_chunks::<LANES>().0 {
        for (count, &low) in counts.iter_mut().zip(lows) {
            *count += u32::from(low <= limit);
        }
    }
    counts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::Rng;

    /// Every cost, exactly; the first of the lowest.
    fn slow(items: &[(u32, u32)], x: u32, r: u32) -> usize {
        let costs = items.iter().map(|&(id, weight)| match weight {
            0 => u64::MAX,
            weight => cost(hash3(x, id, r) as u16, weight),
        });
        costs.enumerate().min_by_key(|&(at, cost)| (cost, at)).map_or(0, |(at, _)| at)
    }

    fn agrees(items: &[(u32, u32)], rng: &mut Rng, rounds: u32) {
        let mut lanes = items.to_vec();
        lanes.resize(padded(items.len()), (0, 0));
        let (ids, weights): (Vec<u32>, Vec<u32>) = lanes.into_iter().unzip();
        let scales: Vec<f32> = weights.iter().map(|&weight| scale(weight)).collect();
        let draws = Draws { ids: &ids, weights: &weights, scales: &scales };
        let mut lows = vec![0.0; ids.len()];
        for _ in 0..rounds {
            let (x, r) = (rng.next_u64() as u32, rng.below(60) as u32);
            assert_eq!(draws.choose(x, r, &mut lows), slow(items, x, r), "{items:?} {x} {r}");
        }
    }

    #[test]
    fn the_winner_is_that_of_all_exact_costs() {
        let mut rng = Rng::new(7);
        for round in 0..2_000 {
            let len = if round % 20 == 0 { rng.range(200, 700) } else { rng.range(1, 40) };
            let common = 1_u32 << rng.below(31);
            let kind = rng.below(4);
            let mut items: Vec<(u32, u32)> = (0..len)
                .map(|_| {
                    let weight = match kind {
                        0 => common,
                        // A hair apart: nearly every second draw is closer than the bounds.
                        1 => common + rng.below(3) as u32,
                        2 => rng.below(u64::from(common)) as u32,
                        _ => [0, 1, common, 0x7fff_ffff][rng.below(4) as usize],
                    };
                    (rng.next_u64() as u32, weight)
                })
                .collect();
            // Without any weight there would be no tables.
            items[0].1 = items[0].1.max(1);
            // Copies tie with the original, which is first.
            if rng.chance(1, 3) {
                let copy = items[rng.below(len) as usize];
                items.push(copy);
            }
            agrees(&items, &mut rng, 40);
        }
    }

    #[test]
    fn a_bucket_without_weight_gives_its_first_item() {
        let text = "device 3 osd.3\ndevice 0 osd.0\ndevice 1 osd.1\ntype 0 osd\ntype 11 root\n\
                    root default { alg straw2 item osd.3 weight 0 item osd.0 weight 0 item osd.1 weight 0 }\n\
                    rule r { id 0 type replicated step take default step choose firstn 1 type osd step emit }\n";
        let map = crate::CrushMap::parse(text).unwrap().compile().unwrap();
        let (mut scratch, mut out) = (crate::Scratch::new(), Vec::new());
        for x in 0..200 {
            map.map(0, x, 1, &[crate::WEIGHT_ONE; 4], &mut scratch, &mut out);
            assert_eq!(out, [3], "{x}");
        }
    }
}
