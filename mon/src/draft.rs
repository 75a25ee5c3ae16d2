//! The next batch while the leader writes it: the applied state with changes laid over it. Everything that looks at
//! the state while deciding a change looks through the draft, so that two changes in one batch see each other.

use crate::service::{Answer, AuthChange, AuthChangeEntry, Batch, ConfigChange, Service};
use nacre_crush::CrushMap;
use nacre_maps::{AuthEntry, Flags, Incremental, MonMap, OsdInfo, Pool, Ratios};
use nacre_types::{ClientId, EntityName, Epoch, OsdId, PgId, PoolId, RequestId};
use nacre_wire::messages::{CommandReply, LogLevel, LogLine};
use raft::eraftpb::ConfChangeType;
use std::collections::{BTreeMap, BTreeSet};

/// Longest line of the cluster log, in bytes.
const LOG_LINE_BYTES_MAX: usize = 2_000;

pub(crate) struct Draft<'a> {
    pub state: &'a Service,
    pub at_ms: u64,
    pub step: Incremental,
    auth: BTreeMap<EntityName, Option<AuthEntry>>,
    config: BTreeMap<(String, String), Option<String>>,
    log: Vec<LogLine>,
    monmap: Option<MonMap>,
    /// A change of the Raft group that goes with the monmap's.
    pub change: Option<(ConfChangeType, u64)>,
    answers: Vec<Answer>,
}

/// How far a draft had come, to take back what a failing command changed.
pub(crate) struct Mark {
    step: Incremental,
    auth: BTreeMap<EntityName, Option<AuthEntry>>,
    config: BTreeMap<(String, String), Option<String>>,
    log: usize,
    monmap: Option<MonMap>,
    change: Option<(ConfChangeType, u64)>,
}

