//! The person who reads what `nacre explain` says when all is healed, and does what it calls safe.

use crate::cluster::SimCluster;
use nacre_client::Cluster;
use nacre_types::PgId;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Looks for unfound objects until told to stop, and has those go back whose newest version no client has seen.
pub struct Operator {
    stop: Rc<Cell<bool>>,
    reverted: Rc<Cell<u64>>,
}

impl Operator {
    pub fn begin(cluster: &mut SimCluster) -> Operator {
        let operator = Operator { stop: Rc::default(), reverted: Rc::default() };
        let (stop, reverted) = (operator.stop.clone(), operator.reverted.clone());
        cluster.as_admin(move |handle| async move {
            while !stop.get() {
                handle.sleep(LOOK).await;
                for pg in pgs(&handle).await {
                    reverted.set(reverted.get() + look(&handle, pg).await);
                }
            }
        });
        operator
    }

    pub fn end(self, cluster: &mut SimCluster) {
        self.stop.set(true);
        cluster.world.mark_times("operator: reverted to what clients have seen", self.reverted.get());
    }
}

async fn pgs(handle: &Cluster) -> Vec<PgId> {
    let answer = handle.command(json!({"prefix": "pg ls"}).to_string(), "").await;
    let answer: Value =
        answer.ok().and_then(|reply| serde_json::from_str(&reply.json).ok()).unwrap_or_default();
    let pgs = answer["pg_stats"].as_array().into_iter().flatten();
    pgs.filter_map(|pg| pg["pgid"].as_str()?.parse().ok()).collect()
}

/// How many objects were reverted.
async fn look(handle: &Cluster, pg: PgId) -> u64 {
    let unfound = ask(handle, pg, "list_unfound", "{}").await;
    let safe = |object: &Value| object["revert"]["loses_nothing"] == true;
    if !unfound["objects"].as_array().into_iter().flatten().any(safe) {
        return 0;
    }
    let done = ask(handle, pg, "mark_unfound_lost", &json!({"mode": "revert"}).to_string()).await;
    done["reverted"].as_u64().unwrap_or_default()
}

async fn ask(handle: &Cluster, pg: PgId, command: &str, json: &str) -> Value {
    let reply = handle.pg_admin(pg, command, json).await;
    reply.ok().and_then(|reply| serde_json::from_str(&reply.json).ok()).unwrap_or_default()
}
