//! Short programs for bugs that show in what one client sees: no luck is needed, only somebody who looks.

use crate::cluster::SimCluster;
use crate::options::{Faults, Options};
use crate::run::{POOL, admin, start};
use crate::trace::Trace;
use nacre_client::{Cluster, ErrorCode, LockRequest, Notice, ObjectRequest, Pool, SnapContext};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn cluster(print: bool) -> Result<SimCluster, String> {
    let mut options = Options { mons: 1, osds: 3, size: 3, min_size: 2, pg_num: 1, ..Options::draw(1) };
    options.faults = Faults::default();
    options.conditions = options.calm();
    let mut cluster = SimCluster::new(options, Trace::new(print));
    start(&mut cluster)?;
    Ok(cluster)
}

async fn pool(handle: &Cluster) -> Result<Pool, String> {
    handle.pool(POOL).await.map_err(|error| error.to_string())
}

fn text(error: nacre_client::OpError) -> String {
    error.to_string()
}

/// A lock that was broken fences its holder off.
pub fn locks(print: bool) -> Result<(), String> {
    admin(&mut cluster(print)?, PATIENCE, "locks", |handle| async move {
        let object = pool(&handle).await?.object("locked");
        let write = |value: &'static [u8]| {
            ObjectRequest::new().assert_locked("l", "mine").write_full(value).run(&object)
        };
        object.lock(&LockRequest::exclusive("l", "mine")).await.map_err(text)?;
        write(b"held").await.map_err(text)?;
        object.break_lock("l", handle.client_id(), "mine").await.map_err(text)?;
        match write(b"lost").await {
            Err(error) if error.code == ErrorCode::Fenced => Ok(()),
            other => Err(format!("locks: a write under a lost lock ends with {:?}", other.map(drop))),
        }
    })
}

/// What a notification counts as heard was heard.
pub fn watches(print: bool) -> Result<(), String> {
    admin(&mut cluster(print)?, PATIENCE, "watches", |handle| async move {
        let object = pool(&handle).await?.object("watched");
        object.create(false).await.map_err(text)?;
        let watch = object.watch().await.map_err(text)?;
        let reply = object.notify("news", Duration::from_secs(5)).await;
        let told = matches!(watch.try_next(), Some(Notice::Notified { .. }));
        // Nobody acknowledges it, so it must be said to be missed, though it came.
        let missed = reply.map_err(text)?.missed.len();
        if told && missed == 1 {
            return Ok(());
        }
        Err(format!("watches: of one watcher {missed} missed it, and it was told: {told}"))
    })
}

/// A snapshot outlives its head.
pub fn whiteouts(print: bool) -> Result<(), String> {
    admin(&mut cluster(print)?, PATIENCE, "whiteouts", |handle| async move {
        let pool = pool(&handle).await?;
        pool.object("head").write_full("then").await.map_err(text)?;
        let snap = pool.create_snap().await.map_err(text)?;
        let context = SnapContext { seq: snap.0, snaps: vec![snap.0] };
        pool.with_snap_context(context).object("head").remove().await.map_err(text)?;
        match pool.at_snap(snap).object("head").read(0, 100).await {
            Ok(bytes) if bytes == "then" => Ok(()),
            other => Err(format!("snapshots: of a head removed since one reads {other:?}")),
        }
    })
}

/// What is removed from an omap stays removed, at once and after everything died.
pub fn omaps(print: bool) -> Result<(), String> {
    let mut cluster = cluster(print)?;
    let work = |handle: Cluster| async move {
        let object = pool(&handle).await?.object("omap");
        object.omap_set((0..20).map(|at| (format!("k{at:02}"), "old"))).await.map_err(text)?;
        object.omap_clear().await.map_err(text)?;
        object.omap_set([("a", "new"), ("b", "new")]).await.map_err(text)?;
        object.omap_remove(["b"]).await.map_err(text)?;
        only_a(&handle, "at once").await
    };
    admin(&mut cluster, PATIENCE, "omaps", work)?;
    for at in cluster.osds.clone() {
        cluster.crash_osd(at, true);
    }
    cluster.start_everything();
    admin(&mut cluster, PATIENCE, "omaps", |handle| async move { only_a(&handle, "after a restart").await })
}

async fn only_a(handle: &Cluster, when: &str) -> Result<(), String> {
    let pairs = pool(handle).await?.object("omap").omap("").await.map_err(text)?;
    let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_ref()).collect();
    if keys == [b"a"] { Ok(()) } else { Err(format!("omaps: {} keys {when}, not one", keys.len())) }
}
