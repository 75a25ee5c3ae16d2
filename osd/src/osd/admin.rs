//! Questions of administrators: one PG's state, this OSD's, what is slow.

use super::Osd;
use crate::OsdEffect;
use crate::pg::quoted;
use nacre_maps::Access;
use nacre_store::ObjectStore;
use nacre_types::{EntityName, Instant, Outbox, PgId};
use nacre_wire::messages::{PgAdmin, PgAdminReply};
use nacre_wire::{Address, ErrorCode, Message, Packet, Peer};

type Answer = Result<String, (ErrorCode, String)>;

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn on_admin(&mut self, now: Instant, from: Peer, packet: Packet, out: &mut Outbox<OsdEffect>) {
        let Message::PgAdmin(admin) = packet.message else { return };
        let answer = match self.check_admin(&from.entity, &admin) {
            Ok(()) => self.answer_admin(now, packet.pg, &admin, out),
            Err(refusal) => Err(refusal),
        };
        let reply = match answer {
            Ok(json) => PgAdminReply { code: ErrorCode::Ok as i32, message: String::new(), json },
            Err((code, message)) => PgAdminReply { code: code as i32, message, json: String::new() },
        };
        let packet = self.core.packet(reply).request(packet.request);
        out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
    }

    /// Looking needs `r` on everything, acting all of `rwx`.
    fn check_admin(&self, entity: &EntityName, admin: &PgAdmin) -> Result<(), (ErrorCode, String)> {
        let looks = matches!(
            command(admin),
            "query" | "status" | "dump_ops" | "explain" | "list_unfound" | "stages" | "top"
        );
        if self.core.auth.is_none() && command(admin) == "explain" {
            // Nobody's rights are known here yet: that alone is what there is to tell, and it tells no secret.
            return Ok(());
        }
        let needed = if looks { Access::READ } else { Access::ALL };
        let trusted = matches!(entity, EntityName::Mon(_));
        let caps = self.core.auth.as_ref().and_then(|auth| auth.caps(entity, "osd"));
        if trusted || caps.is_some_and(|caps| caps.allow_anywhere(needed)) {
            return Ok(());
        }
        Err((ErrorCode::NotPermitted, format!("{entity} may not do that: its osd caps do not allow it")))
    }

    fn answer_admin(
        &mut self,
        now: Instant,
        pg: Option<PgId>,
        admin: &PgAdmin,
        out: &mut Outbox<OsdEffect>,
    ) -> Answer {
        match command(admin) {
            "status" => return Ok(self.status_json(now, out)),
            "explain" => return Ok(self.explain_json(now, &admin.json, out)),
            "dump_ops" => return Ok(self.dump_ops_json(now)),
            "stages" => {
                let told = self.core.stages.stages_json(self.core.config.id, now, &admin.json);
                return told.map_err(|reason| (ErrorCode::InvalidArgument, reason));
            }
            "top" => return Ok(self.core.stages.top_json(self.core.config.id, now)),
            _ => {}
        }
        let id = match pg {
            Some(id) => id,
            None => named_pg(&admin.json)?,
        };
        let Some(pg) = self.pgs.get_mut(&id) else {
            return Err((ErrorCode::NotFound, format!("{} has no PG {id}", self.core.config.id)));
        };
        self.core.touch(id);
        let mut ctx = self.core.ctx(now, out);
        match command(admin) {
            "query" => Ok(pg.query_json(&ctx)),
            _ if !pg.is_primary() => {
                let text = format!("{} is not the primary of PG {id}", ctx.config.id);
                Err((ErrorCode::TryAgain, text))
            }
            "mark_unfound_lost" if pg.gate(&ctx, true).is_err() => {
                let needs = pg.gate(&ctx, true).err().map(|needs| needs.to_string()).unwrap_or_default();
                Err((ErrorCode::TryAgain, format!("PG {id} waits for {needs}")))
            }
            command => pg.recovery_admin(&mut ctx, command, &admin.json),
        }
    }

    fn status_json(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) -> String {
        let usage = self.core.store.usage();
        let stats = self.core.store.stats();
        let epoch = self.core.maps.epoch();
        let phase = format!("{:?}", self.core.phase);
        let config = &self.core.config;
        let mut json = format!(
            "{{\"osd\":{},\"uuid\":{},\"instance\":\"{:x}\",\"version\":{},\"address\":{},\"phase\":{},\"epoch\":{}",
            config.id.0,
            quoted(&config.uuid),
            config.instance,
            quoted(&config.version),
            quoted(&config.address),
            quoted(&phase),
            epoch.0,
        );
        json += &format!(
            ",\"total_bytes\":{},\"used_bytes\":{},\"transactions\":{},\"journal_writes\":{},\"flushes\":{},\
             \"checkpoints\":{},\"discards\":{},\"discarded_bytes\":{},\"discard_errors\":{},\"reads\":{},\
             \"checksum_errors\":{}",
            usage.total_bytes,
            usage.used_bytes,
            stats.transactions,
            stats.journal_writes,
            stats.flushes,
            stats.checkpoints,
            stats.discards,
            stats.discarded_bytes,
            stats.discard_errors,
            stats.reads,
            stats.checksum_errors,
        );
        let silent: Vec<String> = self
            .core
            .heartbeat
            .peers()
            .map(|(osd, heard)| {
                format!("{{\"osd\":{},\"silent_ms\":{}}}", osd.0, now.since(heard).as_millis())
            })
            .collect();
        json += &format!(",\"heartbeat_peers\":[{}]", silent.join(","));
        let Osd { core, pgs } = self;
        let ctx = core.ctx(now, out);
        let pgs: Vec<String> = pgs
            .values()
            .map(|pg| {
                format!(
                    "{{\"pgid\":{},\"state\":{},\"primary\":{},\"objects\":{}}}",
                    quoted(&pg.id.to_string()),
                    quoted(&pg.state_words(&ctx)),
                    pg.is_primary(),
                    pg.info.objects
                )
            })
            .collect();
        json += &format!(",\"pgs\":[{}]}}", pgs.join(","));
        json
    }

    fn dump_ops_json(&self, now: Instant) -> String {
        let mut ops = Vec::new();
        for pg in self.pgs.values() {
            for wait in pg.why() {
                let mut wait = crate::explain::wait_json(now, &wait);
                wait["pgid"] = pg.id.to_string().into();
                ops.push(wait.to_string());
            }
        }
        format!("{{\"ops\":[{}]}}", ops.join(","))
    }
}

/// The command's word, without a leading `pg` or `osd`, with `-` and spaces as `_`.
fn command(admin: &PgAdmin) -> &str {
    let command = admin.command.trim();
    let bare = command.strip_prefix("pg ").or_else(|| command.strip_prefix("osd ")).unwrap_or(command);
    match bare {
        "dump ops" | "dump-ops" => "dump_ops",
        "dump_ops_in_flight" | "ops" => "dump_ops",
        "deep-scrub" => "deep_scrub",
        other => other,
    }
}

/// The `pgid` of the command's JSON.
fn named_pg(json: &str) -> Result<PgId, (ErrorCode, String)> {
    let bad = |reason: String| (ErrorCode::InvalidArgument, reason);
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
    let text = value.get("pgid").and_then(|pgid| pgid.as_str());
    let text = text.ok_or_else(|| bad("which PG? give pgid, like 1.2f".into()))?;
    text.parse().map_err(|e: nacre_types::IdParseError| bad(e.to_string()))
}
