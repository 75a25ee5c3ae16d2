//! `nacre mon`: the monitors of a running cluster, and the directories of a new one's.

use super::{Context, auth};
use crate::daemon::Settings;
use crate::output;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use nacre_maps::MonMap;
use nacre_mon::{Bootstrap, Mon};
use nacre_runtime::kv::MonStore;
use nacre_runtime::tls::{ClusterCa, Credentials, MonAddress, Validity};
use nacre_types::EntityName;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Certificates of entities; the cluster's own lasts longer.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

#[derive(Subcommand)]
pub enum MonCommand {
    /// The monitors, their quorum and its leader.
    Stat,
    /// The monmap.
    Dump,
    /// Adds a monitor to the cluster and makes its directory; start it there with `nacre daemon mon`.
    Add {
        /// The monitor as NAME=IP:PORT.
        #[arg(value_parser = named_address)]
        mon: (String, SocketAddr),
        /// The directory to make. Copy it to the monitor's host if that is another one.
        #[arg(long, value_name = "D")]
        dir: PathBuf,
    },
    /// Takes a monitor out of the monmap.
    Rm { name: String },
    /// Makes a new cluster: one directory for each monitor, and the administrator's credential file.
    Bootstrap(BootstrapArgs),
}

#[derive(Args)]
pub struct BootstrapArgs {
    /// A monitor as NAME=IP:PORT; repeat for three or five.
    #[arg(long = "mon", value_name = "NAME=IP:PORT", required = true, value_parser = named_address)]
    mons: Vec<(String, SocketAddr)>,
    /// Where to put mon.NAME for each monitor, and admin.nacre. Copy each directory to its host.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn named_address(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=IP:PORT, for example a=10.0.0.1:6789")?;
    let entity = format!("mon.{name}").parse::<EntityName>().map_err(|e| e.to_string())?;
    let address: SocketAddr = address.parse().map_err(|_| format!("'{address}' is no IP:PORT"))?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!("{entity}: others must be able to reach it at {address}; give its IP and port"));
    }
    Ok((name.into(), address))
}

impl MonCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            MonCommand::Stat => context.show(json!({"prefix": "mon stat"}), |json| json),
            MonCommand::Dump => {
                let reply = context.ask(json!({"prefix": "mon dump"}))?;
                output::print(context.format, &reply.json, |dump| {
                    output::rows(&dump["mons"], &[("NAME", "name"), ("ADDRESS", "addr"), ("RANK", "rank")])
                });
                Ok(())
            }
            MonCommand::Add { mon: (name, address), dir } => add(context, &name, address, &dir),
            MonCommand::Rm { name } => context.tell(json!({"prefix": "mon rm", "name": name})),
            MonCommand::Bootstrap(args) => {
                let count = args.mons.len();
                let mons: BTreeMap<String, String> =
                    args.mons.into_iter().map(|(name, address)| (name, address.to_string())).collect();
                anyhow::ensure!(mons.len() == count, "each monitor needs a name of its own");
                anyhow::ensure!(matches!(count, 1 | 3 | 5), "a quorum is 1, 3 or 5 monitors, not {count}");
                std::fs::create_dir_all(&args.out)
                    .with_context(|| format!("cannot create {}", args.out.display()))?;
                let admin_path = args.out.join("admin.nacre");
                anyhow::ensure!(
                    !admin_path.exists(),
                    "{} exists: this directory already has a cluster's files",
                    admin_path.display()
                );
                let admin = bootstrap(&mons, &|name| args.out.join(format!("mon.{name}")))?;
                admin.save(&admin_path)?;
                println!("cluster {}", admin.fsid);
                for name in mons.keys() {
                    let dir = args.out.join(format!("mon.{name}"));
                    println!("start on its host: nacre daemon mon --dir {}", dir.display());
                }
                println!("then: export NACRE_CLUSTER={}", admin_path.display());
                Ok(())
            }
        }
    }
}

/// Makes the CA, the monitors' directories and the administrator's credentials of a new cluster.
pub fn bootstrap(
    mons: &BTreeMap<String, String>,
    dir_of: &dyn Fn(&str) -> PathBuf,
) -> anyhow::Result<Credentials> {
    let fsid = uuid::Uuid::new_v4().to_string();
    let ca = ClusterCa::create(&fsid)?;
    let monitors: Vec<MonAddress> = mons
        .iter()
        .map(|(name, address)| MonAddress { name: name.clone(), address: address.clone() })
        .collect();
    let issue = |entity: EntityName| -> anyhow::Result<Credentials> {
        let (cert_pem, key_pem) = ca.issue(&entity, Validity::lasting(CERTIFICATE_LIFETIME))?;
        Ok(Credentials {
            fsid: fsid.clone(),
            entity,
            monitors: monitors.clone(),
            ca_pem: ca.certificate_pem().to_string(),
            cert_pem,
            key_pem,
        })
    };
    let all = all_caps();
    let mut entities = BTreeMap::from([(EntityName::Client("admin".into()), all.clone())]);
    entities.extend(mons.keys().map(|name| (EntityName::Mon(name.clone()), all.clone())));
    let first = Bootstrap {
        fsid: fsid.clone(),
        mons: mons.clone(),
        entities,
        ca_key_pem: ca.key_pem().to_string(),
        ca_cert_pem: ca.certificate_pem().to_string(),
        settings: BTreeMap::new(),
        failure_domain: "host".into(),
        created_ms: now_ms(),
    };
    for (name, address) in mons {
        let dir = dir_of(name);
        anyhow::ensure!(!dir.exists(), "{} exists already", dir.display());
        let writes = Mon::bootstrap_writes(name, &first)?;
        make_mon_dir(&dir, &issue(EntityName::Mon(name.clone()))?, address.parse()?, writes)?;
    }
    issue(EntityName::Client("admin".into()))
}

/// The key and directory first: a monmap that names a monitor nobody can start would only cost the quorum a member.
fn add(context: &Context, name: &str, address: SocketAddr, dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!dir.exists(), "{} exists already", dir.display());
    let entity = EntityName::Mon(name.to_string());
    let credentials = auth::issue(context, &entity, all_caps())?;
    let reply = context.ask(json!({"prefix": "mon add", "name": name, "address": address.to_string()}))?;
    let hex = reply.json["monmap_hex"].as_str().context("the monitors answered without a monmap")?;
    let monmap = MonMap::decode(&unhex(hex).context("the monmap in the answer is damaged")?)?;
    make_mon_dir(dir, &credentials, address, Mon::join_writes(name, &monmap)?)?;
    output::print(context.format, &reply.json, |_| {
        format!("mon.{name} is added; start it with: nacre daemon mon --dir {}", dir.display())
    });
    Ok(())
}

fn all_caps() -> BTreeMap<String, String> {
    ["mon", "osd", "mds"].map(|service| (service.to_string(), "allow *".to_string())).into()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn make_mon_dir(
    dir: &Path,
    credentials: &Credentials,
    listen: SocketAddr,
    writes: Vec<nacre_mon::Write>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Settings::new(listen).save(dir)?;
    let mut store = MonStore::create(&dir.join("store"))?;
    store.write(writes.into_iter().map(|write| (write.key, write.value)), true)?;
    // Last: a directory with credentials is complete.
    credentials.save(&dir.join("keyring.nacre"))?;
    Ok(())
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
