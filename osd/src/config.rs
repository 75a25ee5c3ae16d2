//! What an OSD is told at start: who it is, and its tunables; some of those change with the central configuration.

use nacre_types::OsdId;
use std::collections::BTreeMap;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

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

/// Times and bounds. The defaults are the cluster's; tests draw others. Some can be set centrally: [`Tunables::set`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunables {
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is reported.
    pub heartbeat_grace: Duration,
    /// Peers watched besides those that share PGs.
    pub heartbeat_extra_peers: usize,
    pub lease_interval: Duration,
    /// How long a read lease lasts. Fixed while the OSD runs, and over restarts: what was promised is counted by it.
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
    /// So many are kept of what an unfound object's last change, which nobody has seen, may be taken back by.
    pub log_entries_held: usize,
    /// Who lacks more changes than so many has no seat in the acting set before it has them, as long as enough others have:
    /// operations on an object wait for acting members that miss it, but not for who is brought up to date beside them.
    pub lag_max: u64,
    /// Trims go in batches.
    pub log_trim_batch: usize,
    /// Map epochs kept for peers, beyond what PGs need.
    pub maps_kept: usize,
    /// Objects removed per transaction when a PG is deleted.
    pub remove_objects_batch: usize,
    /// PGs that recover at once with this OSD as their primary, and PGs of other primaries that fill it.
    pub recovery_pgs_max: usize,
    /// Objects on their way at once over all PGs, when clients are idle.
    pub recovery_objects_max: usize,
    /// Zero for never.
    pub scrub_interval: Duration,
    pub deep_scrub_interval: Duration,
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
            log_entries_held: 30_000,
            lag_max: 16,
            log_trim_batch: 256,
            maps_kept: 500,
            remove_objects_batch: 30,
            recovery_pgs_max: 3,
            recovery_objects_max: 16,
            scrub_interval: DAY,
            deep_scrub_interval: DAY * 7,
        }
    }
}

impl Tunables {
    /// Those that can be set centrally.
    pub const NAMES: [&str; 8] = [
        "osd_heartbeat_interval_ms",
        "osd_heartbeat_grace_ms",
        "osd_stats_interval_ms",
        "osd_max_backfills",
        "osd_recovery_max_active",
        "osd_scrub_interval",
        "osd_deep_scrub_interval",
        "osd_op_complaint_time_ms",
    ];

    /// Sets one by its name in the central configuration.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number: u64 = value.parse().map_err(|_| format!("'{value}' is not a whole number"))?;
        let (ms, seconds) = (Duration::from_millis(number), Duration::from_secs(number));
        match name {
            "osd_heartbeat_interval_ms" => self.heartbeat_interval = ms,
            // The lease stays as it is: members promised for what it was when they were asked.
            "osd_heartbeat_grace_ms" => self.heartbeat_grace = ms,
            "osd_stats_interval_ms" => self.stats_interval = ms,
            "osd_max_backfills" => self.recovery_pgs_max = number.max(1) as usize,
            "osd_recovery_max_active" => self.recovery_objects_max = number.max(1) as usize,
            "osd_scrub_interval" => self.scrub_interval = seconds,
            "osd_deep_scrub_interval" => self.deep_scrub_interval = seconds,
            "osd_op_complaint_time_ms" => self.slow_op = ms,
            _ => return Err("an OSD has no such setting".into()),
        }
        Ok(())
    }

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
