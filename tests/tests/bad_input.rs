//! Bad input of every kind: it gets a clear answer, kills no daemon and costs nobody else anything.

use anyhow::{Context as _, ensure};
use nacre_tests::cluster::{Cluster, alone, fails, says, wait_for};
use nacre_tests::daemon::{Daemon, daemon, free_port};
use nacre_tests::mounts::{LoopDevice, Mount, can_mount};
use nacre_tests::nbd::NbdClient;
use nacre_tests::sample::noise;
use nacre_tests::tool::{installed, nacre, run};
use nacre_tests::writer::{Writer, verify};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const IMAGE: &str = "rbd/img";
const SECOND: Duration = Duration::from_secs(1);
const ENOSPC: &str = "error 28";

/// A cluster with an image of 64 MiB, served over NBD.
fn serving(options: &[&str]) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::up(&[&["--size", "2G"], options].concat())?;
    cluster.nacre(&["pool", "create", "rbd"])?;
    cluster.nacre(&["image", "create", IMAGE, "--size", "64M"])?;
    cluster.serve_nbd()?;
    Ok(cluster)
}

/// Everybody lives, and a new client writes and reads.
fn assert_works(cluster: &Cluster, seed: u64) -> anyhow::Result<()> {
    cluster.assert_alive()?;
    let mut client = NbdClient::connect(&cluster.path("nbd.sock"), IMAGE, 30 * SECOND)?;
    let data = noise(seed, 16 << 10);
    client.write(seed * 65_536, &data)?;
    ensure!(client.read(seed * 65_536, 16 << 10)? == data, "what was written is not read back");
    Ok(())
}

/// The UDP addresses of all daemons.
fn addresses(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut found = vec![mon_address(cluster)?];
    for osd in cluster.json(&["osd", "dump"])?["osds"].as_array().context("no OSDs")? {
        let text = osd.to_string();
        let at = text.find("127.0.0.1:").with_context(|| format!("no address: {text}"))?;
        found.push(text[at..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect());
    }
    Ok(found)
}

fn mon_address(cluster: &Cluster) -> anyhow::Result<String> {
    let text = fs::read_to_string(cluster.dir().join("admin.nacre"))?;
    let line = text.lines().find(|line| line.starts_with("address")).context("no monitor's address")?;
    Ok(line.split('"').nth(1).context("no monitor's address")?.to_string())
}

#[test]
fn garbage_datagrams_are_ignored() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving(&[])?;
    let writer = Writer::start(cluster.path("nbd.sock"), IMAGE, 1024, 2, None);
    writer.wait_writes(50, 10 * SECOND)?;
    let addresses = addresses(&cluster)?;
    ensure!(addresses.len() == 4, "{addresses:?}");
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for seed in 0..1500_u64 {
        let length = [0, 1, 3, 21, 100, 1200, 1452, 9000][(seed % 8) as usize];
        let mut datagram = noise(seed + 1, length);
        // Every other one begins as QUIC does: a long header of version 1 or of none, connection ids of 8 bytes.
        if seed % 2 == 0 && length > 20 {
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&((seed % 3) as u32).to_be_bytes());
            (datagram[5], datagram[14]) = (8, if seed % 5 == 0 { 255 } else { 0 });
        }
        for address in &addresses {
            // A full buffer is as good as a datagram lost.
            let _ = socket.send_to(&datagram, address);
        }
    }
    writer.wait_writes(200, 15 * SECOND)?;
    let known = writer.stop();
    ensure!(known.errors.is_empty(), "{:?}", known.errors);
    cluster.nacre(&["status"])?;
    verify(&cluster.path("nbd.sock"), IMAGE, &known)?;
    assert_works(&cluster, 500)
}

// NBD.

fn nbd(cluster: &Cluster) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(cluster.path("nbd.sock"))?;
    stream.set_read_timeout(Some(10 * SECOND))?;
    stream.set_write_timeout(Some(10 * SECOND))?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    Ok(stream)
}

fn option(number: u32, claimed: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = 0x4948_4156_454F_5054_u64.to_be_bytes().to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&claimed.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn request(magic: u32, command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&7_u64.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

/// Reads until the server closes the connection: it must, in the time that reads may take.
fn read_to_close(stream: &mut UnixStream) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => return Err(error).context("the server does not close the connection"),
        }
        ensure!(all.len() < 1 << 20, "the server talks without end");
    }
}

