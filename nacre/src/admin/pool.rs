//! `nacre pool`.

use super::Context;
use crate::output::{self, cell};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub enum PoolCommand {
    /// Makes a replicated pool.
    Create(CreateArgs),
    /// Lists pools.
    Ls,
    /// Changes a setting: size, min_size, pg_num, rule, quota_max_bytes, quota_max_objects, nodelete, ...
    Set {
        pool: String,
        key: String,
        value: String,
        /// For settings with which one failure can lose data.
        #[arg(long)]
        yes_i_really_mean_it: bool,
    },
    /// Shows a setting, or `all`.
    Get {
        pool: String,
        #[arg(default_value = "all")]
        key: String,
    },
    /// Says what a pool is for: rbd, cephfs, rgw, or a name of yours.
    Application { pool: String, app: String },
    /// Removes a pool with everything in it.
    Rm {
        pool: String,
        /// The name once more.
        again: Option<String>,
        #[arg(long)]
        yes_i_really_really_mean_it: bool,
    },
}

#[derive(Args)]
pub struct CreateArgs {
    pool: String,
    /// Copies of each object.
    #[arg(long)]
    size: Option<u32>,
    /// Copies without which no write is taken.
    #[arg(long)]
    min_size: Option<u32>,
    /// Placement groups; chosen by the monitors unless given.
    #[arg(long)]
    pg_num: Option<u32>,
    /// CRUSH rule, by name.
    #[arg(long)]
    rule: Option<String>,
    /// What the pool is for: rbd, cephfs, rgw, or a name of yours.
    #[arg(long, default_value = "rbd", value_name = "APP")]
    application: String,
}

impl PoolCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            PoolCommand::Create(args) => context.tell(json!({
                "prefix": "osd pool create", "pool": args.pool, "size": args.size, "min_size": args.min_size,
                "pg_num": args.pg_num, "rule": args.rule,
                "application": args.application,
            })),
            PoolCommand::Ls => {
                let reply = context.ask(json!({"prefix": "osd pool ls", "detail": "detail"}))?;
                output::print(context.format, &reply.json, |pools| {
                    output::rows(
                        pools,
                        &[
                            ("POOL", "pool_name"),
                            ("ID", "pool_id"),
                            ("SIZE", "size"),
                            ("MIN_SIZE", "min_size"),
                            ("PGS", "pg_num"),
                            ("RULE", "crush_rule_name"),
                        ],
                    )
                });
                Ok(())
            }
            PoolCommand::Set { pool, key, value, yes_i_really_mean_it } => context.tell(json!({
                "prefix": "osd pool set", "pool": pool, "var": key, "val": value, "yes": yes_i_really_mean_it,
            })),
            PoolCommand::Get { pool, key } => {
                let reply = context.ask(json!({"prefix": "osd pool get", "pool": pool, "var": key}))?;
                output::print(context.format, &reply.json, |settings| {
                    let line = |(key, value): (&String, &Value)| format!("{key}: {}\n", cell(value));
                    settings.as_object().into_iter().flatten().map(line).collect()
                });
                Ok(())
            }
            PoolCommand::Application { pool, app } => {
                context.tell(json!({"prefix": "osd pool application enable", "pool": pool, "app": app}))
            }
            PoolCommand::Rm { pool, again, yes_i_really_really_mean_it } => context.tell(json!({
                "prefix": "osd pool rm", "pool": pool, "pool2": again, "yes": yes_i_really_really_mean_it,
            })),
        }
    }
}
