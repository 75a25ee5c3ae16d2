//! Disks on real files: contents against a model, order of flushes, errors of a full or shrunken device.

use super::*;
use bytes::Bytes;
use nacre_store::{DiskDone, DiskError, DiskRequest, DiskSync};
use nacre_types::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    (dir, path)
}

fn on_reactor<T>(work: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

/// Cuts bytes into segments at odd places, or hands them over in one aligned piece.
fn segments(rng: &mut Rng, pool: &BufferPool, data: &[u8]) -> Vec<Bytes> {
    match rng.below(3) {
        0 => {
            let mut buffer = pool.take(data.len());
            buffer.as_mut_slice().copy_from_slice(data);
            let bytes = buffer.into_bytes();
            let half = data.len() / 2 / BLOCK * BLOCK;
            vec![bytes.slice(..half), bytes.slice(half..)]
        }
        1 => vec![Bytes::copy_from_slice(data)],
        _ => {
            let mut rest = Bytes::copy_from_slice(data);
            let mut parts = Vec::new();
            while !rest.is_empty() {
                let cut = 1 + rng.below(rest.len() as u64) as usize;
                parts.push(rest.split_to(cut));
            }
            parts
        }
    }
}

#[test]
fn random_requests_match_a_model() {
    let (_dir, path) = scratch();
    create_file(&path, 8 << 20).unwrap();
    let mut model = vec![0u8; 8 << 20];
    on_reactor(async || {
        let mut ring = DiskRing::start(FileDisk::open(&path).unwrap()).unwrap();
        let pool = BufferPool::new();
        let mut rng = Rng::new(7);
        // Token -> range, and the expected bytes of a read; requests in flight never overlap.
        let mut busy: BTreeMap<u64, (usize, usize, Vec<u8>, bool)> = BTreeMap::new();
        let mut next_token = 0;
        let mut left = 6000;
        while left > 0 || !busy.is_empty() {
            while left > 0 && busy.len() < 400 {
                left -= 1;
                next_token += 1;
                let blocks = 1 + rng.below(16) as usize;
                let first = rng.below((2048 - blocks) as u64) as usize;
                let (offset, length) = (first * BLOCK, blocks * BLOCK);
                if busy.values().any(|(at, len, ..)| offset < at + len && *at < offset + length) {
                    continue;
                }
                match rng.below(5) {
                    0 => {
                        busy.insert(next_token, (offset, 0, Vec::new(), false));
                        ring.push(DiskRequest::Flush { token: next_token });
                    }
                    1 | 2 => {
                        let data = pattern(next_token, length);
                        model[offset..offset + length].copy_from_slice(&data);
                        let segments = segments(&mut rng, &pool, &data);
                        busy.insert(next_token, (offset, length, data, true));
                        ring.push(DiskRequest::Write { token: next_token, offset: offset as u64, segments });
                    }
                    _ => {
                        let expected = model[offset..offset + length].to_vec();
                        busy.insert(next_token, (offset, length, expected, false));
                        ring.push(DiskRequest::Read { token: next_token, offset: offset as u64, length });
                    }
                }
            }
            if busy.is_empty() {
                continue;
            }
            let DiskDone { token, result } = ring.next_done().await;
            let (_, _, expected, write) = busy.remove(&token).expect("each request is answered once");
            let bytes = result.unwrap();
            // A write that went from where its bytes were returns none.
            assert!(bytes == expected || (write && bytes.is_empty()), "request {token}");
        }
        assert!(ring.is_idle());
    });
    let mut disk = FileDisk::open(&path).unwrap();
    assert_eq!(disk.read_at(0, model.len()).unwrap(), model);
    assert_eq!(disk.read_at(4100, 50).unwrap(), model[4100..4150]);
}

#[test]
fn a_flush_comes_after_its_writes_and_in_order() {
    let (_dir, path) = scratch();
    create_file(&path, 4 << 20).unwrap();
    on_reactor(async || {
        let mut ring = DiskRing::start(FileDisk::open(&path).unwrap()).unwrap();
        let write = |token: u64| DiskRequest::Write {
            token,
            offset: token * BLOCK as u64,
            segments: vec![Bytes::from(vec![token as u8; BLOCK])],
        };
        ring.set_durable_writes(true);
        // Groups of 0, 1 and several writes; tokens of flushes from 1000 on.
        let (mut token, mut before) = (0, Vec::new());
        for (index, writes) in [0, 1, 1, 5, 0, 1, 90, 1, 2].into_iter().enumerate() {
            for _ in 0..writes {
                ring.push(write(token));
                token += 1;
            }
            ring.push(DiskRequest::Flush { token: 1000 + index as u64 });
            before.push(token);
            if index % 3 == 0 {
                ring.submit();
            }
        }
        let (mut written, mut flushes) = (0, Vec::new());
        while flushes.len() < before.len() {
            let done = ring.next_done().await;
            done.result.unwrap();
            match done.token {
                flush @ 1000.. => {
                    assert!(
                        written >= before[(flush - 1000) as usize],
                        "flush {flush} after {written} writes"
                    );
                    flushes.push(flush);
                }
                _ => written += 1,
            }
        }
        assert!(flushes.is_sorted());
        let stats = ring.stats();
        assert_eq!((stats.writes, stats.flushes), (token, before.len() as u64));
        assert!(stats.syncs + stats.durable_writes <= stats.flushes, "{stats:?}");
    });
}

#[test]
fn a_lone_write_and_its_flush_are_one_durable_write() {
    let (_dir, path) = scratch();
    create_file(&path, 1 << 20).unwrap();
    on_reactor(async || {
        let mut ring = DiskRing::start(FileDisk::open(&path).unwrap()).unwrap();
        ring.set_durable_writes(true);
        for round in 0..10 {
            let segments = vec![Bytes::from(vec![round as u8; 10]), Bytes::from(vec![1; BLOCK - 10])];
            ring.push(DiskRequest::Write { token: 2 * round, offset: round * BLOCK as u64, segments });
            ring.push(DiskRequest::Flush { token: 2 * round + 1 });
            // The block in one piece, since it had to be gathered.
            let written = [vec![round as u8; 10], vec![1; BLOCK - 10]].concat();
            assert_eq!(ring.next_done().await, DiskDone { token: 2 * round, result: Ok(written.into()) });
            assert_eq!(ring.next_done().await, DiskDone { token: 2 * round + 1, result: Ok(Bytes::new()) });
        }
        if ring.describe().contains("fdatasync") {
            assert_eq!((ring.stats().durable_writes, ring.stats().syncs), (10, 0));
        }
    });
}

#[test]
fn beyond_the_end_is_an_error_and_a_shrunken_file_too() {
    let (_dir, path) = scratch();
    create_file(&path, 1 << 20).unwrap();
    let mut disk = FileDisk::open(&path).unwrap();
    assert!(matches!(disk.read_at(1 << 20, BLOCK), Err(DiskError::OutOfRange { .. })));
    assert!(matches!(
        disk.write_at(u64::MAX / BLOCK as u64 * BLOCK as u64, &[0; BLOCK]),
        Err(DiskError::OutOfRange { .. })
    ));
    on_reactor(async || {
        let mut ring = DiskRing::start(disk).unwrap();
        ring.push(DiskRequest::Read { token: 1, offset: (1 << 20) - BLOCK as u64, length: 2 * BLOCK });
        assert!(matches!(ring.next_done().await.result, Err(DiskError::OutOfRange { .. })));
        std::fs::File::options().write(true).open(&path).unwrap().set_len(512 << 10).unwrap();
        ring.push(DiskRequest::Read { token: 2, offset: 768 << 10, length: BLOCK });
        ring.push(DiskRequest::Read { token: 3, offset: (512 << 10) - BLOCK as u64, length: 2 * BLOCK });
        ring.push(DiskRequest::Read { token: 4, offset: 0, length: BLOCK });
        let mut failed = Vec::new();
        for _ in 0..3 {
            let done = ring.next_done().await;
            match done.result {
                Ok(bytes) => assert_eq!((done.token, bytes.len()), (4, BLOCK)),
                Err(DiskError::Io { .. }) => failed.push(done.token),
                Err(other) => panic!("{other}"),
            }
        }
        failed.sort();
        assert_eq!(failed, [2, 3]);
    });
}

#[test]
fn dropping_the_ring_waits_for_what_is_in_flight() {
    let (_dir, path) = scratch();
    create_file(&path, 64 << 20).unwrap();
    on_reactor(async || {
        let mut ring = DiskRing::start(FileDisk::open(&path).unwrap()).unwrap();
        let data = Bytes::from(pattern(3, 1 << 20));
        for token in 0..64 {
            ring.push(DiskRequest::Write { token, offset: token << 20, segments: vec![data.clone()] });
            ring.push(DiskRequest::Read { token: 100 + token, offset: token << 20, length: 1 << 20 });
        }
        ring.submit();
        drop(ring);
        let mut disk = FileDisk::open(&path).expect("the lock went with the ring");
        assert_eq!(disk.read_at(5 << 20, 1 << 20).unwrap(), data);
    });
}

#[test]
fn a_second_opener_is_told_who_the_first_is() {
    let (_dir, path) = scratch();
    create_file(&path, 1 << 20).unwrap();
    let first = FileDisk::open(&path).unwrap();
    let error = FileDisk::open(&path).err().unwrap().to_string();
    assert!(error.contains(&format!("this process (pid {})", std::process::id())), "{error}");
    drop(first);
    FileDisk::open(&path).unwrap();
}

#[test]
fn creating_says_what_is_wrong() {
    let (dir, path) = scratch();
    create_file(&path, 1 << 20).unwrap();
    assert!(matches!(create_file(&path, 2 << 20), Err(OpenDiskError::Exists { bytes: 1_048_576, .. })));
    let huge = dir.path().join("huge");
    let error = create_file(&huge, 1 << 50).unwrap_err();
    assert!(matches!(error, OpenDiskError::NoSpace { .. }), "{error}");
    assert!(!huge.exists());
    assert!(matches!(
        FileDisk::open(dir.path()),
        Err(OpenDiskError::Open { .. } | OpenDiskError::WrongKind { .. })
    ));
    assert!(matches!(FileDisk::open(&dir.path().join("missing")), Err(OpenDiskError::Open { .. })));
    assert!(matches!(
        FileDisk::open(Path::new("/dev/null")),
        Err(OpenDiskError::WrongKind { .. } | OpenDiskError::Open { .. })
    ));
}

/// A small tmpfs, unmounted when dropped; `None` without the right to mount.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    fn mount() -> Option<SmallFileSystem> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallFileSystem(dir))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_file_system_is_no_space() {
    let Some(small) = SmallFileSystem::mount() else { return };
    let path = small.0.path().join("data");
    assert!(matches!(create_file(&path, 4 << 20), Err(OpenDiskError::NoSpace { .. })));
    // A file with holes, as somebody may have made it.
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    on_reactor(async || {
        let mut ring = DiskRing::start(FileDisk::open(&path).unwrap()).unwrap();
        for token in 0..4 {
            let segments = vec![Bytes::from(vec![9; 512 << 10])];
            ring.push(DiskRequest::Write { token, offset: token << 20, segments });
        }
        let mut full = 0;
        for _ in 0..4 {
            match ring.next_done().await.result {
                Ok(_) => {}
                Err(DiskError::NoSpace) => full += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(full >= 2);
    });
}

/// A file as a block device, detached when dropped; `None` without the right to make one.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn attach(file: &Path) -> Option<LoopDevice> {
        let made = std::process::Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        let name = String::from_utf8(made.stdout).ok()?;
        made.status.success().then(|| LoopDevice(name.trim().into()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_gives_back_what_is_discarded_and_nothing_else() {
    let (_dir, path) = scratch();
    create_file(&path, 8 << 20).unwrap();
    let Some(device) = LoopDevice::attach(&path) else { return };
    let mut disk = FileDisk::open(&device.0).unwrap();
    if disk.discard_granularity().is_none() {
        return;
    }
    let data = pattern(9, 4 << 20);
    disk.write_at(0, &data).unwrap();
    disk.flush().unwrap();
    on_reactor(async || {
        let mut ring = DiskRing::start(disk).unwrap();
        ring.push(DiskRequest::Discard { token: 1, offset: 1 << 20, length: 1 << 20 });
        ring.push(DiskRequest::Discard { token: 2, offset: 2 << 20, length: 64 << 10 });
        assert!(!ring.is_idle(), "a discard is under way until it has ended");
        for token in 1..3 {
            assert_eq!(ring.next_done().await, DiskDone { token, result: Ok(Bytes::new()) });
        }
        assert!(ring.is_idle());
        ring.push(DiskRequest::Discard { token: 3, offset: 8 << 20, length: 64 << 10 });
        assert!(matches!(ring.next_done().await.result, Err(DiskError::OutOfRange { .. })));
        ring.push(DiskRequest::Discard { token: 4, offset: 3 << 20, length: 64 << 10 });
    });
    // The thread has let go of the device.
    let mut disk = FileDisk::open(&device.0).expect("the device is free again");
    let mut expected = data;
    for at in [1 << 20..(2 << 20) + (64 << 10), 3 << 20..(3 << 20) + (64 << 10)] {
        expected[at].fill(0);
    }
    assert_eq!(disk.read_at(0, expected.len()).unwrap(), expected);
}

#[test]
fn a_file_keeps_its_blocks() {
    let (_dir, path) = scratch();
    create_file(&path, 1 << 20).unwrap();
    let mut disk = FileDisk::open(&path).unwrap();
    assert_eq!(disk.discard_granularity(), None);
    disk.write_at(0, &pattern(1, 64 << 10)).unwrap();
    disk.discard(0, 64 << 10).unwrap();
    assert_eq!(disk.read_at(0, 64 << 10).unwrap(), pattern(1, 64 << 10));
    on_reactor(async || {
        let mut ring = DiskRing::start(disk).unwrap();
        ring.push(DiskRequest::Discard { token: 1, offset: 0, length: 64 << 10 });
        assert!(matches!(ring.next_done().await.result, Err(DiskError::Io { .. })));
    });
}

#[test]
fn buffers_are_reused_and_bounded() {
    let pool = BufferPool::new();
    let bytes = pool.take(5000).into_bytes();
    assert_eq!(bytes.len(), 5000);
    assert!((bytes.as_ptr() as usize).is_multiple_of(4096));
    drop(bytes);
    assert_eq!(pool.kept_bytes(), 8192);
    let many: Vec<_> = (0..60).map(|_| pool.take(1 << 20)).collect();
    drop(many);
    assert!(pool.kept_bytes() <= 48 << 20);
    drop(pool.take(64 << 20));
    assert!(pool.kept_bytes() <= 48 << 20);
}
