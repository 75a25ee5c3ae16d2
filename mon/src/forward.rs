//! Commands that came to this monitor and are not answered yet. Whoever leads handles them; when the leader changes
//! they are handed to the next one, and none waits for ever.

use nacre_types::{Instant, RequestId};
use nacre_wire::SessionId;
use nacre_wire::messages::Command;
use std::collections::BTreeMap;
use std::time::Duration;

/// After which a command handed to the leader is handed over again: the message may have been lost.
const RESEND: Duration = Duration::from_millis(1_000);

#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    pub session: SessionId,
    pub entity: String,
    /// As the client gave it: zero if it gave none.
    pub request: RequestId,
    pub command: Command,
    pub deadline: Instant,
    /// The term whose leader has it, and since when.
    handed: Option<(u64, Instant)>,
}

#[derive(Default)]
pub(crate) struct Forward {
    next: u64,
    commands: BTreeMap<u64, Outstanding>,
    ids: BTreeMap<(String, RequestId), u64>,
}

impl Forward {
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    pub fn get(&self, id: u64) -> Option<&Outstanding> {
        self.commands.get(&id)
    }

    /// Takes a command in. A resend of one that is still out takes over its place.
    pub fn add(
        &mut self,
        session: SessionId,
        entity: String,
        request: RequestId,
        command: Command,
        deadline: Instant,
    ) -> u64 {
        let named = request != RequestId::default();
        let key = (entity.clone(), request);
        if let Some(&id) = self.ids.get(&key).filter(|_| named)
            && let Some(known) = self.commands.get_mut(&id)
        {
            (known.session, known.deadline) = (session, deadline);
            return id;
        }
        self.next += 1;
        if named {
            self.ids.insert(key, self.next);
        }
        let outstanding = Outstanding { session, entity, request, command, deadline, handed: None };
        self.commands.insert(self.next, outstanding);
        self.next
    }

    pub fn remove(&mut self, id: u64) -> Option<Outstanding> {
        let outstanding = self.commands.remove(&id)?;
        self.ids.remove(&(outstanding.entity.clone(), outstanding.request));
        Some(outstanding)
    }

    pub fn session_closed(&mut self, session: SessionId) {
        let ids: Vec<u64> =
            self.commands.iter().filter(|(_, c)| c.session == session).map(|(&id, _)| id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Commands to hand to the leader of `term`, who is this monitor if `local`: then nothing gets lost on the way.
    pub fn due(&mut self, now: Instant, term: u64, local: bool) -> Vec<u64> {
        let mut due = Vec::new();
        for (&id, command) in &mut self.commands {
            let has_it =
                command.handed.is_some_and(|(to, at)| to == term && (local || now.since(at) < RESEND));
            if !has_it {
                command.handed = Some((term, now));
                due.push(id);
            }
        }
        due
    }

    /// The leader lost it: hand it over again at the next occasion.
    pub fn not_handed(&mut self, id: u64) {
        if let Some(command) = self.commands.get_mut(&id) {
            command.handed = None;
        }
    }

    pub fn expired(&mut self, now: Instant) -> Vec<Outstanding> {
        let ids: Vec<u64> =
            self.commands.iter().filter(|(_, c)| c.deadline <= now).map(|(&id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    pub fn check(&self) {
        for ((entity, request), id) in &self.ids {
            let command = self.commands.get(id).expect("an index names a command");
            assert!(&command.entity == entity && &command.request == request);
        }
    }
}
