//! Where things lie in a dev cluster's directory, and what the cluster was made of.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A daemon of a dev cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DaemonName {
    Mon(String),
    Osd(u32),
}

impl fmt::Display for DaemonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonName::Mon(name) => write!(f, "mon.{name}"),
            DaemonName::Osd(id) => write!(f, "osd.{id}"),
        }
    }
}

impl FromStr for DaemonName {
    type Err = String;

    fn from_str(text: &str) -> Result<DaemonName, String> {
        let parsed = match text.split_once('.') {
            Some(("mon", name)) if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Some(DaemonName::Mon(name.into()))
            }
            Some(("osd", id)) => id.parse().ok().map(DaemonName::Osd),
            _ => None,
        };
        parsed.ok_or_else(|| format!("'{text}' is not a daemon: write for example osd.1 or mon.a"))
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevConfig {
    pub fsid: String,
    pub osds: u32,
    pub mons: Vec<String>,
    pub size_bytes: u64,
    /// OSDs formatted so far, so that an interrupted `dev up` goes on where it was.
    pub formatted: Vec<u32>,
}

/// A dev cluster's directory, absolute, with its configuration.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
    pub config: DevConfig,
}

const CONFIG: &str = "dev.json";

impl Layout {
    pub fn open(dir: &Path) -> anyhow::Result<Layout> {
        let exists = dir.join(CONFIG).exists();
        anyhow::ensure!(exists, "{} holds no dev cluster: make one with 'nacre dev up --dir'", dir.display());
        let root = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
        let path = root.join(CONFIG);
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Layout { root, config })
    }

    /// Writes the configuration, whole or not at all.
    pub fn save(&self) -> anyhow::Result<()> {
        let path = self.root.join(CONFIG);
        let new = self.root.join("dev.json.new");
        let write = || -> std::io::Result<()> {
            std::fs::write(&new, serde_json::to_vec_pretty(&self.config)?)?;
            File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Held while daemons are started or stopped, so that two commands do not do it at once.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("dev.lock");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.try_lock().with_context(|| {
            format!("another 'nacre dev' command works on {} right now; wait for it", self.root.display())
        })?;
        Ok(file)
    }

    pub fn admin(&self) -> PathBuf {
        self.root.join("admin.nacre")
    }

    pub fn dir(&self, daemon: &DaemonName) -> PathBuf {
        self.root.join(daemon.to_string())
    }

    pub fn pid(&self, daemon: &DaemonName) -> PathBuf {
        self.root.join("pids").join(daemon.to_string())
    }

    pub fn log(&self, daemon: &DaemonName) -> PathBuf {
        self.root.join("log").join(format!("{daemon}.log"))
    }

    pub fn mons(&self) -> Vec<DaemonName> {
        self.config.mons.iter().cloned().map(DaemonName::Mon).collect()
    }

    pub fn osds(&self) -> Vec<DaemonName> {
        self.config.formatted.iter().copied().map(DaemonName::Osd).collect()
    }

    pub fn daemons(&self) -> Vec<DaemonName> {
        [self.mons(), self.osds()].concat()
    }

    pub fn check_daemon(&self, daemon: &DaemonName) -> anyhow::Result<()> {
        let known = self.daemons();
        let names: Vec<String> = known.iter().map(DaemonName::to_string).collect();
        anyhow::ensure!(known.contains(daemon), "there is no {daemon} here, only {}", names.join(", "));
        Ok(())
    }
}
