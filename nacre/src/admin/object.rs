//! `nacre object`: objects in pools, named POOL/OBJECT.

use super::Context;
use super::bench::{self, BenchArgs, Workload};
use crate::output::{self, progress};
use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use nacre_client::{Cluster, Object, Pool};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

/// Data moved per request.
const PIECE_BYTES: u64 = 4 << 20;

/// POOL/OBJECT; the object's name may hold further slashes.
#[derive(Clone, Debug)]
pub struct ObjectSpec {
    pool: String,
    object: String,
}

impl FromStr for ObjectSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ObjectSpec, String> {
        match text.split_once('/') {
            Some((pool, object)) if !pool.is_empty() && !object.is_empty() => {
                Ok(ObjectSpec { pool: pool.into(), object: object.into() })
            }
            _ => Err(format!("'{text}' names no object: write POOL/OBJECT")),
        }
    }
}

#[derive(Subcommand)]
pub enum ObjectCommand {
    /// Stores a file (or - for stdin) as an object, replacing it.
    Put { object: ObjectSpec, file: PathBuf },
    /// Fetches an object into a file, or - for stdout.
    Get { object: ObjectSpec, file: PathBuf },
    /// Lists a pool's objects.
    Ls {
        pool: String,
        /// Only names that begin so.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Removes objects.
    Rm {
        #[arg(required = true)]
        objects: Vec<ObjectSpec>,
    },
    /// Size, version and time of change.
    Stat { object: ObjectSpec },
    /// Extended attributes.
    #[command(subcommand)]
    Xattr(XattrCommand),
    /// The object's key-value map.
    #[command(subcommand)]
    Omap(OmapCommand),
    /// Measures reading or writing of objects made for it.
    Bench(ObjectBenchArgs),
}

#[derive(Args)]
pub struct ObjectBenchArgs {
    pool: String,
    /// Objects to spread over.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    objects: u64,
    #[command(flatten)]
    bench: BenchArgs,
}

#[derive(Subcommand)]
pub enum XattrCommand {
    Ls { object: ObjectSpec },
    Get { object: ObjectSpec, name: String },
    Set { object: ObjectSpec, name: String, value: String },
    Rm { object: ObjectSpec, name: String },
}

#[derive(Subcommand)]
pub enum OmapCommand {
    Ls {
        object: ObjectSpec,
        #[arg(long, default_value = "")]
        prefix: String,
    },
    Get {
        object: ObjectSpec,
        key: String,
    },
    Set {
        object: ObjectSpec,
        key: String,
        value: String,
    },
    Rm {
        object: ObjectSpec,
        key: String,
    },
    /// Removes all keys.
    Clear {
        object: ObjectSpec,
    },
}

impl ObjectSpec {
    async fn open(&self, cluster: &Cluster) -> anyhow::Result<Object> {
        Ok(cluster.pool(&self.pool).await?.object(&self.object))
    }
}

/// Prints bytes as text, escaped where they are none.
fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.escape_ascii().to_string().into(),
    }
}

fn pairs_json(pairs: &[(Bytes, Bytes)]) -> Value {
    let entry = |(key, value): &(Bytes, Bytes)| json!({"key": shown(key), "value": shown(value)});
    pairs.iter().map(entry).collect()
}

fn print_pairs(context: &Context, pairs: &[(Bytes, Bytes)]) {
    output::print(context.format, &pairs_json(pairs), |list| {
        output::rows(list, &[("KEY", "key"), ("VALUE", "value")])
    });
}

fn print_value(value: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(value)?;
    Ok(out.write_all(b"\n")?)
}

impl ObjectCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            ObjectCommand::Put { object, file } => {
                context.with_cluster(async |cluster: Cluster| put(&object.open(&cluster).await?, &file).await)
            }
            ObjectCommand::Get { object, file } => {
                context.with_cluster(async |cluster: Cluster| get(&object.open(&cluster).await?, &file).await)
            }
            ObjectCommand::Ls { pool, prefix } => {
                let listed = context.with_cluster(async |cluster: Cluster| {
                    Ok(cluster.pool(&pool).await?.list(&prefix).await?)
                })?;
                let names: Vec<Value> = listed.iter().map(|object| json!({"name": object.name})).collect();
                output::print(context.format, &names.into(), |names| {
                    let line = |name: &Value| format!("{}\n", output::cell(&name["name"]));
                    names.as_array().into_iter().flatten().map(line).collect()
                });
                Ok(())
            }
            ObjectCommand::Rm { objects } => context.with_cluster(async |cluster: Cluster| {
                for spec in &objects {
                    let removed = spec.open(&cluster).await?.remove().await;
                    removed.with_context(|| format!("cannot remove {}/{}", spec.pool, spec.object))?;
                }
                Ok(())
            }),
            ObjectCommand::Stat { object } => {
                let stat = context
                    .with_cluster(async |cluster: Cluster| Ok(object.open(&cluster).await?.stat().await?))?;
                let version = stat.version.map(|v| format!("{}'{}", v.epoch, v.seq));
                let json = json!({"size": stat.size, "mtime_ms": stat.modified_ms, "version": version});
                output::print(context.format, &json, |stat| {
                    let (pool, name) = (&object.pool, &object.object);
                    format!(
                        "{pool}/{name}: {} bytes, version {}",
                        stat["size"],
                        output::cell(&stat["version"])
                    )
                });
                Ok(())
            }
            ObjectCommand::Xattr(command) => command.run(context),
            ObjectCommand::Omap(command) => command.run(context),
            ObjectCommand::Bench(args) => bench_objects(context, &args),
        }
    }
}

