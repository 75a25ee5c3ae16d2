//! `nacre dev up`: makes or resumes a cluster, one restartable step after the other.

use super::layout::{DevConfig, Layout};
use super::process;
use crate::admin::{Context, mon, osd_local, pg};
use crate::daemon::Settings;
use crate::output::{self, Format};
use crate::units::human_bytes;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the user asked for; what he left open is the default, or what the cluster already is.
pub struct Wanted {
    pub osds: Option<u32>,
    pub mons: Option<u32>,
    pub size: Option<u64>,
}

const OSDS: u32 = 3;
const MONS: u32 = 1;
const SIZE_BYTES: u64 = 10 << 30;
/// Below this the journal and the reserves leave no room for data.
const SIZE_BYTES_MIN: u64 = 1 << 30;
/// A dev cluster shares its machine with whatever it is developed for.
const INDEX_CACHE_BYTES: usize = 16 << 20;
/// PGs that do not become active by then need an administrator.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(60);

pub fn up(dir: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let mut layout = match dir.join("dev.json").exists() {
        true => resume(dir, wanted)?,
        false => create(dir, wanted)?,
    };
    let _lock = layout.lock()?;
    let context =
        Context { cluster: Some(layout.admin()), format: Format::Human, timeout: Duration::from_secs(60) };
    let stopped = |layout: &Layout, daemons: Vec<_>| -> Vec<_> {
        daemons.into_iter().filter(|daemon| process::running(layout, daemon).is_none()).collect()
    };
    process::start(&layout, &stopped(&layout, layout.mons()))?;
    format_missing(&mut layout, &context)?;
    process::start(&layout, &stopped(&layout, layout.osds()))?;
    wait_active(&context)?;
    println!("cluster {} in {}", layout.config.fsid, layout.root.display());
    println!(
        "{} monitors, {} OSDs of {}",
        layout.config.mons.len(),
        layout.config.osds,
        human_bytes(layout.config.size_bytes)
    );
    println!("export NACRE_CLUSTER={}", layout.admin().display());
    println!("ready");
    Ok(())
}

fn resume(dir: &Path, wanted: &Wanted) -> anyhow::Result<Layout> {
    let layout = Layout::open(dir)?;
    let config = &layout.config;
    let same = wanted.osds.is_none_or(|osds| osds == config.osds)
        && wanted.mons.is_none_or(|mons| mons as usize == config.mons.len())
        && wanted.size.is_none_or(|size| size == config.size_bytes);
    anyhow::ensure!(
        same,
        "{} already holds a cluster of {} monitors and {} OSDs of {}; leave the options away to resume it, or choose \
         another directory",
        dir.display(),
        config.mons.len(),
        config.osds,
        human_bytes(config.size_bytes)
    );
    Ok(layout)
}

fn create(dir: &Path, wanted: &Wanted) -> anyhow::Result<Layout> {
    let size_bytes = wanted.size.unwrap_or(SIZE_BYTES);
    anyhow::ensure!(
        size_bytes >= SIZE_BYTES_MIN,
        "--size {} is too small: an OSD needs at least {}",
        human_bytes(size_bytes),
        human_bytes(SIZE_BYTES_MIN)
    );
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let root = dir.canonicalize()?;
    // What an interrupted first try left: without dev.json nothing in it is anybody's data yet.
    let mut mons = BTreeMap::new();
    let mut held = Vec::new();
    for letter in ('a'..).take(wanted.mons.unwrap_or(MONS) as usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").context("no free port on loopback")?;
        let name = letter.to_string();
        let leftover = root.join(format!("mon.{name}"));
        if leftover.exists() {
            std::fs::remove_dir_all(&leftover)
                .with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
        mons.insert(name, socket.local_addr()?.to_string());
        held.push(socket);
    }
    let admin = mon::bootstrap(&mons, &|name| root.join(format!("mon.{name}")))?;
    admin.save(&root.join("admin.nacre"))?;
    let config = DevConfig {
        fsid: admin.fsid.clone(),
        osds: wanted.osds.unwrap_or(OSDS),
        mons: mons.into_keys().collect(),
        size_bytes,
        formatted: Vec::new(),
    };
    let layout = Layout { root, config };
    layout.save()?;
    Ok(layout)
}

/// Formats the OSDs that are not there yet. Each counts as a host of its own, so that copies spread.
fn format_missing(layout: &mut Layout, context: &Context) -> anyhow::Result<()> {
    while (layout.config.formatted.len() as u32) < layout.config.osds {
        let next = layout.config.formatted.len() as u32;
        let staging = layout.root.join("osd.new");
        if staging.exists() {
            std::fs::remove_dir_all(&staging)
                .with_context(|| format!("cannot remove {}", staging.display()))?;
        }
        let settings = Settings {
            host: Some(format!("dev-{next}")),
            device_class: Some("ssd".into()),
            index_cache_bytes: Some(INDEX_CACHE_BYTES),
            ..Settings::new(SocketAddr::from(([127, 0, 0, 1], 0)))
        };
        let size_bytes = Some(layout.config.size_bytes);
        let spec = osd_local::FormatSpec { device: None, size_bytes, settings };
        let id = osd_local::format_osd(context, &staging, &spec)?;
        let dir = layout.root.join(id.to_string());
        std::fs::rename(&staging, &dir).with_context(|| format!("cannot create {}", dir.display()))?;
        layout.config.formatted.push(id.0);
        layout.save()?;
    }
    Ok(())
}

/// Waits until every PG takes writes.
fn wait_active(context: &Context) -> anyhow::Result<()> {
    let deadline = Instant::now() + ACTIVE_TIMEOUT;
    let mut pause = Duration::from_millis(20);
    loop {
        let pgs = pg::list(context, None)?;
        let waiting: Vec<String> = pgs["pg_stats"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pg| {
                !pg["state"].as_str().is_some_and(|state| state.split('+').any(|word| word == "active"))
            })
            .map(|pg| format!("{} is {}", output::cell(&pg["pgid"]), output::cell(&pg["state"])))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} PGs are not active: {}; see 'nacre health detail'",
            waiting.len(),
            waiting[..waiting.len().min(3)].join(", ")
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
