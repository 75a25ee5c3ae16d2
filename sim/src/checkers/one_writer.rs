//! At most one primary acknowledges writes of a PG at any instant: once an OSD has acknowledged a write under some map,
//! no other one may acknowledge under an older map.

use nacre_types::{Epoch, OsdId, PgId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneWriter {
    newest: BTreeMap<PgId, (Epoch, OsdId)>,
}

impl OneWriter {
    /// `osd` acknowledges a write of `pg` now, under the map of `epoch`.
    pub fn acknowledged(&mut self, pg: PgId, osd: OsdId, epoch: Epoch) -> Result<(), String> {
        match self.newest.get_mut(&pg) {
            Some((newest, writer)) if *writer != osd && epoch < *newest => Err(format!(
                "{osd} acknowledges a write of {pg} under osdmap {epoch} after {writer} did under {newest}"
            )),
            Some(entry) => {
                if epoch >= entry.0 {
                    *entry = (epoch, osd);
                }
                Ok(())
            }
            None => {
                self.newest.insert(pg, (epoch, osd));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    #[test]
    fn a_fenced_primary_is_caught() {
        let pg = PgId::new(PoolId(1), 0);
        let mut checker = OneWriter::default();
        assert!(checker.acknowledged(pg, OsdId(0), Epoch(5)).is_ok());
        assert!(checker.acknowledged(pg, OsdId(1), Epoch(7)).is_ok());
        assert!(checker.acknowledged(pg, OsdId(0), Epoch(6)).is_err());
        assert!(checker.acknowledged(pg, OsdId(0), Epoch(8)).is_ok());
    }
}
