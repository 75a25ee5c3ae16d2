//! Objects no good copy of which is reachable: which they are, who was asked, and giving them up.

use super::bad_copies::Tried;
use super::revert::Outlook;
use super::{Stage, remove_object};
use crate::log::Entry;
use crate::pg::{Pg, PgContext};
use nacre_maps::OsdInfo;
use nacre_types::{EVersion, Needs, ObjectId, OsdId};
use nacre_wire::messages::{LogKind, LogLevel};
use nacre_wire::{ErrorCode, Transaction};
use serde_json::{Value, json};

/// Objects told of at once.
const TOLD_MAX: usize = 1000;

/// What an administrator wants done with unfound objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveUp {
    /// The newest version that somebody has is to be theirs again.
    Revert,
    /// They are to be gone.
    Delete,
}

type Refusal = (ErrorCode, String);

impl GiveUp {
    /// Of a command's `mode` and `yes`.
    fn read(json: &str) -> Result<(GiveUp, bool), Refusal> {
        let bad = |text: String| (ErrorCode::InvalidArgument, text);
        let value: Value = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        let mode = match value.get("mode").and_then(Value::as_str) {
            Some("revert") => GiveUp::Revert,
            Some("delete") => GiveUp::Delete,
            Some(other) => return Err(bad(format!("mode '{other}' is not known: say revert or delete"))),
            None => return Err(bad("say what is to be done with them: mode revert or delete".into())),
        };
        Ok((mode, value.get("yes").and_then(Value::as_bool).unwrap_or(false)))
    }
}

impl Pg {
    /// Whether an unfound object can go back to the version before, and nobody would miss anything.
    pub(crate) fn reverts_unseen(&self, object: &ObjectId) -> bool {
        !self.recovery.unseen.is_empty() && self.revert_outlook(object).is_ok_and(|outlook| outlook.harmless)
    }

    /// Members since the PG was last clean, and whoever has a place in it, that are down and were not declared lost: what
    /// nobody else has, they may have.
    pub(crate) fn absent(&self, ctx: &PgContext<'_>) -> Vec<OsdId> {
        let mut osds = ctx.map.pg_candidates(self.id);
        osds.extend(self.past.participants());
        osds.retain(|&osd| osd != self.me && ctx.map.osd(osd).is_some_and(OsdInfo::may_return));
        osds.into_iter().collect()
    }

    /// Whether every copy of the object is damaged, so that to wait for one is in vain.
    pub(crate) fn is_damaged(&self, ctx: &PgContext<'_>, object: &ObjectId) -> bool {
        self.is_damaged_here(object) && self.absent(ctx).is_empty()
    }

    /// The same of those copies that could be asked for.
    fn is_damaged_here(&self, object: &ObjectId) -> bool {
        self.recovery.unfound.contains(object)
            && self.recovery.tried.get(object).is_some_and(Tried::is_damaged)
    }

    /// No source is left for a missing object.
    pub(super) fn is_unfound(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId, need: EVersion) {
        if !self.recovery.unfound.insert(object.clone()) {
            return;
        }
        let tried = self.recovery.tried.entry(object.clone()).or_default();
        if !std::mem::replace(&mut tried.told, true) {
            ctx.log(LogLevel::Warning, format!("PG {}: {object} at {need} is unfound", self.id));
        }
        self.recovery_changed(ctx);
    }

    /// Unfound objects for which a source turned up, or that a disk may give after all, are missing ones again.
    pub(super) fn look_for_unfound(&mut self, ctx: &mut PgContext<'_>) {
        for object in self.recovery.unfound.clone() {
            let found = match self.missing.get(&object) {
                None => true,
                Some(missing) => {
                    !self.sources(ctx, &object, missing.need).is_empty()
                        || self.ask_disks_again(ctx, &object, missing)
                }
            };
            if found {
                self.recovery.unfound.remove(&object);
                self.recovery_changed(ctx);
            }
        }
        // Whoever was waited for may have been declared lost.
        if self.recovery.unfound.iter().any(|object| self.is_damaged_here(object))
            && self.absent(ctx).is_empty()
        {
            ctx.requests.kick.insert(self.id);
        }
    }

    /// What operations on an unfound object wait for.
    pub(crate) fn needs_found(&self, head: &ObjectId) -> Needs {
        Needs::Unfound { objects: 1, unseen: self.reverts_unseen(head).into() }
    }

    pub(super) fn needs_all_found(&self) -> Needs {
        let unfound = &self.recovery.unfound;
        let unseen = unfound.iter().filter(|object| self.reverts_unseen(object)).count();
        Needs::Unfound { objects: unfound.len() as u64, unseen: unseen as u64 }
    }

