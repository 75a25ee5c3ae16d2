//! A client that uses a block image: every block says which it is and how often it was written, so that each read can
//! be judged on the spot. What a read sees lies between the writes acknowledged before it and those sent until it
//! ends; a snapshot never changes.

use super::{Shared, Worker};
use bytes::Bytes;
use nacre_client::image::{CreateOptions, OpenOptions};
use nacre_client::{ErrorCode, Image, OpError, Pool};
use nacre_types::Rng;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const BLOCK: u64 = 4096;
/// Objects of the image: small, so that a run sees many and requests cross their ends.
const ORDER: u32 = 16;
const BLOCKS: u64 = 64;
const OPTIONS: CreateOptions = CreateOptions { size: BLOCKS * BLOCK, order: ORDER };
const BLOCKS_PER_REQUEST_MAX: u64 = 6;
const FULL_PAUSE: Duration = Duration::from_millis(500);

pub struct ImageTask {
    pub worker: Worker,
    /// Decides when to discard or zero, if ever.
    pub discards: Option<Rng>,
}

/// How often a block was written: by what was acknowledged, and by what was sent.
#[derive(Clone, Copy, Default, Debug)]
struct Window {
    acked: u64,
    sent: u64,
    /// A write of it is under way.
    busy: bool,
}

/// A snapshot, and what its blocks have to be.
struct Taken {
    name: String,
    low: Vec<u64>,
    high: Vec<u64>,
}

#[derive(Clone)]
struct Blocks {
    image: Image,
    windows: Rc<RefCell<Vec<Window>>>,
    /// Writes that were discards, by block and number: they leave zeroes.
    zeroed: Zeroed,
    history: Shared,
}

type Zeroed = Rc<RefCell<BTreeSet<(u64, u64)>>>;

impl ImageTask {
    pub async fn run(mut self) {
        let (history, name) = (self.worker.history.clone(), format!("image-{}", self.worker.number));
        Worker::complaining(history, format!("image {name}"), self.work(&name)).await;
    }

    async fn work(&mut self, name: &str) -> Result<(), String> {
        let text = |error: OpError| error.to_string();
        // Whoever uses a block device cannot be told that something timed out.
        let pool = self.worker.pool(None).await.map_err(text)?;
        let mut created = pool.create_image(name, OPTIONS).await;
        while full(&created) && self.worker.is_on() {
            self.worker.clock.sleep(FULL_PAUSE).await;
            created = pool.create_image(name, OPTIONS).await;
        }
        match created {
            Err(error) if error.code == ErrorCode::NoSpace => return Ok(()),
            Err(error) if error.code != ErrorCode::AlreadyExists => return Err(format!("creating: {error}")),
            _ => {}
        }
        let image = pool.open_image(name, OpenOptions::default()).await.map_err(text)?;
        let windows = Rc::new(RefCell::new(vec![Window::default(); BLOCKS as usize]));
        let zeroed = Zeroed::default();
        let blocks = Blocks { image, windows, zeroed: zeroed.clone(), history: self.worker.history.clone() };
        let mut taken: Vec<Taken> = Vec::new();
        while self.worker.is_on() {
            if let Some(rng) = &mut self.discards
                && rng.chance(1, 12)
            {
                blocks.discard(rng).await?;
            }
            match self.worker.rng.below(100) {
                0..50 => blocks.write(&mut self.worker.rng).await?,
                50..95 => blocks.read(&mut self.worker.rng).await?,
                95..97 => {
                    let label = format!("s{}", self.worker.history.borrow_mut().fresh_id());
                    // The monitors may be away: then there is none.
                    if let Ok(snapshot) = blocks.snapshot(&label).await {
                        taken.push(snapshot);
                    }
                }
                97..99 => {
                    if let Some(snapshot) = taken.last_mut() {
                        check_snapshot(&pool, name, snapshot, &zeroed).await?;
                    }
                }
                _ if taken.len() > 1 => {
                    let snapshot = taken.remove(0);
                    // Likewise; it is trimmed some day or not.
                    let _ = blocks.image.remove_snapshot(&snapshot.name).await;
                }
                _ => {}
            }
            self.worker.pause(2.0).await;
        }
        blocks.check(0, BLOCKS).await?;
        for snapshot in &mut taken {
            check_snapshot(&pool, name, snapshot, &zeroed).await?;
        }
        blocks.image.close().await.map_err(|error| format!("closing: {error}"))
    }
}

