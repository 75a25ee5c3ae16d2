//! Starting an OSD: directory, store, messenger, machine, reactor.

use super::ready::WatchReady;
use super::{Settings, random_u64, shutdown};
use anyhow::Context as _;
use nacre_osd::{Osd, OsdConfig, Tunables};
use nacre_runtime::clock::Clock;
use nacre_runtime::disk::DiskRing;
use nacre_runtime::driver::{OsdParts, block_on, open_osd, osd_identity, run_osd};
use nacre_runtime::kv::KvConfig;
use nacre_runtime::messenger::{Messenger, MessengerConfig};
use nacre_runtime::tls::Credentials;
use nacre_store::StoreConfig;
use nacre_types::{EntityName, OsdId};
use std::path::{Path, PathBuf};

pub fn run(dir: &Path) -> anyhow::Result<()> {
    let identity = osd_identity(dir)?;
    let settings = Settings::load(dir)?;
    let credentials = Credentials::load(&dir.join("keyring.nacre"))?;
    let id = OsdId(identity.osd);
    anyhow::ensure!(
        credentials.entity == EntityName::Osd(id),
        "{} holds {id}, but its keyring is of {}",
        dir.display(),
        credentials.entity
    );
    let serving = serve(dir.to_owned(), id, settings, credentials);
    // As a task: the runtime's first future is polled only after a look at the sockets.
    block_on(async { tokio::task::spawn_local(serving).await })??
}

async fn serve(dir: PathBuf, id: OsdId, settings: Settings, credentials: Credentials) -> anyhow::Result<()> {
    let mut kv = KvConfig::default();
    kv.cache_bytes = settings.index_cache_bytes.unwrap_or(kv.cache_bytes);
    let fsid = credentials.fsid.clone();
    let mut store = StoreConfig::default();
    store.discard = settings.discard.unwrap_or(store.discard);
    let opened = open_osd(&dir, Some((&fsid, id)), &kv, store)?;
    tracing::info!("{id} in {}: {:?}", dir.display(), opened.store.replay_report());
    let messenger = Messenger::bind(MessengerConfig::new(credentials, Some(settings.listen)))?;
    let address = settings.advertised(messenger.local_addr())?;
    let mut flushes = opened.flushes;
    let mut disk = DiskRing::start(opened.disk).context("cannot set up io_uring")?;
    tracing::info!("{id} listens on {address}; disk: {}", disk.describe());
    let clock = Clock::start();
    let config = OsdConfig {
        id,
        uuid: opened.identity.uuid.clone(),
        fsid,
        instance: random_u64(),
        seed: random_u64(),
        address,
        host: settings.host.clone().unwrap_or_else(host_name),
        device_class: settings.device_class.clone().unwrap_or_else(|| "ssd".into()),
        version: env!("CARGO_PKG_VERSION").into(),
        location: settings.location.clone(),
        capacity_bytes: disk.capacity_bytes(),
        tunables: Tunables::default(),
    };
    let machine = Osd::open(config, opened.store, clock.now())?;
    let mut machine = WatchReady::new(machine, Osd::is_up);
    let parts = OsdParts { clock, messenger: &messenger, disk: &mut disk, flushes: &mut flushes };
    let ended = run_osd(&mut machine, parts, shutdown()).await;
    messenger.shutdown().await;
    drop(opened.lock);
    anyhow::ensure!(!ended.failed, "{id} stopped: {}", ended.reason);
    tracing::info!("{id} stopped: {}", ended.reason);
    Ok(())
}

/// The machine's name up to the first dot, as CRUSH knows it.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or("localhost").to_string()
}