    /// The unfound objects, what was tried, and what could be done.
    pub(crate) fn list_unfound(&self, ctx: &PgContext<'_>) -> String {
        let absent = self.absent(ctx);
        let mut candidates = self.past.participants().clone();
        candidates.extend(&absent);
        candidates.extend(self.peers.keys());
        candidates.remove(&self.me);
        let objects = self.recovery.unfound.iter().take(TOLD_MAX).filter_map(|object| {
            let missing = self.missing.get(object)?;
            let asked: Vec<Value> = candidates
                .iter()
                .map(|&osd| json!({"osd": osd.0, "status": self.asked_of(ctx, osd, object)}))
                .collect();
            let revert = match self.revert_outlook(object) {
                Ok(Outlook { to, harmless, .. }) if to.seq > 0 => {
                    json!({"to": to.to_string(), "loses_nothing": harmless})
                }
                Ok(outlook) => json!({"to": "not existing", "loses_nothing": outlook.harmless}),
                Err(why) => json!({"impossible": why}),
            };
            Some(json!({
                "object": object.to_string(),
                "need": missing.need.to_string(),
                "have": missing.have.to_string(),
                "damaged": absent.is_empty() && self.is_damaged_here(object),
                "unreadable_here": missing.unread,
                "osds": asked,
                "revert": revert,
            }))
        });
        let objects: Vec<Value> = objects.collect();
        json!({
            "pgid": self.id.to_string(),
            "num_unfound": self.recovery.unfound.len(),
            "objects": objects,
        })
        .to_string()
    }

    fn asked_of(&self, ctx: &PgContext<'_>, osd: OsdId, object: &ObjectId) -> &'static str {
        let pulled = self.recovery.active.get(object);
        if !ctx.map.is_up(osd) {
            "osd is down"
        } else if pulled.is_some_and(|one| matches!(one.stage, Stage::Pull { from, .. } if from == osd)) {
            "querying"
        } else if self.peers.get(&osd).and_then(|peer| peer.missing.get(object)).is_some_and(|one| one.unread)
        {
            "its disk does not give it"
        } else if self.peers.contains_key(&osd) {
            "already probed"
        } else {
            "not queried"
        }
    }

    /// An administrator gives up on what cannot be found, for good and on all members.
    pub(crate) fn mark_unfound_lost(
        &mut self,
        ctx: &mut PgContext<'_>,
        json: &str,
    ) -> Result<String, Refusal> {
        let (mode, sure) = GiveUp::read(json)?;
        if self.recovery.unfound.is_empty() {
            return Err((ErrorCode::NotFound, format!("PG {} has no unfound objects", self.id)));
        }
        match mode {
            GiveUp::Revert => self.revert_unfound(ctx, sure),
            GiveUp::Delete if !sure => {
                let text =
                    "this deletes the objects on all OSDs for ever: repeat it with --yes-i-really-mean-it";
                Err((ErrorCode::InvalidArgument, text.into()))
            }
            GiveUp::Delete => self.delete_unfound(ctx),
        }
    }

    fn revert_unfound(&mut self, ctx: &mut PgContext<'_>, sure: bool) -> Result<String, Refusal> {
        let looked = self.recovery.unfound.iter().map(|object| (object.clone(), self.revert_outlook(object)));
        let looked: Vec<(ObjectId, Result<Outlook, &str>)> = looked.collect();
        let mut left = Vec::new();
        let mut reverted = 0;
        for (object, outlook) in looked {
            match outlook {
                Ok(Outlook { to, harmless: false, .. }) if !sure => {
                    let why =
                        format!("going back to {to} loses what clients were told is done, or have read");
                    left.push(json!({"object": object.to_string(), "why": why}));
                }
                Ok(outlook) => {
                    let text = format!("PG {}: {object} is reverted to {}", self.id, outlook.to);
                    ctx.log(if outlook.harmless { LogLevel::Info } else { LogLevel::Error }, text);
                    self.revert(ctx, &object, outlook).map_err(|error| self.store_refusal(ctx, &error))?;
                    reverted += 1;
                }
                // It may have gone with its head.
                Err(_) if !self.recovery.unfound.contains(&object) => reverted += 1,
                Err(why) => left.push(json!({"object": object.to_string(), "why": why})),
            }
        }
        self.kick(ctx);
        if reverted == 0 {
            let why =
                left.first().map(|one| format!("{}: {}", one["object"], one["why"])).unwrap_or_default();
            return Err((
                ErrorCode::InvalidArgument,
                format!("none of the unfound objects was reverted; {why}"),
            ));
        }
        Ok(json!({"pgid": self.id.to_string(), "reverted": reverted, "left": left}).to_string())
    }

    fn delete_unfound(&mut self, ctx: &mut PgContext<'_>) -> Result<String, Refusal> {
        let unfound = std::mem::take(&mut self.recovery.unfound);
        for object in &unfound {
            let Some(missing) = self.missing.get(object) else { continue };
            let mut t = Transaction::new(self.id);
            remove_object(ctx.store, &mut t, object).map_err(|error| self.store_refusal(ctx, &error))?;
            let text = format!("PG {}: {object} at {} is given up as lost", self.id, missing.need);
            ctx.log(LogLevel::Error, text);
            let entry = Entry::new(LogKind::Lost, object.clone(), self.next_version(ctx), missing.need);
            self.replicate(ctx, object.clone(), t, vec![entry.encode()], None);
        }
        self.kick(ctx);
        Ok(json!({"pgid": self.id.to_string(), "deleted": unfound.len()}).to_string())
    }

    fn store_refusal(&mut self, ctx: &mut PgContext<'_>, error: &nacre_store::StoreError) -> Refusal {
        self.recovery_store_failed(ctx, error);
        (ErrorCode::Io, error.to_string())
    }
}