#[test]
fn nbd_garbage_before_the_handshake_ends_only_that_connection() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving(&[])?;
    let mut good = NbdClient::connect(&cluster.path("nbd.sock"), IMAGE, 30 * SECOND)?;
    let flags = 3_u32.to_be_bytes();
    let closing = [
        noise(1, 4096),
        // Flags that nobody knows.
        0xffff_ffff_u32.to_be_bytes().to_vec(),
        // Flags, then no option.
        [&flags[..], &noise(2, 64)].concat(),
        // An option of 4 GiB.
        [&flags[..], &option(7, u32::MAX, &noise(3, 65_536))].concat(),
        // The old way to name an export, one that is not there.
        [&flags[..], &option(1, 4, b"none")].concat(),
    ];
    for bytes in closing {
        let mut stream = nbd(&cluster)?;
        // It may close while we still write.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_close(&mut stream)
            .with_context(|| format!("after {:02x?}", &bytes[..bytes.len().min(24)]))?;
    }
    // What is understood but wrong gets an error, and the connection goes on.
    let mut stream = nbd(&cluster)?;
    stream.write_all(&flags)?;
    let go = |name: &[u8], claimed: u32| {
        let body = [&claimed.to_be_bytes()[..], name, &0_u16.to_be_bytes()].concat();
        option(7, body.len() as u32, &body)
    };
    for bytes in [
        option(4242, 3, b"abc"),
        go(b"", 0),
        go(b"rbd", 3),
        go(b"rbd/a/b", 7),
        go(b"rbd/none", 8),
        go(b"none/none", 9),
        go(b"rbd/img@none", 12),
        go(&[b'x'; 4096], 4096),
        go(b"rbd/img", 4000),
        go(b"rbd/\xff\xfe", 6),
    ] {
        stream.write_all(&bytes)?;
        let mut head = [0; 20];
        stream.read_exact(&mut head).with_context(|| format!("no answer to {bytes:02x?}"))?;
        ensure!(head[12] & 0x80 != 0, "no error but {head:02x?} for {bytes:02x?}");
        let length = u32::from_be_bytes([head[16], head[17], head[18], head[19]]);
        ensure!(length <= 4096, "an error of {length} bytes");
        let mut message = vec![0; length as usize];
        stream.read_exact(&mut message)?;
        ensure!(std::str::from_utf8(&message).is_ok(), "a message that is no text");
    }
    // Many who say nothing.
    let idle: Vec<_> = (0..100).map(|_| nbd(&cluster)).collect::<Result<_, _>>()?;
    good.write(0, &noise(1, 4096))?;
    ensure!(good.read(0, 4096)? == noise(1, 4096), "another client suffers");
    drop(idle);
    assert_works(&cluster, 1)
}

