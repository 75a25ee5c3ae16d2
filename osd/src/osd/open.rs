//! Starting: whose disk this is, the maps and PGs on it, and what the PGs missed of those maps.

use super::boot::{Birth, Phase};
use super::{Core, Osd};
use crate::log::persist::LoadError;
use crate::maps_keeper::{LoadMapsError, MapsKeeper, Step};
use crate::pg::{Pg, State};
use crate::recovery::OsdShared;
use crate::token::Purpose;
use crate::{OsdConfig, OsdEffect};
use nacre_store::{OSD_META, ObjectStore, StoreError};
use nacre_types::{Epoch, Instant, Outbox, PgId, Rng};
use nacre_wire::Transaction;
use nacre_wire::messages::LogLevel;
use prost::Message as _;
use std::collections::BTreeMap;

const SUPERBLOCK: &[u8] = b"superblock";

#[derive(Clone, PartialEq, prost::Message)]
struct SuperblockRecord {
    #[prost(string, tag = "1")]
    fsid: String,
    #[prost(string, tag = "2")]
    uuid: String,
    #[prost(uint32, tag = "3")]
    id: u32,
}

/// Why an OSD cannot start on a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bad configuration: {0}")]
    Config(String),
    #[error(
        "the disk belongs to {found}, but was to be started as {expected}: check which disk goes with which OSD"
    )]
    WrongDisk { expected: String, found: String },
    #[error("the disk's superblock is damaged: {0}")]
    Superblock(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pg(#[from] LoadError),
    #[error(transparent)]
    Maps(#[from] LoadMapsError),
}

impl<S: ObjectStore> Osd<S> {
    /// Loads what the store holds. Nothing is sent before the first step.
    pub fn open(config: OsdConfig, mut store: S, now: Instant) -> Result<Osd<S>, OpenError> {
        config.tunables.validate().map_err(OpenError::Config)?;
        let mut tokens = crate::token::Tokens::default();
        let birth = check_superblock(&config, &mut store, &mut tokens)?;
        let lease = config.tunables.lease_duration;
        let mut pgs = BTreeMap::new();
        for id in store.meta_pgs()?.into_iter().filter(|&id| id != OSD_META) {
            if let Some(pg) = Pg::load(&store, id, config.id, now, lease)? {
                pgs.insert(id, pg);
            }
        }
        let needed = pgs.values().map(|pg: &Pg| pg.epoch).min().unwrap_or(Epoch(u64::MAX));
        let (maps, steps) = MapsKeeper::load(&store, &config.fsid, needed)?;
        let mut leftovers = Transaction::new(OSD_META);
        for object in crate::recovery::leftovers(&store)? {
            leftovers.remove(&object);
        }
        if !leftovers.is_empty() {
            let token = tokens.issue(Purpose::Nothing);
            store.submit(token, leftovers);
        }
        let rng = Rng::new(config.seed);
        let (shared, started_with) = (OsdShared::new(&config.tunables), config.tunables.clone());
        let core = Core {
            config,
            store,
            tokens,
            rng,
            maps,
            auth: None,
            monmap_epoch: 0,
            started_with,
            config_epoch: Epoch::ZERO,
            shared,
            requests: Default::default(),
            stages: Default::default(),
            phase: Phase::Starting,
            birth,
            just_up: false,
            heartbeat: Default::default(),
            wall_offset: 0,
            last_step: now,
            held: Default::default(),
            mon_session: None,
            mon_heard: now,
            phase_since: (Phase::Starting, now),
            pushed: Default::default(),
            timers: super::report::Timers::default(),
            touched: pgs.keys().copied().collect(),
            touched_last: Vec::new(),
            pg_timers: Default::default(),
            pg_timer_of: Default::default(),
            pending: Vec::new(),
        };
        let mut osd = Osd { core, pgs };
        osd.catch_up(now, &steps);
        Ok(osd)
    }

    /// Advances the PGs through the maps that were stored but that they had not written down.
    fn catch_up(&mut self, now: Instant, steps: &[Step]) {
        let mut out = Outbox::new();
        let first = match steps.first() {
            Some(Step::Next { old, .. } | Step::Gap { old, .. }) => old.clone(),
            None => self.core.maps.current().clone(),
        };
        let ids: Vec<PgId> = self.pgs.keys().copied().collect();
        for &id in &ids {
            self.with_pg(now, &mut out, id, |pg, ctx| {
                pg.place_loaded(&first);
                if pg.epoch < first.epoch() {
                    pg.skip_to_map(ctx, &first);
                }
            });
        }
        for step in steps {
            let (Step::Next { new, .. } | Step::Gap { new, .. }) = step;
            for &id in &ids {
                self.with_pg(now, &mut out, id, |pg, ctx| {
                    match step {
                        Step::Next { old, new } => pg.advance_map(ctx, old, new),
                        Step::Gap { new, .. } => pg.skip_to_map(ctx, new),
                    }
                    pg.place_loaded(new);
                });
            }
        }
        for &id in &ids {
            self.with_pg(now, &mut out, id, |pg, ctx| {
                if *pg.state() == State::Removing {
                    pg.resume_removal(ctx);
                }
            });
        }
        let text = format!(
            "{} starts: {} PGs, osdmap {}, instance {:x}",
            self.core.config.id,
            self.pgs.len(),
            self.core.maps.epoch(),
            self.core.config.instance
        );
        out.push(OsdEffect::Log { level: LogLevel::Info, text });
        self.core.pending = out.take();
    }
}

fn check_superblock<S: ObjectStore>(
    config: &OsdConfig,
    store: &mut S,
    tokens: &mut crate::token::Tokens,
) -> Result<Birth, OpenError> {
    let own = SuperblockRecord { fsid: config.fsid.clone(), uuid: config.uuid.clone(), id: config.id.0 };
    let name =
        |record: &SuperblockRecord| format!("osd.{} ({}) of cluster {}", record.id, record.uuid, record.fsid);
    let found = store.meta_get(OSD_META, SUPERBLOCK)?;
    let birth = Birth::load(store, found.is_some())?;
    match found {
        Some(raw) => {
            let found = SuperblockRecord::decode(raw).map_err(|e| OpenError::Superblock(e.to_string()))?;
            if found != own {
                return Err(OpenError::WrongDisk { expected: name(&own), found: name(&found) });
            }
        }
        None => {
            let mut t = Transaction::new(OSD_META);
            t.meta_set(SUPERBLOCK, own.encode_to_vec());
            birth.write(&mut t);
            let token = tokens.issue(Purpose::Nothing);
            store.submit(token, t);
        }
    }
    Ok(birth)
}
