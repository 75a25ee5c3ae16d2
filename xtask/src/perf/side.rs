//! The clusters that are measured: ours, and Debian's Ceph as the side-by-side kit starts it.

use super::number;
use anyhow::{Context as _, bail};
use nacre_tests::cluster::{Cluster, send_signal};
use nacre_tests::tool::run;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Requests on the image, so many in flight.
#[derive(Clone, Copy)]
pub struct Load {
    pub rw: &'static str,
    pub block: u64,
    pub depth: u32,
}

impl Load {
    pub fn name(&self) -> String {
        let block = if self.block >= 1 << 20 { "1 MiB" } else { "4 KiB" };
        format!("{} {block}, {} in flight", self.rw, self.depth)
    }
}

/// What came of it.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub ops: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A cluster of three OSDs with a pool of three copies and one image, written in full.
pub trait Side: Sync {
    fn name(&self) -> &'static str;
    fn load(&self, load: &Load, seconds: f64) -> anyhow::Result<Sample>;
    fn kill_osd(&self, osd: u32) -> anyhow::Result<()>;
    fn start_osd(&self, osd: u32) -> anyhow::Result<()>;
    /// Nobody is marked out because it is down.
    fn keep_in(&self) -> anyhow::Result<()>;
    fn set_copies(&self, copies: u32) -> anyhow::Result<()>;
    fn is_clean(&self) -> anyhow::Result<bool>;
}

pub const IMAGE: &str = "rbd/bench";

pub struct Nacre(pub Cluster);

impl Nacre {
    /// A new cluster; `size` is the image's.
    pub fn up(size: &str, osd_size: &str, settings: &[(String, String)]) -> anyhow::Result<Nacre> {
        let nacre = Nacre(Cluster::up(&["--osds", "3", "--size", osd_size])?);
        for (key, value) in settings {
            nacre.0.nacre(&["config", "set", "osd", key, value])?;
        }
        nacre.0.nacre(&["pool", "create", "rbd"])?;
        nacre.0.nacre(&["image", "create", IMAGE, "--size", size])?;
        let bytes = nacre.image_bytes()? as f64;
        let mut written = 0.0;
        let fill = Load { rw: "write", block: 1 << 20, depth: 16 };
        while written < bytes {
            let sample = nacre.load(&fill, 1.0 + bytes / 1e9)?;
            written += sample.ops * fill.block as f64;
        }
        Ok(nacre)
    }

    pub fn image_bytes(&self) -> anyhow::Result<u64> {
        self.0.json(&["image", "info", IMAGE])?["size"].as_u64().context("image info tells no size")
    }

    pub fn osd_pids(&self) -> anyhow::Result<Vec<i32>> {
        (0..3).map(|osd| self.0.pid(&format!("osd.{osd}"))).collect()
    }
}

impl Side for Nacre {
    fn name(&self) -> &'static str {
        "Nacre"
    }

    fn load(&self, load: &Load, seconds: f64) -> anyhow::Result<Sample> {
        let (block, depth, seconds) =
            (load.block.to_string(), load.depth.to_string(), format!("{seconds:.2}"));
        let args =
            ["image", "bench", IMAGE, "--rw", load.rw, "--bs", &block, "--qd", &depth, "--seconds", &seconds];
        let told = self.0.json(&args)?;
        Ok(Sample {
            ops: number(&told, "/ops")?,
            per_second: number(&told, "/iops")?,
            p50_us: number(&told, "/lat_us/p50")?,
            p99_us: number(&told, "/lat_us/p99")?,
        })
    }

    fn kill_osd(&self, osd: u32) -> anyhow::Result<()> {
        self.0.dev("kill", &format!("osd.{osd}"))
    }

    fn start_osd(&self, osd: u32) -> anyhow::Result<()> {
        self.0.dev("start", &format!("osd.{osd}"))
    }

    fn keep_in(&self) -> anyhow::Result<()> {
        self.0.nacre(&["osd", "set", "noout"]).map(drop)
    }

    fn set_copies(&self, copies: u32) -> anyhow::Result<()> {
        self.0.nacre(&["pool", "set", "rbd", "size", &copies.to_string()]).map(drop)
    }

    fn is_clean(&self) -> anyhow::Result<bool> {
        Ok(self.0.pg_states()?.iter().all(|state| state.starts_with("active+clean")))
    }
}

