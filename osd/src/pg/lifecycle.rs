//! A PG's beginning: created with its pool, met through its primary, or loaded; and what of it is written down when.
//!
//! Beside the keys of [`persist`](crate::log::persist): `v`, the membership (epoch, interval, whether they are certain),
//! and `x`, which says that the PG is being removed and its objects mean nothing.

use super::{Membership, Pg, Pipeline, State};
use crate::log::persist::{self, LoadError, Loaded};
use crate::log::{Info, MissingSet, PastIntervals, PgLog};
use crate::pg::PgContext;
use crate::replication::lease::Lease;
use bytes::Bytes;
use nacre_maps::OsdMap;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{EVersion, Epoch, Instant, OsdId, PgId};
use nacre_wire::Transaction;
use prost::Message as _;
use std::collections::BTreeSet;
use std::time::Duration;

const MEMBERSHIP: &[u8] = b"v";
pub(super) const REMOVING: &[u8] = b"x";

#[derive(Clone, PartialEq, prost::Message)]
struct MembershipRecord {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    since: u64,
    #[prost(bool, tag = "3")]
    sure: bool,
    #[prost(bool, tag = "4")]
    past_known: bool,
    #[prost(uint32, tag = "5")]
    pg_num: u32,
    /// Who may hold a promise of this copy ([`Lease::holders`]).
    #[prost(uint32, repeated, tag = "6")]
    promised: Vec<u32>,
    #[prost(bool, tag = "7")]
    promised_known: bool,
}

impl Pg {
    fn bare(id: PgId, me: OsdId, now: Instant) -> Pg {
        Pg {
            id,
            me,
            members: Membership { sure: true, ..Membership::default() },
            info: Info::absent(id),
            past: PastIntervals::new(),
            log: PgLog::new(EVersion::ZERO),
            missing: MissingSet::new(),
            state: State::Reset,
            state_since: now,
            epoch: Epoch::ZERO,
            peers: Default::default(),
            backfill_targets: Default::default(),
            committed_to: EVersion::ZERO,
            clean: false,
            watch: crate::watch::Registry::new(0),
            pg_num: 1,
            past_known: false,
            written_epoch: Epoch::ZERO,
            dirty: true,
            probe: Default::default(),
            blocking: None,
            incoming: Default::default(),
            full_log_wanted: false,
            best: None,
            next_resend: now,
            history_unconfirmed: Default::default(),
            activation_submitted: false,
            lease: Lease::default(),
            pipeline: Pipeline::default(),
            in_flight: Default::default(),
            own_durable: EVersion::ZERO,
            replica_durable: EVersion::ZERO,
            commit_latency: Duration::ZERO,
            measured: Default::default(),
            report_seq: 0,
            trimming: Default::default(),
            recovery: Default::default(),
        }
    }

    fn place(&mut self, map: &OsdMap) {
        let place = map.pg(self.id).cloned().unwrap_or_default();
        (self.members.up, self.members.acting) = (place.up, place.acting);
        self.epoch = map.epoch();
        self.pg_num = map.pool(self.id.pool).map_or(self.pg_num, |pool| pool.pg_num);
    }

    /// The PG's pool was made in this epoch, with this OSD among the PG's members.
    pub(crate) fn create(id: PgId, map: &OsdMap, me: OsdId, now: Instant) -> Pg {
        let mut pg = Pg::bare(id, me, now);
        pg.place(map);
        (pg.members.since, pg.members.primary_since) = (map.epoch(), map.epoch());
        pg.info = Info::created(id, map.epoch());
        pg.info.history.same_interval_since = map.epoch();
        pg.past_known = true;
        pg
    }

    /// This OSD is primary of a PG it knows nothing of: what it has to be learned from others.
    pub(crate) fn phantom(id: PgId, map: &OsdMap, since: Epoch, me: OsdId, now: Instant) -> Pg {
        let mut pg = Pg::bare(id, me, now);
        pg.place(map);
        (pg.members.since, pg.members.primary_since) = (since, since);
        pg.info.history.same_interval_since = since;
        pg
    }

