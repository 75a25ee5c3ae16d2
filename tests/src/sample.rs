//! Data for copying tests: files with holes and trees of small files, the same on every run.

use anyhow::ensure;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A sparse file of `length` bytes with pieces of data at its start, across object boundaries, alone and at its end.
pub fn raw_file(path: &Path, length: u64) -> anyhow::Result<()> {
    ensure!(length >= 32 << 20, "too small for all the pieces");
    let file = File::create(path)?;
    file.set_len(length)?;
    let pieces = [
        (0, 3 << 20),
        ((8 << 20) - 12_345, 50_000),
        ((16 << 20) + 512, 512),
        (20 << 20, 4 << 20),
        (length - 4096, 4096),
    ];
    for (seed, (offset, bytes)) in (1..).zip(pieces) {
        file.write_all_at(&noise(seed, bytes), offset)?;
    }
    Ok(())
}

/// Fails at the first byte in which two files differ.
pub fn assert_same_file(one: &Path, two: &Path) -> anyhow::Result<()> {
    let (a, b) = (File::open(one)?, File::open(two)?);
    let (length, other) = (a.metadata()?.len(), b.metadata()?.len());
    ensure!(length == other, "{} has {length} bytes, {} has {other}", one.display(), two.display());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..length).step_by(1 << 20) {
        let part = (length - offset).min(1 << 20) as usize;
        a.read_exact_at(&mut left[..part], offset)?;
        b.read_exact_at(&mut right[..part], offset)?;
        let differs = left[..part].iter().zip(&right[..part]).position(|(l, r)| l != r);
        ensure!(
            differs.is_none(),
            "{} and {} differ at byte {}",
            one.display(),
            two.display(),
            offset + differs.unwrap_or(0) as u64
        );
    }
    Ok(())
}

/// A tree of `files` files of all sizes up to some tens of KiB.
pub fn tree(root: &Path, files: u64) -> anyhow::Result<()> {
    for file in 0..files {
        let folder = root.join(format!("d{}", file % 17)).join(format!("e{}", file % 5));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(
            folder.join(format!("file-{file}")),
            noise(file + 1, (file * file * 37 % 40_000) as usize),
        )?;
    }
    Ok(())
}
