//! How RocksDB is set up, and why.
//!
//! A store's database holds onodes, omap, and PG metadata: small values, mostly point look-ups, some short scans. Memory is
//! the scarce thing on small clusters, write stalls the dangerous one: writes come from a reactor, which must not wait.
#![allow(unsafe_code)]

use rocksdb::{AsRawPtr, BlockBasedOptions, Cache, DBCompressionType, Env, LogLevel, Options};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvConfig {
    /// Uncompressed blocks, indexes and filters kept in memory. All that a database's reads may take.
    pub cache_bytes: usize,
    pub background_threads: i32,
    pub open_files_max: i32,
    /// Flush and compaction go around the page cache, where the file system can.
    pub direct_io: bool,
}

impl Default for KvConfig {
    fn default() -> KvConfig {
        KvConfig { cache_bytes: 32 << 20, background_threads: 2, open_files_max: 256, direct_io: true }
    }
}

/// The memtable's size at which RocksDB would flush on its own. Far above what a store writes between two checkpoints:
/// such a flush would make durable what the store has not asked for, so that a crash would leave an index that is newer
/// than the journal position in it. Memory is taken in steps of [`ARENA_BYTES`], so the bound costs nothing.
const STORE_MEMTABLE_BYTES: usize = 1 << 30;
const MON_MEMTABLE_BYTES: usize = 4 << 20;
const ARENA_BYTES: usize = 512 << 10;

/// Files at level 0 with which compaction starts. They share many keys, and the level below is rewritten with them: the
/// more meet, the less is written twice. A store makes one at each checkpoint; look-ups pass them by their filters.
const L0_COMPACTION_FILES: i32 = 8;
const STORE_L0_COMPACTION_FILES: i32 = 16;
/// Files at level 0 beyond which RocksDB slows down and stops writers, that is reactors. Compaction would have to fall
/// this far behind.
const L0_SLOWDOWN_FILES: i32 = 200;
const L0_STOP_FILES: i32 = 400;

/// For the index of a store.
pub(super) fn store(config: &KvConfig) -> Options {
    let mut options = common(config);
    options.set_write_buffer_size(STORE_MEMTABLE_BYTES);
    options.set_max_write_buffer_number(4);
    options.set_level_zero_file_num_compaction_trigger(STORE_L0_COMPACTION_FILES);
    options.set_level_zero_slowdown_writes_trigger(L0_SLOWDOWN_FILES);
    options.set_level_zero_stop_writes_trigger(L0_STOP_FILES);
    options.set_soft_pending_compaction_bytes_limit(0);
    options.set_hard_pending_compaction_bytes_limit(0);
    options.set_use_direct_io_for_flush_and_compaction(config.direct_io);
    // Where deletes have piled up, reads pay for each one until the file is compacted. The PG logs alone make every second
    // record a delete, and nobody reads across those: only more than that is worth a compaction of its own.
    options.add_compact_on_deletion_collector_factory(16384, 12288, 0.75);
    // SAFETY: the pointer is used during this call only, and sets a plain flag.
    // Closing the database must not make durable what no checkpoint has covered, for the same reason as above.
    unsafe { librocksdb_sys::rocksdb_options_set_avoid_flush_during_shutdown(options.as_raw_ptr(), 1) };
    options
}

/// For a monitor: a few megabytes of Raft log and maps.
pub(super) fn monitor() -> Options {
    let config =
        KvConfig { cache_bytes: 4 << 20, background_threads: 2, open_files_max: 64, direct_io: false };
    let mut options = common(&config);
    options.set_write_buffer_size(MON_MEMTABLE_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_max_total_wal_size(16 << 20);
    options
}

fn common(config: &KvConfig) -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_max_open_files(config.open_files_max);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(config.background_threads);
    options.set_max_subcompactions(1);
    options.set_arena_block_size(ARENA_BYTES);
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_level_zero_file_num_compaction_trigger(L0_COMPACTION_FILES);
    // What was just written is compacted soon: compressing it is for the levels where data stays.
    let mut compression = vec![DBCompressionType::Lz4; 7];
    compression[..2].fill(DBCompressionType::None);
    options.set_compression_per_level(&compression);
    options.set_block_based_table_factory(&table(config));
    // One thread writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_manifest_file_size(4 << 20);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(1 << 20);
    options.set_keep_log_file_num(2);
    if let Ok(mut env) = Env::new() {
        // The environment, and so the threads, are shared by all databases of the process.
        env.set_low_priority_background_threads(1);
        env.set_high_priority_background_threads(1);
        env.lower_thread_pool_cpu_priority();
        env.lower_thread_pool_io_priority();
        options.set_env(&env);
    }
    options
}

fn table(config: &KvConfig) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(config.cache_bytes));
    table.set_block_size(4 << 10);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Not ribbon, which is smaller: building it at compactions made a third of a busy OSD's page faults.
    table.set_bloom_filter(10.0, false);
    table.set_optimize_filters_for_memory(true);
    table
}
