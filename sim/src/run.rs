//! One run: a cluster comes up, works while things break (safety), heals and must become healthy (liveness), and is
//! judged.

use crate::checkers::history::{Action, History};
use crate::checkers::linearizability::Verdict;
use crate::checkers::{audit, linearizability};
use crate::cluster::SimCluster;
use crate::nemesis::Nemesis;
use crate::network::NodeId;
use crate::nodes::ClientNode;
use crate::operator::Operator;
use crate::options::Options;
use crate::trace::Trace;
use crate::workload::compound::CompoundTask;
use crate::workload::filler::FillerTask;
use crate::workload::image::ImageTask;
use crate::workload::listings::ListingTask;
use crate::workload::snapshots::SnapshotTask;
use crate::workload::watches::{self, WatchTask};
use crate::workload::{Shared, Task, Units, Worker, patience};
use bytes::Bytes;
use nacre_client::Cluster;
use nacre_types::{Instant, PgId, Rng};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Rolling hash of everything that happened.
    pub hash: u64,
    pub events: u64,
    /// Client operations that got an answer.
    pub operations: u64,
    pub simulated: Duration,
    pub failure: Option<String>,
    /// The last things that happened before a failure.
    pub recent: Vec<String>,
    /// How often each fault was injected and each place of interest reached.
    pub marks: BTreeMap<&'static str, u64>,
}

pub const POOL: &str = "sim";
/// A healthy cluster is up and has its pool by then.
const START_LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);
/// Steps between two looks at all machines.
const AUDIT_STEPS: u32 = 5;

/// Runs one seed with the options drawn from it.
pub fn run_seed(seed: u64, print: bool) -> Outcome {
    run(Options::sweep(seed), print)
}

pub fn run(options: Options, print: bool) -> Outcome {
    let options = options.within_budget();
    let seed = options.seed;
    nacre_types::arm(seed, options.faults.buggify);
    let mut cluster = SimCluster::new(options, Trace::new(print));
    let history: Shared = Rc::default();
    let result = phases(&mut cluster, &history);
    let failure = cluster.world.failure.take().or(result.err());
    let mut marks = std::mem::take(&mut cluster.world.marks);
    marks.insert("fault: connection failed", cluster.world.network.failed_connects);
    marks.insert("fault: half-open session", cluster.world.network.half_open);
    marks.extend(nacre_types::disarm());
    marks.retain(|_, count| *count > 0);
    Outcome {
        seed,
        hash: cluster.world.trace.hash(),
        events: cluster.world.trace.events(),
        operations: history.borrow().answered(),
        simulated: cluster.world.now.since(Instant::ZERO),
        recent: if failure.is_some() {
            cluster.world.trace.recent().map(String::from).collect()
        } else {
            Vec::new()
        },
        failure,
        marks,
    }
}

fn phases(cluster: &mut SimCluster, history: &Shared) -> Result<(), String> {
    start(cluster)?;
    safety(cluster, history)?;
    liveness(cluster)?;
    judge(cluster, history)
}

/// Something the administrator does: spawned on his client, run until it is done.
pub fn admin<T: 'static, F>(
    cluster: &mut SimCluster,
    limit: Duration,
    what: &str,
    work: impl FnOnce(Cluster) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>> + 'static,
{
    let done: Rc<RefCell<Option<Result<T, String>>>> = Rc::default();
    let result = done.clone();
    cluster.as_admin(|handle| {
        let work = work(handle);
        async move {
            let value = work.await;
            *result.borrow_mut() = Some(value);
        }
    });
    let waiting = done.clone();
    let ended = cluster.run_while(limit, move |_| waiting.borrow().is_none());
    let value = done.borrow_mut().take();
    match value {
        Some(value) => value.map_err(|why| format!("{what}: {why}")),
        None if ended => Err(format!("{what}: no result")),
        None => Err(format!("{what}: no answer within {limit:?}")),
    }
}

