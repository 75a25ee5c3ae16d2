//! What other people's programs make of an image, and that every command does what it says.

use anyhow::{Context as _, ensure};
use nacre_tests::cluster::{Cluster, alone, fails, says};
use nacre_tests::mounts::{LoopDevice, Mount, NbdFuse, can_mount};
use nacre_tests::nbd::NbdClient;
use nacre_tests::sample::{assert_same_file, noise, raw_file, tree};
use nacre_tests::tool::{installed, nacre, run};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "rbd/img";
const BYTES: u64 = 64 << 20;
const SECOND: Duration = Duration::from_secs(1);

fn up() -> anyhow::Result<Cluster> {
    let cluster = Cluster::up(&["--size", "2G"])?;
    cluster.nacre(&["pool", "create", "rbd"])?;
    Ok(cluster)
}

/// A cluster with an image of 64 MiB, served over NBD.
fn serving() -> anyhow::Result<Cluster> {
    let mut cluster = up()?;
    cluster.nacre(&["image", "create", IMAGE, "--size", "64M"])?;
    cluster.serve_nbd()?;
    Ok(cluster)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no list: {value}"))
}

#[test]
fn qemu_img_converts_in_and_out() -> anyhow::Result<()> {
    let _alone = alone();
    if !installed("qemu-img") {
        return Ok(());
    }
    let cluster = serving()?;
    let (raw, back) = (cluster.path("raw"), cluster.path("back"));
    raw_file(&raw, BYTES)?;
    let uri = cluster.uri(IMAGE);
    run(Command::new("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "raw", text(&raw), &uri]))?;
    run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", text(&raw), &uri]))?;
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", &uri, text(&back)]))?;
    assert_same_file(&raw, &back)?;
    // A format of its own on top of the image, snapshots and all.
    cluster.nacre(&["image", "create", "rbd/qcow", "--size", "128M"])?;
    let qcow = cluster.uri("rbd/qcow");
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", &qcow, "64M"]))?;
    run(Command::new("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "qcow2", text(&raw), &qcow]))?;
    run(Command::new("qemu-img").args(["check", "-q", "-f", "qcow2", &qcow]))?;
    run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2", text(&raw), &qcow]))?;
    cluster.assert_alive()
}

#[test]
fn nbdinfo_and_nbdcopy_agree_with_the_image() -> anyhow::Result<()> {
    let _alone = alone();
    if !installed("nbdinfo") || !installed("nbdcopy") {
        return Ok(());
    }
    let cluster = serving()?;
    let (raw, back) = (cluster.path("raw"), cluster.path("back"));
    raw_file(&raw, BYTES)?;
    let (uri, snapshot) = (cluster.uri(IMAGE), cluster.uri("rbd/img@first"));
    run(Command::new("nbdcopy").args([text(&raw), &uri]))?;
    run(Command::new("nbdcopy").args([&uri, text(&back)]))?;
    assert_same_file(&raw, &back)?;

    let info = |args: &[&str]| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&run(Command::new("nbdinfo").arg("--json").args(args))?)?)
    };
    let export = info(&[&uri])?["exports"][0].take();
    ensure!(export["export-size"] == BYTES, "{export}");
    ensure!(export["is_read_only"] == false && export["can_multi_conn"] == true, "{export}");
    ensure!(
        export["can_trim"] == true && export["can_zero"] == true && export["can_fua"] == true,
        "{export}"
    );
    let all = info(&["--list", &cluster.uri("")])?;
    let names: Vec<&str> = list(&all["exports"])?.iter().filter_map(|e| e["export-name"].as_str()).collect();
    ensure!(names == [IMAGE], "{names:?}");
    // What was a hole in the file is one in the image.
    let map = info(&["--map", &uri])?;
    let extents = list(&map)?;
    let of = |kind: u64| {
        let of_kind = extents.iter().filter(|extent| extent["type"].as_u64() == Some(kind));
        of_kind.filter_map(|extent| extent["length"].as_u64()).sum::<u64>()
    };
    ensure!(of(0) + of(3) == BYTES, "the map does not cover the image: {map}");
    ensure!((7 << 20..12 << 20).contains(&of(0)), "{} bytes are said to be data: {map}", of(0));

    // A snapshot stays as it was and takes no writes.
    cluster.nacre(&["image", "snap", "create", "rbd/img@first"])?;
    let mut client = NbdClient::connect(&cluster.path("nbd.sock"), IMAGE, 30 * SECOND)?;
    client.write(4096, &noise(99, 4096))?;
    client.flush()?;
    run(Command::new("nbdcopy").args([&snapshot, text(&back)]))?;
    assert_same_file(&raw, &back)?;
    ensure!(info(&[&snapshot])?["exports"][0]["is_read_only"] == true, "a snapshot can be written");
    says(&fails(Command::new("nbdcopy").args([text(&raw), &snapshot]))?, &["read-only"])?;
    let mut client = NbdClient::connect(&cluster.path("nbd.sock"), "rbd/img@first", 30 * SECOND)?;
    ensure!(client.write(0, &[1; 512]).is_err(), "a snapshot took a write");
    ensure!(client.read(4096, 4096)? != noise(99, 4096), "a later write shows in the snapshot");
    says(&fails(Command::new("nbdinfo").arg(cluster.uri("rbd/none")))?, &["no such file", "rbd/none"])?;
    cluster.assert_alive()
}

#[test]
fn images_go_in_and_out_through_files_and_pipes() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = up()?;
    let (raw, back) = (cluster.path("raw"), cluster.path("back"));
    // Not a multiple of anything.
    raw_file(&raw, BYTES + 12_345)?;
    cluster.nacre(&["image", "import", "raw", "rbd/one"])?;
    cluster.nacre(&["image", "export", "rbd/one", "back"])?;
    assert_same_file(&raw, &back)?;
    let input = Stdio::from(std::fs::File::open(&raw)?);
    run(cluster.command(&["image", "import", "-", "rbd/two"]).stdin(input))?;
    let output = std::fs::File::create(&back)?;
    let done = cluster.command(&["image", "export", "rbd/two", "-"]).stdout(output).status()?;
    ensure!(done.success(), "export to a pipe: {done}");
    assert_same_file(&raw, &back)?;
    let info = cluster.json(&["image", "info", "rbd/two"])?;
    ensure!(info["size"] == BYTES + 12_345, "{info}");
    let names = cluster.json(&["image", "ls", "rbd"])?;
    let names: Vec<_> = list(&names)?.iter().map(|image| image["image"].clone()).collect();
    ensure!(names == ["one", "two"], "{names:?}");
    // A failed import leaves no half image behind.
    let nothing = cluster.command(&["image", "import", "-", "rbd/three"]).stdin(Stdio::null()).output()?;
    ensure!(!nothing.status.success(), "nothing was imported");
    cluster.fails_saying(&["image", "info", "rbd/three"], &["no image", "three"])?;
    cluster.nacre(&["image", "rename", "rbd/two", "rbd/zwei"])?;
    cluster.fails_saying(&["image", "import", "raw", "rbd/zwei"], &["zwei", "already"])?;
    cluster.nacre(&["image", "export", "rbd/zwei", "back"])?;
    assert_same_file(&raw, &back)?;
    for image in ["rbd/one", "rbd/zwei"] {
        cluster.nacre(&["image", "rm", image])?;
    }
    ensure!(cluster.json(&["image", "ls", "rbd"])? == serde_json::json!([]), "images are left");
    ensure!(
        cluster.json(&["object", "ls", "rbd", "--prefix", "data."])? == serde_json::json!([]),
        "data is left"
    );
    cluster.assert_alive()
}

