//! The promises of the README, kept on real processes: nothing acknowledged is lost, whatever is killed.

use anyhow::{Context as _, ensure};
use nacre_tests::cluster::{Cluster, data_file, wait_for};
use nacre_tests::tool::{installed, nacre, run};
use nacre_tests::writer::{Writer, verify};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::Duration;

const IMAGE: &str = "rbd/img";
const BLOCKS: u64 = 4096;
const SECOND: Duration = Duration::from_secs(1);

/// Clusters are heavy for two cores: one test at a time.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn with_image(options: &[&str]) -> anyhow::Result<(Cluster, std::path::PathBuf)> {
    let mut cluster = Cluster::up(&[&["--size", "2G"], options].concat())?;
    cluster.nacre(&["pool", "create", "rbd"])?;
    cluster.nacre(&["image", "create", IMAGE, "--size", "256M"])?;
    let socket = cluster.serve_nbd()?;
    Ok((cluster, socket))
}

#[test]
fn killing_each_osd_in_turn_stalls_writes_for_at_most_six_seconds() -> anyhow::Result<()> {
    let _alone = alone();
    let (cluster, socket) = with_image(&[])?;
    let writer = Writer::start(socket.clone(), IMAGE, BLOCKS, 8, None);
    for osd in ["osd.0", "osd.1", "osd.2"] {
        writer.wait_writes(200, 10 * SECOND)?;
        cluster.dev("kill", osd)?;
        writer.wait_writes(200, 15 * SECOND).with_context(|| format!("after {osd} was killed"))?;
        cluster.dev("start", osd)?;
        cluster.wait_clean(60 * SECOND).with_context(|| format!("after {osd} came back"))?;
    }
    let known = writer.stop();
    ensure!(known.errors.is_empty(), "{:?}", known.errors);
    eprintln!("{} writes, longest stall {:?}", known.writes, known.stall_max);
    ensure!(known.stall_max <= 6 * SECOND, "a write waited {:?}", known.stall_max);
    verify(&socket, IMAGE, &known)?;
    cluster.assert_no_panic()
}

#[test]
fn a_stopped_osd_neither_loses_nor_corrupts() -> anyhow::Result<()> {
    let _alone = alone();
    let (cluster, socket) = with_image(&[])?;
    let writer = Writer::start(socket.clone(), IMAGE, BLOCKS, 8, None);
    writer.wait_writes(200, 10 * SECOND)?;
    cluster.signal("osd.1", libc::SIGSTOP)?;
    let frozen = std::time::Instant::now();
    writer.wait_writes(500, 20 * SECOND)?;
    // Long enough for the others to have gone on without it.
    wait_for("15 s of standstill", 20 * SECOND, || Ok(frozen.elapsed() >= 15 * SECOND))?;
    cluster.signal("osd.1", libc::SIGCONT)?;
    writer.wait_writes(500, 20 * SECOND)?;
    let known = writer.stop();
    ensure!(known.errors.is_empty(), "{:?}", known.errors);
    cluster.wait_clean(60 * SECOND)?;
    verify(&socket, IMAGE, &known)?;
    cluster.assert_no_panic()
}

#[test]
fn killing_everything_at_once_loses_nothing_acknowledged() -> anyhow::Result<()> {
    let _alone = alone();
    let (mut cluster, socket) = with_image(&[])?;
    let mut known = None;
    for _ in 0..3 {
        let writer = Writer::start(socket.clone(), IMAGE, BLOCKS, 8, known.as_ref());
        writer.wait_writes(1500, 30 * SECOND)?;
        cluster.kill_everything()?;
        let now = writer.stop();
        cluster.dev_up(&[])?;
        cluster.serve_nbd()?;
        verify(&socket, IMAGE, &now)?;
        known = Some(now);
    }
    cluster.wait_clean(60 * SECOND)?;
    cluster.assert_no_panic()
}

