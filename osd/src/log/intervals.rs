//! Past intervals: who served a PG since it was last clean, and whether writes may have been accepted.
//!
//! Peering must hear from one member of each interval that may have taken writes (invariant I2). Only those intervals
//! are kept, and of two where whoever satisfies the newer satisfies the older as well, only the newer: so a PG that
//! stays unclean through any number of epochs keeps a bounded list.

use super::entry::RecordError;
use bytes::Bytes;
use nacre_maps::OsdMap;
use nacre_types::{Epoch, OsdId, PgId, mutant};
use prost::Message as _;
use std::collections::BTreeSet;

/// Epochs during which a PG's place did not change, all of which are over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interval {
    pub first: Epoch,
    pub last: Epoch,
    pub up: Vec<OsdId>,
    pub acting: Vec<OsdId>,
    pub primary: Option<OsdId>,
    /// Writes may have been accepted in it (invariant I3).
    pub maybe_went_rw: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PastIntervals {
    /// Oldest first; all of them may have taken writes.
    intervals: Vec<Interval>,
    /// Everybody who was up or acting in any interval since the last clean one, kept or not: where copies may lie.
    participants: BTreeSet<OsdId>,
    /// The span covered; zero for none.
    first: Epoch,
    last: Epoch,
}

/// Whether `pg` begins a new interval with `new`: its members or primary changed, one of them restarted, or the pool's
/// rules for it did.
pub fn is_new_interval(pg: PgId, old: &OsdMap, new: &OsdMap) -> bool {
    let (Some(was), Some(is)) = (old.pg(pg), new.pg(pg)) else { return true };
    if was != is {
        return true;
    }
    let rules = |map: &OsdMap| map.pool(pg.pool).map(|pool| (pool.size, pool.min_size, pool.pg_num));
    let run = |map: &OsdMap, osd: OsdId| map.osd(osd).map(|info| info.up_from());
    rules(old) != rules(new) || is.up.iter().chain(&is.acting).any(|&osd| run(old, osd) != run(new, osd))
}

impl PastIntervals {
    pub fn new() -> PastIntervals {
        PastIntervals::default()
    }

    pub fn is_empty(&self) -> bool {
        self.first == Epoch::ZERO
    }

    /// The epochs covered, first and last.
    pub fn span(&self) -> Option<(Epoch, Epoch)> {
        (!self.is_empty()).then_some((self.first, self.last))
    }

    /// Everybody who may hold a copy from these intervals.
    pub fn participants(&self) -> &BTreeSet<OsdId> {
        &self.participants
    }

    /// The intervals that may have taken writes and did not end before `since`, newest first.
    pub fn may_have_written(&self, since: Epoch) -> impl Iterator<Item = &Interval> {
        self.intervals.iter().rev().filter(move |interval| interval.last >= since)
    }

    /// Takes note if `new` ends the interval that began at `same_interval_since`; returns whether it does. `old` must be
    /// the map just before `new`.
    pub fn check_new_interval(
        &mut self,
        pg: PgId,
        old: &OsdMap,
        new: &OsdMap,
        same_interval_since: Epoch,
        last_epoch_clean: Epoch,
    ) -> bool {
        assert_eq!(old.epoch().next(), new.epoch(), "intervals are worked out map by map");
        if !is_new_interval(pg, old, new) {
            return false;
        }
        let Some(place) = old.pg(pg) else { return true };
        let mut interval = Interval {
            first: same_interval_since,
            last: old.epoch(),
            up: place.up.clone(),
            acting: place.acting.clone(),
            primary: place.primary(),
            maybe_went_rw: false,
        };
        let min_size = old.pool(pg.pool).map_or(u32::MAX, |pool| pool.min_size) as usize;
        interval.maybe_went_rw = interval.acting.len() >= min_size.max(1)
            && interval.primary.and_then(|primary| old.osd(primary)).is_some_and(|primary| {
                let recorded = primary.up_thru() >= interval.first && primary.up_from() <= interval.first;
                // A PG that became clean in an interval was written to in it, whatever else is known.
                recorded || (interval.first..=interval.last).contains(&last_epoch_clean)
            });
        if !mutant!(PastIntervalForgotten) {
            self.add(interval);
        }
        true
    }

    pub fn add(&mut self, interval: Interval) {
        assert!(interval.first <= interval.last && interval.first > self.last, "intervals follow each other");
        self.participants.extend(interval.up.iter().chain(&interval.acting));
        if self.is_empty() {
            self.first = interval.first;
        }
        self.last = interval.last;
        if interval.maybe_went_rw {
            let contained = |older: &Interval| interval.acting.iter().all(|osd| older.acting.contains(osd));
            self.intervals.retain(|older| !contained(older));
            self.intervals.push(interval);
        }
    }

    /// The PG was clean in `last_epoch_clean`: what ended before is of no interest any more.
    pub fn prune(&mut self, last_epoch_clean: Epoch) {
        if self.last < last_epoch_clean {
            *self = PastIntervals::new();
        } else if !self.is_empty() {
            self.intervals.retain(|interval| interval.last >= last_epoch_clean);
            self.first = self.first.max(last_epoch_clean);
        }
    }

    pub fn clear(&mut self) {
        *self = PastIntervals::new();
    }

    pub fn encode(&self) -> Bytes {
        let ids = |osds: &[OsdId]| osds.iter().map(|osd| osd.0).collect();
        let record = Record {
            first: self.first.0,
            last: self.last.0,
            participants: self.participants.iter().map(|osd| osd.0).collect(),
            intervals: self
                .intervals
                .iter()
                .map(|interval| IntervalRecord {
                    first: interval.first.0,
                    last: interval.last.0,
                    up: ids(&interval.up),
                    acting: ids(&interval.acting),
                    primary_plus_one: interval.primary.map_or(0, |osd| osd.0.saturating_add(1)),
                })
                .collect(),
        };
        record.encode_to_vec().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<PastIntervals, RecordError> {
        let malformed = |reason: String| RecordError::Malformed { record: "list of past intervals", reason };
        let record = Record::decode(bytes).map_err(|e| malformed(e.to_string()))?;
        let ids = |raw: Vec<u32>| raw.into_iter().map(OsdId).collect::<Vec<_>>();
        let mut past = PastIntervals {
            intervals: Vec::new(),
            participants: record.participants.into_iter().map(OsdId).collect(),
            first: Epoch(record.first),
            last: Epoch(record.last),
        };
        for raw in record.intervals {
            let interval = Interval {
                first: Epoch(raw.first),
                last: Epoch(raw.last),
                up: ids(raw.up),
                acting: ids(raw.acting),
                primary: raw.primary_plus_one.checked_sub(1).map(OsdId),
                maybe_went_rw: true,
            };
            let follows = past.intervals.last().is_none_or(|before| before.last < interval.first);
            if !follows || interval.first > interval.last {
                return Err(malformed(format!("the interval from epoch {} is out of order", interval.first)));
            }
            past.intervals.push(interval);
        }
        if past.first > past.last {
            return Err(malformed("it ends before it begins".into()));
        }
        Ok(past)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
    #[prost(uint32, repeated, tag = "3")]
    participants: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    intervals: Vec<IntervalRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IntervalRecord {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
    #[prost(uint32, repeated, tag = "3")]
    up: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    acting: Vec<u32>,
    #[prost(uint32, tag = "5")]
    primary_plus_one: u32,
}

#[cfg(test)]
mod tests;