    /// A primary makes this OSD a member of an interval.
    pub(crate) fn met(ctx: &mut PgContext<'_>, id: PgId, since: Epoch) -> Pg {
        let mut pg = Pg::phantom(id, &ctx.map.clone(), since, ctx.me(), ctx.now);
        pg.enter(ctx, State::Stray);
        pg.dirty = false;
        pg
    }

    /// What the store holds of a PG; members come with the map of its epoch. `None` if there is nothing.
    pub(crate) fn load(
        store: &dyn ObjectStore,
        id: PgId,
        me: OsdId,
        now: Instant,
        lease: Duration,
    ) -> Result<Option<Pg>, LoadError> {
        let mut pg = Pg::bare(id, me, now);
        let mut holders = None;
        let removing = store.meta_get(id, REMOVING)?.is_some();
        if let Some(raw) = store.meta_get(id, MEMBERSHIP)? {
            let record = MembershipRecord::decode(raw).map_err(|e| LoadError::Damaged {
                pg: id,
                reason: crate::log::RecordError::Malformed { record: "membership", reason: e.to_string() },
            })?;
            pg.epoch = Epoch(record.epoch);
            (pg.members.since, pg.members.primary_since) = (Epoch(record.since), Epoch(record.since));
            pg.members.sure = record.sure;
            pg.past_known = record.past_known;
            pg.pg_num = record.pg_num.max(1);
            holders = record.promised_known.then(|| record.promised.iter().map(|&osd| OsdId(osd)).collect());
        }
        if removing {
            pg.state = State::Removing;
            return Ok(Some(pg));
        }
        let Some(Loaded { info, log, missing, past_intervals }) = persist::load(store, id)? else {
            return Ok(None);
        };
        (pg.info, pg.log, pg.missing, pg.past) = (info, log, missing, past_intervals);
        pg.lease = Lease::after_restart(now, lease, holders);
        pg.written_epoch = pg.epoch;
        pg.dirty = false;
        Ok(Some(pg))
    }

    /// Members as of the map the PG was loaded at.
    pub(crate) fn place_loaded(&mut self, map: &OsdMap) {
        if map.epoch() == self.epoch {
            self.place(map);
        }
    }

    /// Adds what a change of info, past or membership must write.
    pub(crate) fn write_info(&mut self, t: &mut Transaction) {
        self.written_epoch = self.epoch;
        persist::info(t, &self.info);
        persist::past_intervals(t, &self.past);
        let holders = self.lease.holders();
        let mut promised: BTreeSet<u32> = holders.iter().flatten().map(|osd| osd.0).collect();
        // The promises of this interval come after this is durable. Nobody promises anything to itself.
        promised.extend(self.members.primary().map(|osd| osd.0));
        promised.remove(&self.me.0);
        let record = MembershipRecord {
            promised: promised.into_iter().collect(),
            promised_known: holders.is_some(),
            epoch: self.epoch.0,
            since: self.members.since.0,
            sure: self.members.sure,
            past_known: self.past_known,
            pg_num: self.pg_num,
        };
        t.meta_set(MEMBERSHIP, Bytes::from(record.encode_to_vec()));
    }

    pub(crate) fn persist_info(&mut self, ctx: &mut PgContext<'_>) {
        let mut t = Transaction::new(self.id);
        self.write_info(&mut t);
        ctx.submit_unwatched(t);
    }

    pub(crate) fn persist_everything(&mut self, ctx: &mut PgContext<'_>) {
        let mut t = Transaction::new(self.id);
        persist::log(&mut t, &self.log);
        persist::missing(&mut t, &self.missing);
        self.write_info(&mut t);
        ctx.submit_unwatched(t);
    }

    pub(crate) fn store_error(ctx: &mut PgContext<'_>, error: &StoreError) {
        ctx.requests.fatal.get_or_insert(error.to_string());
    }
}
