//! What a PG sees of the world during one step, and how it acts on it: time, the map, the store, the outbox.

use crate::pg::hooks::OsdShared;
use crate::stages::StageLog;
use crate::token::{PgPurpose, Purpose, Tokens};
use crate::{OsdConfig, OsdEffect};
use nacre_maps::OsdMap;
use nacre_store::ObjectStore;
use nacre_types::{EVersion, Epoch, Instant, OsdId, Outbox, PgId, Rng};
use nacre_wire::messages::LogLevel;
use nacre_wire::stages::ReplicaTimes;
use nacre_wire::{Address, Message, Packet, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Passed down to everything a PG does.
pub struct PgContext<'a> {
    pub now: Instant,
    pub wall_ms: u64,
    /// Epoch in which this OSD's store was first up.
    pub store_since: Epoch,
    pub map: Arc<OsdMap>,
    pub config: &'a OsdConfig,
    pub store: &'a mut dyn ObjectStore,
    pub tokens: &'a mut Tokens,
    pub rng: &'a mut Rng,
    pub out: &'a mut Outbox<OsdEffect>,
    /// OSD-wide state of recovery, backfill and scrub: reservations, throttles.
    pub shared: &'a mut OsdShared,
    pub requests: &'a mut Requests,
    pub(crate) stages: &'a mut StageLog,
}

/// What PGs ask of their OSD, gathered during a step.
#[derive(Debug, Default)]
pub struct Requests {
    /// Lowest `up_thru` that would let every waiting PG activate.
    pub up_thru: Option<Epoch>,
    pub up_thru_sent: Option<Epoch>,
    /// Acting sets wanted of the monitors; empty to take one back. Kept until the map agrees.
    pub pg_temp: BTreeMap<PgId, Vec<OsdId>>,
    /// Some of `pg_temp` has not been sent yet.
    pub pg_temp_changed: bool,
    /// PGs whose state is worth telling the monitors now.
    pub report: BTreeSet<PgId>,
    /// PGs with work left that should get a turn after this step (`Pg::settle`).
    pub kick: BTreeSet<PgId>,
    /// PGs that have removed themselves.
    pub removed: BTreeSet<PgId>,
    /// What this step has made durable of PGs that others lead: they are told when it ends.
    pub acks: BTreeMap<(OsdId, PgId), (Epoch, EVersion)>,
    /// And what it spent on those of them that are measured.
    pub times: Vec<(OsdId, PgId, ReplicaTimes)>,
    /// The store failed to answer: the OSD must stop.
    pub fatal: Option<String>,
}

impl Requests {
    /// Wants `acting` for a PG, or (empty) its up set.
    pub fn want_acting(&mut self, pg: PgId, acting: Vec<OsdId>) {
        if self.pg_temp.get(&pg) != Some(&acting) {
            self.pg_temp.insert(pg, acting);
            self.pg_temp_changed = true;
        }
    }
}

impl PgContext<'_> {
    pub fn me(&self) -> OsdId {
        self.config.id
    }

    pub fn epoch(&self) -> Epoch {
        self.map.epoch()
    }

    /// Submits a transaction of a PG; its commit comes back as `Pg::on_committed(what)`.
    pub fn submit(&mut self, pg: PgId, interval: Epoch, what: PgPurpose, transaction: Transaction) {
        assert_eq!(transaction.pg(), pg, "a PG changes only itself");
        let token = self.tokens.issue(Purpose::Pg { pg, interval, what });
        self.store.submit(token, transaction);
    }

    /// Submits a transaction whose commit nobody waits for.
    pub fn submit_unwatched(&mut self, transaction: Transaction) {
        let token = self.tokens.issue(Purpose::Nothing);
        self.store.submit(token, transaction);
    }

    /// Starts a read; its end comes back as `Pg::on_read(what, ..)`.
    pub fn read(
        &mut self,
        pg: PgId,
        interval: Epoch,
        what: PgPurpose,
        object: &nacre_types::ObjectId,
        offset: u64,
        length: u64,
    ) {
        let token = self.tokens.issue(Purpose::Pg { pg, interval, what });
        self.store.read(token, object, offset, length);
    }

    pub fn packet(&self, message: impl Into<Message>) -> Packet {
        Packet::new(self.epoch(), message)
    }

    /// Sends to an OSD if it is up; else drops the packet, as a lossy network may.
    pub fn send_osd(&mut self, to: OsdId, packet: Packet) {
        if let Some(address) = self.map.address(to) {
            let to = Address::Osd { id: to, address: address.into() };
            self.out.push(OsdEffect::Send { to, packet });
        }
    }

    /// Answers on the session a request came from.
    pub fn reply(&mut self, to: nacre_wire::SessionId, packet: Packet) {
        self.out.push(OsdEffect::Send { to: Address::Session(to), packet });
    }

    pub fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        self.out.push(OsdEffect::Log { level, text: text.into() });
    }
}
