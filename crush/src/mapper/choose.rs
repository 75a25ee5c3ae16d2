//! Choosing one item of one bucket, by the bucket's algorithm.

use super::{Chosen, Context, Draft};
use crate::compile::FlatBucket;
use crate::hash::{hash3, hash4};
use crate::map::Alg;

impl Context<'_> {
    pub(super) fn bucket(&self, slot: u32) -> &FlatBucket {
        &self.map.buckets[slot as usize]
    }

    /// The attempt at a leaf that attempt `r` at its parent begins with, the `nth` to be placed.
    pub(super) fn leaf_r(&self, r: u32, nth: usize) -> u32 {
        let vary = match self.vary_r {
            0 => 0,
            shift => r >> (shift - 1),
        };
        if self.stable { vary } else { nth as u32 + vary }
    }

    /// The item `bucket` (which must not be empty) draws for attempt `r`.
    #[inline]
    pub(super) fn draw(&self, bucket: &FlatBucket, r: u32, draft: &mut Draft<'_>) -> Chosen {
        let position = match bucket.alg {
            Alg::Straw2 => self.map.draws(bucket).choose(draft.vectors.level, self.x, r, draft.keys),
            Alg::Uniform => return self.permuted(bucket, r, draft),
            Alg::List => self.list_position(bucket, r),
        };
        self.item(bucket, position)
    }

    pub(super) fn item(&self, bucket: &FlatBucket, position: usize) -> Chosen {
        let at = bucket.start as usize + position;
        Chosen { id: self.map.items[at], slot: self.map.slots[at] }
    }

    /// The item at place `r` of a permutation that `x` and the bucket fix: uniform buckets, and local fallback.
    pub(super) fn permuted(&self, bucket: &FlatBucket, r: u32, draft: &mut Draft<'_>) -> Chosen {
        let place = r % bucket.len;
        let places = &mut draft.permutation[..bucket.len as usize];
        for (at, position) in places.iter_mut().enumerate() {
            *position = at as u32;
        }
        // A Fisher-Yates shuffle, stopped at the place that is asked for.
        for at in 0..=place {
            let rest = bucket.len - at;
            if rest > 1 {
                let other = at + hash3(self.x, bucket.id as u32, at) % rest;
                places.swap(at as usize, other as usize);
            }
        }
        self.item(bucket, places[place as usize] as usize)
    }

    /// From the newest item down: each is taken with the share of the weight it has among those left.
    fn list_position(&self, bucket: &FlatBucket, r: u32) -> usize {
        let (weights, sums) = self.map.list(bucket);
        for at in (0..weights.len()).rev() {
            let id = self.map.items[bucket.start as usize + at];
            let share = u64::from(hash4(self.x, id as u32, r, bucket.id as u32) & 0xffff);
            if (share * u64::from(sums[at])) >> 16 < u64::from(weights[at]) {
                return at;
            }
        }
        0
    }
}
