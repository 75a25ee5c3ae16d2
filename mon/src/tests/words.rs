//! Commands: what they take, refuse and say.

use super::harness::World;
use nacre_types::ClientId;
use nacre_wire::ErrorCode;
use serde_json::{Value, json};

fn world() -> World {
    let mut world = World::new(1, 1);
    world.elect();
    for host in ["h1", "h2", "h3"] {
        world.add_osd(host);
    }
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 8}));
    world
}

#[test]
fn bad_input_gets_a_clear_error() {
    let mut world = world();
    let table: &[(Value, ErrorCode, &str)] = &[
        (json!({"prefix": "osd frobnicate"}), ErrorCode::InvalidArgument, "no command"),
        (json!({"prefix": 3}), ErrorCode::InvalidArgument, "must be text"),
        (json!({}), ErrorCode::InvalidArgument, "'prefix' is missing"),
        (json!([1]), ErrorCode::InvalidArgument, "JSON object"),
        (json!({"prefix": "osd pool create"}), ErrorCode::InvalidArgument, "'pool' is missing"),
        (
            json!({"prefix": "osd pool create", "pool": "a b"}),
            ErrorCode::InvalidArgument,
            "cannot be a pool's name",
        ),
        (
            json!({"prefix": "osd pool create", "pool": "q", "colour": 1}),
            ErrorCode::InvalidArgument,
            "no argument 'colour'",
        ),
        (
            json!({"prefix": "osd pool create", "pool": "q", "size": 11}),
            ErrorCode::InvalidArgument,
            "between 1 and 10",
        ),
        (
            json!({"prefix": "osd pool create", "pool": "q", "size": 1}),
            ErrorCode::NotPermitted,
            "mon_allow_pool_size_one",
        ),
        (
            json!({"prefix": "osd pool create", "pool": "q", "rule": "x"}),
            ErrorCode::NotFound,
            "no CRUSH rule",
        ),
        (
            json!({"prefix": "osd pool create", "pool": "q", "pg_num": 99999999}),
            ErrorCode::InvalidArgument,
            "pg_num",
        ),
        (
            json!({"prefix": "osd pool set", "pool": "p", "var": "x", "val": "1"}),
            ErrorCode::InvalidArgument,
            "no setting 'x'",
        ),
        (
            json!({"prefix": "osd pool set", "pool": "p", "var": "min_size", "val": 1}),
            ErrorCode::NotPermitted,
            "only once",
        ),
        (json!({"prefix": "osd pool rm", "pool": "p"}), ErrorCode::NotPermitted, "name twice"),
        (
            json!({"prefix": "osd pool rm", "pool": "p", "pool2": "p", "yes": true}),
            ErrorCode::NotPermitted,
            "mon_allow_pool_delete",
        ),
        (json!({"prefix": "osd out", "ids": ["7"]}), ErrorCode::NotFound, "no osd.7"),
        (json!({"prefix": "osd out", "ids": "x"}), ErrorCode::InvalidArgument, "not an OSD id"),
        (
            json!({"prefix": "osd reweight", "id": 1, "weight": 2}),
            ErrorCode::InvalidArgument,
            "between 0 and 1",
        ),
        (json!({"prefix": "osd rm", "id": 1}), ErrorCode::Busy, "is up"),
        (json!({"prefix": "osd set", "key": "nope"}), ErrorCode::InvalidArgument, "not a cluster flag"),
        (json!({"prefix": "osd set-full-ratio", "ratio": 0.5}), ErrorCode::InvalidArgument, "nearfull <"),
        (
            json!({"prefix": "config set", "who": "osd", "name": "nope", "value": 1}),
            ErrorCode::NotFound,
            "no setting",
        ),
        (
            json!({"prefix": "config set", "who": "osd", "name": "osd_max_backfills", "value": 0}),
            ErrorCode::InvalidArgument,
            "1 to 64",
        ),
        (
            json!({"prefix": "config set", "who": "client", "name": "osd_max_backfills", "value": 1}),
            ErrorCode::InvalidArgument,
            "do nothing",
        ),
        (
            json!({"prefix": "config set", "who": "us", "name": "osd_max_backfills", "value": 1}),
            ErrorCode::InvalidArgument,
            "nobody",
        ),
        (
            json!({"prefix": "auth caps", "entity": "client.admin", "caps": {"mon": "allow r"}}),
            ErrorCode::InvalidArgument,
            "lock itself out",
        ),
        (
            json!({"prefix": "auth get-or-create", "entity": "client.x", "caps": {"osd": "deny"}}),
            ErrorCode::InvalidArgument,
            "not a cap",
        ),
        (json!({"prefix": "auth get-or-create", "entity": "osd.9"}), ErrorCode::NotFound, "osd format"),
        (
            json!({"prefix": "mon add", "name": "b", "address": "here"}),
            ErrorCode::InvalidArgument,
            "no address",
        ),
        (json!({"prefix": "mon rm", "name": "a"}), ErrorCode::Busy, "last monitor"),
        (json!({"prefix": "pg map", "pgid": "9.0"}), ErrorCode::NotFound, "no PG"),
        (
            json!({"prefix": "osd pg-upmap", "pgid": "1.0", "ids": [0, 1]}),
            ErrorCode::InvalidArgument,
            "3 different",
        ),
        (json!({"prefix": "osd crush set"}), ErrorCode::InvalidArgument, "rule"),
        (
            json!({"prefix": "osd crush move", "name": "h9", "location": "root=default"}),
            ErrorCode::InvalidArgument,
            "no item",
        ),
        (json!({"prefix": "osd blocklist add", "client": "zz"}), ErrorCode::InvalidArgument, "hexadecimal"),
        (
            json!({"prefix": "selfmanaged-snap rm", "pool": "p", "snapid": 5}),
            ErrorCode::NotFound,
            "no snapshot",
        ),
    ];
    let epoch = world.mon(0).osdmap().epoch();
    for (command, code, text) in table {
        let reply = world.command(command.clone());
        assert_eq!(
            (reply.code, reply.message.contains(text)),
            (*code as i32, true),
            "{command}: {}",
            reply.message
        );
    }
    assert_eq!(world.mon(0).osdmap().epoch(), epoch, "a refused command changes nothing");
}