/// A monitor command.
pub fn command(cluster: &mut SimCluster, command: Value) -> Result<Value, String> {
    let what = command["prefix"].as_str().unwrap_or("?").to_string();
    admin(cluster, START_LIMIT, &what, |handle| async move {
        let reply = handle.command(&command.to_string(), Bytes::new()).await.map_err(|e| e.to_string())?;
        if reply.json.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&reply.json).map_err(|e| e.to_string())
    })
}

/// Brings the cluster up: OSDs, pool, everything clean.
pub fn start(cluster: &mut SimCluster) -> Result<(), String> {
    let options = cluster.world.options.clone();
    for at in 0..options.osds {
        let uuid = format!("00000000-0000-4000-8000-{at:012}");
        let answer = command(cluster, json!({"prefix": "osd new", "uuid": uuid}))?;
        if answer["osdid"] != at {
            return Err(format!("the first OSDs are numbered from 0, but {at} got {answer}"));
        }
        cluster.add_osd(at, &uuid);
    }
    let osds = options.osds;
    wait_healthy(cluster, START_LIMIT, "the OSDs to come up", move |status, _| {
        status["osdmap"]["num_up_osds"] == osds && status["osdmap"]["num_in_osds"] == osds
    })?;
    command(
        cluster,
        json!({
            "prefix": "osd pool create", "pool": POOL, "size": options.size, "min_size": options.min_size,
            "pg_num": options.pg_num,
        }),
    )?;
    wait_healthy(cluster, START_LIMIT, "the new pool's PGs", |_, pgs| all_clean(pgs))
}

/// Also while it is scrubbed, and when a scrub has found errors: they are for [`scrub`] to have repaired, or to report.
fn is_clean(pg: &Value) -> bool {
    pg["state"].as_str().is_some_and(|state| state.replace("inconsistent+", "").starts_with("active+clean"))
}

fn all_clean(pgs: &Value) -> bool {
    let pgs = pgs.as_array().map(Vec::as_slice).unwrap_or_default();
    !pgs.is_empty() && pgs.iter().all(is_clean)
}

fn wait_healthy(
    cluster: &mut SimCluster,
    limit: Duration,
    what: &str,
    healthy: impl Fn(&Value, &Value) -> bool,
) -> Result<(), String> {
    let until = cluster.world.now + limit;
    loop {
        let status = command(cluster, json!({"prefix": "status"}))?;
        let pgs = command(cluster, json!({"prefix": "pg ls"}))?["pg_stats"].take();
        // Reports lag behind: what the machines themselves say counts too.
        if healthy(&status, &pgs) && cluster.is_clean() {
            return Ok(());
        }
        if cluster.world.now >= until {
            return Err(format!(
                "waited {limit:?} for {what}; PGs: {}; {}; health {}, osdmap {}",
                pg_summary(&pgs),
                cluster.why_pgs().join("; "),
                status["health"]["checks"],
                status["osdmap"]
            ));
        }
        if cluster.world.failure.is_some() {
            return Err("a checker failed".into());
        }
        cluster.run_for(Duration::from_millis(500));
    }
}

fn pg_summary(pgs: &Value) -> String {
    let unclean = pgs.as_array().into_iter().flatten().filter(|pg| !is_clean(pg));
    let line = |pg: &Value| {
        format!("{} {} acting {} waits for {}", pg["pgid"], pg["state"], pg["acting"], pg["waiting_for"])
    };
    unclean.take(6).map(line).collect::<Vec<_>>().join("; ")
}

/// What all workers of a run have in common.
struct Shift {
    history: Shared,
    think: Duration,
    until: Instant,
}

impl Shift {
    fn worker(&self, number: usize, node: &ClientNode, rng: Rng) -> Worker {
        Worker {
            number,
            cluster: node.cluster.clone(),
            pool: POOL,
            clock: node.clock.clone(),
            history: self.history.clone(),
            rng,
            think: self.think,
            until: self.until,
        }
    }

    /// Puts one to work on a client, with random numbers of the world's.
    fn begin<F>(&self, cluster: &mut SimCluster, client: usize, work: impl FnOnce(Worker) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let rng = cluster.world.rng.fork();
        cluster.world.with_node(NodeId::Client(client), |node, now, wall_ms, out| {
            let Some(node) = node.client() else { return };
            node.spawn(work(self.worker(client, node, rng)));
            node.turn(now, nacre_client::ClientEvent::Tick { wall_ms }, out);
        });
    }
}