#[test]
fn snapshots_and_sizes_of_an_image() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving()?;
    let socket = cluster.path("nbd.sock");
    let mut client = NbdClient::connect(&socket, IMAGE, 30 * SECOND)?;
    let (old, new) = (noise(1, 8192), noise(2, 8192));
    let at = (4 << 20) - 4096;
    client.write(at, &old)?;
    cluster.nacre(&["image", "snap", "create", "rbd/img@a"])?;
    client.write(at, &new)?;
    cluster.nacre(&["image", "snap", "create", "rbd/img@b"])?;
    let snapshots = cluster.json(&["image", "snap", "ls", IMAGE])?;
    let names: Vec<_> = list(&snapshots)?.iter().map(|snapshot| snapshot["name"].clone()).collect();
    ensure!(names == ["a", "b"], "{names:?}");
    cluster.fails_saying(&["image", "snap", "create", "rbd/img@a"], &["snapshot", "already"])?;
    cluster.fails_saying(&["image", "rm", IMAGE], &["snapshot"])?;
    drop(client);
    cluster.nacre(&["image", "snap", "rollback", "rbd/img@a"])?;
    let mut client = NbdClient::connect(&socket, IMAGE, 30 * SECOND)?;
    ensure!(client.read(at, 8192)? == old, "the rollback to @a shows something else");
    let mut later = NbdClient::connect(&socket, "rbd/img@b", 30 * SECOND)?;
    ensure!(later.read(at, 8192)? == new, "the rollback changed another snapshot");
    drop((client, later));

    cluster.nacre(&["image", "resize", IMAGE, "--size", "96M"])?;
    let mut client = NbdClient::connect(&socket, IMAGE, 30 * SECOND)?;
    ensure!(client.size() == 96 << 20, "after growing the size is {}", client.size());
    client.write((96 << 20) - 4096, &noise(3, 4096))?;
    ensure!(client.write((96 << 20) - 2048, &[0; 4096]).is_err(), "a write beyond the end succeeded");
    drop(client);
    cluster.fails_saying(&["image", "resize", IMAGE, "--size", "2M"], &["allow-shrink"])?;
    cluster.nacre(&["image", "resize", IMAGE, "--size", "2M", "--allow-shrink"])?;
    cluster.nacre(&["image", "resize", IMAGE, "--size", "96M"])?;
    let mut client = NbdClient::connect(&socket, IMAGE, 30 * SECOND)?;
    ensure!(client.read((96 << 20) - 4096, 4096)? == [0; 4096], "what was cut off came back");
    ensure!(client.read(at, 8192)? == [0; 8192], "what was cut off came back");
    let mut snapshot = NbdClient::connect(&socket, "rbd/img@a", 30 * SECOND)?;
    ensure!(snapshot.size() == BYTES && snapshot.read(at, 8192)? == old, "shrinking hurt a snapshot");
    drop((client, snapshot));
    for snapshot in ["rbd/img@a", "rbd/img@b"] {
        cluster.nacre(&["image", "snap", "rm", snapshot])?;
    }
    cluster.fails_saying(&["image", "snap", "rm", "rbd/img@a"], &["no snapshot", "'a'"])?;
    cluster.nacre(&["image", "rm", IMAGE])?;
    cluster.assert_alive()
}

