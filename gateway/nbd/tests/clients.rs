//! Real clients against the server: libnbd's and QEMU's tools, and fio. A tool that is not installed is skipped, and
//! the test says so.

#[path = "model/mod.rs"]
mod model;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use model::{Disks, Memory};
use nacre_nbd::{Config, Server, Stats, StopHandle};

const MIB: usize = 1 << 20;
const DISK_BYTES: usize = 64 * MIB;

/// A server of the disks `a` and `b`, on a thread of its own.
struct Serving {
    folder: tempfile::TempDir,
    socket: PathBuf,
    port: u16,
    stop: StopHandle,
    thread: JoinHandle<(Vec<Vec<u8>>, Stats)>,
}

impl Serving {
    fn start() -> Serving {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("nbd.sock");
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn({
            let socket = socket.clone();
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                tokio::task::LocalSet::new().block_on(&runtime, async {
                    let disks: Vec<_> =
                        ["a", "b"].map(|name| (name.to_owned(), Rc::new(Memory::new(DISK_BYTES)))).into();
                    let server =
                        Server::new(Rc::new(Disks(disks.clone())), Config::default()).expect("valid");
                    server.serve_unix(&socket).await.expect("a socket");
                    let address = server.serve_tcp("127.0.0.1:0").await.expect("a port");
                    ready.send((server.stop_handle(), address.port())).expect("the test waits");
                    server.stopped().await;
                    (disks.iter().map(|(_, disk)| disk.contents()).collect(), server.stats())
                })
            }
        });
        let (stop, port) = started.recv().expect("the server starts");
        Serving { folder, socket, port, stop, thread }
    }

    fn uri(&self, disk: &str) -> String {
        format!("nbd+unix:///{disk}?socket={}", self.socket.display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Stops, and returns what is on the disks.
    fn finish(self) -> (Vec<Vec<u8>>, Stats) {
        self.stop.stop();
        let (disks, stats) = self.thread.join().expect("the server ends in order");
        assert!(!self.socket.exists(), "the socket file goes with the server");
        assert_eq!((stats.connections, stats.requests_in_flight, stats.connections_panicked), (0, 0, 0));
        (disks, stats)
    }
}

/// Whether a tool is there; says so if not.
fn installed(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if !found {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

/// Runs a tool to its end, and expects success.
fn tool(name: &str, arguments: &[&str], folder: &Path) -> String {
    let Output { status, stdout, stderr } =
        Command::new(name).args(arguments).current_dir(folder).output().expect("the tool starts");
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{name} {arguments:?}: {status}\n{stdout}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// A disk with data and holes, the same every time.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; DISK_BYTES];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for piece in bytes.chunks_mut(MIB).step_by(3) {
        for word in piece[..700_000].chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn nbdinfo_lists_and_describes() {
    if !installed("nbdinfo") {
        return;
    }
    let serving = Serving::start();
    let here = serving.folder.path();
    let list =
        tool("nbdinfo", &["--list", &format!("nbd+unix://?socket={}", serving.socket.display())], here);
    assert!(list.contains("export=\"a\":") && list.contains("export=\"b\":"), "{list}");
    let info = tool("nbdinfo", &[&format!("nbd://127.0.0.1:{}/a", serving.port)], here);
    for line in [
        "using structured packets",
        "export-size: 67108864",
        "base:allocation",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(info.contains(line), "no {line:?} in\n{info}");
    }
    let missing = Command::new("nbdinfo").arg(serving.uri("nope")).output().expect("nbdinfo starts");
    assert!(!missing.status.success());
    let message = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(message.contains("nope"), "{message}");
    serving.finish();
}

#[test]
fn nbdcopy_in_and_out() {
    if !installed("nbdcopy") || !installed("nbdinfo") {
        return;
    }
    let serving = Serving::start();
    let here = serving.folder.path();
    let (source, copy) = (serving.file("source"), serving.file("copy"));
    let image = image();
    fs::write(&source, &image).expect("a file");
    tool("nbdcopy", &["--connections=4", "source", &serving.uri("a")], here);
    tool("nbdcopy", &["--flush", &serving.uri("a"), &serving.uri("b")], here);
    tool("nbdcopy", &[&format!("nbd://127.0.0.1:{}/b", serving.port), "copy"], here);
    assert!(fs::read(&copy).expect("a copy") == image);
    let map = tool("nbdinfo", &["--map", &serving.uri("b")], here);
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
    let (disks, stats) = serving.finish();
    assert!(disks[0] == image && disks[1] == image);
    assert!(stats.zeroes > 0, "holes went over as zeroing");
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    if !installed("qemu-img") {
        return;
    }
    let serving = Serving::start();
    let here = serving.folder.path();
    let image = image();
    fs::write(serving.file("source"), &image).expect("a file");
    let info = tool("qemu-img", &["info", &serving.uri("a")], here);
    assert!(info.contains("virtual size: 64 MiB (67108864 bytes)"), "{info}");
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "source", "source.qcow2"], here);
    tool("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", "source.qcow2", &serving.uri("a")], here);
    tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", "source", &serving.uri("a")], here);
    tool("qemu-img", &["convert", "-O", "qcow2", &serving.uri("a"), "back.qcow2"], here);
    tool("qemu-img", &["compare", "source", "back.qcow2"], here);
    let map = tool("qemu-img", &["map", "--output=json", "-f", "raw", &serving.uri("a")], here);
    assert!(map.contains("\"zero\": true, \"data\": false") && map.contains("\"data\": true"), "{map}");
    let (disks, _) = serving.finish();
    assert!(disks[0] == image);
}

#[test]
fn qemu_io_reaches_every_command() {
    if !installed("qemu-io") {
        return;
    }
    let serving = Serving::start();
    let arguments = [
        "-f",
        "raw",
        "-c",
        "write -P 0x5a 4096 1M",
        "-c",
        "write -f -P 0x11 0 512",
        "-c",
        "read -P 0x5a 4096 1M",
    ];
    let more = [
        "-c",
        "write -z -u 8192 4096",
        "-c",
        "read -P 0 8192 4096",
        "-c",
        "discard 65536 65536",
        "-c",
        "flush",
    ];
    let uri = serving.uri("b");
    let out = tool("qemu-io", &[&arguments[..], &more, &[&uri]].concat(), serving.folder.path());
    assert!(!out.contains("failed"), "{out}");
    let (disks, stats) = serving.finish();
    assert_eq!(disks[1][..512], [0x11; 512]);
    assert_eq!(disks[1][8192..12288], [0; 4096]);
    assert!(stats.flushes > 0 && stats.trims > 0 && stats.zeroes > 0 && stats.failures == 0, "{stats:?}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !installed("fio") {
        return;
    }
    let engines = Command::new("fio").arg("--enghelp").output().expect("fio starts");
    if !String::from_utf8_lossy(&engines.stdout).contains("nbd") {
        return eprintln!("SKIPPED: this fio has no nbd engine");
    }
    let serving = Serving::start();
    for (disk, block) in [("a", "4k"), ("b", "512-256k")] {
        let uri = format!("--uri={}", serving.uri(disk));
        let range = if block.contains('-') { "--bsrange" } else { "--bs" };
        let size = format!("{range}={block}");
        let arguments =
            ["--name=verify", "--ioengine=nbd", &uri, "--rw=randrw", &size, "--iodepth=64", "--size=32m"];
        let verify = ["--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--output-format=terse"];
        tool("fio", &[&arguments[..], &verify].concat(), serving.folder.path());
    }
    let (_, stats) = serving.finish();
    assert!(stats.reads > 4000 && stats.writes > 2000 && stats.failures == 0, "{stats:?}");
}
