//! A client's request at the door: is this the right OSD, is the sender allowed and not fenced.

use super::Osd;
use super::boot::Phase;
use crate::OsdEffect;
use crate::ops::{ReadCache, is_mutation};
use crate::pg::{ClientOp, Stage};
use crate::stages::Stopwatch;
use nacre_maps::{Access, Caps};
use nacre_store::ObjectStore;
use nacre_types::{EntityName, Instant, Needs, ObjectId, Outbox, PgId};
use nacre_wire::op::{OBJECT_OPS_MAX, ObjectOpKind, OsdOp, OsdOpReply};
use nacre_wire::{Address, ErrorCode, Message, Packet, Peer};

/// What a request needs to be allowed.
fn access(op: &OsdOp) -> Access {
    let mut needed = Access { read: op.list.is_some(), ..Access::default() };
    for kind in op.ops.iter().filter_map(|op| op.kind.as_ref()) {
        use ObjectOpKind::*;
        match kind {
            Lock(_) | Unlock(_) | BreakLock(_) => (needed.write, needed.execute) = (true, true),
            Watch(_) | Notify(_) | NotifyAck(_) => (needed.read, needed.execute) = (true, true),
            kind if kind.is_mutation() => needed.write = true,
            _ => needed.read = true,
        }
    }
    needed
}

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn on_osd_op(
        &mut self,
        now: Instant,
        from: Peer,
        packet: Packet,
        out: &mut Outbox<OsdEffect>,
    ) {
        if self.core.phase == Phase::Stopped {
            return;
        }
        let waits = self.core.auth.is_none() || packet.epoch > self.core.maps.epoch();
        if waits || matches!(self.core.phase, Phase::Starting | Phase::Booting) {
            return self.hold(from, packet);
        }
        let (session, request, named) = (from.session, packet.request, packet.pg);
        if let Message::OsdOp(OsdOp { times: Some(times), .. }) = &packet.message {
            self.core.stages.told(request.client, times);
        }
        match self.check_op(now, from, packet) {
            Ok((id, op)) => self.with_pg(now, out, id, |pg, ctx| pg.admit(ctx, op)),
            Err((code, message)) => {
                let reply = OsdOpReply { code: code as i32, message, ..OsdOpReply::default() };
                let mut packet = self.core.packet(reply).request(request);
                packet.pg = named;
                out.push(OsdEffect::Send { to: Address::Session(session), packet });
            }
        }
    }

    fn check_op(
        &mut self,
        now: Instant,
        from: Peer,
        packet: Packet,
    ) -> Result<(PgId, ClientOp), (ErrorCode, String)> {
        let Message::OsdOp(message) = packet.message else {
            return Err((ErrorCode::Internal, "no operation".into()));
        };
        let map = self.core.maps.current().clone();
        if message.ops.len() > OBJECT_OPS_MAX {
            let text = format!("{} operations in one request, at most {OBJECT_OPS_MAX}", message.ops.len());
            return Err((ErrorCode::InvalidArgument, text));
        }
        if message.ops.iter().any(|op| op.kind.is_none()) {
            return Err((
                ErrorCode::NotSupported,
                "an operation is of a kind this version does not know".into(),
            ));
        }
        let (id, object) = match (&message.object, &message.list) {
            (Some(name), None) => {
                let object = name.decode().map_err(|e| (ErrorCode::InvalidArgument, e.to_string()))?;
                let id = map.object_pg(&object).ok_or_else(|| no_pool(object.pool))?;
                (id, object)
            }
            (None, Some(_)) => {
                let id =
                    packet.pg.ok_or((ErrorCode::InvalidArgument, "a listing names no PG".to_string()))?;
                if !map.pg_exists(id) {
                    return Err(no_pool(id.pool));
                }
                // Listings queue among themselves, under a name that no object has.
                let object = ObjectId {
                    pool: id.pool,
                    hash: 0,
                    namespace: String::new(),
                    name: String::new(),
                    snap: nacre_types::SnapId::HEAD,
                };
                (id, object)
            }
            _ => return Err((ErrorCode::InvalidArgument, "a request names an object or a listing".into())),
        };
        let pool = map.pool(id.pool).ok_or_else(|| no_pool(id.pool))?;
        let namespace = message.list.as_ref().map_or(Some(&object.namespace), |list| list.namespace.as_ref());
        let needed = access(&message);
        if !self.may(&from.entity, needed, &pool.name, namespace.map(String::as_str)) {
            let text = format!(
                "{} may not do that in pool {}: its osd caps do not allow it",
                from.entity, pool.name
            );
            return Err((ErrorCode::NotPermitted, text));
        }
        if map.is_blocklisted(packet.request.client) && !nacre_types::mutant!(BlocklistIgnored) {
            return Err((ErrorCode::Fenced, format!("client {} is blocklisted", packet.request.client)));
        }
        let primary = map.pg(id).and_then(|place| place.primary());
        if primary != Some(self.core.config.id) || !self.pgs.contains_key(&id) {
            let text = match primary {
                Some(primary) => format!("the primary of PG {id} is {primary}, by epoch {}", map.epoch()),
                None => format!("PG {id} has no primary in epoch {}", map.epoch()),
            };
            return Err((ErrorCode::TryAgain, text));
        }
        let write = is_mutation(&message.ops);
        let stopwatch = Stopwatch::start(message.measured, now);
        let op = ClientOp {
            from,
            request: packet.request,
            sent_in: packet.epoch,
            message,
            data: packet.data,
            object,
            write,
            received: now,
            stage: Stage::Queued,
            reads: ReadCache::new(),
            wanted: Vec::new(),
            arrived: Vec::new(),
            wait: Needs::Turn,
            watch: Vec::new(),
            stopwatch,
        };
        Ok((id, op))
    }

    /// A listing without a namespace sees all of them: only a grant for all allows that.
    fn may(&self, entity: &EntityName, needed: Access, pool: &str, namespace: Option<&str>) -> bool {
        if matches!(entity, EntityName::Osd(_)) {
            return true;
        }
        // No namespace has a NUL in its name: only a grant without one matches it.
        let namespace = namespace.unwrap_or("\0");
        let caps: Option<&Caps> = self.core.auth.as_ref().and_then(|auth| auth.caps(entity, "osd"));
        caps.is_some_and(|caps| caps.allow(needed, pool, namespace))
    }
}

fn no_pool(pool: nacre_types::PoolId) -> (ErrorCode, String) {
    (ErrorCode::NotFound, format!("there is no pool {pool}"))
}