impl XattrCommand {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            XattrCommand::Ls { object } => {
                let pairs = context.with_cluster(async |cluster: Cluster| {
                    Ok(object.open(&cluster).await?.xattrs().await?)
                })?;
                print_pairs(context, &pairs);
                Ok(())
            }
            XattrCommand::Get { object, name } => {
                print_value(&context.with_cluster(async |cluster: Cluster| {
                    Ok(object.open(&cluster).await?.get_xattr(&name).await?)
                })?)
            }
            XattrCommand::Set { object, name, value } => context.with_cluster(async |cluster: Cluster| {
                Ok(object.open(&cluster).await?.set_xattr(&name, value).await?)
            }),
            XattrCommand::Rm { object, name } => context.with_cluster(async |cluster: Cluster| {
                Ok(object.open(&cluster).await?.remove_xattr(&name).await?)
            }),
        }
    }
}

impl OmapCommand {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            OmapCommand::Ls { object, prefix } => {
                let pairs = context.with_cluster(async |cluster: Cluster| {
                    Ok(object.open(&cluster).await?.omap(&prefix).await?)
                })?;
                print_pairs(context, &pairs);
                Ok(())
            }
            OmapCommand::Get { object, key } => {
                let pairs = context.with_cluster(async |cluster: Cluster| {
                    Ok(object.open(&cluster).await?.omap_get([&key]).await?)
                })?;
                let (_, value) = pairs
                    .first()
                    .with_context(|| format!("{}/{} has no omap key '{key}'", object.pool, object.object))?;
                print_value(value)
            }
            OmapCommand::Set { object, key, value } => context.with_cluster(async |cluster: Cluster| {
                Ok(object.open(&cluster).await?.omap_set([(key, value)]).await?)
            }),
            OmapCommand::Rm { object, key } => context.with_cluster(async |cluster: Cluster| {
                Ok(object.open(&cluster).await?.omap_remove([key]).await?)
            }),
            OmapCommand::Clear { object } => context
                .with_cluster(async |cluster: Cluster| Ok(object.open(&cluster).await?.omap_clear().await?)),
        }
    }
}

/// Writes a file piece by piece. The first piece replaces the object, so a reader never sees old and new mixed at the
/// front; a put that is cut short leaves a shorter object, as a copy would.
async fn put(object: &Object, file: &Path) -> anyhow::Result<()> {
    let stdin = file == Path::new("-");
    let mut input: Box<dyn std::io::Read> = match stdin {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?),
    };
    let size = if stdin { 0 } else { file.metadata()?.len() };
    let bar = progress(size, "put");
    let mut offset = 0;
    loop {
        let mut piece = Vec::new();
        input.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)?;
        let length = piece.len() as u64;
        if offset == 0 {
            object.write_full(piece).await?;
        } else if length > 0 {
            object.write(offset, piece).await?;
        }
        offset += length;
        bar.set_position(offset);
        if length < PIECE_BYTES {
            bar.finish_and_clear();
            return Ok(());
        }
    }
}

async fn get(object: &Object, file: &Path) -> anyhow::Result<()> {
    let size = object.stat().await?.size;
    let mut output: Box<dyn std::io::Write> = match file == Path::new("-") {
        true => Box::new(std::io::stdout().lock()),
        false => Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?),
    };
    let bar = progress(size, "get");
    let mut offset = 0;
    while offset < size {
        let piece = object.read(offset, PIECE_BYTES.min(size - offset)).await?;
        anyhow::ensure!(!piece.is_empty(), "the object became shorter while it was read");
        output.write_all(&piece)?;
        offset += piece.len() as u64;
        bar.set_position(offset);
    }
    output.flush()?;
    bar.finish_and_clear();
    Ok(())
}

fn bench_objects(context: &Context, args: &ObjectBenchArgs) -> anyhow::Result<()> {
    let report = context.with_cluster(async |cluster: Cluster| {
        let pool: Pool = cluster.pool(&args.pool).await?;
        let size = (4 << 20).max(args.bench.bs);
        let name = |at: u64| format!("nacre-bench-{at}");
        let all = args.objects;
        if args.bench.rw.reads() {
            let filled = Bytes::from(vec![0x5a; size as usize]);
            for at in 0..all {
                pool.object(name(at)).write_full(filled.clone()).await?;
            }
        }
        let workload = Workload { span: all * size, boundary: size, args: args.bench.clone() };
        let pool = Rc::new(pool);
        let report = bench::run(workload, move |write, offset, length, data| {
            let object = pool.object(name(offset / size));
            async move {
                match write {
                    true => object.write(offset % size, data).await,
                    false => object.read(offset % size, length).await.map(drop),
                }
            }
        })
        .await?;
        let pool = cluster.pool(&args.pool).await?;
        for at in 0..all {
            // A write bench may not have touched all of them.
            let _ = pool.object(name(at)).remove().await;
        }
        Ok(report)
    })?;
    report.print(context);
    Ok(())
}
