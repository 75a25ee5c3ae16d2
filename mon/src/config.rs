//! What a monitor is told when it starts. Everything that may change while the cluster lives is in the central
//! configuration instead (see `options`).

use crate::error::OpenError;

#[derive(Clone, PartialEq, Debug)]
pub struct MonConfig {
    /// `a` of `mon.a`.
    pub name: String,
    pub fsid: String,
    /// Fixes every random choice of this run.
    pub seed: u64,
    pub version: String,
    pub batch: BatchConfig,
    pub checkpoint: CheckpointConfig,
    pub commands: CommandConfig,
}

/// How changes are gathered into one epoch.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchConfig {
    pub wait_ms: u64,
    /// Changes waiting at the leader; more are refused.
    pub queued_max: usize,
}

/// When the replicated state is written out and the log cut.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckpointConfig {
    pub entries_max: u64,
    pub bytes_max: u64,
    /// Entries kept behind a checkpoint, so that a monitor slightly behind needs no checkpoint.
    pub entries_kept: u64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct CommandConfig {
    /// A command without an answer by then gets one that says why.
    pub timeout_ms: u64,
    /// Commands in flight at this monitor; more are refused.
    pub outstanding_max: usize,
}

impl MonConfig {
    pub fn new(name: &str, fsid: &str, seed: u64) -> MonConfig {
        MonConfig {
            name: name.into(),
            fsid: fsid.into(),
            seed,
            version: env!("CARGO_PKG_VERSION").into(),
            batch: BatchConfig { wait_ms: 25, queued_max: 20_000 },
            checkpoint: CheckpointConfig { entries_max: 1_000, bytes_max: 16 << 20, entries_kept: 500 },
            commands: CommandConfig { timeout_ms: 5_000, outstanding_max: 2_000 },
        }
    }

    pub fn validate(&self) -> Result<(), OpenError> {
        let entity = format!("mon.{}", self.name);
        let bad = |reason: String| Err(OpenError::Config(reason));
        if entity.parse::<nacre_types::EntityName>().is_err() {
            return bad(format!("'{}' cannot be a monitor's name: use letters, digits, '-', '_'", self.name));
        }
        if self.fsid.is_empty() {
            return bad("the cluster's fsid is empty".into());
        }
        if self.batch.wait_ms > 1_000 || self.batch.queued_max == 0 {
            return bad("batch.wait_ms must be at most 1000 and batch.queued_max at least 1".into());
        }
        if self.checkpoint.entries_max == 0 || self.checkpoint.bytes_max == 0 {
            return bad("checkpoint.entries_max and checkpoint.bytes_max must be at least 1".into());
        }
        if self.commands.timeout_ms < 100 || self.commands.outstanding_max == 0 {
            return bad(
                "commands.timeout_ms must be at least 100 and commands.outstanding_max at least 1".into()
            );
        }
        Ok(())
    }
}
