//! Robert Jenkins' 32-bit integer mix (1997) with the seed and padding constants CRUSH fixed for ever: every
//! placement decision is one of these hashes. They branch nowhere and are inlined, so that loops over them vectorise.

const SEED: u32 = 1_315_423_911;
/// The two words that pad the arguments.
const X: u32 = 231_232;
const Y: u32 = 1_232;

/// Straw2 tables are padded to whole multiples of this: one 128-bit register, the widest every x86-64-v2 has.
pub(crate) const LANES: usize = 4;

#[inline(always)]
fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 13);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 8);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 13);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 12);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 16);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 5);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 3);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 10);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 15);
}

/// Hash of two words: reweight tests and pools.
pub fn hash2(mut a: u32, mut b: u32) -> u32 {
    let mut hash = SEED ^ a ^ b;
    let (mut x, mut y) = (X, Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut x, &mut a, &mut hash);
    mix(&mut b, &mut y, &mut hash);
    hash
}

/// Hash of three words: draws and permutations.
#[inline(always)]
pub fn hash3(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    let mut hash = SEED ^ a ^ b ^ c;
    let (mut x, mut y) = (X, Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut c, &mut hash);
    hash
}

/// Hash of four words: list buckets.
pub fn hash4(mut a: u32, mut b: u32, mut c: u32, mut d: u32) -> u32 {
    let mut hash = SEED ^ a ^ b ^ c ^ d;
    let (mut x, mut y) = (X, Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut a, &mut x, &mut hash);
    mix(&mut y, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut d, &mut hash);
    hash
}

/// The CRUSH input of a PG: the PG's seed folded to `pgp_num` slices, hashed with the pool so that pools do not
/// overlay each other (Ceph's `HASHPSPOOL`). `pgp_num` zero counts as one.
pub fn pg_to_x(pool: u32, seed: u32, pgp_num: u32) -> u32 {
    let pgp_num = pgp_num.max(1);
    let mask = u32::MAX.checked_shr((pgp_num - 1).leading_zeros()).unwrap_or(0);
    hash2(nacre_types::stable_mod(seed, pgp_num, mask), pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_do_not_overlay() {
        assert_eq!(pg_to_x(3, 5, 8), hash2(5, 3));
        assert_eq!(pg_to_x(3, 13, 12), hash2(5, 3), "13 of 12 folds to 13 & 7");
        assert_eq!(pg_to_x(3, 11, 12), hash2(11, 3));
        assert_eq!(pg_to_x(9, 77, 0), hash2(0, 9));
        assert_eq!(pg_to_x(9, 77, 1), hash2(0, 9));
    }
}