#[test]
fn objects_with_attributes_and_maps() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = up()?;
    let (small, large, back) = (cluster.path("small"), cluster.path("large"), cluster.path("back"));
    std::fs::write(&small, noise(1, 1000))?;
    std::fs::write(&large, noise(2, 9_000_001))?;
    for (name, file) in [("rbd/small", &small), ("rbd/dir/large", &large)] {
        cluster.nacre(&["object", "put", name, text(file)])?;
        cluster.nacre(&["object", "get", name, "back"])?;
        assert_same_file(file, &back)?;
    }
    let stat = cluster.json(&["object", "stat", "rbd/dir/large"])?;
    ensure!(stat["size"] == 9_000_001, "{stat}");
    ensure!(cluster.nacre(&["object", "ls", "rbd"])? == "dir/large\nsmall\n", "listed otherwise");
    ensure!(cluster.nacre(&["object", "ls", "rbd", "--prefix", "dir/"])? == "dir/large\n", "prefix");
    // A put replaces the whole object; stdin and stdout serve as files.
    let input = Stdio::from(std::fs::File::open(&small)?);
    run(cluster.command(&["object", "put", "rbd/dir/large", "-"]).stdin(input))?;
    let got = cluster.command(&["object", "get", "rbd/dir/large", "-"]).output()?;
    ensure!(got.stdout == noise(1, 1000), "the object is not what was put last");

    for kind in ["xattr", "omap"] {
        let object = "rbd/small";
        for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k1", "newer")] {
            cluster.nacre(&["object", kind, "set", object, key, value])?;
        }
        ensure!(cluster.nacre(&["object", kind, "get", object, "k1"])? == "newer\n", "{kind} get");
        let pairs = cluster.json(&["object", kind, "ls", object])?;
        let expected = serde_json::json!([{"key": "k1", "value": "newer"}, {"key": "k2", "value": "v2"}]);
        ensure!(pairs == expected, "{kind} ls: {pairs}");
        cluster.nacre(&["object", kind, "rm", object, "k1"])?;
        cluster.fails_saying(&["object", kind, "get", object, "k1"], &["k1"])?;
    }
    cluster.nacre(&["object", "omap", "clear", "rbd/small"])?;
    ensure!(cluster.json(&["object", "omap", "ls", "rbd/small"])? == serde_json::json!([]), "omap clear");
    cluster.nacre(&["object", "get", "rbd/small", "back"])?;
    assert_same_file(&small, &back)?;
    cluster.nacre(&["object", "rm", "rbd/small", "rbd/dir/large"])?;
    ensure!(cluster.nacre(&["object", "ls", "rbd"])?.is_empty(), "objects are left");
    for verb in [&["get", "rbd/small", "-"][..], &["stat", "rbd/small"], &["rm", "rbd/small"]] {
        cluster.fails_saying(&[&["object"], verb].concat(), &["small", "not exist"])?;
    }
    cluster.assert_alive()
}

