//! Fills small disks until the cluster says it is full, then removes everything: a full cluster must let go of data.

use super::Worker;
use nacre_client::{ErrorCode, Pool};
use std::time::Duration;

pub struct FillerTask {
    pub worker: Worker,
}

const OBJECT_BYTES: usize = 512 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

impl FillerTask {
    pub async fn run(mut self) {
        let Ok(pool) = self.worker.pool(Some(PATIENCE)).await else { return };
        let mut written = 0u64;
        while self.worker.is_on() {
            let object = pool.object(format!("filler-{written}"));
            let full = match object.write_full(vec![written as u8 | 1; OBJECT_BYTES]).await {
                Ok(()) => false,
                Err(error) => error.code == ErrorCode::NoSpace || error.code == ErrorCode::TimedOut,
            };
            written += 1;
            self.worker.history.borrow_mut().count();
            if full {
                self.worker.clock.sleep(Duration::from_millis(self.worker.rng.range(0, 3000))).await;
                self.free(&pool, written).await;
                written = 0;
            }
            self.worker.clock.sleep(Duration::from_millis(50)).await;
        }
        self.free(&pool, written).await;
    }

    async fn free(&self, pool: &Pool, written: u64) {
        for at in 0..written {
            // Waited for as long as it takes: what frees space always runs.
            match pool.with_timeout(None).object(format!("filler-{at}")).remove().await {
                Ok(()) => {}
                Err(error) if error.code == ErrorCode::NotFound => {}
                Err(error) => {
                    self.worker.complain(format!("removing from a full cluster: {error}"));
                    return;
                }
            }
        }
    }
}