#[test]
fn nbd_garbage_after_the_handshake_ends_only_that_connection() -> anyhow::Result<()> {
    const MAGIC: u32 = 0x2560_9513;
    let _alone = alone();
    let cluster = serving(&[])?;
    let mut good = NbdClient::connect(&cluster.path("nbd.sock"), IMAGE, 30 * SECOND)?;
    good.write(0, &noise(1, 4096))?;
    let attached = || -> anyhow::Result<UnixStream> {
        let mut stream = nbd(&cluster)?;
        stream.write_all(&3_u32.to_be_bytes())?;
        stream.write_all(&option(1, IMAGE.len() as u32, IMAGE.as_bytes()))?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        Ok(stream)
    };
    // A wrong magic leaves no way to know where the next request begins.
    for bytes in [noise(1, 4096), request(0xdead_beef, 0, 0, 4096)] {
        let mut stream = attached()?;
        let _ = stream.write_all(&bytes);
        read_to_close(&mut stream)?;
    }
    // Cut short in a head, in data, and without a word.
    for bytes in [request(MAGIC, 1, 0, 4096)[..9].to_vec(), request(MAGIC, 1, 4096, 1 << 20), Vec::new()] {
        let mut stream = attached()?;
        stream.write_all(&bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        read_to_close(&mut stream)?;
    }
    // Wrong, but with an end: an error for each, EINVAL or for what would be written beyond the end ENOSPC.
    let mut stream = attached()?;
    for (command, offset, length) in [
        (0, 64 << 20, 4096),
        (0, (64 << 20) - 1, 2),
        (0, u64::MAX, 4096),
        (0, u64::MAX - 4095, 4096),
        (0, 0, u32::MAX),
        (4, 64 << 20, 4096),
        (6, u64::MAX - 1, u32::MAX),
        (99, 0, 0),
        (7, 0, 0),
    ] {
        stream.write_all(&request(MAGIC, command, offset, length))?;
        let mut head = [0; 16];
        stream.read_exact(&mut head).with_context(|| format!("command {command} at {offset}+{length}"))?;
        let error = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        ensure!([22, 28, 75, 95].contains(&error), "command {command} at {offset}+{length}: error {error}");
    }
    // More than is ever taken at once: refused or cut off, never stored.
    let mut stream = attached()?;
    let _ = stream.write_all(&request(MAGIC, 1, 0, u32::MAX));
    let chunk = noise(2, 1 << 20);
    for _ in 0..80 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    drop(stream);
    ensure!(good.read(0, 4096)? == noise(1, 4096), "another client suffers");
    assert_works(&cluster, 1)
}

// Who may not.

#[test]
fn strangers_are_told_why_they_are_refused() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving(&[])?;
    let asked = |file: &str, args: &[&str]| {
        let began = Instant::now();
        let said = fails(&mut cluster.command(&[&["--cluster", file], args].concat()))?;
        ensure!(began.elapsed() < 5 * SECOND, "{args:?} took {:?}", began.elapsed());
        Ok(said)
    };
    // Of another cluster, whose file names our monitor.
    let mon = format!("a={}", mon_address(&cluster)?);
    run(&mut cluster.command(&["mon", "bootstrap", "--mon", &mon, "--out", "other"]))?;
    for args in [&["status"][..], &["object", "ls", "rbd"], &["osd", "tree"]] {
        says(&asked("other/admin.nacre", args)?, &["another cluster", "mon.a"])?;
    }
    // One that may nothing.
    cluster.nacre(&["auth", "get", "client.nobody", "-o", "nobody.nacre"])?;
    for args in [&["status"][..], &["object", "ls", "rbd"], &["image", "rm", IMAGE]] {
        says(&asked("nobody.nacre", args)?, &["client.nobody may not"])?;
    }
    cluster
        .fails_saying(&["auth", "get", "client.x", "--cap", "osd=allow everything", "-o", "x"], &["cap"])?;
    cluster.fails_saying(&["auth", "get", "nonsense", "-o", "x"], &["nonsense", "entity"])?;
    // Files that are none, or not whole.
    let admin = fs::read_to_string(cluster.dir().join("admin.nacre"))?;
    let damaged = [
        ("", "missing field"),
        ("nonsense\n", "line 1"),
        (&format!("colour = 1\n{admin}"), "colour"),
        (&admin.replace("BEGIN CERTIFICATE", "BEGIN CERTIFICAT"), "no certificate"),
        (&admin.replace("client.admin", "client.other"), "client.other"),
        (&admin[..admin.len() / 2], "not valid"),
    ];
    for (content, word) in damaged {
        fs::write(cluster.path("damaged.nacre"), content)?;
        says(&asked("damaged.nacre", &["status"])?, &["damaged.nacre", word])?;
    }
    says(&asked("missing.nacre", &["status"])?, &["missing.nacre", "no such file"])?;
    says(&fails(Command::new(nacre()).arg("status").env_remove("NACRE_CLUSTER"))?, &["--cluster"])?;
    if installed("openssl") {
        expired_certificate(&cluster)?;
        says(&asked("expired.nacre", &["status"])?, &["certificate expired"])?;
    }
    assert_works(&cluster, 1)
}