#[test]
fn ext4_on_an_image_holds_a_tree() -> anyhow::Result<()> {
    let _alone = alone();
    if !can_mount() {
        return Ok(());
    }
    let cluster = serving()?;
    let source = cluster.path("tree");
    tree(&source, 250)?;
    let fuse = NbdFuse::mount(&cluster.path("fuse"), &cluster.uri(IMAGE))?;
    let device = LoopDevice::attach(&fuse.file())?;
    run(Command::new("mkfs.ext4").arg("-q").arg(device.path()))?;
    let mount = Mount::new(device.path(), &cluster.path("mnt"))?;
    let copy = cluster.path("mnt").join("tree");
    run(Command::new("cp").arg("-r").args([&source, &copy]))?;
    mount.unmount()?;
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(device.path()))?;
    // Everything anew, so that nothing comes from a cache of this machine.
    drop((device, fuse));
    let fuse = NbdFuse::mount(&cluster.path("fuse"), &cluster.uri(IMAGE))?;
    let device = LoopDevice::attach(&fuse.file())?;
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(device.path()))?;
    let mount = Mount::new(device.path(), &cluster.path("mnt"))?;
    run(Command::new("diff").args(["-r", "-q"]).args([&source, &copy]))?;
    mount.unmount()?;
    cluster.assert_alive()
}

const MAP: &str = "tunable choose_local_tries 0
tunable choose_local_fallback_tries 0
tunable choose_total_tries 50
tunable chooseleaf_descend_once 1
tunable chooseleaf_vary_r 1
tunable chooseleaf_stable 1
tunable straw_calc_version 1
tunable allowed_bucket_algs 54
device 0 osd.0 class ssd
device 1 osd.1 class hdd
device 2 osd.2 class ssd
device 3 osd.3 class hdd
device 4 osd.4 class ssd
device 5 osd.5 class hdd
type 0 osd
type 1 host
type 2 root
host h0 {
	id -2
	alg straw2
	hash 0
	item osd.0 weight 1.000
	item osd.1 weight 2.000
}
host h1 {
	id -3
	alg straw2
	hash 0
	item osd.2 weight 1.500
	item osd.3 weight 0.500
}
host h2 {
	id -4
	alg straw2
	hash 0
	item osd.4 weight 1.000
	item osd.5 weight 3.000
}
root default {
	id -1
	alg straw2
	hash 0
	item h0 weight 3.000
	item h1 weight 2.000
	item h2 weight 4.000
}
rule replicated {
	id 0
	type replicated
	min_size 1
	max_size 10
	step take default
	step chooseleaf firstn 0 type host
	step emit
}
rule on_ssd {
	id 1
	type replicated
	min_size 1
	max_size 10
	step take default class ssd
	step chooseleaf firstn 0 type host
	step emit
}
rule erasure {
	id 2
	type erasure
	min_size 3
	max_size 6
	step set_chooseleaf_tries 5
	step take default
	step choose indep 0 type osd
	step emit
}
";

