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
//!
//! Vectors are as wide as the machine's, chosen when it runs ([`Level`]); nobody's placement depends on that.

use crate::hash::{Word, hash3, hash3_of};
use crate::ln::{bounds, cost};
use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};
use std::ops::{BitXor, Shl, Shr};

/// Lanes that wide registers fill whole, see [`padded`].
pub(crate) const GROUP: usize = 16;
/// Registers of four lanes in lock step. Every operation of the hash waits for the one before it: three independent ones
/// fill the wait, which wider ones, each with more of the lanes, do not need as much.
const STREAMS_NARROW: usize = 3;
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

/// How many lanes a bucket of so many items takes: whole groups of registers, wide or narrow.
pub(crate) fn padded(items: usize) -> usize {
    items.next_multiple_of(GROUP).max(items.next_multiple_of(STREAMS_NARROW * 4))
}

impl Draws<'_> {
    /// The position that wins for input `x` and attempt `r`. `lows` is scratch for at least `ids.len()` words.
    #[inline]
    pub(crate) fn choose(&self, level: Level, x: u32, r: u32, lows: &mut [f32]) -> usize {
        let Some(lows) = lows.get_mut(..self.ids.len()) else { return 0 };
        let bracket = dispatch!(level, simd => self.bracket(simd, x, r, lows));
        self.winner(bracket, x, r, lows)
    }

    /// The same for several buckets of at most [`GROUP`] items at once: while one hash waits for itself the others go on.
    /// That pays where registers are [`wide`](Vectors::wide).
    #[inline]
    pub(crate) fn choose_each<const K: usize>(
        draws: [Draws<'_>; K],
        level: Level,
        x: u32,
        r: [u32; K],
    ) -> [usize; K] {
        let mut lows = [[0.0; GROUP]; K];
        let brackets = dispatch!(level, simd => Draws::bracket_each(simd, &draws, x, &r, &mut lows));
        let mut winners = [0; K];
        for k in 0..K {
            winners[k] = draws[k].winner(brackets[k], x, r[k], &lows[k]);
        }
        winners
    }

    #[inline]
    fn winner(&self, bracket: Bracket, x: u32, r: u32, lows: &[f32]) -> usize {
        if bracket.near == 1 && lows.len() <= LANE_MASK as usize {
            return (bracket.lowest & LANE_MASK) as usize;
        }
        self.settle(x, r, lows, bracket.limit())
    }

    /// Fills `lows` with the low ends of the costs.
    #[inline(always)]
    fn bracket<S: Simd>(&self, simd: S, x: u32, r: u32, lows: &mut [f32]) -> Bracket {
        match S::u32s::LEN {
            4 => self.bracket_by::<S, STREAMS_NARROW>(simd, x, r, lows),
            8 => self.bracket_by::<S, 2>(simd, x, r, lows),
            _ => self.bracket_by::<S, 1>(simd, x, r, lows),
        }
    }

    #[inline(always)]
    fn bracket_by<S: Simd, const STREAMS: usize>(
        &self,
        simd: S,
        x: u32,
        r: u32,
        lows: &mut [f32],
    ) -> Bracket {
        let (width, group) = (S::u32s::LEN, STREAMS * S::u32s::LEN);
        let r = [Lanes::all(simd, r); STREAMS];
        let mut lowest = S::u32s::splat(simd, u32::MAX);
        let mut lane = S::u32s::from_fn(simd, |at| at as u32);
        let lanes = self.ids.chunks_exact(group).zip(self.scales.chunks_exact(group));
        for (lows, (ids, scales)) in lows.chunks_exact_mut(group).zip(lanes) {
            let mut words = r;
            for s in 0..STREAMS {
                words[s] = Lanes::load(simd, &ids[s * width..]);
            }
            let hashes = hash3_of(x, words, r, |word| Lanes::<S>::all(simd, word), |_| {});
            for (s, hashes) in hashes.iter().enumerate() {
                let at = s * width;
                let key = hashes.key(simd, &scales[at..], lane, &mut lows[at..]);
                lowest = lowest.min(key);
                lane += width as u32;
            }
        }
        let lowest = lowest.reduce_min();
        Bracket { lowest, near: count_near(simd, lows, lows.len() / group * group, lowest) }
    }

    #[inline(always)]
    fn bracket_each<S: Simd, const K: usize>(
        simd: S,
        draws: &[Draws<'_>; K],
        x: u32,
        r: &[u32; K],
        lows: &mut [[f32; GROUP]; K],
    ) -> [Bracket; K] {
        // Compilers put one chain behind the other, farther apart than processors look ahead. None moves past this.
        let abreast = |hashes: &mut [Lanes<S>; K]| *hashes = std::hint::black_box(*hashes);
        let width = S::u32s::LEN;
        let mut brackets = [Bracket { lowest: u32::MAX, near: 0 }; K];
        let mut rs = [Lanes::<S>::all(simd, 0); K];
        for k in 0..K {
            rs[k] = Lanes::all(simd, r[k]);
        }
        for at in (0..GROUP).step_by(width) {
            let mut words = rs;
            for k in 0..K {
                words[k] = Lanes::load(simd, &draws[k].ids[at..]);
            }
            let hashes = hash3_of(x, words, rs, |word| Lanes::<S>::all(simd, word), abreast);
            let lane = S::u32s::from_fn(simd, |lane| (at + lane) as u32);
            for k in 0..K {
                let key = hashes[k].key(simd, &draws[k].scales[at..], lane, &mut lows[k][at..]);
                brackets[k].lowest = brackets[k].lowest.min(key.reduce_min());
            }
        }
        for k in 0..K {
            brackets[k].near = count_near(simd, &lows[k], GROUP, brackets[k].lowest);
        }
        brackets
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

/// What the bounds of a bucket's costs tell.
#[derive(Clone, Copy)]
struct Bracket {
    /// The lowest high end, with its lane in place of the last bits.
    lowest: u32,
    /// How many low ends are within its limit.
    near: u32,
}

impl Bracket {
    /// What the winner's low end is not above. Costs are whole numbers, rounded down.
    #[inline(always)]
    fn limit(self) -> f32 {
        f32::from_bits(self.lowest | LANE_MASK) + 1.0
    }
}

/// How many of the first lanes are within the limit.
#[inline(always)]
fn count_near<S: Simd>(simd: S, lows: &[f32], lanes: usize, lowest: u32) -> u32 {
    let limit = Bracket { lowest, near: 0 }.limit();
    let mut near = 0;
    for lows in lows[..lanes].chunks_exact(S::f32s::LEN) {
        near += S::f32s::from_slice(simd, lows).simd_le(limit).to_bitmask().count_ones();
    }
    near
}

/// What this machine draws with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vectors {
    pub level: Level,
    /// One register holds a [`GROUP`]: its hashes are all there is to do at a time, unless several draws run in lock step.
    pub wide: bool,
}

impl Default for Vectors {
    fn default() -> Vectors {
        #[inline(always)]
        fn width<S: Simd>(_: S) -> usize {
            S::u32s::LEN
        }
        let level = Level::new();
        Vectors { level, wide: dispatch!(level, simd => width(simd)) >= GROUP }
    }
}

/// A register of ids or hashes.
#[derive(Clone, Copy)]
struct Lanes<S: Simd>(S::u32s);

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn all(simd: S, word: u32) -> Self {
        Lanes(S::u32s::splat(simd, word))
    }

    #[inline(always)]
    fn load(simd: S, words: &[u32]) -> Self {
        Lanes(S::u32s::from_slice(simd, &words[..S::u32s::LEN]))
    }

    /// The high ends of the costs these hashes make, the lanes in place of their last bits; the low ends go to `lows`.
    #[inline(always)]
    fn key(self, simd: S, scales: &[f32], lane: S::u32s, lows: &mut [f32]) -> S::u32s {
        let (low, high) = bounds(simd, self.0 & 0xffff);
        let scale = S::f32s::from_slice(simd, &scales[..S::f32s::LEN]);
        (low * scale).store_slice(&mut lows[..S::f32s::LEN]);
        // Floats above zero sort as their bits do.
        let bits: S::u32s = (high * scale).bitcast();
        (bits & !LANE_MASK) | lane
    }
}

impl<S: Simd> Word for Lanes<S> {
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Lanes(self.0 - other.0)
    }
}

impl<S: Simd> BitXor for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn bitxor(self, other: Self) -> Self {
        Lanes(self.0 ^ other.0)
    }
}

impl<S: Simd> Shl<u32> for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        Lanes(self.0 << bits)
    }
}

impl<S: Simd> Shr<u32> for Lanes<S> {
    type Output = Self;
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        Lanes(self.0 >> bits)
    }
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
            for level in [Level::new(), Level::baseline()] {
                let wanted = slow(items, x, r);
                assert_eq!(draws.choose(level, x, r, &mut lows), wanted, "{items:?} {x} {r}");
                if items.len() <= GROUP {
                    let found = Draws::choose_each([draws; 2], level, x, [r, r + 1]);
                    assert_eq!(found, [wanted, slow(items, x, r + 1)], "{items:?} {x} {r}");
                }
            }
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