/// A cluster that the kit's `ceph-cluster up DIR` has made, by its configuration.
pub struct Ceph {
    conf: PathBuf,
    preload: Option<String>,
}

impl Ceph {
    pub fn at(conf: &Path) -> anyhow::Result<Ceph> {
        let conf = conf.canonicalize().with_context(|| conf.display().to_string())?;
        let head = std::fs::read_to_string(&conf)?;
        let tcmalloc = head.lines().next().is_some_and(|line| line.contains("tcmalloc=yes"));
        let preload = if tcmalloc { Some(tcmalloc_path()?) } else { None };
        Ok(Ceph { conf, preload })
    }

    fn ceph(&self, args: &[&str]) -> anyhow::Result<String> {
        run(Command::new("ceph").arg("-c").arg(&self.conf).args(args))
    }
}

fn tcmalloc_path() -> anyhow::Result<String> {
    let known = run(Command::new("/sbin/ldconfig").arg("-p"))?;
    let line = known.lines().find(|line| line.contains("libtcmalloc") && line.contains(".so.4"));
    let path = line.and_then(|line| line.split_whitespace().last());
    Ok(path.context("the cluster was made with tcmalloc, which is not installed")?.into())
}

impl Side for Ceph {
    fn name(&self) -> &'static str {
        "Ceph"
    }

    fn load(&self, load: &Load, seconds: f64) -> anyhow::Result<Sample> {
        let mut fio = Command::new("fio");
        fio.env("CEPH_CONF", &self.conf);
        fio.args(["--name=perf", "--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=bench"]);
        fio.args(["--output-format=json", "--thread=1", "--time_based=1", "--norandommap=1"]);
        fio.args(["--clat_percentiles=0", "--lat_percentiles=1", "--percentile_list=50:99"]);
        fio.arg(format!("--rw={}", load.rw)).arg(format!("--bs={}", load.block));
        fio.arg(format!("--iodepth={}", load.depth)).arg(format!("--runtime={seconds:.2}"));
        let out = run(&mut fio)?;
        let told: Value = serde_json::from_str(&out[out.find('{').context("fio printed no JSON")?..])?;
        let job = &told["jobs"][0][if load.rw.contains("read") { "read" } else { "write" }];
        Ok(Sample {
            ops: number(job, "/total_ios")?,
            per_second: number(job, "/iops")?,
            p50_us: number(job, "/lat_ns/percentile/50.000000")? / 1e3,
            p99_us: number(job, "/lat_ns/percentile/99.000000")? / 1e3,
        })
    }

    fn kill_osd(&self, osd: u32) -> anyhow::Result<()> {
        let path = self.conf.with_file_name(format!("osd.{osd}.pid"));
        let pid = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        send_signal(pid.trim().parse()?, 9)
    }

    fn start_osd(&self, osd: u32) -> anyhow::Result<()> {
        let mut command = Command::new("ceph-osd");
        command.arg("-c").arg(&self.conf).args(["-i", &osd.to_string()]);
        command.envs(self.preload.as_ref().map(|path| ("LD_PRELOAD", path)));
        run(&mut command).map(drop)
    }

    fn keep_in(&self) -> anyhow::Result<()> {
        self.ceph(&["osd", "set", "noout"]).map(drop)
    }

    fn set_copies(&self, copies: u32) -> anyhow::Result<()> {
        self.ceph(&["osd", "pool", "set", "rbd", "size", &copies.to_string()]).map(drop)
    }

    fn is_clean(&self) -> anyhow::Result<bool> {
        let told: Value = serde_json::from_str(&self.ceph(&["pg", "stat", "-f", "json"])?)?;
        let Some(states) = told["pg_summary"]["num_pg_by_state"].as_array() else { bail!("pg stat: {told}") };
        Ok(states.iter().all(|one| one["name"].as_str().is_some_and(|name| name.starts_with("active+clean"))))
    }
}