#[test]
fn crush_test_prints_what_crushtool_prints() -> anyhow::Result<()> {
    if !installed("crushtool") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (source, compiled) = (folder.path().join("map.txt"), folder.path().join("map.bin"));
    std::fs::write(&source, MAP)?;
    run(Command::new("crushtool").arg("-c").arg(&source).arg("-o").arg(&compiled))?;
    for (rule, copies) in [("0", "3"), ("0", "2"), ("1", "3"), ("2", "5")] {
        let common = ["--rule", rule, "--num-rep", copies, "--min-x", "0", "--max-x", "499"];
        for weights in [&[][..], &["--weight", "5", "0", "--weight", "0", "0.5"]] {
            let theirs = run(Command::new("crushtool")
                .arg("-i")
                .arg(&compiled)
                .args(["--test", "--show-mappings"])
                .args(common)
                .args(weights))?;
            let ours = run(Command::new(nacre())
                .args(["crush", "test", "--map"])
                .arg(&source)
                .args(common)
                .args(weights)
                .env_remove("NACRE_CLUSTER"))?;
            ensure!(ours.lines().count() == 500, "{} lines", ours.lines().count());
            if let Some((line, other)) =
                ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs)
            {
                anyhow::bail!(
                    "rule {rule}, {copies} copies, {weights:?}: ours '{line}', crushtool's '{other}'"
                );
            }
            ensure!(theirs.lines().count() == 500, "{} lines of crushtool", theirs.lines().count());
        }
    }
    let test = |args: &[&str]| fails(Command::new(nacre()).args(["crush", "test", "--map"]).args(args));
    let map = text(&source);
    says(&test(&[map, "--rule", "9", "--num-rep", "3"])?, &["no rule 9"])?;
    says(&test(&["/nonexistent", "--rule", "0", "--num-rep", "3"])?, &["/nonexistent"])?;
    std::fs::write(&source, MAP.replace("step emit", "step omit"))?;
    says(&test(&[map, "--rule", "0", "--num-rep", "3"])?, &["line", "omit"])
}

#[test]
fn a_live_crush_map_goes_out_and_in() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = up()?;
    let exported = cluster.nacre(&["crush", "export"])?;
    cluster.nacre(&["crush", "export", "map.txt"])?;
    ensure!(std::fs::read_to_string(cluster.path("map.txt"))? == exported, "file and stdout differ");
    if installed("crushtool") {
        run(Command::new("crushtool")
            .args(["-c", "map.txt", "-o", "map.bin"])
            .current_dir(cluster.path("")))?;
    }
    // As it is, from a pipe, nothing changes.
    let epoch =
        |cluster: &Cluster| -> anyhow::Result<Value> { Ok(cluster.json(&["osd", "dump"])?["epoch"].take()) };
    let before = cluster.json(&["pg", "ls"])?;
    cluster.nacre(&["crush", "import", "map.txt"])?;
    ensure!(cluster.nacre(&["crush", "export"])? == exported, "the import changed the map");
    let up = |pgs: &Value| -> anyhow::Result<Vec<Value>> {
        Ok(list(pgs)?.iter().map(|pg| pg["up"].clone()).collect())
    };
    ensure!(up(&cluster.json(&["pg", "ls"])?)? == up(&before)?, "the same map places otherwise");
    // A changed one takes effect.
    let heavier = exported.replacen("item osd.0 weight 0.00", "item osd.0 weight 1.00", 1);
    ensure!(heavier != exported, "no osd.0 in {exported}");
    std::fs::write(cluster.path("map.txt"), heavier)?;
    cluster.nacre(&["crush", "import", "map.txt"])?;
    let tree = cluster.json(&["osd", "tree"])?;
    let osd = list(&tree["nodes"])?.iter().find(|node| node["name"] == "osd.0").context("no osd.0")?;
    ensure!(osd["crush_weight"].as_f64().is_some_and(|weight| weight > 1.0), "{osd}");
    // A broken one does not.
    let epoch_before = epoch(&cluster)?;
    std::fs::write(cluster.path("map.txt"), "nonsense\n")?;
    cluster.fails_saying(&["crush", "import", "map.txt"], &["map.txt", "line 1"])?;
    ensure!(epoch(&cluster)? == epoch_before, "a broken map made a new epoch");
    cluster.wait_clean(60 * SECOND)?;
    cluster.assert_alive()
}