#[test]
fn monitors_come_and_go() -> anyhow::Result<()> {
    let _alone = alone();
    let (cluster, socket) = with_image(&["--mons", "3"])?;
    let writer = Writer::start(socket.clone(), IMAGE, BLOCKS, 4, None);
    writer.wait_writes(100, 10 * SECOND)?;
    let leader = cluster.json(&["mon", "stat"])?["leader"].as_str().context("no leader")?.to_string();
    let leader = format!("mon.{leader}");
    cluster.dev("kill", &leader)?;
    let killed = std::time::Instant::now();
    cluster.nacre(&["status"])?;
    let answered = killed.elapsed();
    ensure!(answered <= 5 * SECOND, "commands answered only after {answered:?}");
    writer.wait_writes(100, 10 * SECOND)?;
    let second =
        ["mon.a", "mon.b", "mon.c"].into_iter().find(|mon| **mon != leader).context("three monitors")?;
    cluster.dev("kill", second)?;
    let said = cluster.fails(&["status", "--timeout", "10"])?;
    ensure!(said.contains("quorum"), "without a quorum 'status' says: {said}");
    // I/O that needs no map change goes on.
    writer.wait_writes(500, 20 * SECOND)?;
    cluster.dev("start", second)?;
    wait_for("the quorum", 10 * SECOND, || Ok(cluster.nacre(&["status"]).is_ok()))?;
    cluster.dev("start", &leader)?;
    wait_for("three in quorum", 15 * SECOND, || {
        Ok(cluster.json(&["status"])?["quorum"].as_array().is_some_and(|quorum| quorum.len() == 3))
    })?;
    let known = writer.stop();
    ensure!(known.errors.is_empty(), "{:?}", known.errors);
    verify(&socket, IMAGE, &known)?;
    cluster.assert_no_panic()
}

#[test]
fn flipped_bytes_are_never_returned_and_are_repaired() -> anyhow::Result<()> {
    let _alone = alone();
    let (mut cluster, socket) = with_image(&[])?;
    // Over 16 objects: some lie in PGs that osd.0 does not lead, where no read repairs them before the scrub.
    let writer = Writer::start(socket.clone(), IMAGE, 4 * BLOCKS, 8, None);
    writer.wait_writes(3000, 60 * SECOND)?;
    let known = writer.stop();
    // An orderly stop writes everything to its place; then one byte in each block of the data rots.
    cluster.dev("stop", "osd.0")?;
    let path = data_file(&cluster, 0);
    let flipped = flip_written_blocks(&path)?;
    ensure!(flipped > 100, "only {flipped} blocks of {} hold the writer's data", path.display());
    let fsck = Command::new(nacre()).args(["osd", "fsck"]).arg(cluster.dir().join("osd.0")).output()?;
    ensure!(!fsck.status.success(), "fsck finds nothing wrong with a rotten store");
    cluster.dev("start", "osd.0")?;
    cluster.wait_clean(60 * SECOND)?;
    verify(&socket, IMAGE, &known)?;
    let pgs: Vec<String> = pg_ids(&cluster)?;
    for pg in &pgs {
        cluster.nacre(&["pg", "deep-scrub", pg])?;
    }
    wait_for("deep scrub to find the damage", 60 * SECOND, || {
        Ok(cluster.pg_states()?.iter().any(|state| state.contains("inconsistent")))
    })?;
    for pg in &pgs {
        cluster.nacre(&["pg", "repair", pg])?;
    }
    cluster.wait_clean(120 * SECOND).context("after repair")?;
    verify(&socket, IMAGE, &known)?;
    cluster.dev("stop", "osd.0")?;
    run(Command::new(nacre()).args(["osd", "fsck", "--deep"]).arg(cluster.dir().join("osd.0")))?;
    cluster.dev("start", "osd.0")?;
    cluster.kill_everything()?;
    cluster.assert_no_panic()
}

fn pg_ids(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pgs = cluster.json(&["pg", "ls"])?;
    let id = |pg: &serde_json::Value| pg["pgid"].as_str().map(str::to_string);
    pgs.as_array().context("pg ls is no list")?.iter().map(|pg| id(pg).context("no pgid")).collect()
}

