//! Hashes that place or compare things. None of them keeps a secret.

/// FNV-1a, 64 bits: compares map encodings and traces.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// An object's place in its pool's hash space: Robert Jenkins' 1996 string hash (the one Ceph's clients use), over
/// the name, or over `namespace \x1f name` where there is a namespace.
pub fn object_hash(namespace: &str, name: &str) -> u32 {
    if namespace.is_empty() {
        return rjenkins_bytes(name.as_bytes());
    }
    let mut key = Vec::with_capacity(namespace.len() + 1 + name.len());
    key.extend_from_slice(namespace.as_bytes());
    key.push(0x1f);
    key.extend_from_slice(name.as_bytes());
    rjenkins_bytes(&key)
}

/// Maps `hash` to `0..count` so that growing `count` splits slices and moves nothing between the others.
/// `mask` is the next power of two above `count`, minus one.
pub fn stable_mod(hash: u32, count: u32, mask: u32) -> u32 {
    debug_assert!(count > 0 && mask.wrapping_add(1).is_power_of_two() && count - 1 <= mask);
    if hash & mask < count { hash & mask } else { hash & (mask >> 1) }
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 13);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 8);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 13);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 12);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 16);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 5);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 3);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 10);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 15);
    (a, b, c)
}

fn rjenkins_bytes(key: &[u8]) -> u32 {
    let (mut a, mut b, mut c) = (0x9e37_79b9_u32, 0x9e37_79b9_u32, 0_u32);
    let mut chunks = key.chunks_exact(12);
    for chunk in &mut chunks {
        let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
        (a, b, c) = mix(a.wrapping_add(word(0)), b.wrapping_add(word(4)), c.wrapping_add(word(8)));
    }
    c = c.wrapping_add(key.len() as u32);
    // The low byte of `c` is the length's, so the tail's third word starts one byte up.
    for (i, &byte) in chunks.remainder().iter().enumerate() {
        let byte = u32::from(byte);
        match i {
            0..=3 => a = a.wrapping_add(byte << (8 * i)),
            4..=7 => b = b.wrapping_add(byte << (8 * (i - 4))),
            _ => c = c.wrapping_add(byte << (8 * (i - 7))),
        }
    }
    mix(a, b, c).2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_mod_splits_in_place() {
        for hash in (0..u32::MAX).step_by(65_537) {
            let before = stable_mod(hash, 8, 7);
            let after = stable_mod(hash, 12, 15);
            assert!(after == before || after == before + 8);
            assert!(after < 12);
        }
    }

    #[test]
    fn object_hash_is_fixed_for_ever() {
        // Placement of stored data depends on these: a change here loses every object.
        assert_eq!(object_hash("", "foo"), 0x7fc1_f406); // `ceph osd map` says pg 7fc1f406 for foo
        assert_ne!(object_hash("ns", "foo"), object_hash("", "foo"));
    }
}