impl<'a> Draft<'a> {
    pub fn new(state: &'a Service, at_ms: u64) -> Draft<'a> {
        let at_ms = at_ms.max(state.at_ms);
        Draft {
            state,
            at_ms,
            step: Incremental::after(&state.osdmap, at_ms),
            auth: BTreeMap::new(),
            config: BTreeMap::new(),
            log: Vec::new(),
            monmap: None,
            change: None,
            answers: Vec::new(),
        }
    }

    /// The epoch the changes will be in.
    pub fn epoch(&self) -> Epoch {
        self.step.epoch
    }

    pub fn mark(&self) -> Mark {
        Mark {
            step: self.step.clone(),
            auth: self.auth.clone(),
            config: self.config.clone(),
            log: self.log.len(),
            monmap: self.monmap.clone(),
            change: self.change,
        }
    }

    pub fn back_to(&mut self, mark: Mark) {
        (self.step, self.auth, self.config) = (mark.step, mark.auth, mark.config);
        (self.monmap, self.change) = (mark.monmap, mark.change);
        self.log.truncate(mark.log);
    }

    // The osdmap.

    pub fn osd(&self, id: OsdId) -> Option<&OsdInfo> {
        match self.step.osds.get(&id) {
            Some(changed) => changed.as_ref(),
            None => self.state.osdmap.osd(id),
        }
    }

    pub fn osd_ids(&self) -> Vec<OsdId> {
        let ids: BTreeSet<OsdId> =
            self.state.osdmap.osds().map(|(id, _)| id).chain(self.step.osds.keys().copied()).collect();
        ids.into_iter().filter(|&id| self.osd(id).is_some()).collect()
    }

    pub fn osds(&self) -> impl Iterator<Item = (OsdId, &OsdInfo)> {
        self.osd_ids().into_iter().filter_map(|id| Some((id, self.osd(id)?)))
    }

    pub fn osd_mut(&mut self, id: OsdId) -> Option<&mut OsdInfo> {
        self.step.osd_mut(&self.state.osdmap, id)
    }

    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        match self.step.pools.get(&id) {
            Some(changed) => changed.as_ref(),
            None => self.state.osdmap.pool(id),
        }
    }

    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        let ids: BTreeSet<PoolId> =
            self.state.osdmap.pools().map(|(id, _)| id).chain(self.step.pools.keys().copied()).collect();
        ids.into_iter().filter_map(|id| Some((id, self.pool(id)?)))
    }

    pub fn pool_by_name(&self, name: &str) -> Option<(PoolId, &Pool)> {
        self.pools().find(|(_, pool)| pool.name == name)
    }

    pub fn pool_mut(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.step.pool_mut(&self.state.osdmap, id)
    }

    /// The number of the next pool, never given before.
    pub fn next_pool(&self) -> PoolId {
        let in_step = self.step.pools.keys().next_back().map_or(0, |id| id.0);
        PoolId(self.state.osdmap.last_pool().0.max(in_step) + 1)
    }

    pub fn crush(&self) -> &CrushMap {
        self.step.crush.as_ref().unwrap_or_else(|| self.state.osdmap.crush())
    }

    pub fn flags(&self) -> Flags {
        self.step.flags.unwrap_or_else(|| self.state.osdmap.flags())
    }

    pub fn ratios(&self) -> Ratios {
        self.step.ratios.unwrap_or_else(|| self.state.osdmap.ratios())
    }

    pub fn pg_exists(&self, pg: PgId) -> bool {
        self.pool(pg.pool).is_some_and(|pool| pg.seed < pool.pg_num)
    }

    pub fn blocklist(&mut self, client: ClientId, until_ms: Option<u64>) {
        self.step.blocklist.insert(client, until_ms);
    }

    // Everything else.

    pub fn auth(&self, entity: &EntityName) -> Option<&AuthEntry> {
        match self.auth.get(entity) {
            Some(changed) => changed.as_ref(),
            None => self.state.auth.entities.get(entity),
        }
    }

    pub fn set_auth(&mut self, entity: EntityName, entry: Option<AuthEntry>) {
        self.auth.insert(entity, entry);
    }

    pub fn config(&self, who: &str, key: &str) -> Option<&str> {
        match self.config.get(&(who.into(), key.into())) {
            Some(changed) => changed.as_deref(),
            None => self.state.config.sections.get(who)?.get(key).map(String::as_str),
        }
    }

    pub fn set_config(&mut self, who: &str, key: &str, value: Option<String>) {
        self.config.insert((who.into(), key.into()), value);
    }

    pub fn monmap(&self) -> &MonMap {
        self.monmap.as_ref().unwrap_or(&self.state.monmap)
    }

    /// Changes the monmap and the Raft group; one at a time, see `change`.
    pub fn set_monmap(&mut self, mut monmap: MonMap, change: ConfChangeType, raft_id: u64) {
        monmap.epoch = self.state.monmap.epoch.next();
        self.monmap = Some(monmap);
        self.change = Some((change, raft_id));
    }

    pub fn log(&mut self, level: LogLevel, who: &str, text: impl Into<String>) {
        let at_ms = self.at_ms;
        self.log_line(LogLine { seq: 0, at_ms, who: who.into(), level: level as i32, text: text.into() });
    }

    pub fn log_line(&mut self, mut line: LogLine) {
        for text in [&mut line.text, &mut line.who] {
            if text.len() > LOG_LINE_BYTES_MAX {
                let cut = (0..=LOG_LINE_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at));
                text.truncate(cut.unwrap_or(0));
            }
        }
        self.log.push(line);
    }

    pub fn answer(&mut self, entity: &str, request: RequestId, reply: CommandReply) {
        self.answers.push(Answer::new(entity, request, reply));
    }

    pub fn changes_osdmap(&self) -> bool {
        !self.step.is_empty()
    }

    /// Whether it changes or answers nothing.
    pub fn is_empty(&self) -> bool {
        !self.changes_osdmap()
            && self.auth.is_empty()
            && self.config.is_empty()
            && self.log.is_empty()
            && self.monmap.is_none()
            && self.change.is_none()
            && self.answers.is_empty()
    }

    /// Takes out of the acting-set overrides what has no effect any more: as CRUSH says, or nobody of it is up.
    fn tidy_pg_temp(&mut self) {
        if !self.changes_osdmap() || self.state.osdmap.pg_temp().is_empty() {
            return;
        }
        let Ok(next) = self.state.osdmap.apply(&self.step) else { return };
        for (&pg, temp) in next.pg_temp() {
            let up = next.pg(pg).map(|place| &place.up);
            if up == Some(temp) || !temp.iter().any(|&osd| next.is_up(osd)) {
                self.step.pg_temp.insert(pg, Vec::new());
            }
        }
    }

    pub fn finish(mut self, nonce: u64) -> Batch {
        self.tidy_pg_temp();
        let entry = |entry: AuthEntry| AuthChangeEntry {
            caps: entry.caps.into_iter().map(|(service, caps)| (service, caps.to_string())).collect(),
            created_ms: entry.created_ms,
        };
        Batch {
            base: self.state.version,
            at_ms: self.at_ms,
            nonce,
            osdmap: self.changes_osdmap().then(|| self.step.encode()),
            auth: self
                .auth
                .into_iter()
                .map(|(entity, changed)| AuthChange { entity: entity.to_string(), entry: changed.map(entry) })
                .collect(),
            config: self
                .config
                .into_iter()
                .map(|((who, key), value)| ConfigChange { who, key, value })
                .collect(),
            log: self.log,
            monmap: self.monmap.map(|monmap| monmap.encode()),
            answers: self.answers,
        }
    }
}