/// Makes `expired.nacre`: the administrator's key with a certificate of the cluster's CA that ended yesterday.
fn expired_certificate(cluster: &Cluster) -> anyhow::Result<()> {
    // The CA's key lies in the monitor's store as text.
    let mut ca_key = None;
    for entry in fs::read_dir(cluster.dir().join("mon.a/store"))? {
        let bytes = fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&bytes);
        const END: &str = "-----END PRIVATE KEY-----";
        if let Some(begin) = text.find("-----BEGIN PRIVATE KEY-----")
            && let Some(length) = text[begin..].find(END)
        {
            ca_key = Some(format!("{}\n", &text[begin..begin + length + END.len()]));
        }
    }
    fs::write(cluster.path("ca.key"), ca_key.context("the CA's key was not found in the monitor's store")?)?;
    let admin = fs::read_to_string(cluster.dir().join("admin.nacre"))?;
    let field = |name: &str| -> anyhow::Result<String> {
        let begin = format!("{name} = \"\"\"\n");
        let rest = admin.split_once(&begin).with_context(|| format!("no {name}"))?.1;
        Ok(rest.split_once("\"\"\"").context("no end")?.0.to_string())
    };
    fs::write(cluster.path("ca.crt"), field("ca")?)?;
    fs::write(cluster.path("admin.key"), field("key")?)?;
    fs::write(
        cluster.path("ext"),
        "subjectAltName=DNS:client.admin\nextendedKeyUsage=clientAuth,serverAuth\n",
    )?;
    let fsid = cluster.json(&["status"])?["fsid"].as_str().context("no fsid")?.to_string();
    let subject = format!("/O={fsid}/CN=client.admin");
    let openssl = |args: &[&str]| run(Command::new("openssl").args(args).current_dir(cluster.path("")));
    openssl(&["req", "-new", "-key", "admin.key", "-subj", &subject, "-out", "admin.csr"])?;
    let sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-days", "-1", "-extfile", "ext", "-out", "expired.crt"];
    openssl(&[&["x509", "-req", "-in", "admin.csr"], &sign[..]].concat())?;
    let expired = fs::read_to_string(cluster.path("expired.crt"))?;
    Ok(fs::write(cluster.path("expired.nacre"), admin.replace(&field("cert")?, &expired))?)
}

// Names and numbers.

#[test]
fn names_and_sizes_that_cannot_be() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving(&[])?;
    let long = format!("rbd/{}", "x".repeat(4096));
    for (name, words) in [
        ("rbd/a/b", &["'/'"][..]),
        ("rbd/", &["POOL/IMAGE"]),
        ("", &["POOL/IMAGE"]),
        ("/", &["POOL/IMAGE"]),
        ("rbd", &["POOL/IMAGE"]),
        ("rbd/a@", &["POOL/IMAGE"]),
        ("rbd/a@b", &["snapshot"]),
        ("rbd/a\nb", &["name"]),
        (&long, &["4096 bytes", "at most"]),
        (IMAGE, &["already"]),
        ("none/img", &["no pool", "none"]),
    ] {
        cluster.fails_saying(&["image", "create", name, "--size", "1M"], words)?;
    }
    for (size, words) in [
        ("0", &["0 bytes"][..]),
        ("9223372036854775808", &["at most"]),
        ("8E", &["at most"]),
        ("18446744073709551615", &["at most"]),
        ("18446744073709551616", &["2^64"]),
        ("16E", &["2^64"]),
        ("-1", &["-1"]),
        ("12X", &["12X", "unit"]),
        ("many", &["many"]),
        ("", &["size"]),
    ] {
        let size = format!("--size={size}");
        cluster.fails_saying(&["image", "create", "rbd/new", &size], words)?;
        cluster.fails_saying(&["image", "resize", IMAGE, &size], words)?;
    }
    cluster.fails_saying(&["pool", "create", "p", "--size", "0"], &["size"])?;
    cluster.fails_saying(&["pool", "create", "p", "--pg-num", "1000000000"], &["pg_num"])?;
    cluster.fails_saying(&["pool", "create", "p", "--rule", "none"], &["rule", "none"])?;
    cluster.fails_saying(&["pool", "rm", "rbd"], &["rbd"])?;
    cluster.fails_saying(&["osd", "out", "osd.77"], &["osd.77"])?;
    cluster.fails_saying(&["osd", "reweight", "osd.0", "7"], &["weight"])?;
    cluster.fails_saying(&["osd", "status", "osd.77"], &["osd.77"])?;
    cluster.fails_saying(&["pg", "query", "77.0"], &["77.0"])?;
    cluster.fails_saying(&["pg", "query", "nonsense"], &["nonsense"])?;
    cluster.fails_saying(&["config", "set", "nobody.x", "osd_max_backfills", "1"], &["nobody.x"])?;
    cluster.fails_saying(&["nonsense"], &["nonsense"])?;
    assert_works(&cluster, 1)
}

