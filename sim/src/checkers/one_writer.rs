//! One line of writers per PG: versions under which writes are acknowledged never belong to two requests, and a later
//! epoch's begin above all that an earlier one acknowledged. A fenced primary that goes on writing breaks one of the
//! two, as does a new primary that does not know an acknowledged write.

use nacre_types::{EVersion, Epoch, OsdId, PgId, RequestId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneWriter {
    pgs: BTreeMap<PgId, Acked>,
}

#[derive(Default)]
struct Acked {
    requests: BTreeMap<EVersion, (RequestId, OsdId)>,
    /// By epoch of the versions: lowest and highest sequence number.
    epochs: BTreeMap<Epoch, (u64, u64)>,
}

impl OneWriter {
    /// An administrator gave the PG up: it begins anew.
    pub fn given_up(&mut self, pg: PgId) {
        self.pgs.remove(&pg);
    }

    /// `osd` acknowledges a write of `pg` that happened as `version`.
    pub fn acknowledged(
        &mut self,
        pg: PgId,
        version: EVersion,
        request: RequestId,
        osd: OsdId,
    ) -> Result<(), String> {
        let acked = self.pgs.entry(pg).or_default();
        let (first, first_osd) = *acked.requests.entry(version).or_insert((request, osd));
        if first != request {
            return Err(format!(
                "{osd} acknowledges {request:?} of {pg} as {version}, which {first_osd} acknowledged for {first:?}"
            ));
        }
        let (low, high) = acked.epochs.entry(version.epoch).or_insert((version.seq, version.seq));
        *low = version.seq.min(*low);
        *high = version.seq.max(*high);
        let before =
            acked.epochs.range(..version.epoch).next_back().filter(|(_, (_, high))| *high >= version.seq);
        let after =
            acked.epochs.range(version.epoch.next()..).next().filter(|(_, (low, _))| *low <= version.seq);
        match before.or(after) {
            Some((other, (low, high))) => Err(format!(
                "{osd} acknowledges a write of {pg} as {version}, but those of epoch {other} are {low} to {high}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::{ClientId, PoolId};

    #[test]
    fn a_fenced_primary_is_caught() {
        let pg = PgId::new(PoolId(1), 0);
        let mut checker = OneWriter::default();
        let mut ack = |epoch, seq, request, osd| {
            let request = RequestId { client: ClientId(1), seq: request };
            checker.acknowledged(pg, EVersion { epoch: Epoch(epoch), seq }, request, OsdId(osd))
        };
        assert_eq!(ack(5, 1, 1, 0), Ok(()));
        assert_eq!(ack(5, 2, 2, 0), Ok(()));
        assert_eq!(ack(7, 3, 3, 1), Ok(()));
        assert_eq!(ack(5, 2, 2, 1), Ok(()), "answered again by the new primary");
        assert!(ack(7, 3, 9, 0).is_err(), "one version, two requests");
        assert!(ack(6, 4, 4, 0).is_err(), "goes on under an older map");
    }
}