/// Flips a byte in every block of a data file that holds the writer's data in place (blocks are aligned there, which
/// copies in the journal need not be).
fn flip_written_blocks(path: &std::path::Path) -> anyhow::Result<u64> {
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let mut block = [0; 4096];
    let mut flipped = 0;
    for offset in (0..size).step_by(4096) {
        file.read_exact_at(&mut block, offset)?;
        if block[..8] == 0x4e41_4352_4542_4c4b_u64.to_le_bytes() {
            file.write_all_at(&[block[2000] ^ 0x40], offset + 2000)?;
            flipped += 1;
        }
    }
    file.sync_all()?;
    Ok(flipped)
}

#[test]
fn a_lost_osd_is_rebuilt_under_a_new_id() -> anyhow::Result<()> {
    let _alone = alone();
    let (cluster, socket) = with_image(&[])?;
    let writer = Writer::start(socket.clone(), IMAGE, BLOCKS, 4, None);
    writer.wait_writes(2000, 60 * SECOND)?;
    cluster.dev("kill", "osd.2")?;
    std::fs::remove_dir_all(cluster.dir().join("osd.2"))?;
    wait_for("osd.2 to be marked down", 10 * SECOND, || {
        let tree = cluster.json(&["osd", "tree"])?;
        let nodes = tree["nodes"].as_array().context("no nodes")?;
        Ok(nodes.iter().any(|node| node["name"] == "osd.2" && node["status"] == "down"))
    })?;
    let command = format!("nacre dev start osd.2 --dir {}", cluster.dir().canonicalize()?.display());
    let explained = cluster.nacre(&["explain", "osd", "2"])?;
    ensure!(explained.contains(&command), "how it is started here: {explained}");
    cluster.nacre(&["osd", "rm", "osd.2", "--yes-i-really-mean-it"])?;
    let dir = cluster.dir().join("osd.3");
    let text = dir.display().to_string();
    let args =
        ["osd", "format", "--dir", &text, "--size", "2G", "--host", "dev-3", "--address", "127.0.0.1:0"];
    cluster.nacre(&args)?;
    let log = std::fs::File::create(cluster.path("osd.3.log"))?;
    let mut daemon = Command::new(nacre())
        .args(["daemon", "osd", "--dir"])
        .arg(&dir)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let clean = cluster.wait_clean(120 * SECOND);
    let known = writer.stop();
    let checked = clean.and_then(|()| {
        ensure!(known.errors.is_empty(), "{:?}", known.errors);
        verify(&socket, IMAGE, &known)
    });
    daemon.kill()?;
    daemon.wait()?;
    checked?;
    cluster.assert_no_panic()
}

#[test]
fn fio_verifies_while_osds_die() -> anyhow::Result<()> {
    let _alone = alone();
    if !installed("fio") {
        return Ok(());
    }
    let (cluster, _socket) = with_image(&[])?;
    let job = cluster.path("fio.out");
    let uri = format!("--uri={}", cluster.uri(IMAGE));
    let mut fio = Command::new("fio")
        .args(["--name=v", "--ioengine=nbd", &uri, "--rw=randrw", "--bs=4k", "--iodepth=32"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--serialize_overlap=1", "--size=64M"])
        .args(["--time_based", "--runtime=40"])
        .current_dir(cluster.path(""))
        .stdout(std::fs::File::create(&job)?)
        .stderr(std::fs::File::options().append(true).open(&job)?)
        .spawn()?;
    for osd in ["osd.0", "osd.1", "osd.2"] {
        cluster.dev("kill", osd)?;
        cluster.dev("start", osd)?;
        cluster.wait_clean(60 * SECOND)?;
    }
    let status = fio.wait()?;
    let said = std::fs::read_to_string(&job)?;
    ensure!(status.success() && !said.contains("verify:"), "fio failed:\n{said}");
    cluster.assert_no_panic()
}
