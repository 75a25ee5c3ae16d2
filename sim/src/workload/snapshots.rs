//! One writer of a few objects who takes snapshots: what each snapshot saw is known, and never changes.

use super::Worker;
use bytes::Bytes;
use nacre_client::{ErrorCode, Pool, SnapContext};
use nacre_types::SnapId;
use std::collections::BTreeMap;
use std::time::Duration;

pub struct SnapshotTask {
    pub worker: Worker,
}

/// By object: the ids appended to it; absent if it does not exist.
type Contents = BTreeMap<u64, Vec<u64>>;

const OBJECTS: u64 = 4;
const SNAPSHOTS_MAX: usize = 5;

impl SnapshotTask {
    pub async fn run(mut self) {
        let what = format!("snapshots of client {}", self.worker.number);
        Worker::complaining(self.worker.history.clone(), what, self.work()).await;
    }

    async fn work(&mut self) -> Result<(), String> {
        // Every operation is waited for: what there is is always known.
        let pool = self.worker.pool(None).await.map_err(|error| error.to_string())?;
        let mut now = Contents::new();
        let mut taken: Vec<(SnapId, Contents)> = Vec::new();
        while self.worker.is_on() {
            let at = self.worker.rng.below(OBJECTS);
            let mut snaps: Vec<u64> = taken.iter().map(|(snap, _)| snap.0).collect();
            snaps.reverse();
            let context = SnapContext { seq: snaps.first().copied().unwrap_or(0), snaps };
            let writer = pool.with_snap_context(context).object(self.name(at));
            match self.worker.rng.below(100) {
                0..25 => {
                    let id = self.worker.history.borrow_mut().fresh_id();
                    match writer.append(Bytes::copy_from_slice(&id.to_le_bytes())).await {
                        Ok(()) => now.entry(at).or_default().push(id),
                        // A full cluster: nothing happened.
                        Err(error) if error.code == ErrorCode::NoSpace => {}
                        Err(error) => return Err(format!("appending to object {at}: {error}")),
                    }
                }
                25..40 => {
                    let id = self.worker.history.borrow_mut().fresh_id();
                    match writer.write_full(id.to_le_bytes().repeat(2)).await {
                        Ok(()) => drop(now.insert(at, vec![id, id])),
                        Err(error) if error.code == ErrorCode::NoSpace => {}
                        Err(error) => return Err(format!("writing object {at}: {error}")),
                    }
                }
                40..50 => match writer.remove().await {
                    Ok(()) if now.remove(&at).is_some() => {}
                    Err(error) if error.code == ErrorCode::NotFound && !now.contains_key(&at) => {}
                    other => return Err(format!("removing object {at}: {other:?}")),
                },
                50..65 => self.check(&pool, None, at, now.get(&at)).await?,
                65..90 => {
                    let Some((snap, contents)) = self.worker.rng.pick(&taken).cloned() else { continue };
                    self.check(&pool, Some(snap), at, contents.get(&at)).await?;
                }
                90..97 if taken.len() < SNAPSHOTS_MAX => {
                    // The monitors may be away: then there is none.
                    let snap = pool.with_timeout(Some(Duration::from_secs(10))).create_snap().await;
                    if let Ok(snap) = snap {
                        taken.push((snap, now.clone()));
                    }
                }
                _ if !taken.is_empty() => {
                    let (snap, _) = taken.remove(self.worker.rng.below(taken.len() as u64) as usize);
                    // Likewise; it is trimmed some day or not.
                    let _ = pool.with_timeout(Some(Duration::from_secs(10))).remove_snap(snap).await;
                }
                _ => {}
            }
            self.worker.history.borrow_mut().count();
            self.worker.pause(2.0).await;
        }
        for (snap, contents) in &taken {
            for at in 0..OBJECTS {
                self.check(&pool, Some(*snap), at, contents.get(&at)).await?;
            }
        }
        Ok(())
    }

    fn name(&self, at: u64) -> String {
        format!("snapped-{}-{at}", self.worker.number)
    }

    async fn check(
        &self,
        pool: &Pool,
        snap: Option<SnapId>,
        at: u64,
        expected: Option<&Vec<u64>>,
    ) -> Result<(), String> {
        let reader = snap.map_or_else(|| pool.clone(), |snap| pool.at_snap(snap));
        let seen = match reader.object(self.name(at)).read(0, 1 << 20).await {
            Ok(bytes) => {
                Some(bytes.chunks(8).map(|id| id.try_into().map_or(u64::MAX, u64::from_le_bytes)).collect())
            }
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) => return Err(format!("reading object {at} at {snap:?}: {error}")),
        };
        if seen.as_ref() != expected {
            return Err(format!("object {at} at {snap:?} is {seen:?}, not {expected:?}"));
        }
        Ok(())
    }
}