fn safety(cluster: &mut SimCluster, history: &Shared) -> Result<(), String> {
    let options = cluster.world.options.clone();
    let until = cluster.world.now + options.safety;
    let shift = Shift { history: history.clone(), think: options.think, until };
    let tasks = if options.work.registers { options.tasks } else { 0 };
    let (objects, units) = (options.objects, Units(options.unit));
    for client in 0..options.clients {
        for task in 0..tasks {
            let patience = patience(task);
            shift.begin(cluster, client, |worker| Task { worker, objects, units, patience }.run());
        }
    }
    if options.images {
        for client in 0..options.clients {
            let discards = options.work.discards.then(|| Rng::new(options.seed ^ client as u64));
            shift.begin(cluster, client, |worker| ImageTask { worker, discards }.run());
        }
    }
    spawn_more(cluster, &shift);
    let mut nemesis = Nemesis::new(cluster);
    let mut step = 0;
    while cluster.world.now < until && cluster.world.failure.is_none() {
        cluster.run_for(STEP);
        nemesis.act(cluster);
        step += 1;
        if step % AUDIT_STEPS == 0 {
            audit::audit(cluster)?;
        }
    }
    nemesis.heal(cluster)
}

/// The kinds of work that were added later, with random numbers of their own.
fn spawn_more(cluster: &mut SimCluster, shift: &Shift) {
    let options = cluster.world.options.clone();
    let work = options.work;
    let mut rng = Rng::new(options.seed ^ 0x776f_726b);
    let seen: Rc<RefCell<watches::Seen>> = Rc::default();
    for client in 0..options.clients {
        let slot = cluster.world.nodes.get_mut(&NodeId::Client(client));
        let Some(node) = slot.and_then(|slot| slot.node.client()) else { continue };
        for task in 0..options.tasks.clamp(1, 3) {
            for (locks, wanted) in [(false, work.compound), (true, work.locks)] {
                if wanted {
                    let worker = shift.worker(client * 100 + task, node, rng.fork());
                    let worker = Worker { think: shift.think * 2, ..worker };
                    let objects = (options.objects as u64 / 3).max(2);
                    let (units, patience) = (Units(options.unit), patience(task));
                    let seen = BTreeMap::new();
                    node.spawn(CompoundTask { worker, objects, units, locks, patience, seen }.run());
                }
            }
        }
        let mut worker = |node: &ClientNode| shift.worker(client, node, rng.fork());
        if work.snapshots {
            let worker = worker(node);
            node.spawn(SnapshotTask { worker }.run());
        }
        if work.listings && client == 0 {
            let worker = worker(node);
            node.spawn(ListingTask { worker }.run());
        }
        if work.watches {
            let (watcher, notifier) = (worker(node), worker(node));
            node.spawn(WatchTask { worker: watcher, seen: seen.clone() }.watch());
            node.spawn(WatchTask { worker: notifier, seen: seen.clone() }.notify());
        }
        if options.faults.full && client == 0 {
            let worker = worker(node);
            node.spawn(FillerTask { worker }.run());
        }
    }
    for client in 0..options.clients {
        cluster.as_client(NodeId::Client(client), |_| async {});
    }
}

fn liveness(cluster: &mut SimCluster) -> Result<(), String> {
    let limit = cluster.world.options.liveness;
    let clients = cluster.world.options.clients;
    let operator = Operator::begin(cluster);
    let answered = cluster.run_while(limit, |cluster| {
        (0..clients).any(|at| {
            let slot = cluster.world.nodes.get_mut(&NodeId::Client(at));
            slot.and_then(|slot| slot.node.client().map(|client| !client.is_idle())).unwrap_or(false)
        })
    });
    if !answered && cluster.world.failure.is_none() {
        let waiting = cluster.waiting().join("; ");
        return Err(format!("operations are still without an answer {limit:?} after healing: {waiting}"));
    }
    let osds = cluster.osds.len() as u64;
    let healthy = wait_healthy(cluster, limit, "active+clean after healing", move |status, pgs| {
        let count = |key: &str| status["osdmap"][key].as_u64();
        count("num_up_osds") == Some(osds) && count("num_in_osds") == Some(osds) && all_clean(pgs)
    });
    operator.end(cluster);
    healthy
}

