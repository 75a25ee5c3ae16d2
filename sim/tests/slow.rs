//! Where the time goes: what OSDs tell of measured operations adds up to what clients saw, and what is slow is named.

use nacre_client::Cluster;
use nacre_explain::{Slowness, Times, Top, top, why_slow};
use nacre_sim::Options;
use nacre_sim::cluster::SimCluster;
use nacre_sim::network::{Conditions, NodeId};
use nacre_sim::options::Faults;
use nacre_sim::run::{POOL, start};
use nacre_sim::trace::Trace;
use nacre_types::OsdId;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const OSDS: usize = 3;
const CLIENTS: usize = 2;
const WINDOW: Duration = Duration::from_secs(600);

/// By object, and whether it was written.
type Seen = Rc<RefCell<BTreeMap<(String, bool), Duration>>>;

struct Lab {
    cluster: SimCluster,
    /// How long callers waited.
    seen: Seen,
}

impl Lab {
    fn new(seed: u64) -> Lab {
        let micros = Duration::from_micros;
        let mut options = Options {
            mons: 1,
            osds: OSDS,
            size: OSDS as u32,
            min_size: 2,
            clients: CLIENTS,
            pg_num: 8,
            disk_latency_mean: micros(300),
            ..Options::draw(seed)
        };
        options.faults = Faults::default();
        options.conditions =
            Conditions { latency_min: micros(50), latency_mean: micros(50), ..options.calm() };
        let mut cluster = SimCluster::new(options, Trace::new(false));
        start(&mut cluster).expect("a healthy cluster starts");
        Lab { cluster, seen: Seen::default() }
    }

    fn run(&mut self, ms: u64) {
        self.cluster.run_for(Duration::from_millis(ms));
        assert_eq!(self.cluster.world.failure, None);
    }

    fn slow_disk(&mut self, osd: usize, times: u32) {
        self.cluster
            .world
            .with_node(NodeId::Osd(osd), |node, _, _, _| node.osd().expect("an OSD").slow(times));
    }

    fn slow_link(&mut self, a: usize, b: usize, by: Duration) {
        for (from, to) in [(a, b), (b, a)] {
            self.cluster.world.network.slow(NodeId::Osd(from), NodeId::Osd(to), by);
        }
    }

    fn work(&mut self, objects: usize) {
        self.begin(objects);
        self.until_seen(CLIENTS * objects * 2);
    }

    /// Every client writes so many objects and reads them, a few at a time.
    fn begin(&mut self, objects: usize) {
        const TASKS: usize = 4;
        for client in 0..CLIENTS {
            for task in 0..TASKS {
                let seen = self.seen.clone();
                self.cluster.as_client(NodeId::Client(client), move |handle| async move {
                    let pool = handle.pool(POOL).await.expect("the pool");
                    for at in (task..objects).step_by(TASKS) {
                        let name = format!("o{client}-{at}");
                        let object = pool.object(name.clone());
                        let began = handle.now();
                        object.write_full(vec![7; 8192]).await.expect("written");
                        let written = handle.now();
                        object.read(0, 8192).await.expect("read");
                        let mut seen = seen.borrow_mut();
                        seen.insert((name.clone(), true), written.since(began));
                        seen.insert((name, false), handle.now().since(written));
                    }
                });
            }
        }
    }

    fn until_seen(&mut self, operations: usize) {
        for _ in 0..600 {
            if self.seen.borrow().len() >= operations {
                return;
            }
            self.run(100);
        }
        panic!("the work does not end: {:?}", self.cluster.waiting());
    }

    fn ask<T, F>(&mut self, ask: impl FnOnce(Cluster) -> F + 'static) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let done: Rc<RefCell<Option<T>>> = Rc::default();
        let result = done.clone();
        self.cluster.as_admin(move |handle| async move {
            let answer = ask(handle).await;
            *result.borrow_mut() = Some(answer);
        });
        for _ in 0..100 {
            if done.borrow().is_some() {
                break;
            }
            self.run(50);
        }
        let answer = done.borrow_mut().take();
        answer.expect("answered")
    }

    fn why_slow(&mut self) -> Slowness {
        self.ask(|handle| async move { why_slow(&handle, POOL, None, WINDOW).await.expect("an answer") })
    }

