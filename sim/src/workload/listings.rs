//! Listings while others make and remove objects: what stays is listed once each time, what never was is never listed.

use super::Worker;
use nacre_client::{ErrorCode, ListCursor, ListedObject, Pool};
use std::collections::BTreeSet;
use std::time::Duration;

pub struct ListingTask {
    pub worker: Worker,
}

const STABLE: u64 = 12;

impl ListingTask {
    pub async fn run(mut self) {
        let what = format!("listing of client {}", self.worker.number);
        Worker::complaining(self.worker.history.clone(), what, self.work()).await;
    }

    async fn work(&mut self) -> Result<(), String> {
        let pool = self.worker.pool(None).await.map_err(|error| error.to_string())?;
        let mut stable = BTreeSet::new();
        for at in 0..STABLE {
            let name = format!("listed-{}-{at}", self.worker.number);
            self.make(&pool, &name).await?;
            stable.insert(name);
        }
        let mut gone = BTreeSet::new();
        let mut round = 0;
        while self.worker.is_on() {
            round += 1;
            let passing = format!("passing-{}-{round}", self.worker.number);
            self.make(&pool, &passing).await?;
            let listed = self.list(&pool).await?;
            let names: BTreeSet<&String> = listed.iter().map(|object| &object.name).collect();
            if names.len() != listed.len() {
                return Err("an object is listed twice".into());
            }
            if let Some(missing) = stable.iter().chain([&passing]).find(|name| !names.contains(name)) {
                return Err(format!("{missing} is not listed"));
            }
            if let Some(name) = gone.iter().find(|name| names.contains(name)) {
                return Err(format!("{name} is listed, and was removed before"));
            }
            pool.object(&passing).remove().await.map_err(|error| error.to_string())?;
            gone.insert(passing);
            self.worker.history.borrow_mut().count();
            self.worker.pause(20.0).await;
        }
        Ok(())
    }

    /// Again and again while the cluster is full.
    async fn make(&self, pool: &Pool, name: &str) -> Result<(), String> {
        loop {
            match pool.object(name).write_full("x").await {
                Err(error) if error.code == ErrorCode::NoSpace => {
                    self.worker.clock.sleep(Duration::from_millis(500)).await;
                }
                result => return result.map_err(|error| error.to_string()),
            }
        }
    }

    async fn list(&mut self, pool: &Pool) -> Result<Vec<ListedObject>, String> {
        let (mut all, mut cursor) = (Vec::new(), Some(ListCursor::default()));
        while let Some(at) = cursor {
            let most = self.worker.rng.range(1, 20) as u32;
            let (page, next) = pool.list_page(at, most, false).await.map_err(|error| error.to_string())?;
            all.extend(page);
            cursor = next;
        }
        Ok(all)
    }
}
