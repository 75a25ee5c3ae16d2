//! Commands: what people and programs ask of the monitors. One table says what each needs and who handles it.

mod args;
mod auth;
mod config;
mod crush;
mod mon;
mod osd;
mod pg;
mod pool;
mod status;

pub(crate) use args::{Args, Failure, Reply};

use crate::draft::Draft;
use crate::leader::Memory;
use crate::service::Service;
use nacre_maps::Access;
use nacre_types::{EntityName, Instant};
use nacre_wire::ErrorCode;
use nacre_wire::messages::CommandReply;

/// What a handler may look at besides the state.
pub(crate) struct Context<'a> {
    pub now: Instant,
    /// What this leader knows from reports.
    pub memory: &'a Memory,
    pub quorum: QuorumView,
    pub version: &'a str,
    /// Who asks.
    pub entity: &'a EntityName,
    /// A certificate made for this command, if it asked for one.
    pub cert_pem: Option<&'a str>,
}

/// Who leads and who is there, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuorumView {
    pub me: String,
    pub leader: Option<String>,
    pub term: u64,
    pub in_quorum: Vec<String>,
    pub silent: Vec<String>,
    pub learners: Vec<String>,
    /// Milliseconds this leader has led.
    pub leading_ms: u64,
}

type Read = fn(&Service, &Context<'_>, &Args) -> Result<Reply, Failure>;
type Change = fn(&mut Draft<'_>, &Context<'_>, &Args) -> Result<Reply, Failure>;

#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Read(Read),
    Change(Change),
}

pub(crate) struct Entry {
    pub prefix: &'static str,
    pub access: Access,
    pub handler: Handler,
    /// Arguments it understands; any other is an error.
    pub arguments: &'static [&'static str],
}

