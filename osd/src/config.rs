//! What an OSD is told at start: who it is, and its tunables.

use nacre_types::OsdId;
use std::collections::BTreeMap;
use std::time::Duration;

/// One OSD's identity and settings.
#[derive(Clone, Debug)]
pub struct OsdConfig {
    pub id: OsdId,
    /// The store's identity.
    pub uuid: String,
    /// The cluster's.
    pub fsid: String,
    /// Random number of this run of the daemon.
    pub instance: u64,
    pub seed: u64,
    /// `ip:port` peers and clients reach this OSD at.
    pub address: String,
    pub host: String,
    pub device_class: String,
    pub version: String,
    /// CRUSH location; empty for `host=HOST root=default`.
    pub location: BTreeMap<String, String>,
    pub capacity_bytes: u64,
    pub tunables: Tunables,
}

/// Times and bounds. The defaults are the cluster's; tests draw others.
#[derive(Clone, Debug)]
pub struct Tunables {
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is reported.
    pub heartbeat_grace: Duration,
    /// Peers watched besides those that share PGs.
    pub heartbeat_extra_peers: usize,
    pub lease_interval: Duration,
    /// How long a read lease lasts: 0.8 of the grace.
    pub lease_duration: Duration,
    /// How often whatever waits for an answer asks again.
    pub resend_interval: Duration,
    pub stats_interval: Duration,
    /// How long an orderly stop waits to be marked down.
    pub stop_wait: Duration,
    /// Age from which an operation counts as slow.
    pub slow_op: Duration,
    /// Operations a PG keeps waiting; more are told to try again.
    pub queued_ops_max: usize,
    /// Log entries kept while the PG is clean, and while it is not.
    pub log_entries_clean: usize,
    pub log_entries_degraded: usize,
    /// Trims go in batches.
    pub log_trim_batch: usize,
    /// Map epochs kept for peers, beyond what PGs need.
    pub maps_kept: usize,
    /// Objects removed per transaction when a PG is deleted.
    pub remove_objects_batch: usize,
}

impl Default for Tunables {
    fn default() -> Tunables {
        let ms = Duration::from_millis;
        Tunables {
            heartbeat_interval: ms(1000),
            heartbeat_grace: ms(4000),
            heartbeat_extra_peers: 4,
            lease_interval: ms(1000),
            lease_duration: ms(3200),
            resend_interval: ms(1000),
            stats_interval: ms(1500),
            stop_wait: ms(2000),
            slow_op: ms(5000),
            queued_ops_max: 4096,
            log_entries_clean: 1000,
            log_entries_degraded: 3000,
            log_trim_batch: 256,
            maps_kept: 500,
            remove_objects_batch: 30,
        }
    }
}

impl Tunables {
    /// What is wrong with them, if anything.
    pub fn validate(&self) -> Result<(), String> {
        if self.lease_duration * 10 > self.heartbeat_grace * 9 {
            return Err("lease_duration must stay below 0.9 of heartbeat_grace, or a fenced primary could serve reads".into());
        }
        if self.lease_interval * 2 > self.lease_duration {
            return Err("lease_interval must be at most half of lease_duration".into());
        }
        if self.heartbeat_interval * 2 > self.heartbeat_grace {
            return Err("heartbeat_interval must be at most half of heartbeat_grace".into());
        }
        if self.log_entries_clean > self.log_entries_degraded || self.log_trim_batch == 0 {
            return Err(
                "log_entries_clean must not exceed log_entries_degraded, log_trim_batch must not be 0".into(),
            );
        }
        Ok(())
    }
}
