//! What OSDs could answer, added up: who is blamed, who is not, and what is said of nothing.

use super::*;

fn member(osd: u32, total: u64, own: [u64; 3]) -> Value {
    let [queue, write, flush] = own;
    json!({"osd": osd, "total_ns": total, "queue_ns": queue, "write_ns": write, "flush_ns": flush})
}

/// A write with primary osd.0 that waited for osd.2 last.
fn slow_write(weight: u64) -> Value {
    json!({
        "write": true, "weight": weight, "osd_ns": 21_000_000, "total_ns": 21_500_000,
        "stages": {
            "client_queue": 100_000, "network": 400_000,
            "replica_network": 600_000, "replica_write": 200_000, "replica_flush": 20_200_000,
        },
        "members": [
            member(0, 500_000, [0, 200_000, 300_000]),
            member(1, 900_000, [0, 200_000, 300_000]),
            member(2, 21_000_000, [0, 200_000, 20_200_000]),
        ],
    })
}

fn read(total: u64) -> Value {
    json!({
        "write": false, "weight": 1, "osd_ns": total - 100, "total_ns": total,
        "stages": {"network": 100, "read": total - 100},
    })
}

fn add_up(records: impl IntoIterator<Item = (u32, Vec<Value>)>) -> Slowness {
    let answer = |(osd, records): (u32, Vec<Value>)| (OsdId(osd), json!({"osd": osd, "records": records}));
    let answers: BTreeMap<OsdId, Value> = records.into_iter().map(answer).collect();
    Slowness::add_up("rbd/vm".into(), Duration::from_secs(600), &answers, OsdsAsked::default())
}

#[test]
fn the_slow_flush_of_one_replica_is_named() {
    let slowness = add_up([(0, (0..5).map(|_| slow_write(64)).collect())]);
    let writes = slowness.writes.as_ref().expect("writes");
    assert_eq!((writes.blame.stage.as_str(), writes.blame.osds.clone()), ("replica_flush", vec![OsdId(2)]));
    let shares: f64 = writes.stages.iter().map(|stage| stage.share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "the stages are all there is: {shares}");
    let text = slowness.to_string();
    assert!(text.contains("It is osd.2: its journal takes 20.4 ms, its peers' 500 us."), "{text}");
    assert_eq!(slowness.to_json()["writes"]["blame"], json!({"stage": "replica_flush", "osds": [2]}));
    assert_eq!(slowness.reads, None);
}

#[test]
fn all_alike_means_that_nobody_is_blamed() {
    let even = |osd: u32| {
        let members: Vec<Value> = (0..3).map(|m| member(m, 600_000, [100_000, 200_000, 300_000])).collect();
        let stages = json!({"network": 50_000, "journal_flush": 600_000});
        let record = json!({
            "write": true, "weight": 1, "osd_ns": 600_000, "total_ns": 650_000, "stages": stages, "members": members,
        });
        (osd, vec![record; 4])
    };
    let writes = add_up([even(0), even(1), even(2)]).writes.expect("writes");
    assert_eq!((writes.blame.stage.as_str(), writes.blame.osds.clone()), ("journal_flush", vec![]));
    assert!(writes.blame.says.ends_with("No OSD stands out against its peers."), "{}", writes.blame.says);
}

#[test]
fn a_disk_that_reads_slowly_is_named_but_not_by_one_operation() {
    let fast = || (0, vec![read(1_000_000); 9]);
    let blamed = |slow: usize| {
        let reads = add_up([fast(), (1, vec![read(50_000_000); slow])]).reads.expect("reads");
        (reads.blame.stage, reads.blame.osds)
    };
    assert_eq!(blamed(3), ("read".to_string(), vec![OsdId(1)]));
    assert_eq!(blamed(1), ("read".to_string(), vec![]), "once is chance");
}

/// Writes of each of three primaries; `away` says how long there and back between two OSDs takes.
fn linked(away: impl Fn(u32, u32) -> u64) -> Blame {
    let of_primary = |primary: u32| {
        let others = (0..3).filter(|osd| *osd != primary);
        let mut members: Vec<Value> =
            others.map(|osd| member(osd, 100 + away(primary, osd), [0, 0, 100])).collect();
        members.push(member(primary, 100, [0, 0, 100]));
        let worst = (0..3).filter(|osd| *osd != primary).map(|osd| away(primary, osd)).max().unwrap_or(0);
        let record = json!({
            "write": true, "weight": 1, "osd_ns": worst + 100, "total_ns": worst + 200, "members": members,
            "stages": {"network": 100, "replica_network": worst, "replica_flush": 100},
        });
        (primary, vec![record; 4])
    };
    add_up([0, 1, 2].map(of_primary)).writes.expect("writes").blame
}

#[test]
fn a_slow_link_is_told_from_an_osd_all_of_whose_links_are_slow() {
    let one = linked(|a, b| if a != 1 && b != 1 { 40_000 } else { 500 });
    assert_eq!((one.stage.as_str(), one.osds), ("replica_network", vec![OsdId(0), OsdId(2)]));
    assert!(one.says.contains("the link between osd.0 and osd.2"), "{}", one.says);
    let all = linked(|a, b| if a == 1 || b == 1 { 40_000 } else { 500 });
    assert_eq!((all.stage.as_str(), all.osds), ("replica_network", vec![OsdId(1)]));
    assert_eq!(linked(|_, _| 40_000).osds, vec![], "all alike");
}

#[test]
fn percentiles_count_what_an_operation_stands_for() {
    let spread = Spread::of(vec![(10, 98), (1000, 1), (20, 1)]).expect("some");
    assert_eq!((spread.p50_ns, spread.p99_ns), (10, 20));
    assert_eq!(spread.mean_ns, 20.0);
    assert_eq!(Spread::of(Vec::new()), None);
}

#[test]
fn without_records_it_says_how_to_get_some() {
    let nothing = add_up([(0, vec![])]).to_string();
    assert!(nothing.contains("Nothing on rbd/vm was measured in the last 600 s"), "{nothing}");
    let mut untold = slow_write(1);
    untold.as_object_mut().expect("an object").remove("total_ns");
    let slowness = add_up([(0, vec![untold])]);
    assert_eq!(slowness.untold, 1);
    assert!(slowness.to_string().contains("have not told yet"), "{slowness}");
}

#[test]
fn answers_that_make_no_sense_are_left_out() {
    let odd = vec![json!(null), json!({"write": 3}), json!({"stages": 7, "write": true}), read(1000)];
    let slowness = add_up([(0, odd)]);
    assert_eq!(slowness.reads.map(|reads| reads.measured), Some(1));
}

#[test]
fn durations_are_short() {
    let short = [3.0, 2_345.0, 234_500.0, 2_345_000.0, 234_500_000.0, 2_345e6].map(time);
    assert_eq!(short, ["3 ns", "2.3 us", "234 us", "2.3 ms", "234 ms", "2.3 s"]);
}