#[test]
fn answers_in_json_have_cephs_fields() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = up()?;
    cluster.wait_clean(30 * SECOND)?;
    let status = cluster.json(&["status"])?;
    ensure!(status["quorum_names"] == serde_json::json!(["a"]), "{status}");
    ensure!(status.pointer("/osdmap/num_up_osds") == Some(&3.into()), "{status}");
    ensure!(status.pointer("/pgmap/num_pgs").and_then(Value::as_u64) > Some(0), "{status}");
    let health = cluster.json(&["health"])?;
    ensure!(health["status"] == "HEALTH_OK" && health["checks"].is_object(), "{health}");
    let tree = cluster.json(&["osd", "tree"])?;
    let osds = list(&tree["nodes"])?.iter().filter(|node| node["type"] == "osd");
    ensure!(osds.clone().count() == 3 && osds.clone().all(|osd| osd["status"] == "up"), "{tree}");
    let pgs = cluster.json(&["pg", "ls"])?;
    for pg in list(&pgs)? {
        ensure!(pg["pgid"].as_str().is_some_and(|id| id.contains('.')), "{pg}");
        ensure!(pg["state"] == "active+clean", "{pg}");
        ensure!(list(&pg["up"])?.len() == 3 && pg["up"] == pg["acting"], "{pg}");
    }
    let first = pgs[0]["pgid"].as_str().context("no PGs")?;
    ensure!(cluster.nacre(&["pg", "ls"])?.contains(first), "the table lacks PG {first}");
    let query = cluster.json(&["pg", "query", first])?;
    ensure!(query["state"].is_string(), "{query}");
    ensure!(list(&cluster.json(&["pool", "ls"])?)?.len() == 1, "one pool");
    ensure!(list(&cluster.json(&["osd", "df"])?["nodes"])?.len() == 3, "three OSDs");
    ensure!(cluster.json(&["mon", "stat"])?["leader"] == "a", "mon.a leads");
    ensure!(cluster.json(&["log"])?.is_array(), "the log is a list");

    // A down OSD is a warning that names it, with a way out.
    cluster.dev("kill", "osd.2")?;
    nacre_tests::cluster::wait_for("a warning", 20 * SECOND, || {
        let health = cluster.json(&["health", "detail"])?;
        let down = &health["checks"]["OSD_DOWN"];
        Ok(health["status"] == "HEALTH_WARN" && down["detail"].to_string().contains("osd.2"))
    })?;
    says(&cluster.nacre(&["health", "detail"])?, &["HEALTH_WARN", "OSD_DOWN", "osd.2", "fix:"])?;
    cluster.dev("start", "osd.2")?;
    cluster.wait_clean(60 * SECOND)?;
    cluster.assert_alive()
}

