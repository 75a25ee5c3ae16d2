//! The replicated state: maps, configuration, cluster log, answers to recent commands. Pure and total: no clock, no
//! randomness, no knowledge of which monitor it is in; the same batches give the same state everywhere.

mod batch;
mod encode;
mod history;

pub(crate) use batch::{Answer, AuthChange, AuthChangeEntry, Batch, ConfigChange};
pub(crate) use history::History;

use bytes::Bytes;
use nacre_maps::{AuthEntry, AuthMap, ConfigMap, Incremental, MonMap, OsdMap};
use nacre_types::{EntityName, RequestId, fnv1a64};
use nacre_wire::messages::{CommandReply, LogLine};
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};

/// Lines of the cluster log that are kept.
pub(crate) const LOG_LINES_MAX: usize = 10_000;
/// Answers that are kept for resends.
pub(crate) const ANSWERS_MAX: usize = 1_000;
/// Bytes of one kept answer; a longer one is kept without its bulk.
const ANSWER_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Batches applied since the cluster was made.
    pub version: u64,
    /// Chained over all batches: equal here means equal in everything.
    pub hash: u64,
    /// Newest stamp of any batch.
    pub at_ms: u64,
    pub osdmap: OsdMap,
    pub history: History,
    pub monmap: MonMap,
    pub auth: AuthMap,
    pub config: ConfigMap,
    /// The cluster's certificate authority. Never leaves the monitors.
    pub ca_key_pem: String,
    pub ca_cert_pem: String,
    pub log: VecDeque<LogLine>,
    pub log_seq: u64,
    answers: BTreeMap<(String, RequestId), CommandReply>,
    answer_order: VecDeque<(String, RequestId)>,
}

impl Service {
    /// The state of a cluster without history.
    pub fn new(
        osdmap: OsdMap,
        monmap: MonMap,
        auth: AuthMap,
        ca_key_pem: String,
        ca_cert_pem: String,
    ) -> Service {
        Service {
            version: 0,
            hash: fnv1a64(osdmap.fsid().as_bytes()),
            at_ms: osdmap.modified_ms(),
            history: History::new(osdmap.clone()),
            osdmap,
            monmap,
            auth,
            config: ConfigMap::default(),
            ca_key_pem,
            ca_cert_pem,
            log: VecDeque::new(),
            log_seq: 0,
            answers: BTreeMap::new(),
            answer_order: VecDeque::new(),
        }
    }

    pub fn fsid(&self) -> &str {
        self.osdmap.fsid()
    }

    pub fn answer(&self, entity: &str, request: RequestId) -> Option<&CommandReply> {
        self.answers.get(&(entity.into(), request))
    }

    /// Applies one entry of the log. `None` if it was made for another state (by a leader that was deposed meanwhile)
    /// or does not make sense: then nothing changes, on every monitor alike.
    pub fn apply(&mut self, bytes: &[u8]) -> Option<Batch> {
        let batch = Batch::decode(bytes).ok()?;
        if batch.base != self.version {
            return None;
        }
        let step = match &batch.osdmap {
            Some(bytes) => {
                let step = Incremental::decode(bytes).ok()?;
                Some((self.osdmap.apply(&step).ok()?, bytes.clone()))
            }
            None => None,
        };
        let monmap = match &batch.monmap {
            Some(bytes) => Some(MonMap::decode(bytes).ok()?),
            None => None,
        };
        let auth = batch.auth.iter().map(decode_auth).collect::<Option<Vec<_>>>()?;

        self.version += 1;
        self.hash = fnv1a64(&[&self.hash.to_le_bytes()[..], bytes].concat());
        self.at_ms = self.at_ms.max(batch.at_ms);
        if let Some((next, bytes)) = step {
            self.history.push(bytes);
            self.osdmap = next;
        }
        if let Some(monmap) = monmap {
            self.monmap = monmap;
        }
        if !auth.is_empty() {
            self.auth.epoch = self.auth.epoch.next();
            for (entity, entry) in auth {
                match entry {
                    Some(entry) => self.auth.entities.insert(entity, entry),
                    None => self.auth.entities.remove(&entity),
                };
            }
        }
        if !batch.config.is_empty() {
            self.config.epoch = self.config.epoch.next();
            for change in &batch.config {
                self.config.set(&change.who, &change.key, change.value.clone());
            }
        }
        for line in &batch.log {
            self.log_seq += 1;
            self.log.push_back(LogLine { seq: self.log_seq, ..line.clone() });
        }
        while self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
        for answer in &batch.answers {
            self.remember(answer);
        }
        Some(batch)
    }

    fn remember(&mut self, answer: &Answer) {
        let Some(reply) = &answer.reply else { return };
        if answer.request() == RequestId::default() {
            return;
        }
        let key = (answer.entity.clone(), answer.request());
        let mut reply = reply.clone();
        if reply.encoded_len() > ANSWER_BYTES_MAX {
            reply.output = Bytes::new();
            reply.json = String::new();
        }
        if self.answers.insert(key.clone(), reply).is_none() {
            self.answer_order.push_back(key);
        }
        while self.answer_order.len() > ANSWERS_MAX {
            if let Some(key) = self.answer_order.pop_front() {
                self.answers.remove(&key);
            }
        }
    }

    pub fn check(&self) {
        assert_eq!(self.history.newest(), self.osdmap.epoch());
        assert_eq!(self.answers.len(), self.answer_order.len());
        assert!(
            self.log.len() <= LOG_LINES_MAX && self.log.back().is_none_or(|line| line.seq == self.log_seq)
        );
        let ids: std::collections::BTreeSet<u64> = self.monmap.mons.values().map(|mon| mon.raft_id).collect();
        assert_eq!(ids.len(), self.monmap.mons.len(), "Raft numbers are unique");
    }
}

fn decode_auth(change: &AuthChange) -> Option<(EntityName, Option<AuthEntry>)> {
    let entity = change.entity.parse().ok()?;
    let Some(entry) = &change.entry else { return Some((entity, None)) };
    let mut caps = BTreeMap::new();
    for (service, text) in &entry.caps {
        caps.insert(service.clone(), text.parse().ok()?);
    }
    Some((entity, Some(AuthEntry { caps, created_ms: entry.created_ms })))
}