#[test]
fn every_reading_command_answers() {
    let mut world = world();
    for prefix in [
        "status",
        "health",
        "df",
        "fsid",
        "version",
        "versions",
        "quorum_status",
        "mon stat",
        "mon dump",
        "log last",
        "osd tree",
        "osd df",
        "osd stat",
        "osd dump",
        "osd ls",
        "osd pool ls",
        "pg ls",
        "pg dump",
        "pg stat",
        "osd crush get",
        "osd crush rule ls",
        "osd crush rule dump",
        "config dump",
        "config ls",
        "auth ls",
        "osd blocklist ls",
    ] {
        let reply = world.command(json!({"prefix": prefix}));
        assert_eq!(reply.code, 0, "{prefix}: {}", reply.message);
        assert!(serde_json::from_str::<Value>(&reply.json).is_ok(), "{prefix}: {}", reply.json);
    }
    assert_eq!(world.ok(json!({"prefix": "osd pool get", "pool": "p", "var": "size"}))["size"], 3);
    assert_eq!(
        world.ok(json!({"prefix": "config get", "who": "osd.1", "name": "osd_max_backfills"}))["value"],
        "3"
    );
    assert_eq!(world.ok(json!({"prefix": "osd find", "id": 1}))["crush_location"]["host"], "h2");
    assert_eq!(world.ok(json!({"prefix": "pg map", "pgid": "1.3"}))["up"].as_array().unwrap().len(), 3);
    assert_eq!(world.ok(json!({"prefix": "osd map", "pool": "p", "object": "foo"}))["pgid"], "1.6");
}

#[test]
fn pools_live_and_die_with_their_guards() {
    let mut world = world();
    assert_eq!(world.ok(json!({"prefix": "osd pool create", "pool": "p"}))["pool_id"], 1);
    world.ok(json!({"prefix": "osd pool set", "pool": "p", "var": "nodelete", "val": true}));
    world
        .ok(json!({"prefix": "config set", "who": "global", "name": "mon_allow_pool_delete", "value": true}));
    let rm =
        json!({"prefix": "osd pool rm", "pool": "p", "pool2": "p", "yes": "--yes-i-really-really-mean-it"});
    assert!(world.command(rm.clone()).message.contains("nodelete"));
    world.ok(json!({"prefix": "osd pool set", "pool": "p", "var": "nodelete", "val": "false"}));
    world.ok(rm);
    let again = world.ok(json!({"prefix": "osd pool create", "pool": "p"}));
    assert_eq!(again["pool_id"], 2, "numbers are never given twice");
    for expected in 1..=3 {
        assert_eq!(world.ok(json!({"prefix": "selfmanaged-snap create", "pool": "p"}))["snapid"], expected);
    }
    world.ok(json!({"prefix": "selfmanaged-snap rm", "pool": "p", "snapid": 2}));
    let (_, pool) = world.mon(0).osdmap().pool_by_name("p").unwrap();
    assert!(pool.snap_is_removed(nacre_types::SnapId(2)) && !pool.snap_is_removed(nacre_types::SnapId(3)));
}

