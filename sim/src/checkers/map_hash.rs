//! One osdmap per epoch: whoever has an epoch has the same map.

use nacre_types::Epoch;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct MapHash {
    seen: BTreeMap<Epoch, (u64, String)>,
}

impl MapHash {
    /// `who` has the map of `epoch` with this hash. The first to have an epoch fixes it.
    pub fn observe(&mut self, who: &str, epoch: Epoch, hash: u64) -> Result<(), String> {
        let (first, first_who) = self.seen.entry(epoch).or_insert_with(|| (hash, who.to_string()));
        if *first == hash {
            return Ok(());
        }
        Err(format!("osdmap {epoch} is {first:016x} at {first_who} and {hash:016x} at {who}"))
    }
}