    /// What clients did, without what asking itself leads to.
    fn records(&mut self) -> Vec<Value> {
        let told = self.ask(|handle| async move {
            let mut told = Vec::new();
            for osd in 0..OSDS as u32 {
                told.push(handle.osd_admin(OsdId(osd), "stages", "{}").await.expect("an answer").json);
            }
            told
        });
        let of_osd = |json: &String| serde_json::from_str::<Value>(json).expect("JSON")["records"].take();
        let records = told.iter().flat_map(|json| match of_osd(json) {
            Value::Array(records) => records,
            other => panic!("{other} is no list"),
        });
        records.filter(|record| record["object"].as_str().expect("a name").starts_with('o')).collect()
    }
}

/// How many complete records there are, and how often each stage is met in them. The stages of each add up to what its
/// caller saw.
fn check_sums(
    records: &[Value],
    seen: &BTreeMap<(String, bool), Duration>,
) -> (usize, BTreeMap<String, usize>) {
    let mut met = BTreeMap::new();
    let complete = records.iter().filter(|record| !record["total_ns"].is_null());
    let mut count = 0;
    for record in complete {
        let stages = record["stages"].as_object().expect("stages");
        let sum: u64 = stages.values().map(number).sum();
        let key = (record["object"].as_str().expect("a name").to_string(), record["write"] == true);
        let saw = seen[&key].as_nanos() as u64;
        assert!(sum.abs_diff(saw) * 20 <= saw, "{record}: the client saw {saw}, its stages make {sum}");
        assert_eq!(sum, number(&record["total_ns"]), "{record}");
        for name in stages.keys() {
            *met.entry(name.clone()).or_default() += 1;
        }
        count += 1;
    }
    (count, met)
}

fn number(json: &Value) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("{json} is no number"))
}

#[test]
fn stages_add_up_to_what_the_client_saw() {
    let mut lab = Lab::new(1);
    lab.work(150);
    let records = lab.records();
    let seen = lab.seen.borrow().clone();
    let (complete, met) = check_sums(&records, &seen);
    assert!(complete > 60, "{complete} of {} records are complete", records.len());
    for stage in ["network", "read", "journal_write", "journal_flush", "replica_network", "replica_flush"] {
        assert!(met.contains_key(stage), "{stage} is met: {met:?}");
    }
    // Of what is measured hardly more than the last of each client on each OSD has not been told.
    assert!(records.len() - complete <= CLIENTS * OSDS * 4, "{complete} of {} are told", records.len());
    let stood_for: u64 = records.iter().map(|record| number(&record["weight"])).sum();
    let did = seen.len() as u64;
    assert!(stood_for.abs_diff(did) * 10 <= did, "{did} operations, measured ones stand for {stood_for}");
}

#[test]
fn stages_add_up_when_a_primary_dies() {
    let mut lab = Lab::new(3);
    lab.cluster.crash_osd(0, false);
    lab.begin(60);
    lab.run(8000);
    lab.cluster.start_osd(0);
    lab.until_seen(CLIENTS * 60 * 2);
    // What waited tells with the operations after it.
    lab.run(2000);
    let records = lab.records();
    let seen = lab.seen.borrow().clone();
    let (complete, met) = check_sums(&records, &seen);
    assert!(complete > 40, "{complete} of {}", records.len());
    assert!(met.contains_key("pg"), "new primaries had to become active: {met:?}");
}

#[test]
fn waiting_for_others_operations_on_an_object_is_seen() {
    let mut lab = Lab::new(1);
    lab.slow_disk(0, 20);
    for client in 0..CLIENTS {
        lab.cluster.as_client(NodeId::Client(client), move |handle| async move {
            let pool = handle.pool(POOL).await.expect("the pool");
            for _ in 0..60 {
                match client {
                    0 => pool.object("o").write_full(vec![7; 4096]).await.expect("written"),
                    _ => drop(pool.object("o").read(0, 10).await),
                }
            }
        });
    }
    lab.run(20_000);
    let slowness = lab.why_slow();
    let reads = slowness.reads.as_ref().expect("reads");
    assert_eq!((reads.blame.stage.as_str(), &reads.blame.osds), ("lock", &vec![]), "{slowness}");
}

#[test]
fn a_slow_disk_is_named() {
    for seed in [1, 2] {
        for slow in 0..OSDS {
            let mut lab = Lab::new(seed);
            lab.slow_disk(slow, 60);
            lab.work(40);
            let slowness = lab.why_slow();
            let writes = slowness.writes.as_ref().expect("writes");
            assert_eq!(writes.blame.osds, [OsdId(slow as u32)], "seed {seed}:\n{slowness}");
            let shares: f64 = writes.stages.iter().map(|stage| stage.share).sum();
            assert!((shares - 1.0).abs() < 0.001, "the stages are all there is: {shares}\n{slowness}");
        }
    }
}

