//! Starting a monitor: directory, store, messenger, machine, reactor.

use super::ready::WatchReady;
use super::{Settings, random_u64, shutdown};
use anyhow::Context as _;
use nacre_mon::{Mon, MonConfig};
use nacre_runtime::clock::Clock;
use nacre_runtime::driver::{DirLock, MonParts, block_on, run_mon};
use nacre_runtime::kv::MonStore;
use nacre_runtime::messenger::{Messenger, MessengerConfig};
use nacre_runtime::tls::Credentials;
use nacre_types::EntityName;
use std::path::Path;

pub fn run(dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        dir.join("keyring.nacre").exists(),
        "{} holds no monitor; make one with 'nacre mon bootstrap'",
        dir.display()
    );
    let settings = Settings::load(dir)?;
    let credentials = Credentials::load(&dir.join("keyring.nacre"))?;
    let EntityName::Mon(name) = credentials.entity.clone() else {
        anyhow::bail!("{} is no monitor's: its keyring is of {}", dir.display(), credentials.entity);
    };
    let _lock = DirLock::take(dir)?;
    block_on(serve(dir, name, settings, credentials))?
}

async fn serve(dir: &Path, name: String, settings: Settings, credentials: Credentials) -> anyhow::Result<()> {
    let mut store = MonStore::open(&dir.join("store"))?;
    let records = store.scan_all()?;
    let clock = Clock::start();
    let config = MonConfig::new(&name, &credentials.fsid, random_u64());
    let machine = Mon::open(config, records, clock.now())
        .with_context(|| format!("mon.{name} in {} cannot start", dir.display()))?;
    let messenger = Messenger::bind(MessengerConfig::new(credentials, Some(settings.listen)))?;
    tracing::info!("mon.{name} in {} listens on {}", dir.display(), messenger.local_addr());
    let mut machine = WatchReady::new(machine, |_| true);
    let parts = MonParts { clock, messenger: &messenger, store: &mut store };
    let ended = run_mon(&mut machine, parts, shutdown()).await;
    messenger.shutdown().await;
    anyhow::ensure!(!ended.failed, "mon.{name} stopped: {}", ended.reason);
    tracing::info!("mon.{name} stopped: {}", ended.reason);
    Ok(())
}
