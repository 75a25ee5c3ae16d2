//! What the osdmap knows of one OSD.

use nacre_types::Epoch;

/// Fully in: takes its CRUSH weight's share (16.16 fixed point).
pub const WEIGHT_IN: u32 = 0x1_0000;
/// Out: placement skips it.
pub const WEIGHT_OUT: u32 = 0;
/// Default primary affinity: as good a primary as any.
pub const AFFINITY_ONE: u32 = 0x1_0000;

/// One OSD's entry. An OSD exists from `osd new` until it is purged, up or not.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdInfo {
    /// The store's identity: a disk formatted anew is another OSD even under an old number.
    #[prost(string, tag = "1")]
    pub uuid: String,
    #[prost(bool, tag = "2")]
    pub up: bool,
    /// In-ness, [`WEIGHT_OUT`] to [`WEIGHT_IN`].
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    #[prost(uint32, tag = "4")]
    pub primary_affinity: u32,
    /// `ip:port` while up, the last one while down.
    #[prost(string, tag = "5")]
    pub address: String,
    /// Which run of the daemon is up.
    #[prost(fixed64, tag = "6")]
    pub instance: u64,
    #[prost(uint64, tag = "7")]
    up_from: u64,
    #[prost(uint64, tag = "8")]
    up_thru: u64,
    #[prost(uint64, tag = "9")]
    down_at: u64,
    #[prost(uint64, tag = "10")]
    lost_at: u64,
    /// When it went down, in wall milliseconds; 0 while up.
    #[prost(uint64, tag = "11")]
    pub down_since_ms: u64,
    /// The monitors marked it out, so they mark it in when it returns, with the weight it had.
    #[prost(bool, tag = "12")]
    pub auto_out: bool,
    #[prost(uint32, tag = "13")]
    pub weight_before_out: u32,
    #[prost(string, tag = "14")]
    pub host: String,
    #[prost(string, tag = "15")]
    pub device_class: String,
    #[prost(string, tag = "16")]
    pub version: String,
    #[prost(uint64, tag = "17")]
    pub capacity_bytes: u64,
    /// It has been up at least once.
    #[prost(bool, tag = "18")]
    pub booted: bool,
    #[prost(uint64, tag = "19")]
    created: u64,
}

impl OsdInfo {
    pub fn new(uuid: &str) -> OsdInfo {
        OsdInfo {
            uuid: uuid.into(),
            weight: WEIGHT_OUT,
            primary_affinity: AFFINITY_ONE,
            ..OsdInfo::default()
        }
    }

    /// Made in `epoch`: whatever had the number before was purged.
    pub fn created_in(self, epoch: Epoch) -> OsdInfo {
        OsdInfo { created: epoch.0, ..self }
    }

    /// Epoch in which it was made; zero if that was not recorded.
    pub fn created(&self) -> Epoch {
        Epoch(self.created)
    }

    pub fn is_in(&self) -> bool {
        self.weight > WEIGHT_OUT
    }

    /// Epoch in which it was last marked up.
    pub fn up_from(&self) -> Epoch {
        Epoch(self.up_from)
    }

    /// Newest epoch it was recorded to be alive in: an interval of which it is primary may have taken writes only if
    /// this reached the interval's first epoch.
    pub fn up_thru(&self) -> Epoch {
        Epoch(self.up_thru)
    }

    /// Epoch in which it was last marked down.
    pub fn down_at(&self) -> Epoch {
        Epoch(self.down_at)
    }

    /// Epoch in which an administrator declared its data lost; zero if never.
    pub fn lost_at(&self) -> Epoch {
        Epoch(self.lost_at)
    }

    /// What it held when it went down may come back with it.
    pub fn may_return(&self) -> bool {
        !self.up && self.booted && self.lost_at <= self.down_at
    }

    pub fn mark_up(&mut self, epoch: Epoch) {
        (self.up, self.up_from, self.booted, self.down_since_ms) = (true, epoch.0, true, 0);
    }

    pub fn mark_down(&mut self, epoch: Epoch, now_ms: u64) {
        (self.up, self.down_at, self.down_since_ms) = (false, epoch.0, now_ms.max(1));
    }

    pub fn set_up_thru(&mut self, epoch: Epoch) {
        self.up_thru = self.up_thru.max(epoch.0);
    }

    pub fn mark_lost(&mut self, epoch: Epoch) {
        self.lost_at = epoch.0;
    }

    /// Whether placement can tell the two apart.
    pub(crate) fn same_placement(&self, other: &OsdInfo) -> bool {
        (self.up, self.weight, self.primary_affinity) == (other.up, other.weight, other.primary_affinity)
    }
}
