//! One measured operation, as its OSD tells of it.

use nacre_types::OsdId;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Record {
    /// The primary.
    pub osd: OsdId,
    pub write: bool,
    /// How many operations it stands for.
    pub weight: u64,
    /// As its client saw it, once it has said so.
    pub total_ns: Option<u64>,
    pub stages: BTreeMap<String, u64>,
    pub members: Vec<Member>,
}

/// What one member took for a write.
pub(super) struct Member {
    pub osd: OsdId,
    /// As the primary saw it.
    pub total_ns: u64,
    /// By the member's own account, if it gave one.
    pub own_ns: Option<u64>,
}

impl Record {
    pub fn read(osd: OsdId, json: &Value) -> Option<Record> {
        let stages = json["stages"].as_object()?.iter();
        Some(Record {
            osd,
            write: json["write"].as_bool()?,
            weight: json["weight"].as_u64()?.max(1),
            total_ns: json["total_ns"].as_u64(),
            stages: stages.filter_map(|(name, ns)| Some((name.clone(), ns.as_u64()?))).collect(),
            members: json["members"].as_array().into_iter().flatten().filter_map(Member::read).collect(),
        })
    }

    pub fn stage(&self, name: &str) -> u64 {
        self.stages.get(name).copied().unwrap_or_default()
    }
}

impl Member {
    fn read(json: &Value) -> Option<Member> {
        let own = ["queue_ns", "write_ns", "flush_ns"].iter().filter_map(|name| json[*name].as_u64());
        let own_ns = own.fold(0, u64::saturating_add);
        Some(Member {
            osd: OsdId(json["osd"].as_u64().and_then(|osd| u32::try_from(osd).ok())?),
            total_ns: json["total_ns"].as_u64()?,
            own_ns: (own_ns > 0).then_some(own_ns),
        })
    }
}