impl Blocks {
    async fn write(&self, rng: &mut Rng) -> Result<(), String> {
        let (first, count) = range(rng);
        let mut content = Vec::new();
        {
            let windows = &mut self.windows.borrow_mut()[first as usize..(first + count) as usize];
            if windows.iter().any(|window| window.busy) {
                return Ok(());
            }
            for (at, window) in windows.iter_mut().enumerate() {
                window.sent += 1;
                window.busy = true;
                content.extend(encode(first + at as u64, window.sent));
            }
        }
        let content = Bytes::from(content);
        let mut result = self.image.write(first * BLOCK, content.clone()).await;
        while full(&result) {
            self.image.pool().cluster().sleep(FULL_PAUSE).await;
            result = self.image.write(first * BLOCK, content.clone()).await;
        }
        self.history.borrow_mut().count();
        result.map_err(|error| format!("writing blocks {first} to {}: {error}", first + count - 1))?;
        for window in &mut self.windows.borrow_mut()[first as usize..(first + count) as usize] {
            window.acked = window.sent;
            window.busy = false;
        }
        Ok(())
    }

    /// Discards or zeroes blocks, which counts as a write of theirs.
    async fn discard(&self, rng: &mut Rng) -> Result<(), String> {
        let (first, count) = range(rng);
        {
            let windows = &mut self.windows.borrow_mut()[first as usize..(first + count) as usize];
            if windows.iter().any(|window| window.busy) {
                return Ok(());
            }
            for (at, window) in (first..).zip(windows) {
                window.sent += 1;
                window.busy = true;
                self.zeroed.borrow_mut().insert((at, window.sent));
            }
        }
        let (offset, length) = (first * BLOCK, count * BLOCK);
        let discards = rng.chance(1, 2);
        let order = async || match discards {
            true => self.image.discard(offset, length).await,
            false => self.image.write_zeroes(offset, length).await,
        };
        let mut result = order().await;
        while full(&result) {
            self.image.pool().cluster().sleep(FULL_PAUSE).await;
            result = order().await;
        }
        self.history.borrow_mut().count();
        result.map_err(|error| format!("discarding blocks {first} to {}: {error}", first + count - 1))?;
        for window in &mut self.windows.borrow_mut()[first as usize..(first + count) as usize] {
            window.acked = window.sent;
            window.busy = false;
        }
        Ok(())
    }

    async fn read(&self, rng: &mut Rng) -> Result<(), String> {
        let (first, count) = range(rng);
        self.check(first, count).await
    }

    async fn check(&self, first: u64, count: u64) -> Result<(), String> {
        let low: Vec<u64> = self.acked(first, count);
        let bytes = self.image.read(first * BLOCK, count * BLOCK).await;
        self.history.borrow_mut().count();
        let bytes =
            bytes.map_err(|error| format!("reading blocks {first} to {}: {error}", first + count - 1))?;
        let high: Vec<u64> = self.sent(first, count);
        judge(first, &bytes, &low, &high, &self.zeroed.borrow()).map(drop)
    }

    async fn snapshot(&self, name: &str) -> Result<Taken, String> {
        let low = self.acked(0, BLOCKS);
        self.image.create_snapshot(name).await.map_err(|error| error.to_string())?;
        Ok(Taken { name: name.into(), low, high: self.sent(0, BLOCKS) })
    }

    fn acked(&self, first: u64, count: u64) -> Vec<u64> {
        let windows = self.windows.borrow();
        windows[first as usize..(first + count) as usize].iter().map(|window| window.acked).collect()
    }

    fn sent(&self, first: u64, count: u64) -> Vec<u64> {
        let windows = self.windows.borrow();
        windows[first as usize..(first + count) as usize].iter().map(|window| window.sent).collect()
    }
}