// Directories and disks.

#[test]
fn directories_that_are_not_what_they_should_be() -> anyhow::Result<()> {
    let _alone = alone();
    let cluster = serving(&[])?;
    let dir = |osd: &str| cluster.dir().join(osd);
    let refused = |kind: &str, dir: &Path, words: &[&str]| {
        says(&fails(&mut daemon(kind, dir))?, words).with_context(|| dir.display().to_string())
    };
    // Held by another process.
    for (kind, name) in [("osd", "osd.0"), ("mon", "mon.a")] {
        refused(kind, &dir(name), &[name, "in use", &cluster.pid(name)?.to_string()])?;
    }
    let text = dir("osd.0").display().to_string();
    cluster.fails_saying(&["osd", "fsck", &text], &["in use"])?;
    let format = |dir: &str| {
        let args = ["osd", "format", "--dir", dir, "--size", "256M", "--address", "127.0.0.1:0"];
        cluster.command(&args)
    };
    says(&fails(&mut format(&text))?, &["already", "osd.0"])?;
    // Nothing, or something else.
    refused("osd", &cluster.path("missing"), &["missing", "not exist"])?;
    fs::create_dir(cluster.path("empty"))?;
    refused("osd", &cluster.path("empty"), &["no OSD", "osd format"])?;
    refused("mon", &cluster.path("empty"), &["no monitor", "mon bootstrap"])?;
    refused("mon", &dir("osd.0"), &["osd.0"])?;
    refused("osd", &dir("mon.a"), &["no OSD"])?;

    // A copy of osd.2's directory, changed in one thing at a time.
    cluster.dev("stop", "osd.2")?;
    let changed = |name: &str, change: &dyn Fn(&str) -> String| -> anyhow::Result<std::path::PathBuf> {
        let copy = cluster.path(&format!("copy-{name}"));
        let _ = fs::remove_dir_all(&copy);
        run(Command::new("cp").args(["-r", "--sparse=always"]).args([&dir("osd.2"), &copy]))?;
        let text = fs::read_to_string(copy.join(name))?;
        let new = change(&text);
        ensure!(new != text, "nothing to change in {text}");
        fs::write(copy.join(name), new)?;
        Ok(copy)
    };
    let identity = |change: &dyn Fn(&str) -> String| changed("osd.toml", change);
    refused("osd", &identity(&|t| t.replace("version = 1", "version = 2"))?, &["newer version", "2"])?;
    refused("osd", &identity(&|t| t.replace("osd = 2", "osd = 1"))?, &["osd.1", "osd.2"])?;
    let uuid = identity(&|text| text.replace("uuid = \"", "uuid = \"f"))?;
    refused("osd", &uuid, &["disk belongs to the store", "exchanged"])?;
    refused("osd", &identity(&|t| format!("{t}colour = 1\n"))?, &["osd.toml", "colour"])?;
    refused("osd", &identity(&|_| "nonsense".into())?, &["osd.toml"])?;
    let settings = changed("settings.toml", &|text| format!("colour = 1\n{text}"))?;
    refused("osd", &settings, &["settings.toml", "colour"])?;
    let keyring = changed("keyring.nacre", &|text| format!("colour = 1\n{text}"))?;
    refused("osd", &keyring, &["keyring.nacre", "colour"])?;
    // A disk that is not the one, is cut short, or is empty.
    let copy = identity(&|text| format!("# the same\n{text}"))?;
    let data = copy.join("data");
    let length = fs::metadata(&data)?.len();
    fs::File::options().write(true).open(&data)?.set_len(length / 2)?;
    refused("osd", &copy, &["data"])?;
    fs::write(&data, [])?;
    refused("osd", &copy, &["data"])?;
    fs::File::create(&data)?.set_len(length)?;
    refused("osd", &copy, &["data"])?;
    // Half formatted: says so, and formatting again mends it.
    let half = cluster.path("half");
    fs::create_dir(&half)?;
    fs::write(half.join("formatting"), "")?;
    fs::write(half.join("data"), noise(1, 100_000))?;
    refused("osd", &half, &["half formatted", "osd format"])?;
    run(&mut format("half"))?;
    run(&mut cluster.command(&["osd", "rm", "osd.3", "--yes-i-really-mean-it"]))?;
    // Of another cluster.
    let other = Cluster::up(&["--osds", "1", "--size", "1G"])?;
    other.dev("stop", "osd.0")?;
    let theirs = other.dir().join("osd.0");
    fs::copy(dir("osd.0").join("keyring.nacre"), theirs.join("keyring.nacre"))?;
    refused("osd", &theirs, &["belongs to cluster"])?;
    drop(other);

    cluster.dev("start", "osd.2")?;
    cluster.wait_clean(60 * SECOND)?;
    assert_works(&cluster, 1)
}

