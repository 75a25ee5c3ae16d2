//! `nacre osd format` and `nacre osd fsck`: work on a device or directory of this machine.

use super::{Context, auth};
use crate::daemon::{Settings, host_name};
use crate::output::{self};
use crate::units::{human_bytes, parse_size};
use anyhow::Context as _;
use clap::Args;
use nacre_runtime::disk::FileDisk;
use nacre_runtime::driver::{DirLock, FormatOsd, format_osd as format_directory, kv_dir, osd_identity};
use nacre_runtime::kv::{KvConfig, RocksKv};
use nacre_types::{EntityName, OsdId};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct FormatArgs {
    /// A block device or an existing file; without one a file of --size is made in the directory.
    device: Option<PathBuf>,
    /// The OSD's directory, to be made: keys, index, settings.
    #[arg(long, value_name = "D")]
    dir: PathBuf,
    /// Size of the file to make.
    #[arg(long, value_parser = parse_size, conflicts_with = "device")]
    size: Option<u64>,
    /// This machine's name in the CRUSH map; its host name unless given.
    #[arg(long)]
    host: Option<String>,
    #[arg(long, default_value = "ssd")]
    device_class: String,
    /// Do not tell the device what it need not keep: some stall when they are told. Can be changed in settings.toml.
    #[arg(long)]
    no_discard: bool,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0:0")]
    address: SocketAddr,
    /// What others reach this OSD by, where that is not --address.
    #[arg(long, value_name = "IP:PORT")]
    advertise: Option<String>,
}

#[derive(Args)]
pub struct FsckArgs {
    /// The OSD's directory.
    path: PathBuf,
    /// Read all data and check every checksum (this is the default).
    #[arg(long, conflicts_with = "shallow")]
    deep: bool,
    /// Check only the metadata.
    #[arg(long)]
    shallow: bool,
}

/// What a new OSD is to be.
pub struct FormatSpec {
    pub device: Option<PathBuf>,
    pub size_bytes: Option<u64>,
    pub settings: Settings,
}

/// Journals beyond that only lengthen replay.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
/// A journal takes at most one part in so many of the device.
const JOURNAL_SHARE: u64 = 40;

pub fn format(context: &Context, args: &FormatArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.device.is_some() || args.size.is_some(),
        "name a device, or give --size for a file to be made in {}",
        args.dir.display()
    );
    let settings = Settings {
        advertise: args.advertise.clone(),
        host: Some(args.host.clone().unwrap_or_else(host_name)),
        device_class: Some(args.device_class.clone()),
        discard: args.no_discard.then_some(false),
        ..Settings::new(args.address)
    };
    anyhow::ensure!(
        args.advertise.is_some() || !args.address.ip().is_unspecified(),
        "nobody can reach {}: give --address with an IP of this machine, for example --address 10.0.0.1:0",
        args.address
    );
    let spec = FormatSpec { device: args.device.clone(), size_bytes: args.size, settings };
    let id = format_osd(context, &args.dir, &spec)?;
    output::print(context.format, &json!({"osdid": id.0, "dir": args.dir}), |_| {
        format!("{id} is formatted; start it with: nacre daemon osd --dir {}", args.dir.display())
    });
    Ok(())
}

/// Registers a new OSD with the cluster and makes its directory. Trying again after a failure continues with the same OSD.
pub fn format_osd(context: &Context, dir: &Path, spec: &FormatSpec) -> anyhow::Result<OsdId> {
    if let Ok(old) = osd_identity(dir) {
        anyhow::bail!("{} already holds osd.{} of cluster {}", dir.display(), old.osd, old.fsid);
    }
    let bytes = match (&spec.device, spec.size_bytes) {
        (Some(device), _) => FileDisk::open(device)?.geometry().capacity_bytes,
        (None, Some(bytes)) => bytes,
        (None, None) => anyhow::bail!("neither a device nor a size was given"),
    };
    let fsid = context.credentials()?.fsid;
    let uuid = uuid::Uuid::new_v4().to_string();
    let reply = context.ask(json!({"prefix": "osd new", "uuid": uuid}))?;
    let id = reply.json["osdid"].as_u64().and_then(|id| u32::try_from(id).ok());
    let id = OsdId(id.context("the monitors gave no OSD number")?);
    let made = make(
        context,
        dir,
        spec,
        &FormatOsd {
            fsid,
            osd: id,
            uuid,
            device: spec.device.clone(),
            bytes,
            discard: spec.settings.discard.unwrap_or(true),
            journal_bytes: (bytes / JOURNAL_SHARE).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX) / 4096 * 4096,
        },
    );
    if let Err(error) = made {
        // The number was never used; without this every failed try would leave one in the map.
        let _ = context.ask(json!({"prefix": "osd rm", "id": id.0, "force": true}));
        return Err(error);
    }
    Ok(id)
}

fn make(context: &Context, dir: &Path, spec: &FormatSpec, format: &FormatOsd) -> anyhow::Result<()> {
    let entity = EntityName::Osd(format.osd);
    let credentials = auth::issue(context, &entity, BTreeMap::new())?;
    format_directory(dir, format, &KvConfig::default())?;
    spec.settings.save(dir)?;
    credentials.save(&dir.join("keyring.nacre"))?;
    Ok(())
}

/// Exit code 1 if anything is wrong with the store.
pub fn fsck(context: &Context, args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let identity = osd_identity(&args.path)?;
    let _lock = DirLock::take(&args.path)?;
    let mut disk = FileDisk::open(&args.path.join("data"))?;
    let (mut kv, _flushes) = RocksKv::open(&kv_dir(&args.path), &KvConfig::default())?;
    let report = nacre_store::fsck(&mut disk, &mut kv, !args.shallow);
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    let json = json!({
        "osd": identity.osd, "fsid": identity.fsid, "objects": report.objects, "blocks_used": report.blocks_used,
        "errors": errors,
    });
    output::print(context.format, &json, |_| {
        let mut text: String = errors.iter().map(|error| format!("{error}\n")).collect();
        text.push_str(&format!(
            "osd.{}: {} objects, {} of data, {} errors",
            identity.osd,
            report.objects,
            human_bytes(report.blocks_used * 4096),
            errors.len()
        ));
        text
    });
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
