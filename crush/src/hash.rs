//! Robert Jenkins' 32-bit integer mix (1997) with the seed and padding constants CRUSH fixed for ever: every
//! placement decision is one of these hashes. They branch nowhere and are inlined, so that loops over them vectorise.

use std::ops::{BitXor, Shl, Shr};

const SEED: u32 = 1_315_423_911;
/// The two words that pad the arguments.
const X: u32 = 231_232;
const Y: u32 = 1_232;

/// A word, or several beside each other in a register.
pub(crate) trait Word:
    Copy + BitXor<Output = Self> + Shl<u32, Output = Self> + Shr<u32, Output = Self>
{
    /// Modulo 2^32.
    fn minus(self, other: Self) -> Self;
}

impl Word for u32 {
    #[inline(always)]
    fn minus(self, other: u32) -> u32 {
        self.wrapping_sub(other)
    }
}

/// `N` independent words, mixed in lock step.
pub(crate) type Words<W, const N: usize> = [W; N];

#[inline(always)]
fn step<W: Word, const N: usize>(
    a: &mut Words<W, N>,
    b: &Words<W, N>,
    c: &Words<W, N>,
    shift: impl Fn(W) -> W,
) {
    for n in 0..N {
        a[n] = a[n].minus(b[n]).minus(c[n]) ^ shift(c[n]);
    }
}

#[inline(always)]
fn mix<W: Word, const N: usize>(a: &mut Words<W, N>, b: &mut Words<W, N>, c: &mut Words<W, N>) {
    step(a, b, c, |c| c >> 13);
    step(b, c, a, |a| a << 8);
    step(c, a, b, |b| b >> 13);
    step(a, b, c, |c| c >> 12);
    step(b, c, a, |a| a << 16);
    step(c, a, b, |b| b >> 5);
    step(a, b, c, |c| c >> 3);
    step(b, c, a, |a| a << 10);
    step(c, a, b, |b| b >> 15);
}

/// Hash of two words: reweight tests and pools.
pub fn hash2(a: u32, b: u32) -> u32 {
    let mut hash = [SEED ^ a ^ b];
    let (mut a, mut b, mut x, mut y) = ([a], [b], [X], [Y]);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut x, &mut a, &mut hash);
    mix(&mut b, &mut y, &mut hash);
    hash[0]
}

/// Hash of three words: draws and permutations.
pub fn hash3(a: u32, b: u32, c: u32) -> u32 {
    hash3_of(a, [b], [c], |word| word, |_| {})[0]
}

/// `hash3` of `a`, each of `b`, and the `c` beside it. `all` makes a register of one word; `abreast` is shown the hashes on
/// the way.
#[inline(always)]
pub(crate) fn hash3_of<W: Word, const N: usize>(
    a: u32,
    mut b: Words<W, N>,
    mut c: Words<W, N>,
    all: impl Fn(u32) -> W,
    abreast: impl Fn(&mut Words<W, N>),
) -> Words<W, N> {
    let seed = all(SEED ^ a);
    let mut hash = b;
    for n in 0..N {
        hash[n] = seed ^ b[n] ^ c[n];
    }
    let (mut a, mut x, mut y) = ([all(a); N], [all(X); N], [all(Y); N]);
    mix(&mut a, &mut b, &mut hash);
    abreast(&mut hash);
    mix(&mut c, &mut x, &mut hash);
    abreast(&mut hash);
    mix(&mut y, &mut a, &mut hash);
    abreast(&mut hash);
    mix(&mut b, &mut x, &mut hash);
    abreast(&mut hash);
    mix(&mut y, &mut c, &mut hash);
    hash
}

/// Hash of four words: list buckets.
pub fn hash4(a: u32, b: u32, c: u32, d: u32) -> u32 {
    let mut hash = [SEED ^ a ^ b ^ c ^ d];
    let (mut a, mut b, mut c, mut d, mut x, mut y) = ([a], [b], [c], [d], [X], [Y]);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut a, &mut x, &mut hash);
    mix(&mut y, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut d, &mut hash);
    hash[0]
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