#[test]
fn a_full_cluster_says_so_and_recovers() -> anyhow::Result<()> {
    let _alone = alone();
    // By hand, since it is to be small: one monitor and three OSDs of 192 MiB, of which 64 are journal.
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let command = |args: &[&str]| {
        let mut command = Command::new(nacre());
        command.args(args).env("NACRE_CLUSTER", at("c/admin.nacre")).current_dir(folder.path());
        command
    };
    let mon = format!("a=127.0.0.1:{}", free_port()?);
    run(&mut command(&["mon", "bootstrap", "--mon", &mon, "--out", "c"]))?;
    let mut daemons = vec![Daemon::start("mon", &at("c/mon.a"))?];
    for host in ["h0", "h1", "h2"] {
        let place = ["--dir", host, "--host", host, "--size", "192M", "--address", "127.0.0.1:0"];
        run(&mut command(&[&["osd", "format"], &place[..]].concat()))?;
        daemons.push(Daemon::start("osd", &at(host))?);
    }
    run(&mut command(&["pool", "create", "rbd", "--pg-num", "16"]))?;
    let clean = || {
        let pgs: serde_json::Value = serde_json::from_str(&run(&mut command(&["pg", "ls", "--json"]))?)?;
        let pgs = pgs.as_array().context("no list")?;
        Ok(!pgs.is_empty() && pgs.iter().all(|pg| pg["state"] == "active+clean"))
    };
    wait_for("active+clean", 30 * SECOND, clean)?;
    for image in ["rbd/kept", "rbd/filler"] {
        run(&mut command(&["image", "create", image, "--size", "512M"]))?;
    }
    let socket = at("nbd.sock");
    let log = fs::File::create(at("nbd.log"))?;
    let mut gateway = command(&["nbd", "serve", "--unix", "nbd.sock"]).stderr(log).spawn()?;
    let result = (|| {
        wait_for("the socket", 10 * SECOND, || Ok(socket.exists()))?;
        let mut kept = NbdClient::connect(&socket, "rbd/kept", 60 * SECOND)?;
        kept.write(0, &noise(1, 1 << 20))?;
        let mut filler = NbdClient::connect(&socket, "rbd/filler", 60 * SECOND)?;
        let fill = |filler: &mut NbdClient| -> anyhow::Result<(u64, String)> {
            for piece in 0..512_u64 {
                if let Err(error) = filler.write(piece << 20, &noise(piece + 2, 1 << 20)) {
                    return Ok((piece, format!("{error:#}")));
                }
            }
            anyhow::bail!("512 MiB went into 192")
        };
        let (pieces, said) = fill(&mut filler)?;
        ensure!(pieces > 40, "after {pieces} MiB: {said}");
        says(&said, &[ENOSPC])?;
        eprintln!("full after {pieces} MiB");
        // What was acknowledged is there.
        ensure!(kept.read(0, 1 << 20)? == noise(1, 1 << 20), "what is kept changed");
        for piece in 0..pieces {
            ensure!(filler.read(piece << 20, 1 << 20)? == noise(piece + 2, 1 << 20), "piece {piece}");
        }
        wait_for("a finding", 20 * SECOND, || {
            Ok(run(&mut command(&["health", "detail"]))?.to_lowercase().contains("full"))
        })?;
        // An OSD that starts while it is full does.
        let last = daemons.pop();
        drop(last);
        daemons.push(Daemon::start("osd", &at("h2"))?);
        wait_for("active+clean", 60 * SECOND, clean)?;
        // Removing makes room, and everything goes on.
        drop(filler);
        run(&mut command(&["image", "rm", "rbd/filler"]))?;
        let mut last = None;
        wait_for("room", 30 * SECOND, || {
            last = kept.write(8 << 20, &noise(3, 1 << 20)).err();
            Ok(last.is_none())
        })
        .with_context(|| format!("{last:?}"))?;
        // Each OSD gets its blocks back at a checkpoint of its own.
        wait_for("no full OSD", 30 * SECOND, || {
            Ok(!run(&mut command(&["health", "detail"]))?.to_lowercase().contains("full"))
        })?;
        ensure!(kept.read(8 << 20, 1 << 20)? == noise(3, 1 << 20), "written after the cluster was full");
        ensure!(kept.read(0, 1 << 20)? == noise(1, 1 << 20), "what is kept changed");
        run(&mut command(&["image", "create", "rbd/filler", "--size", "512M"]))?;
        let mut filler = NbdClient::connect(&socket, "rbd/filler", 60 * SECOND)?;
        let (again, said) = fill(&mut filler)?;
        ensure!(again + 10 > pieces, "the second time only {again} MiB fit, the first {pieces}: {said}");
        for daemon in &daemons {
            ensure!(
                daemon.is_alive() && !daemon.log().contains("panicked"),
                "a daemon died:\n{}",
                daemon.log()
            );
        }
        Ok(())
    })();
    gateway.kill()?;
    gateway.wait()?;
    result
}