#[test]
fn osds_go_through_their_life() {
    let mut world = world();
    world.ok(json!({"prefix": "osd out", "ids": [2]}));
    world.ok(json!({"prefix": "osd down", "ids": "osd.2"}));
    world.ok(json!({"prefix": "osd rm", "id": 2}));
    let map = world.mon(0).osdmap();
    assert!(map.osd(nacre_types::OsdId(2)).is_none() && map.crush().device(2).is_none());
    let reply = world.command_as("osd.2", 0, json!({"prefix": "osd tree"}), b"");
    assert_eq!(reply.code, ErrorCode::NotPermitted as i32);
}

#[test]
fn crush_maps_go_out_and_in_as_text() {
    let mut world = world();
    let reply = world.command(json!({"prefix": "osd crush get"}));
    let text = String::from_utf8(reply.output.to_vec()).unwrap();
    let changed = text
        .replace("item osd.0 weight 1.000", "item osd.0 weight 2.000")
        .replace("item h1 weight 1.000", "item h1 weight 2.000");
    assert_ne!(text, changed);
    let reply = world.command_as("client.admin", 0, json!({"prefix": "osd crush set"}), changed.as_bytes());
    assert_eq!(reply.code, 0, "{}", reply.message);
    let weight = crate::placement::weight(world.mon(0).osdmap().crush(), nacre_types::OsdId(0));
    assert_eq!(weight, 2.0);
    world.ok(json!({"prefix": "osd crush rule create-replicated", "name": "by-osd", "root": "default", "type": "osd"}));
    world.ok(json!({"prefix": "osd pool set", "pool": "p", "var": "crush_rule", "val": "by-osd"}));
    assert_eq!(
        world.command(json!({"prefix": "osd crush rule rm", "name": "by-osd"})).code,
        ErrorCode::Busy as i32
    );
}

#[test]
fn caps_are_checked_and_revoked_at_once() {
    let mut world = world();
    let caps = json!({"mon": "allow r", "osd": "allow rw pool=p"});
    let made =
        world.ok(json!({"prefix": "auth get-or-create", "entity": "client.x", "caps": caps, "csr": "CSR"}));
    assert_eq!(made["cert"], "CERT OF client.x");
    assert_eq!(made["ca"], "CERT");
    let as_x = |world: &mut World, json: Value| world.command_as("client.x", 0, json, b"").code;
    assert_eq!(as_x(&mut world, json!({"prefix": "status"})), 0);
    let denied = ErrorCode::NotPermitted as i32;
    assert_eq!(as_x(&mut world, json!({"prefix": "osd pool create", "pool": "q"})), denied);
    assert_eq!(
        as_x(&mut world, json!({"prefix": "auth get-or-create", "entity": "client.admin", "csr": "C"})),
        denied
    );
    assert_eq!(as_x(&mut world, json!({"prefix": "selfmanaged-snap create", "pool": "p"})), 0);
    world.ok(json!({"prefix": "auth rm", "entity": "client.x"}));
    assert_eq!(as_x(&mut world, json!({"prefix": "status"})), denied);
    // The key of the authority is in no answer.
    for prefix in ["auth ls", "config dump", "osd dump", "log last", "mon dump"] {
        let reply = world.command(json!({"prefix": prefix}));
        assert!(!reply.json.contains("KEY"), "{prefix}");
    }
}

#[test]
fn blocklist_entries_run_out() {
    let mut world = world();
    world.ok(json!({"prefix": "osd blocklist add", "client": "ab12", "expire": 5}));
    assert!(world.mon(0).osdmap().is_blocklisted(ClientId(0xab12)));
    world.run(std::time::Duration::from_secs(8));
    assert!(!world.mon(0).osdmap().is_blocklisted(ClientId(0xab12)));
}

#[test]
fn the_log_says_who_did_what() {
    let mut world = world();
    let log = world.ok(json!({"prefix": "log last", "num": 100}));
    let lines: Vec<&str> = log.as_array().unwrap().iter().map(|l| l["message"].as_str().unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("client.admin did 'osd pool create'") && line.contains("\"p\"")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("osd.0 is up")));
}