const fn read(prefix: &'static str, arguments: &'static [&'static str], handler: Read) -> Entry {
    Entry { prefix, access: Access::READ, handler: Handler::Read(handler), arguments }
}

const fn change(prefix: &'static str, arguments: &'static [&'static str], handler: Change) -> Entry {
    let access = Access { read: true, write: true, execute: false };
    Entry { prefix, access, handler: Handler::Change(handler), arguments }
}

/// Identity and membership: only for whoever may do everything.
const fn admin(prefix: &'static str, arguments: &'static [&'static str], handler: Change) -> Entry {
    Entry { prefix, access: Access::ALL, handler: Handler::Change(handler), arguments }
}

const TABLE: &[Entry] = &[
    read("status", &[], status::status),
    read("health", &["detail"], status::health),
    read("df", &["detail"], status::df),
    read("fsid", &[], status::fsid),
    read("version", &[], status::version),
    read("versions", &[], status::versions),
    read("explain", &["osds", "pgid", "entity", "local"], crate::explain::explain),
    read("quorum_status", &[], mon::quorum_status),
    read("mon stat", &[], mon::stat),
    read("mon dump", &[], mon::dump),
    admin("mon add", &["name", "address"], mon::add),
    admin("mon rm", &["name"], mon::rm),
    read("log last", &["num", "level"], status::log_last),
    change("log", &["text"], status::log),
    read("osd tree", &[], osd::tree),
    read("osd df", &[], osd::df),
    read("osd stat", &[], osd::stat),
    read("osd dump", &["epoch"], osd::dump),
    read("osd ls", &[], osd::ls),
    read("osd find", &["id"], osd::find),
    change("osd new", &["uuid", "id"], osd::new),
    change("osd in", &["ids"], osd::mark_in),
    change("osd out", &["ids"], osd::mark_out),
    change("osd down", &["ids"], osd::mark_down),
    change("osd lost", &["id", "yes"], osd::lost),
    change("osd rm", &["id", "ids", "force"], osd::rm),
    change("osd purge", &["id", "ids", "force"], osd::rm),
    change("osd reweight", &["id", "weight"], osd::reweight),
    change("osd primary-affinity", &["id", "weight"], osd::primary_affinity),
    change("osd set", &["key"], osd::set_flag),
    change("osd unset", &["key"], osd::unset_flag),
    change("osd set-nearfull-ratio", &["ratio"], osd::set_nearfull),
    change("osd set-backfillfull-ratio", &["ratio"], osd::set_backfillfull),
    change("osd set-full-ratio", &["ratio"], osd::set_full),
    read("osd ok-to-stop", &["ids", "id"], osd::ok_to_stop),
    read("osd safe-to-destroy", &["ids", "id"], osd::safe_to_destroy),
    change("osd blocklist add", &["client", "expire"], osd::blocklist_add),
    change("osd blocklist rm", &["client"], osd::blocklist_rm),
    read("osd blocklist ls", &[], osd::blocklist_ls),
    change("osd pool create", &["pool", "pg_num", "size", "min_size", "rule", "application"], pool::create),
    read("osd pool ls", &["detail"], pool::ls),
    read("osd pool get", &["pool", "var"], pool::get),
    change("osd pool set", &["pool", "var", "val", "yes"], pool::set),
    change("osd pool set-quota", &["pool", "field", "val"], pool::set_quota),
    change("osd pool rename", &["pool", "to"], pool::rename),
    change("osd pool rm", &["pool", "pool2", "yes"], pool::rm),
    change("osd pool application enable", &["pool", "app"], pool::application_enable),
    change("selfmanaged-snap create", &["pool"], pool::snap_create),
    change("selfmanaged-snap rm", &["pool", "snapid"], pool::snap_rm),
    change("osd pg-upmap", &["pgid", "ids"], pg::upmap),
    change("osd rm-pg-upmap", &["pgid"], pg::rm_upmap),
    change("osd pg-upmap-items", &["pgid", "ids"], pg::upmap_items),
    change("osd rm-pg-upmap-items", &["pgid"], pg::rm_upmap_items),
    change("osd force-create-pg", &["pgid", "yes"], pg::force_create),
    read("pg ls", &["pool", "osd", "states"], pg::ls),
    read("pg dump", &[], pg::dump),
    read("pg map", &["pgid"], pg::map),
    read("pg stat", &[], pg::stat),
    read("osd map", &["pool", "object", "namespace"], pg::osd_map),
    read("osd crush get", &[], crush::get),
    change("osd crush set", &[], crush::set),
    read("osd crush rule ls", &[], crush::rule_ls),
    read("osd crush rule dump", &["name"], crush::rule_dump),
    change("osd crush rule create-replicated", &["name", "root", "type", "class"], crush::rule_create),
    change("osd crush rule rm", &["name"], crush::rule_rm),
    change("osd crush reweight", &["name", "weight"], crush::reweight),
    change("osd crush add", &["id", "weight", "location"], crush::add),
    change("osd crush add-bucket", &["name", "type", "location"], crush::add_bucket),
    change("osd crush move", &["name", "location"], crush::move_item),
    change("osd crush rm", &["name"], crush::rm),
    change("osd crush set-device-class", &["class", "ids"], crush::set_device_class),
    change("config set", &["who", "name", "value"], config::set),
    change("config rm", &["who", "name"], config::rm),
    read("config get", &["who", "name"], config::get),
    read("config dump", &[], config::dump),
    read("config ls", &[], config::ls),
    read("config help", &["name"], config::help),
    read("auth ls", &[], auth::ls),
    read("auth get", &["entity"], auth::get),
    admin("auth get-or-create", &["entity", "caps", "csr"], auth::get_or_create),
    admin("auth caps", &["entity", "caps"], auth::caps),
    admin("auth rm", &["entity"], auth::rm),
];

/// A command that has been read and found in the table.
#[derive(Clone)]
pub(crate) struct Parsed {
    pub prefix: &'static str,
    pub access: Access,
    pub handler: Handler,
    pub args: Args,
}

pub(crate) fn parse(command: &nacre_wire::messages::Command) -> Result<Parsed, Failure> {
    let args = Args::parse(command)?;
    let prefix = args.text("prefix")?;
    let Some(entry) = TABLE.iter().find(|entry| entry.prefix == prefix) else {
        let words: Vec<&str> = prefix.split_whitespace().collect();
        let near: Vec<&str> = TABLE
            .iter()
            .map(|entry| entry.prefix)
            .filter(|known| known.split(' ').next() == words.first().copied())
            .collect();
        let hint = if near.is_empty() { String::new() } else { format!("; there are {}", near.join(", ")) };
        let shown: String = prefix.chars().take(60).collect();
        return Err(Failure::invalid(format!("'{shown}' is no command of the monitors{hint}")));
    };
    args.only(entry.prefix, entry.arguments)?;
    Ok(Parsed { prefix: entry.prefix, access: entry.access, handler: entry.handler, args })
}

/// Whether an entity may give a command.
pub(crate) fn permit(service: &Service, entity: &EntityName, parsed: &Parsed) -> Result<(), Failure> {
    if !service.auth.contains(entity) {
        let text = format!("{entity} is not known to this cluster: its entry was removed or never made");
        return Err(Failure::new(ErrorCode::NotPermitted, text));
    }
    let allowed = service.auth.caps(entity, "mon").is_some_and(|caps| caps.allow_anywhere(parsed.access));
    // Clients of object storage allocate snapshots in the pools they may write to.
    let snaps = parsed.prefix.starts_with("selfmanaged-snap")
        && parsed.args.text("pool").is_ok_and(|pool| {
            let write = Access { read: true, write: true, execute: false };
            service.auth.allow_object(entity, write, pool, "")
        });
    if allowed || snaps {
        return Ok(());
    }
    let needed = match parsed.access {
        access if access == Access::ALL => "allow *",
        access if access.write => "allow rw",
        _ => "allow r",
    };
    Err(Failure::new(
        ErrorCode::NotPermitted,
        format!(
            "{entity} may not '{}': that needs mon '{needed}'; an administrator grants it with `nacre auth caps {entity}`",
            parsed.prefix
        ),
    ))
}

pub(crate) fn reply_of(result: Result<Reply, Failure>) -> CommandReply {
    match result {
        Ok(reply) => CommandReply {
            code: ErrorCode::Ok as i32,
            message: reply.message,
            json: reply.json.map_or_else(String::new, |json| json.to_string()),
            output: reply.output.into(),
            epoch: 0,
        },
        Err(failure) => {
            CommandReply { code: failure.code as i32, message: failure.message, ..CommandReply::default() }
        }
    }
}