#[test]
fn settings_are_kept_by_the_cluster() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = up()?;
    let get = |who: &str| -> anyhow::Result<Value> {
        Ok(cluster.json(&["config", "get", who, "osd_max_backfills"])?["value"].take())
    };
    let default = get("osd.1")?;
    cluster.nacre(&["config", "set", "osd", "osd_max_backfills", "7"])?;
    cluster.nacre(&["config", "set", "osd.1", "osd_max_backfills", "9"])?;
    ensure!(get("osd.0")? == "7" && get("osd.1")? == "9", "the nearest setting counts");
    ensure!(cluster.nacre(&["config", "get", "osd.1", "osd_max_backfills"])?.trim() == "9", "plain value");
    let dump = cluster.json(&["config", "dump"])?;
    let set: Vec<_> = list(&dump)?.iter().map(|s| (s["section"].clone(), s["value"].clone())).collect();
    ensure!(set == [("osd".into(), "7".into()), ("osd.1".into(), "9".into())], "{dump}");
    // It outlives the monitor.
    cluster.dev("kill", "mon.a")?;
    cluster.dev("start", "mon.a")?;
    ensure!(get("osd.1")? == "9", "forgotten by a restart");
    cluster.nacre(&["config", "rm", "osd.1", "osd_max_backfills"])?;
    cluster.nacre(&["config", "rm", "osd", "osd_max_backfills"])?;
    ensure!(get("osd.1")? == default, "not back at the default");
    cluster.fails_saying(&["config", "set", "osd", "osd_max_backfill", "7"], &["osd_max_backfill"])?;
    cluster.fails_saying(&["config", "set", "osd", "osd_max_backfills", "many"], &["many", "number"])?;
    cluster.assert_alive()
}

#[test]
fn credentials_allow_what_they_say_and_end_at_once() -> anyhow::Result<()> {
    let _alone = alone();
    let mut cluster = serving()?;
    std::fs::write(cluster.path("file"), "content")?;
    cluster.nacre(&["object", "put", "rbd/o", "file"])?;
    let caps = ["--cap", "mon=allow r", "--cap", "osd=allow r pool=rbd", "-o", "reader.nacre"];
    cluster.nacre(&[&["auth", "get", "client.reader"], &caps[..]].concat())?;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(cluster.path("reader.nacre"))?);
    ensure!(mode & 0o777 == 0o600, "a private key lies there with mode {mode:o}");
    let reader = |args: &[&str]| cluster.command(&[&["--cluster", "reader.nacre"], args].concat());
    ensure!(run(&mut reader(&["object", "get", "rbd/o", "-"]))? == "content", "reading is allowed");
    run(&mut reader(&["status"]))?;
    for (args, words) in [
        (&["object", "put", "rbd/o", "file"][..], ["client.reader", "caps"]),
        (&["object", "rm", "rbd/o"], ["client.reader", "caps"]),
        (&["image", "create", "rbd/x", "--size", "1M"], ["client.reader", "caps"]),
        (&["pool", "create", "x"], ["client.reader", "allow rw"]),
    ] {
        says(&fails(&mut reader(args))?, &words).with_context(|| format!("{args:?}"))?;
    }
    ensure!(run(&mut reader(&["object", "get", "rbd/o", "-"]))? == "content", "it was changed");
    cluster.nacre(&[
        "auth",
        "caps",
        "client.reader",
        "--cap",
        "mon=allow r",
        "--cap",
        "osd=allow rw pool=rbd",
    ])?;
    run(&mut reader(&["object", "put", "rbd/o", "file"]))?;

    cluster.nacre(&["auth", "rm", "client.reader"])?;
    for args in [&["status"][..], &["object", "get", "rbd/o", "-"], &["object", "put", "rbd/o", "file"]] {
        let began = Instant::now();
        says(&fails(&mut reader(args))?, &["client.reader", "not known"])?;
        ensure!(began.elapsed() < 5 * SECOND, "{args:?} was refused only after {:?}", began.elapsed());
    }

    // One that is connected is shut out too.
    let all = ["--cap", "mon=allow r", "--cap", "osd=allow rwx pool=rbd", "-o", "gateway.nacre"];
    cluster.nacre(&[&["auth", "get", "client.gateway"], &all[..]].concat())?;
    cluster.stop_gateway()?;
    let socket = cluster.serve_nbd_as("gateway.nacre")?;
    let mut client = NbdClient::connect(&socket, IMAGE, 30 * SECOND)?;
    client.write(0, &noise(1, 4096))?;
    cluster.nacre(&["auth", "rm", "client.gateway"])?;
    let began = Instant::now();
    while client.write(0, &noise(2, 4096)).is_ok() {
        ensure!(began.elapsed() < 5 * SECOND, "a removed client still writes");
    }
    ensure!(began.elapsed() < 10 * SECOND, "the error took {:?}", began.elapsed());
    cluster.stop_gateway()?;
    cluster.assert_alive()
}
