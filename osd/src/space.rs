//! How full stores are, this OSD's and those of the OSDs it shares PGs with.
//!
//! The monitors' `full` flag comes seconds after a disk is full, and not at all while they are away; by then a fast
//! writer has filled a disk to its last block, of which its OSD dies. So OSDs tell each other with every promise and
//! every sign of life, and a primary refuses what one of its members has no space for.

use crate::pg::PgContext;
use nacre_store::Usage;
use nacre_types::OsdId;
use std::collections::BTreeMap;

/// What other OSDs last said of their stores.
#[derive(Debug, Default)]
pub struct Fullness {
    permille: BTreeMap<OsdId, u32>,
}

impl Fullness {
    pub fn heard(&mut self, osd: OsdId, used_permille: u32) {
        if used_permille > 0 {
            self.permille.insert(osd, used_permille);
        } else {
            self.permille.remove(&osd);
        }
    }

    pub fn of(&self, osd: OsdId) -> u32 {
        self.permille.get(&osd).copied().unwrap_or(0)
    }
}

/// Used space in thousandths, rounded down; zero for a store without bounds.
pub fn used_permille(usage: Usage) -> u32 {
    let used = u128::from(usage.used_bytes) * 1000;
    used.checked_div(u128::from(usage.total_bytes)).map_or(0, |permille| permille.min(1000) as u32)
}

/// Whether this OSD takes no more backfill, which makes a copy here larger or does not.
pub fn is_backfill_full(ctx: &PgContext<'_>, grows: bool) -> bool {
    let ratios = ctx.map.ratios();
    // In either case there is to be room for the pieces of the objects under way.
    let nearly_all = u32::midpoint(ratios.full_permille, 1000);
    let limit = if grows { ratios.backfillfull_permille } else { nearly_all };
    let usage = ctx.store.usage();
    usage.total_bytes > 0 && used_permille(usage) >= limit
}

/// Whether so many bytes more would take what is left for writes that are under way. What was freed a moment ago is no
/// room yet.
pub fn lacks_room(ctx: &PgContext<'_>, bytes: u64) -> bool {
    let usage = ctx.store.usage();
    let taken = usage.used_bytes.saturating_add(usage.freed_bytes);
    usage.total_bytes > 0 && taken.saturating_add(bytes) > usage.total_bytes
}

/// Whether an OSD (`None`: this one) is so full that it should not lead a PG of which it misses something.
pub fn is_too_full_to_lead(ctx: &PgContext<'_>, osd: Option<OsdId>) -> bool {
    let used = osd.map_or_else(|| used_permille(ctx.store.usage()), |osd| ctx.shared.fullness.of(osd));
    used >= ctx.map.ratios().backfillfull_permille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_of_what_there_is() {
        let usage = |used_bytes, total_bytes| Usage { total_bytes, used_bytes, freed_bytes: 0 };
        assert_eq!(used_permille(usage(0, 0)), 0);
        assert_eq!(used_permille(usage(949_999, 1_000_000)), 949);
        assert_eq!(used_permille(usage(u64::MAX, u64::MAX)), 1000);
        assert_eq!(used_permille(usage(2, 1)), 1000);
    }
}