fn judge(cluster: &mut SimCluster, history: &Shared) -> Result<(), String> {
    // Reading everything once more makes a lost write show.
    let names: Vec<String> = history.borrow().objects().map(|(name, _)| name.to_string()).collect();
    let clock_node = cluster.admin();
    let clock = match cluster.world.nodes.get_mut(&clock_node).and_then(|slot| slot.node.client()) {
        Some(client) => client.clock.clone(),
        None => return Err("the administrator's client is gone".into()),
    };
    let shared = history.clone();
    let units = Units(cluster.world.options.unit);
    admin(cluster, START_LIMIT * 2, "final reads", move |handle| async move {
        let pool = handle.pool(POOL).await.map_err(|e| e.to_string())?;
        for name in names {
            let invocation = shared.borrow_mut().invoke(usize::MAX, &name, clock.now(), Action::Read);
            let answer = units.perform(&pool, &name, &Action::Read).await;
            shared.borrow_mut().answer(&invocation, clock.now(), answer);
        }
        Ok(())
    })?;
    let undecided = check_history(&history.borrow())?;
    cluster.world.mark_times("not judged: an object's history has too many orders", undecided);
    audit::audit(cluster)?;
    audit::accounts(cluster)?;
    scrub(cluster)?;
    let problems = cluster.fsck_all();
    if !problems.is_empty() {
        return Err(format!("fsck: {}", problems.join("; ")));
    }
    Ok(())
}

/// A deep scrub of every PG, which finds nothing; with rot, after a repair, which may.
fn scrub(cluster: &mut SimCluster) -> Result<(), String> {
    let spoilt = cluster.world.options.faults.spoils();
    for order in if spoilt { &["repair", "deep-scrub"][..] } else { &["deep-scrub"] } {
        let began = cluster.world.wall_ms();
        let pgs = command(cluster, json!({"prefix": "pg ls"}))?["pg_stats"].take();
        for pg in pgs.as_array().into_iter().flatten() {
            let pg: PgId =
                pg["pgid"].as_str().unwrap_or_default().parse().map_err(|_| "a PG without a name")?;
            admin(cluster, START_LIMIT, order, move |handle| async move {
                let reply = handle.pg_admin(pg, order, "{}").await.map_err(|error| error.to_string())?;
                if reply.code == 0 { Ok(()) } else { Err(reply.message) }
            })?;
        }
        let limit = cluster.world.options.liveness;
        let last = *order == "deep-scrub";
        wait_healthy(cluster, limit, order, move |_, pgs| {
            let scrubbed = |pg: &Value| {
                let state = pg["state"].as_str().unwrap_or_default();
                pg["last_deep_scrub_ms"].as_u64() >= Some(began)
                    && !state.contains("scrubbing")
                    && (last || !state.contains("inconsistent"))
            };
            all_clean(pgs) && pgs.as_array().into_iter().flatten().all(scrubbed)
        })?;
    }
    let pgs = command(cluster, json!({"prefix": "pg ls"}))?["pg_stats"].take();
    let bad = |pg: &&Value| pg["stat_sum"]["num_scrub_errors"] != 0;
    match pgs.as_array().into_iter().flatten().find(bad) {
        Some(pg) => Err(format!("the last deep scrub found errors: {pg}")),
        None => Ok(()),
    }
}

/// Judges every history; says how many could not be judged.
fn check_history(history: &History) -> Result<u64, String> {
    if let Some(complaint) = history.complaints().first() {
        return Err(complaint.clone());
    }
    let mut undecided = 0;
    for (name, operations) in history.objects() {
        undecided += u64::from(linearizability::check(name, operations)? == Verdict::Undecided);
    }
    for (name, operations) in history.compound() {
        undecided += u64::from(linearizability::check(name, operations)? == Verdict::Undecided);
    }
    Ok(undecided)
}
