//! The table of targets.

mod config;
mod crush;
mod machines;
mod maps;
mod nbd;
mod osd;
mod store;
#[allow(dead_code, reason = "only the parsers are used")]
mod tls;
mod wire;

use crate::Target;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A target for inputs of some KiB.
const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds, memory: (MIB, 64), input_bytes_max: 16 * KIB }
}

pub const TARGETS: &[Target] = &[
    target("wire-frames", wire::frames, wire::frames_seeds),
    target("wire-message", wire::message, wire::message_seeds),
    target("wire-transaction", wire::transaction, wire::transaction_seeds),
    target("journal-record", store::journal_record, store::journal_record_seeds),
    target("superblock", store::superblock, store::superblock_seeds),
    target("index-values", store::index_values, store::index_values_seeds),
    Target {
        memory: (16 * MIB, 256),
        ..target("store-transactions", store::transactions, store::transactions_seeds)
    },
    Target { memory: (16 * MIB, 256), ..target("store-mount", store::mount, store::mount_seeds) },
    target("pg-records", osd::records, osd::records_seeds),
    Target { memory: (MIB, 256), ..target("pg-merge", osd::merge, osd::merge_seeds) },
    // Objects of 128 MiB may be named; what is read of them at once is bounded.
    Target { memory: (64 * MIB, 256), ..target("object-ops", osd::object_ops, osd::object_ops_seeds) },
    Target { memory: (16 * MIB, 256), ..target("osdmap", maps::osdmap, maps::osdmap_seeds) },
    Target {
        memory: (16 * MIB, 256),
        ..target("osdmap-incremental", maps::incremental, maps::incremental_seeds)
    },
    target("other-maps", maps::others, maps::others_seeds),
    target("words", maps::words, maps::words_seeds),
    Target { memory: (4 * MIB, 1024), ..target("crush-text", crush::text, crush::text_seeds) },
    target("credentials", config::credentials, config::credentials_seeds),
    target("settings", config::settings, config::settings_seeds),
    target("nbd-options", nbd::options, nbd::options_seeds),
    Target { memory: (4 * MIB, 64), ..target("nbd-session", nbd::session, nbd::session_seeds) },
    Target { memory: (32 * MIB, 1024), ..target("mon-machine", machines::mon, machines::mon_seeds) },
    Target { memory: (32 * MIB, 1024), ..target("osd-machine", machines::osd, machines::osd_seeds) },
];