/// The first look fixes what every later one must see.
async fn check_snapshot(
    pool: &Pool,
    image: &str,
    snapshot: &mut Taken,
    zeroed: &Zeroed,
) -> Result<(), String> {
    let text = |error: OpError| format!("snapshot {}: {error}", snapshot.name);
    let at = pool.open_image(image, OpenOptions::at(&snapshot.name)).await.map_err(text)?;
    let bytes = at.read(0, BLOCKS * BLOCK).await.map_err(text)?;
    let seen = judge(0, &bytes, &snapshot.low, &snapshot.high, &zeroed.borrow());
    let seen = seen.map_err(|why| format!("snapshot {}: {why}", snapshot.name))?;
    at.close().await.map_err(text)?;
    (snapshot.low, snapshot.high) = (seen.clone(), seen);
    Ok(())
}

/// A full cluster says so; whoever writes tries again.
fn full<T>(result: &Result<T, OpError>) -> bool {
    result.as_ref().is_err_and(|error| error.code == ErrorCode::NoSpace)
}

fn range(rng: &mut Rng) -> (u64, u64) {
    let count = rng.range(1, BLOCKS_PER_REQUEST_MAX + 1);
    (rng.below(BLOCKS - count + 1), count)
}

fn encode(block: u64, count: u64) -> Bytes {
    [block.to_le_bytes(), count.to_le_bytes()].concat().repeat(BLOCK as usize / 16).into()
}

/// Counts seen, if each block is whole, itself, and within its window.
fn judge(
    first: u64,
    bytes: &[u8],
    low: &[u64],
    high: &[u64],
    zeroed: &BTreeSet<(u64, u64)>,
) -> Result<Vec<u64>, String> {
    let mut seen = Vec::new();
    for ((block, bytes), (&low, &high)) in
        (first..).zip(bytes.chunks(BLOCK as usize)).zip(low.iter().zip(high))
    {
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let (own, count) = (words[0], words[1]);
        if count == 0
            && words.iter().all(|&word| word == 0)
            && let Some(&(_, discard)) = zeroed.range((block, low)..=(block, high)).next_back()
        {
            // A snapshot looked at twice is the same twice: any discard since then looks alike.
            seen.push(discard);
            continue;
        }
        if count == 0 && low == 0 && words.iter().all(|&word| word == 0) {
            seen.push(0);
            continue;
        }
        if own != block || words.chunks_exact(2).any(|pair| pair != [block, count]) {
            return Err(format!("block {block} holds {:?}...", &words[..8]));
        }
        if !(low..=high).contains(&count) {
            return Err(format!("block {block} is as of write {count}, not {low} to {high}"));
        }
        seen.push(count);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_judged() {
        let none = BTreeSet::new();
        let two = [encode(4, 7), encode(5, 1)].concat();
        assert_eq!(judge(4, &two, &[6, 0], &[7, 1], &none), Ok(vec![7, 1]));
        assert!(judge(4, &two, &[8, 0], &[9, 1], &none).is_err(), "a lost write");
        assert!(judge(4, &two, &[0, 0], &[6, 1], &none).is_err(), "from the future");
        assert!(judge(3, &two, &[0, 0], &[9, 9], &none).is_err(), "misplaced");
        let mut torn = two.clone();
        torn[600..616].copy_from_slice(&encode(4, 6)[..16]);
        assert!(judge(4, &torn, &[6, 0], &[7, 1], &none).is_err(), "torn");
        assert_eq!(judge(0, &[0; 4096], &[0], &[3], &none), Ok(vec![0]));
        assert_eq!(judge(0, &[0; 4096], &[1], &[3], &[(0, 2)].into()), Ok(vec![2]), "a discard");
        assert!(judge(0, &[0; 4096], &[3], &[3], &[(0, 2)].into()).is_err(), "written since");
        assert!(judge(0, &[0; 4096], &[1], &[3], &none).is_err(), "zeroes after an acknowledged write");
    }
}