#[test]
fn a_healthy_cluster_blames_nobody() {
    for seed in [1, 2] {
        let mut lab = Lab::new(seed);
        lab.work(60);
        let slowness = lab.why_slow();
        let blamed = |times: &Option<Times>| times.as_ref().expect("measured").blame.osds.clone();
        assert_eq!((blamed(&slowness.writes), blamed(&slowness.reads)), (vec![], vec![]), "{slowness}");
    }
}

#[test]
fn an_osd_with_slow_links_is_named_and_one_slow_link_too() {
    let mut lab = Lab::new(1);
    for other in [0, 2] {
        lab.slow_link(1, other, Duration::from_millis(30));
    }
    lab.work(40);
    let slowness = lab.why_slow();
    let blame = slowness.writes.as_ref().expect("writes").blame.clone();
    assert_eq!((blame.stage.as_str(), blame.osds), ("replica_network", vec![OsdId(1)]), "{slowness}");
    let mut lab = Lab::new(1);
    lab.slow_link(0, 2, Duration::from_millis(30));
    lab.work(40);
    let slowness = lab.why_slow();
    let blame = slowness.writes.as_ref().expect("writes").blame.clone();
    assert_eq!(
        (blame.stage.as_str(), blame.osds),
        ("replica_network", vec![OsdId(0), OsdId(2)]),
        "{slowness}"
    );
}

#[test]
fn a_pause_of_the_cluster_is_no_fault_of_its_disks() {
    let mut lab = Lab::new(1);
    lab.work(10);
    let flag = |word: &'static str| {
        move |handle: Cluster| async move {
            let command = format!("{{\"prefix\":\"osd {word}\",\"key\":\"pause\"}}");
            handle.command(command, "").await.expect("done");
        }
    };
    lab.ask(flag("set"));
    let seen = lab.seen.clone();
    lab.cluster.as_client(NodeId::Client(0), move |handle| async move {
        let pool = handle.pool(POOL).await.expect("the pool");
        let began = handle.now();
        pool.object("o-waits").write_full(vec![7; 100]).await.expect("written");
        seen.borrow_mut().insert(("o-waits".into(), true), handle.now().since(began));
        pool.object("o-waits").read(0, 100).await.expect("read");
    });
    lab.run(5000);
    lab.ask(flag("unset"));
    lab.run(5000);
    let records = lab.records();
    let record = records.iter().find(|record| record["object"] == "o-waits" && record["write"] == true);
    let record = record.expect("the first after a pause is measured");
    let waited = number(&record["total_ns"]);
    assert!(waited > 4_000_000_000, "{record}");
    assert!(
        number(&record["stages"]["client_queue"]) * 10 > waited * 9,
        "clients wait by themselves: {record}"
    );
}

#[test]
fn an_image_is_found_by_its_name_and_shown_at_the_top() {
    let mut lab = Lab::new(1);
    lab.work(10);
    lab.cluster.as_client(NodeId::Client(0), move |handle| async move {
        let pool = handle.pool(POOL).await.expect("the pool");
        let options = nacre_client::image::CreateOptions::new(8 << 20);
        pool.create_image("disk0", options).await.expect("made");
        let image = pool.open_image("disk0", nacre_client::OpenOptions::default()).await.expect("opened");
        for at in 0..100 {
            image.write(at % 50 * 4096, vec![3; 4096]).await.expect("written");
        }
    });
    lab.run(5000);
    let slowness = lab.ask(|handle| async move {
        let image = why_slow(&handle, POOL, Some("disk0"), WINDOW).await.expect("an answer");
        assert!(why_slow(&handle, POOL, Some("disk1"), WINDOW).await.is_err(), "there is no such image");
        image
    });
    assert_eq!(slowness.of, format!("{POOL}/disk0"));
    let measured = slowness.writes.as_ref().expect("writes").measured;
    assert!((10..=100).contains(&measured), "{measured} of 100 writes are measured");
    assert_eq!(slowness.reads, None, "only its data, and that was not read");
    let top: Top = lab.ask(|handle| async move { top(&handle).await.expect("an answer") });
    let row = top.rows.iter().find(|row| row.image_name.as_deref() == Some("disk0")).expect("its row");
    assert_eq!(row.pool_name, POOL);
    // 100 writes in the last ten seconds, by samples.
    assert!((5.0..20.0).contains(&row.writes), "{top}");
    assert!((row.written_bytes / row.writes - 4096.0).abs() < 1.0, "{top}");
}
