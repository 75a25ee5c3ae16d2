//! A cluster's first state, and the records of a monitor that joins one.

use crate::error::OpenError;
use crate::event::Write;
use crate::mon::Bootstrap;
use crate::options;
use crate::quorum::Checkpoint;
use crate::records::{self, Identity};
use crate::service::Service;
use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_maps::{AuthEntry, AuthMap, Incremental, MonMap, OsdMap};
use nacre_types::Epoch;
use raft::eraftpb::{ConfState, HardState};
use std::collections::BTreeMap;

fn bad(reason: impl ToString) -> OpenError {
    OpenError::Config(reason.to_string())
}

pub(crate) fn first(name: &str, bootstrap: &Bootstrap) -> Result<Vec<Write>, OpenError> {
    let monmap = MonMap::initial(&bootstrap.fsid, &bootstrap.mons);
    let me =
        monmap.mons.get(name).ok_or_else(|| bad(format!("mon.{name} is not among the first monitors")))?;
    let mut crush = CrushMap::initial();
    if bootstrap.failure_domain != "host" {
        crush.remove_rule("replicated_rule").map_err(bad)?;
        crush
            .create_replicated_rule("replicated_rule", "default", &bootstrap.failure_domain, None)
            .map_err(bad)?;
    }
    let empty = OsdMap::initial(&bootstrap.fsid, crush, bootstrap.created_ms).map_err(bad)?;
    let osdmap = empty.apply(&Incremental::after(&empty, bootstrap.created_ms)).map_err(bad)?;
    let mut auth = AuthMap { epoch: Epoch(1), ..AuthMap::default() };
    for (entity, texts) in &bootstrap.entities {
        let mut caps = BTreeMap::new();
        for (service, text) in texts {
            caps.insert(service.clone(), text.parse().map_err(bad)?);
        }
        auth.entities.insert(entity.clone(), AuthEntry { caps, created_ms: bootstrap.created_ms });
    }
    let (key, cert) = (bootstrap.ca_key_pem.clone(), bootstrap.ca_cert_pem.clone());
    let mut service = Service::new(osdmap, monmap.clone(), auth, key, cert);
    service.config.epoch = Epoch(1);
    for (who, values) in &bootstrap.settings {
        for (key, value) in values {
            let option = options::find(key).ok_or_else(|| bad(format!("there is no setting '{key}'")))?;
            service.config.set(who, key, Some(option.parse(value).map_err(bad)?));
        }
    }
    let members =
        ConfState { voters: monmap.mons.values().map(|mon| mon.raft_id).collect(), ..ConfState::default() };
    let identity = Identity::new(&bootstrap.fsid, name, me.raft_id, monmap.encode());
    let checkpoint = Checkpoint { index: 1, term: 1, members, state: service.encode() };
    Ok(vec![
        records::identity(&identity),
        records::hard_state(&HardState { term: 1, vote: 0, commit: 1 }),
        records::checkpoint(&checkpoint),
    ])
}

pub(crate) fn joining(name: &str, monmap: &MonMap) -> Result<Vec<Write>, OpenError> {
    let me = monmap.mons.get(name);
    let me = me.ok_or_else(|| {
        bad(format!("the monmap has no mon.{name}: run `nacre mon add {name} ADDRESS` first"))
    })?;
    let monmap_bytes: Bytes = monmap.encode();
    Ok(vec![records::identity(&Identity::new(&monmap.fsid, name, me.raft_id, monmap_bytes))])
}