#[test]
fn an_osd_whose_disk_fails_stops_and_says_why() -> anyhow::Result<()> {
    let _alone = alone();
    if !can_mount() {
        return Ok(());
    }
    let mut cluster = Cluster::up(&["--size", "2G"])?;
    // A fourth OSD on a block device that fails once 128 MiB of it have been used.
    let small = Mount::tmpfs(&cluster.path("small"), 128)?;
    let full = ["osd", "format", "--dir", "small/osd", "--size", "1G", "--address", "127.0.0.1:0"];
    cluster.fails_saying(&full, &["no room", "small/osd"])?;
    fs::remove_dir_all(cluster.path("small/osd"))?;
    let backing = cluster.path("small/disk");
    fs::File::create(&backing)?.set_len(1 << 30)?;
    let device = LoopDevice::attach(&backing)?;
    let name = device.path().display().to_string();
    let place = ["--dir", "osd.3", "--host", "dev-3", "--address", "127.0.0.1:0"];
    cluster.nacre(&[&["osd", "format", &name], &place[..]].concat())?;
    let mut osd = Daemon::start("osd", &cluster.path("osd.3"))?;
    wait_for("osd.3", 20 * SECOND, || {
        Ok(cluster.json(&["status"])?.pointer("/osdmap/num_up_osds") == Some(&4.into()))
    })?;
    cluster.nacre(&["pool", "create", "rbd"])?;
    cluster.nacre(&["image", "create", IMAGE, "--size", "256M"])?;
    let socket = cluster.serve_nbd()?;
    let mut client = NbdClient::connect(&socket, IMAGE, 60 * SECOND)?;
    let mut written = 0;
    while osd.is_alive() && written < 250 {
        client.write(written << 20, &noise(written + 1, 1 << 20))?;
        written += 1;
    }
    let status = osd.wait_end(20 * SECOND).context("the OSD goes on with a disk that fails")?;
    ensure!(!status.success(), "it ended as if all were well");
    says(&osd.log(), &["osd.3 stopped"])?;
    ensure!(!osd.log().contains("panicked"), "{}", osd.log());
    let log = osd.log().to_lowercase();
    ensure!(["disk", "i/o", "input/output", "no space"].iter().any(|word| log.contains(word)), "{log}");
    // The others carry on and, once it is out, are whole without it.
    client.write(written << 20, &noise(written + 1, 1 << 20))?;
    cluster.nacre(&["osd", "out", "osd.3"])?;
    cluster.wait_clean(90 * SECOND)?;
    for piece in 0..=written {
        ensure!(client.read(piece << 20, 1 << 20)? == noise(piece + 1, 1 << 20), "piece {piece} is lost");
    }
    drop((osd, device));
    small.unmount()?;
    cluster.assert_alive()
}
